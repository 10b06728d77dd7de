"""The full-wave set of the independent benchmark: its solver against closed forms, its phantoms, how they are read."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import eval_legendre, spherical_jn, spherical_yn

from benchmarks import independent
from benchmarks._phantom_scores import cell_scores
from benchmarks._phantom_sets import load_case
from benchmarks.full_wave import files
from benchmarks.full_wave.cells import Cell, draw_cell, pad_cell
from benchmarks.full_wave.microscope import record, views
from benchmarks.full_wave.solver import ScatteringProblem, fourier_transform_at
from cytovox.errors import InputError

HOME = Path(__file__).resolve().parents[2]
WAVELENGTH, MEDIUM, SPACING = 0.532, 1.337, 0.1
K = 2 * np.pi * MEDIUM / WAVELENGTH


def ball_ri(radius_um: float, ri: float, spacing_um: float = SPACING, fine: int = 6) -> np.ndarray:
    """Index of a ball in its box; voxels on its surface hold the mean of n²."""
    n = int(2 * radius_um / spacing_um) + 4
    axis = (np.arange(n * fine) - (n * fine - 1) / 2) * spacing_um / fine
    inside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= radius_um**2
    share = inside.reshape(n, fine, n, fine, n, fine).mean((1, 3, 5))
    return np.sqrt(MEDIUM**2 + (ri**2 - MEDIUM**2) * share)


def scalar_ball(radius_um: float, ri: float, cosine: np.ndarray) -> np.ndarray:
    """Amplitude f of the light that a ball scatters, u = f exp(ikr) / r, of the scalar wave equation in closed form."""
    orders, k1 = np.arange(60), 2 * np.pi * ri / WAVELENGTH
    x, x1 = K * radius_um, k1 * radius_um
    inner, inner_slope = spherical_jn(orders, x1), spherical_jn(orders, x1, True)
    outer = spherical_jn(orders, x) + 1j * spherical_yn(orders, x)
    slope = spherical_jn(orders, x, True) + 1j * spherical_yn(orders, x, True)
    a = -(K * spherical_jn(orders, x, True) * inner - k1 * spherical_jn(orders, x) * inner_slope)
    a = a / (K * slope * inner - k1 * outer * inner_slope)
    return ((2 * orders + 1) * a) @ np.array([eval_legendre(n, cosine) for n in orders]) / (1j * K)


def mie_ball(radius_um: float, ri: float, cosine: np.ndarray) -> np.ndarray:
    """The same of Maxwell's equations (Mie), polarized perpendicularly to the plane of scattering."""
    orders, m = np.arange(1, 60), ri / MEDIUM
    x = K * radius_um
    psi, psi_m = x * spherical_jn(orders, x), m * x * spherical_jn(orders, m * x)
    d_psi = spherical_jn(orders, x) + x * spherical_jn(orders, x, True)
    d_psi_m = spherical_jn(orders, m * x) + m * x * spherical_jn(orders, m * x, True)
    xi = psi + 1j * x * spherical_yn(orders, x)
    d_xi = d_psi + 1j * (spherical_yn(orders, x) + x * spherical_yn(orders, x, True))
    a = (m * psi_m * d_psi - psi * d_psi_m) / (m * psi_m * d_xi - xi * d_psi_m)
    b = (psi_m * d_psi - m * psi * d_psi_m) / (psi_m * d_xi - m * xi * d_psi_m)
    pi, tau = [np.zeros_like(cosine), np.ones_like(cosine)], []
    for n in orders:
        tau.append(n * cosine * pi[n] - (n + 1) * pi[n - 1])
        pi.append(((2 * n + 1) * cosine * pi[n] - (n + 1) * pi[n - 1]) / n)
    weight = (2 * orders + 1) / (orders * (orders + 1))
    return 1j / K * ((weight * a) @ np.array(pi[1:-1]) + (weight * b) @ np.array(tau))


