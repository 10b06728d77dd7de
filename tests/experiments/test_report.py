"""The report of a run: complete, honest about what is missing, deaf to the network, and deaf to scripts in names."""

import csv
import json
import re
import shutil
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import yaml
from PIL import Image

from cytovox.errors import InputError
from cytovox.organelles import ORGANELLES
from cytovox.plots.figures import overlay_figure
from cytovox.plots.meshes import write_glb
from experiments.report.data import config_of, headline
from experiments.report.page import write_report as write_page
from experiments.tasks import TASKS

EVIL = "<script>alert(1)</script>"
SPACING_UM = (0.4, 0.3, 0.3)


def write_report(run):
    """Write the report of a run folder with the sections of its task, by default of the organelle task."""
    task = TASKS.get(str(config_of(Path(run)).get("task")), TASKS["organelle"])
    return write_page(run, task.report)


@cache
def cell(shift_um=0.0):
    """A cell of balls: RI and four masks."""
    shape = (24, 48, 56)
    z, y, x = (grid * step for grid, step in zip(np.indices(shape), SPACING_UM, strict=True))

    def ball(centre, radii):
        return sum(((g - c) / r) ** 2 for g, c, r in zip((z, y, x), centre, radii, strict=True)) < 1

    masks = {
        "membrane": ball((4.8, 7, 8 + shift_um), (4, 6, 7)),
        "nucleus": ball((4.8, 7, 7 + shift_um), (2.4, 3.2, 3.2)),
        "nucleolus": ball((4.8, 7, 7 + shift_um), (1, 1.2, 1.2)),
        "lipid": ball((5, 10, 12), (0.9, 0.9, 0.9)) | ball((5, 4, 12.3), (0.8, 0.8, 0.8)),
    }
    steps = zip(masks.values(), (0.02, 0.004, 0.012, 0.03), strict=True)
    ri = 1.337 + sum(mask * step for mask, step in steps)
    return (ri + np.random.default_rng(0).normal(0, 1e-3, shape)).astype(np.float32), masks