@pytest.mark.parametrize(("radius_um", "ri"), [(1.0, 1.387), (1.0, 1.357), (2.0, 1.377)])
@pytest.mark.parametrize(("closed_form", "error"), [(scalar_ball, 0.01), (mie_ball, 0.03)])
def test_a_ball_scatters_as_the_closed_form_says(radius_um, ri, closed_form, error):
    problem = ScatteringProblem(ball_ri(radius_um, ri), SPACING, WAVELENGTH, MEDIUM)
    direction = np.array([0.6, 0.0, 0.8])
    angles = np.linspace(0, np.radians(60), 40)
    sideways = np.array([0.8 * 0.28, 0.96, -0.6 * 0.28])
    wavevectors = K * (np.cos(angles)[:, None] * direction + np.sin(angles)[:, None] * sideways)
    found = problem.scattered_spectrum(problem.field(direction), wavevectors) / (4 * np.pi)
    wanted = closed_form(radius_um, ri, np.cos(angles))
    assert np.linalg.norm(found - wanted) < error * np.linalg.norm(wanted)


def test_no_light_is_lost():
    """The optical theorem: what is scattered everywhere is missing from the forward wave."""
    problem = ScatteringProblem(ball_ri(1.0, 1.387), SPACING, WAVELENGTH, MEDIUM)
    field = problem.field(np.array([1.0, 0.0, 0.0]))
    cosines, weights = np.polynomial.legendre.leggauss(60)
    around = np.arange(8) * np.pi / 4
    sine = np.sqrt(1 - cosines**2)[:, None]
    vectors = np.stack(np.broadcast_arrays(cosines[:, None], sine * np.sin(around), sine * np.cos(around)), -1)
    amplitude = problem.scattered_spectrum(field, K * vectors.reshape(-1, 3)).reshape(60, 8) / (4 * np.pi)
    forward = problem.scattered_spectrum(field, K * np.array([[1.0, 0.0, 0.0]]))[0] / (4 * np.pi)
    scattered = 2 * np.pi * (weights * (np.abs(amplitude) ** 2).mean(1)).sum()
    assert scattered == pytest.approx(4 * np.pi / K * forward.imag, rel=0.01)


def test_the_transform_at_any_wavevector_is_the_sum():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 12, 7)) + 1j * rng.normal(size=(9, 12, 7))
    vectors = rng.normal(size=(5, 3)) * 8
    z, y, x = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * 0.1 for n in values.shape), indexing="ij")
    sums = [(values * np.exp(-1j * (q[0] * z + q[1] * y + q[2] * x))).sum() * 1e-3 for q in vectors]
    assert fourier_transform_at(values, 0.1, vectors) == pytest.approx(np.array(sums), rel=5e-3, abs=1e-5)


def test_a_coarse_grid_is_refused():
    with pytest.raises(ValueError, match=r"expected at most 0\.099 µm"):
        ScatteringProblem(np.full((4, 4, 4), 1.34), 0.2, WAVELENGTH, MEDIUM)


@pytest.mark.parametrize("tilt", [None, 0.8])
def test_each_camera_is_perpendicular_to_its_illumination(tilt):
    angles, axis, scan = views(12, tilt)
    assert len(angles) == len(scan) == 12
    assert np.linalg.norm(axis) == pytest.approx(1)
    for view in scan:
        frame = np.array([view.direction, view.up, view.right])
        assert frame @ frame.T == pytest.approx(np.eye(3), abs=1e-12)
        assert view.direction @ view.objective == pytest.approx(1 if tilt is None else np.cos(tilt))


def test_the_camera_sees_the_phase_delay_and_the_noise():
    scan = views(1, None)[2]
    problem = ScatteringProblem(ball_ri(1.5, MEDIUM + 0.02), SPACING, WAVELENGTH, MEDIUM)
    (field,) = record(problem, scan, 48, 1.2, 0.0, np.random.default_rng(0))
    expected = 2 * np.pi / WAVELENGTH * 0.02 * 3.0  # along a diameter
    assert np.angle(field[24, 24]) == pytest.approx(expected, rel=0.1)
    assert np.abs(field[:, 0] - 1).max() < 0.15
    empty = ScatteringProblem(np.full((8, 8, 8), MEDIUM), SPACING, WAVELENGTH, MEDIUM)
    (field,) = record(empty, scan, 64, 1.2, 0.02, np.random.default_rng(0))
    assert np.sqrt((np.abs(field - 1) ** 2).mean()) == pytest.approx(0.02, rel=0.1)


def test_cells_hold_their_organelles_and_follow_their_seed():
    for seed in range(4):
        cell, again = (draw_cell(np.random.default_rng(seed), 0.2, MEDIUM, (2.0, 3.0)) for _ in "ab")
        assert np.array_equal(cell.ri_ZYX, again.ri_ZYX)
        assert not (cell.nucleus_ZYX & ~cell.cell_ZYX).any()
        assert not (cell.nucleolus_ZYX & ~cell.nucleus_ZYX).any()
        assert not (cell.lipid_ZYX & (cell.nucleus_ZYX | ~cell.cell_ZYX)).any()
        assert 0.002 <= abs(cell.contrast) <= 0.010
        assert 0.005 < cell.nucleus_ZYX.sum() / cell.cell_ZYX.sum() < 0.4
        border = np.ones(cell.cell_ZYX.shape, bool)
        border[1:-1, 1:-1, 1:-1] = False
        assert not cell.cell_ZYX[border].any()


def test_phantoms_are_read_and_scored(tmp_path):
    drawn = draw_cell(np.random.default_rng(0), 0.25, MEDIUM, (2.0, 3.0))
    cell = pad_cell(drawn, tuple(n + 4 for n in drawn.ri_ZYX.shape), MEDIUM)
    (path,) = files.phantom_paths(tmp_path, 1)
    files.write_phantom(path, cell.ri_ZYX, 0.25, cell)
    assert [file.name for file in path.parent.iterdir()] == ["full_wave_000.npz"]
    case = load_case(path)
    assert (case.name, case.spacing_um, case.owner) == ("full_wave_000", (0.25, 0.25, 0.25), {1: 1})
    assert case.contrast == {1: pytest.approx(cell.contrast)}
    assert np.allclose(case.ri_ZYX, cell.ri_ZYX, atol=1e-5)
    assert case.ri_ZYX.dtype == np.float32
    (score,) = cell_scores(case, cell.nucleus_ZYX)
    assert (score.nuclei, score.found, score.dice) == (1, 1, 1)
    with pytest.raises(ValueError, match="an even number"):
        pad_cell(drawn, tuple(n + 1 for n in drawn.ri_ZYX.shape), MEDIUM)
    with pytest.raises(ValueError, match="shape"):
        files.write_phantom(path, cell.ri_ZYX[1:], 0.25, Cell(**vars(cell)))


def test_a_set_that_was_not_made_is_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(independent, "SETS", {})
    assert independent.cases_of(None, 2, tmp_path) == {}
    assert "set full_wave: 0 of 2 phantoms in" in (printed := capsys.readouterr().err)
    assert "bash benchmarks/full_wave/make_environment.sh --count 2 --cache" in printed
    with pytest.raises(InputError, match="0 of 2 phantoms"):
        independent.cases_of(["full_wave"], 2, tmp_path)
    cell = draw_cell(np.random.default_rng(0), 0.25, MEDIUM, (2.0, 3.0))
    for path in files.phantom_paths(tmp_path, 2):
        files.write_phantom(path, cell.ri_ZYX, 0.25, cell)
    assert [case.name for case in independent.cases_of(None, 2, tmp_path)["full_wave"]] == [
        "full_wave_000",
        "full_wave_001",
    ]


def test_a_command_line_without_the_set_gives_one_line(tmp_path):
    command = [sys.executable, "benchmarks/independent.py", "--sets", "full_wave", "--cache", tmp_path]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "0 of 12 phantoms" in done.stderr


def test_making_phantoms_without_odtbrain_gives_one_line(tmp_path):
    command = [sys.executable, "benchmarks/full_wave/make_phantoms.py", "--count", "1", "--cache", tmp_path]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "make_environment.sh" in done.stderr
    assert not any(tmp_path.iterdir())


def test_the_environment_of_its_own_needs_nothing_of_ours():
    listed = re.findall(r"^(\w[\w-]*)==", (files.HERE / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    given = {"odtbrain", "numpy", "scipy"}
    assert given <= set(listed)
    for source in sorted(files.HERE.glob("*.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                assert name.startswith("benchmarks.full_wave") or top in given or top in STANDARD, f"{source}: {name}"


STANDARD = {"__future__", "argparse", "collections", "dataclasses", "hashlib", "os", "pathlib", "sys", "time", "zlib"}