@cache
def picture(shift_um, with_truth):
    """An overlay as PNG, drawn once for all runs of this file."""
    ri, masks = cell()
    with TemporaryDirectory() as folder:
        truth = masks if with_truth else None
        return overlay_figure(f"{folder}/a.png", ri, truth, cell(shift_um)[1], SPACING_UM, "a cell").read_bytes()


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def a_run(folder, stages=("fit", "test", "predict"), evil=""):
    """A run folder as the three stages leave it, without any of them."""
    folder.mkdir(parents=True)
    (folder / "figures").mkdir()
    config = {
        "schema_version": 1,
        "name": f"organelle_demo{evil}",
        "task": "organelle",
        "seed": 7,
        "stages": list(stages),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    environment = {
        "started": "2025-03-04T05:06:07+00:00",
        "packages": {"torch": "2.13.0", "monai": "1.6.1"},
        "device": {"cpu": f"a processor{evil}", "gpus": []},
        "seed": 7,
        "git": {"commit": "0123abc", "diff": f"+ a line{evil}"},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    status = {"status": "finished", "stages_done": list(stages), "started": environment["started"]}
    (folder / "status.json").write_text(json.dumps({**status, "ended": "2025-03-04T05:16:10+00:00"}))
    if "fit" in stages:
        leave_fit(folder)
    if "test" in stages:
        leave_test(folder, evil)
    if "predict" in stages:
        leave_predict(folder, evil)
    return folder


def leave_fit(folder):
    rows = []
    for epoch in range(20):
        dice = {f"val/dice_{n}": 0.95 * (1 - np.exp(-epoch / (3 + 2 * k))) for k, n in enumerate(ORGANELLES)}
        loss = 0.3 + 2 * np.exp(-epoch / 6)
        mean = sum(dice.values()) / 4
        rows.append(
            {"epoch": epoch, "step": epoch, "train/loss": loss, "val/loss": loss + 0.1, **dice, "val/dice_mean": mean}
        )
    write_table(folder / "metrics.csv", rows)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/best.ckpt").write_bytes(b"0" * 2_000_000)


def leave_test(folder, evil):
    rng, lines = np.random.default_rng(0), ("NIH3T3", "A549", f"HeLa{evil}")
    cases = []
    for k in range(12):
        dice = {
            f"dice_{n}": round(float(rng.normal(m, 0.04)), 4)
            for n, m in zip(ORGANELLES, (0.95, 0.9, 0.8, 0.85), strict=True)
        }
        cases.append(
            {"case": f"simulated {k}{evil}", "group": lines[k % 3], **dice, "dice_mean": np.mean(list(dice.values()))}
        )
    cases[3]["dice_lipid"] = ""
    write_table(folder / "tables/test_cases.csv", cases)
    scores = [f"dice_{n}" for n in (*ORGANELLES, "mean")]
    mean = {s: float(np.mean([float(c[s]) for c in cases if c[s] != ""])) for s in scores}
    write_table(folder / "tables/test_groups.csv", [{"group": line, "n": 4, **mean} for line in lines])
    windows = [
        ("membrane", 1.3421, np.inf, 0.88),
        ("nucleus", 1.3571, 1.3634, 0.41),
        ("nucleolus", 1.3634, 1.3717, 0.52),
    ]
    rows = [dict(zip(("organelle", "ri_low", "ri_high", "dice"), window, strict=True)) for window in windows]
    write_table(folder / "tables/test_windows.csv", rows)
    (folder / "metrics.json").write_text(json.dumps({f"test/{key}": value for key, value in mean.items()}))
    for rank, shift in (("best", 0.1), ("median", 0.5), ("worst", 1.2)):
        (folder / f"figures/test_{rank}.png").write_bytes(picture(shift, True))


def leave_predict(folder, evil):
    masks = cell()[1]
    (folder / "figures/predict_hl60_t001.png").write_bytes(picture(0.0, False))
    write_glb(folder / "figures/predict_hl60_t001.glb", masks, SPACING_UM)
    (folder / "predictions").mkdir()
    (folder / "predictions/hl60 masks.ome.tif").write_bytes(b"II*\0")
    voxel = float(np.prod(SPACING_UM))
    rows = [
        {"input": f"/data/hl60{evil}.TCF", "frame": 1, "organelle": name, "voxels": int(mask.sum())}
        | {"volume_um3": mask.sum() * voxel, "output": "hl60 masks.ome.tif"}
        for name, mask in masks.items()
    ]
    write_table(folder / "tables/predictions.csv", rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return a_run(tmp_path_factory.mktemp("runs") / "organelle_demo/20250304-050607-beef")


@pytest.fixture(scope="module")
def page(run):
    return write_report(run).read_text(encoding="utf-8")


def text_of(page):
    """What a reader reads, without marks, styles and scripts."""
    bare = re.sub(r"(?s)<(style|script)\b.*?</\1>|<[^>]+>", " ", page)
    return re.sub(r"\s+", " ", bare)


def test_the_report_tells_the_numbers_with_the_baseline_beside_them(page, run):
    text = text_of(page)
    metrics = json.loads((run / "metrics.json").read_text())
    for name in (*ORGANELLES, "mean"):
        assert f"{name} {metrics[f'test/dice_{name}']:.3f}" in text
    assert "RI window 0.410 RI 1.3571–1.3634" in text
    assert "RI window 0.880 RI ≥ 1.3421" in text
    assert "no RI window fitted" in text  # lipid
    assert "20 epochs; best validation Dice" in text
    assert "took 10 min 3 s" in text
    assert "torch 2.13.0" in text
    assert "NIH3T3 4" in text
    assert "lipid 11" in text  # one case is unlabelled
    volume = cell()[1]["nucleus"].sum() * np.prod(SPACING_UM)
    assert f"{volume:.0f}" in text


def test_the_report_is_one_small_file_that_names_no_other_place(page, run):
    assert len(page) < 3_000_000
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert page.count("data:image/png;base64,") == 6
    assert 'href="./predictions/hl60%20masks.ome.tif"' in page
    assert sorted(p.name for p in run.iterdir() if p.name.startswith(".")) == []


def test_every_link_to_a_file_leads_to_one(page, run):
    links = re.findall(r'href="\./([^"]+)"', page)
    assert len(links) > 10
    for link in links:
        assert (run / link.replace("%20", " ")).exists()


@pytest.mark.parametrize("stages", [("fit",), ("test",), ("predict",), ()])
def test_a_run_of_some_stages_says_what_is_missing(tmp_path, stages):
    text = text_of(write_report(a_run(tmp_path / "run", stages)).read_text(encoding="utf-8"))
    for stage, what in (("fit", "No learning curves"), ("test", "No scores"), ("predict", "No predictions")):
        assert (what in text) == (stage not in stages)
        assert (f"The run had no {stage} stage" in text) == (bool(stages) and stage not in stages)


def test_a_killed_run_has_a_report_all_the_same(tmp_path):
    run = a_run(tmp_path / "run")
    (run / "status.json").write_text('{"status": "running", "stages_done": ["fit"')
    (run / "metrics.json").write_text("")
    (run / "config.yaml").write_text("name: [")
    (run / "environment.json").unlink()
    (run / "metrics.csv").write_text("epoch,step,train/loss\n0,0,1.0\n1,1,0.")
    (run / "tables/test_cases.csv").write_text('case,group,dice_membrane\na,b,0.9\n\0\0"c')
    (run / "figures/test_best.png").write_bytes(b"\x89PN")
    (run / "figures/predict_hl60_t001.glb").write_bytes(b"glTF\x02\x00")
    text = text_of(write_report(run).read_text(encoding="utf-8"))
    assert "membrane 0.900" in text
    assert "2 epochs" in text
    assert "No surfaces" in text
    assert "environment.json is missing" in text


def test_an_organelle_of_the_user_s_own_is_reported_as_the_four_are(tmp_path):
    folder = a_run(tmp_path / "run", stages=())
    scores = {"dice_mitochondria": 0.61, "dice_nucleus": 0.82, "dice_mean": 0.715}
    write_table(folder / "tables/test_cases.csv", [{"case": "a", "group": "HeLa", **scores}])
    rows = [{"input": "a.TCF", "frame": 0, "organelle": "mitochondria", "volume_um3": 123.4, "output": "a.ome.tif"}]
    write_table(folder / "tables/predictions.csv", rows)
    (folder / "metrics.json").write_text(json.dumps({f"test/{key}": value for key, value in scores.items()}))
    assert [score["name"] for score in headline(folder)] == ["nucleus", "mitochondria", "mean"]
    text = text_of(write_report(folder).read_text(encoding="utf-8"))
    for reported in ("0.610", "0.820", "mitochondria, µm³"):
        assert reported in text
    assert "123" in text


def test_a_dry_run_is_not_taken_for_a_real_one(tmp_path):
    run = a_run(tmp_path / "run", ())
    (run / "status.json").write_text(json.dumps({"status": "finished", "stages_done": ["fit"], "dry_run": True}))
    assert "finished (dry run" in text_of(write_report(run).read_text(encoding="utf-8"))


def test_an_empty_folder_has_a_report_and_a_missing_one_is_the_users_fault(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "No scores" in write_report(tmp_path / "empty").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="no such run folder"):
        write_report(tmp_path / "nowhere")


def test_no_name_becomes_a_script(tmp_path):
    run = a_run(tmp_path / "run", evil=EVIL)
    (run / "figures" / "predict_<img src=x onerror=alert(1)>.png").write_bytes(
        (run / "figures/test_best.png").read_bytes()
    )
    page = write_report(run).read_text(encoding="utf-8")
    assert EVIL not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 15
    assert "<img src=x" not in page
    assert len(re.findall(r"<script(?! type=\"application/json\")", page)) == 1


def test_nothing_outside_of_the_folder_is_shown_or_linked(tmp_path):
    run = a_run(tmp_path / "run", ("predict",))
    secret = tmp_path / "secret.png"
    Image.new("RGB", (9, 9)).save(secret)
    (run / "figures/test_best.png").symlink_to(secret)
    (run / "linked").symlink_to(tmp_path)
    row = {"input": "a", "frame": 0, "organelle": "nucleus", "voxels": 1, "volume_um3": 1, "output": "../secret.png"}
    write_table(run / "tables/predictions.csv", [row])
    page = write_report(run).read_text(encoding="utf-8")
    assert "No pictures of the best" in page
    assert "href" not in page.split("../secret.png")[0][-60:]
    assert "linked" not in page


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "msedge")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no Chromium on this machine: none of {', '.join(names)}")
    flags = [
        "--no-sandbox",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--disable-background-networking",
    ]
    flags += ["--no-first-run", "--disable-component-update", "--disable-sync"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


class Visit:
    """A page opened from a file, offline, with all it complained about and asked for."""

    def __init__(self, browser, path, **kind):
        self.complaints, self.requests = [], []
        self.context = browser.new_context(offline=True, **kind)
        self.page = self.context.new_page()
        noisy = ("error", "warning")
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in noisy else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_timeout(300)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


def shot(canvas):
    return np.asarray(Image.open(BytesIO(canvas.screenshot())).convert("RGB")).astype(int)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_opens_offline_without_a_complaint(chromium, page, run, width, scheme):
    viewport = {"width": width, "height": 900}
    with Visit(chromium, run / "report.html", viewport=viewport, color_scheme=scheme) as visit:
        for picture in visit.page.query_selector_all("figure img"):
            picture.scroll_into_view_if_needed()
        visit.page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.complaints == []
        assert {url.split(":")[0] for url in visit.requests} <= {"file", "data", "blob"}
        assert sum(url.startswith("file:") for url in visit.requests) == 1


@pytest.mark.browser
def test_the_surfaces_are_drawn_turn_by_key_and_mouse_and_can_be_hidden(chromium, page, run):
    with Visit(chromium, run / "report.html", viewport={"width": 1000, "height": 900}) as visit:
        canvas = visit.page.query_selector("canvas")
        canvas.scroll_into_view_if_needed()
        visit.page.wait_for_timeout(200)
        start = shot(canvas)
        assert (np.abs(start - start[0, 0]).max(axis=-1) > 20).mean() > 0.1  # not blank
        canvas.focus()
        visit.page.keyboard.press("ArrowLeft")
        visit.page.wait_for_timeout(150)
        by_key = shot(canvas)
        assert (by_key != start).any(axis=-1).mean() > 0.01
        box = canvas.bounding_box()
        visit.page.mouse.move(box["x"] + 300, box["y"] + 200)
        visit.page.mouse.down()
        visit.page.mouse.move(box["x"] + 380, box["y"] + 240, steps=4)
        visit.page.mouse.up()
        visit.page.wait_for_timeout(150)
        assert (shot(canvas) != by_key).any(axis=-1).mean() > 0.01
        visit.page.get_by_role("button", name="reset").click()
        visit.page.wait_for_timeout(150)
        canvas.focus()
        assert (np.abs(shot(canvas) - start).max(axis=-1) > 8).mean() < 0.01
        for name in ORGANELLES:
            visit.page.get_by_label(name, exact=True).uncheck()
        visit.page.wait_for_timeout(150)
        hidden = shot(canvas)
        assert (np.abs(hidden - hidden[5, 5]).max(axis=-1) > 20).mean() < 0.02  # scale bar and axes remain
        assert visit.complaints == []


@pytest.mark.browser
def test_the_scale_bar_is_as_long_as_it_says(chromium, page, run):
    with Visit(chromium, run / "report.html", viewport={"width": 1000, "height": 900}) as visit:
        bar = visit.page.query_selector(".bar")
        micrometres = float(bar.query_selector("span").inner_text().split()[0])
        per_um = bar.query_selector("i").bounding_box()["width"] / micrometres
        for name in ("nucleus", "nucleolus", "lipid"):
            visit.page.get_by_label(name, exact=True).uncheck()
        canvas = visit.page.query_selector("canvas")
        visit.page.evaluate("document.querySelectorAll('.bar, .triad').forEach(e => e.remove())")
        canvas.focus()
        for _ in range(30):  # to the top view: the cell is 12 um in y and 14 um in x, and 14 um is its widest
            visit.page.keyboard.press("ArrowDown")
        for _ in range(6):  # the view starts turned by -0.6 about z
            visit.page.keyboard.press("ArrowRight")
        visit.page.evaluate("document.activeElement.blur()")
        visit.page.wait_for_timeout(200)
        picture = shot(canvas)
        seen = np.abs(picture - picture[5, 5]).max(axis=-1) > 6
        columns = np.flatnonzero(seen.any(axis=0))
        rows = np.flatnonzero(seen.any(axis=1))
        assert np.ptp(columns) / per_um == pytest.approx(14, rel=0.05)
        assert np.ptp(rows) / per_um == pytest.approx(12, rel=0.05)


@pytest.mark.browser
def test_the_links_at_the_top_lead_to_their_part_by_keyboard(chromium, page, run):
    with Visit(
        chromium, run / "report.html", viewport={"width": 1000, "height": 700}, reduced_motion="reduce"
    ) as visit:
        links = visit.page.query_selector_all("nav a")
        assert len(links) == 8
        for link in links:
            link.focus()
            visit.page.keyboard.press("Enter")
            target = visit.page.query_selector(link.get_attribute("href"))
            assert target.is_visible()
            assert visit.page.evaluate("location.hash") == link.get_attribute("href")
            assert -5 < target.bounding_box()["y"] < 700


@pytest.mark.browser
def test_without_webgl_the_page_says_so_and_links_the_file(chromium, page, run):
    with Visit(chromium, run / "report.html") as visit:
        visit.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
        visit.page.reload()
        assert visit.page.get_by_text("This browser does not support WebGL").is_visible()
        assert not visit.page.query_selector("canvas").is_visible()
        assert visit.complaints == []


@pytest.mark.browser
def test_a_script_that_got_into_the_page_would_not_run(chromium, page, tmp_path):
    (tmp_path / "report.html").write_text(page.replace("</main>", f"{EVIL}<img src=x onerror=alert(2)></main>"))
    with Visit(chromium, tmp_path / "report.html") as visit:
        assert "dialog" not in visit.complaints
        assert any("Content Security Policy" in text for text in visit.complaints)


@pytest.mark.browser
def test_evil_names_are_read_as_text(chromium, tmp_path):
    with Visit(chromium, write_report(a_run(tmp_path / "run", evil=EVIL))) as visit:
        assert visit.complaints == []
        assert EVIL in visit.page.query_selector("h1").inner_text()
