"""The shape modules: training, reproducible samples, and separate training of SHAPR's two networks."""

import dataclasses

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from cytovox.diffusion.parts import part_config
from cytovox.diffusion.traits import HEIGHTS, TraitsConfig, measure_traits
from cytovox.errors import InputError
from cytovox.inference.device_memory import DeviceLimits
from cytovox.losses.shapr import SHAPRLossConfig
from cytovox.models.metadata import ShapeMetadata, SHAPRMetadata
from cytovox.models.shape import Shapes, condition, samples_at_once
from cytovox.networks.shapr import SHAPRConfig
from cytovox.networks.slab_unet import SlabUNetConfig
from cytovox.preprocess.shape_fields import OccupancyConfig, SignedDistanceConfig, signed_distance
from lightning_modules.optim import AdamW
from lightning_modules.shape import Parts, ShapeModule
from lightning_modules.shape_scoring import ShapeScores
from lightning_modules.shapr import SHAPRModule

FIELD = SignedDistanceConfig(size=16).build()
METADATA = ShapeMetadata(task="shape", model={}, field={}, process={}, preconditioning={})


def cell(radius, index):
    axis = torch.arange(64) - 31.5
    away = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    obj = away < radius
    return {
        "image": 0.7 * obj[32][None].float(),
        "mask": obj[32][None].float(),
        "obj": obj[None].float(),
        "distance": torch.from_numpy(signed_distance(obj.numpy()))[None],
        "index": index,
    }


@pytest.fixture(scope="module")
def cells():
    return [cell(12 + 5 * i, i) for i in range(4)]


def parts(process="rectified_flow", preconditioning="velocity", loss="velocity_mse", sampler="euler", steps=2):
    chosen = {"process": process, "preconditioning": preconditioning, "loss": loss, "sampler": sampler}
    configs = {part: part_config(part, name)() for part, name in chosen.items()}
    if hasattr(configs["sampler"], "steps"):
        configs["sampler"].steps = steps
    return Parts(**{part: config.build() for part, config in configs.items()})


#: A regressor: the parts of one step without noise.
DIRECT = {"process": "direct", "preconditioning": "data", "loss": "data_l1", "sampler": "one_step"}


def module(traits=None, **more):
    torch.manual_seed(0)
    network = SlabUNetConfig(channels=[8, 16], dropout=0.0).build(16, extra_channels=traits.channels if traits else 0)
    output, optimizer = traits.build() if traits else None, AdamW(lr=2e-3, schedule="constant")
    return ShapeModule(parts(**more), output, network=network, metadata=METADATA, field=FIELD, optimizer=optimizer)


def trainer(folder, **more):
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, default_root_dir=folder,
        enable_model_summary=False, **more,
    )  # fmt: skip


def loader(cells):
    return DataLoader(cells, batch_size=2)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_regressor_learns_the_radius_of_a_ball_from_its_slice(tmp_path, cells):
    shape = module(**DIRECT)
    shape.views, shape.optimizer_config = False, AdamW(lr=1e-2, schedule="constant")
    pair = loader([cells[0], cells[3]])

    def agreed():
        return trainer(tmp_path).validate(shape, pair, verbose=False)[0]["val/iou"]

    before = agreed()
    trainer(tmp_path, max_steps=80).fit(shape, pair)
    assert agreed() > 0.8 > 0.3 > before


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_validation_excludes_cells_that_pad_a_batch(tmp_path, cells):
    shape = module()
    perfect = {int(c["image"].sum()): c for c in cells}

    def true_shapes(image, mask, number, count):
        obj = perfect[int(image.sum())]["obj"][0] > 0.5
        return Shapes(obj[None], obj)

    shape.shapes = true_shapes  # type: ignore[method-assign]
    wrong = {**cells[0], "index": -1, "obj": 1 - cells[0]["obj"]}
    done = trainer(tmp_path).validate(shape, loader([cells[0], wrong]), verbose=False)
    assert done[0]["val/iou"] == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_training_is_validated_by_samples_of_fewer_steps_and_tested_by_all(tmp_path, cells):
    shape = module()
    whole, quick = Counting(shape.parts.sampler), Counting(shape.parts.sampler)
    shape.parts = dataclasses.replace(shape.parts, sampler=whole, validation_sampler=quick)
    shape.views, shape.samples = False, 1
    one = loader([cells[0]])
    trainer(tmp_path, max_steps=1).fit(shape, one, one)
    assert (whole.calls, quick.calls > 0) == (0, True)
    before = quick.calls
    trainer(tmp_path).test(shape, one, verbose=False)
    assert (whole.calls, quick.calls) == (1, before)


class Counting:
    """A sampler that counts how often it is asked."""

    def __init__(self, sampler):
        self.sampler, self.calls = sampler, 0

    def __call__(self, *given):
        self.calls += 1
        return self.sampler(*given)


class Slab(torch.nn.Module):
    """Returns the mask as a slab, 20 of 64 voxels thick, or with the thickness and tilt of its conditioning."""

    def forward(self, x, t, condition):
        mask, thickness, plane, _ = (F.avg_pool2d(condition[:, k, None], 4)[:, 0] for k in (0, 2, 3, 4))
        z = (torch.arange(16) - 8.0)[:, None, None]
        half = 2.5 * thickness.exp()
        inside = half[:, None] - (z - plane[:, None] / HEIGHTS * 16).abs()
        return torch.where(mask[:, None] > 0.5, inside, -1.0).clamp(-1, 1)[:, None]


def test_samples_have_the_drawn_traits_and_the_mean_shape_the_mean_traits(cells):
    shape = module(TraitsConfig(thickness=0.25, tilt=0.0, height=0.0), **DIRECT)
    reported, shape.network = [], Slab()
    shape.denoiser.network = lambda x, t, condition: reported.append(condition[:, 2:]) or shape.network(x, t, condition)
    found = shape.shapes(cells[3]["image"], cells[3]["mask"], 0, 200)
    known = [bool(maps[:, 2].all()) for maps in reported]
    assert known == [False, True] * 25
    assert not any(maps.any() for maps, has_traits in zip(reported, known, strict=True) if not has_traits)
    drawn = torch.cat([maps[:, 0, 0, 0] for maps, has_traits in zip(reported, known, strict=True) if has_traits])
    own = measure_traits(Slab()(None, None, torch.cat([cells[3]["mask"], *[torch.zeros(1, 64, 64)] * 4])[None]))
    assert drawn.mean().item() == pytest.approx(own.thickness.item(), abs=0.05)
    assert drawn.std().item() == pytest.approx(0.25, rel=0.15)
    volumes = found.samples_NZYX.flatten(1).sum(1).double()
    assert np.corrcoef(volumes.log(), drawn)[0, 1] > 0.95
    assert found.mean_ZYX.sum(0)[32, 32] == pytest.approx(20, abs=2)


def test_a_sampled_tilt_is_rotated_back_with_its_view(cells):
    shape = module(TraitsConfig(thickness=0.0, tilt=0.4, height=0.0), **DIRECT)
    shape.network = Slab()
    found = shape.shapes(cells[3]["image"], cells[3]["mask"], 0, 64)
    z = torch.arange(64.0)
    middles_NYX = torch.einsum("nzyx,z->nyx", found.samples_NZYX.float(), z) / found.samples_NZYX.sum(1)
    ends = ((42, 32), (22, 32)), ((32, 42), (32, 22))
    rise_N2 = torch.stack([middles_NYX[:, *high] - middles_NYX[:, *low] for high, low in ends], dim=1) / 20
    assert rise_N2.std(0).tolist() == pytest.approx([0.4, 0.4], rel=0.35)
    assert rise_N2.mean(0).tolist() == pytest.approx([0, 0], abs=0.15)
    # the mean shape is level, about slice 8 of 16: 32 to 35 of 64
    assert found.mean_ZYX[:, 42, 32].nonzero().float().mean() == pytest.approx(33.5, abs=1)


def nearly_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether shapes agree but for single voxels at the surface: the batch decides the last bits of a field."""
    return one.shape == other.shape and bool((one != other).float().mean() < 1e-4)


@pytest.mark.parametrize("traits", [None, TraitsConfig()])
def test_a_sample_is_determined_by_seed_batch_and_number(cells, traits):
    shape = module(traits).eval()
    with torch.no_grad():
        for p in shape.network.parameters():
            if not p.any():
                p.normal_(0, 0.1)
    one = cells[0]
    first = shape.shapes(one["image"], one["mask"], 0, 3)
    more = shape.shapes(one["image"], one["mask"], 0, 9)
    other = shape.shapes(one["image"], one["mask"], 1, 3)
    assert nearly_equal(first.samples_NZYX, more.samples_NZYX[:3])
    assert not nearly_equal(first.samples_NZYX, other.samples_NZYX)
    assert (first.samples_NZYX[:, 32] == (one["mask"][0] > 0.5)).all()
    assert (first.mean_ZYX[32] == (one["mask"][0] > 0.5)).all()
    assert first.probability_ZYX.max() <= 1


def test_perfect_and_empty_shapes_have_known_scores(cells):
    scores, truth = ShapeScores(), cells[1]["obj"][0] > 0.5
    scores.add(1, Shapes(truth.expand(19, -1, -1, -1), truth), truth)
    scores.add(0, Shapes(torch.zeros(19, 64, 64, 64, dtype=torch.bool), torch.zeros_like(truth)), truth)
    scores.gather()
    assert [cell.index for cell in scores.cells] == [0, 1]
    means = scores.means()
    for name in ("iou_error", "volume_error", "surface_error", "roughness_error"):
        assert means[name] == means[f"single/{name}"] == means[f"best_of_5/{name}"] == pytest.approx(0.5)
    assert means["volume_coverage_90"] == 0.5
    rows = scores.rows(["a", "b"], ["x", "y"])
    assert [row["cell"] for row in rows] == ["a", "b"]
    assert rows[1]["volume_low"] == rows[1]["volume"] == int(truth.sum())
    assert rows[1]["volume_interval_coverage"] == pytest.approx(0.9)


def test_the_table_has_the_scored_interval(cells):
    truth = cells[1]["obj"][0] > 0.5
    samples = torch.zeros(39, *truth.shape, dtype=torch.bool)
    for number, sample in enumerate(samples):
        sample.view(-1)[: 100 + number] = True
    scores = ShapeScores()
    scores.add(0, Shapes(samples, truth), truth)
    (row,) = scores.rows(["a"], ["x"])
    assert (row["volume_low"], row["volume_high"]) == (101, 137)
    inside = row["volume_low"] <= row["volume"] <= row["volume_high"]
    assert scores.means()["volume_coverage_90"] == float(inside)


def test_too_few_samples_have_no_interval_and_no_coverage(cells):
    scores, truth = ShapeScores(), cells[1]["obj"][0] > 0.5
    scores.add(0, Shapes(truth.expand(18, -1, -1, -1), truth), truth)
    means, (row,) = scores.means(), scores.rows(["a"], ["x"])
    assert "volume_coverage_90" not in means
    assert means["volume_crps"] == 0
    assert np.isnan([row["volume_low"], row["volume_high"], row["volume_interval_coverage"]]).all()


def test_the_input_of_the_network_is_the_image_inside_the_mask(cells):
    batch = next(iter(loader(cells)))
    output = condition(batch["image"] + 0.3, batch["mask"])
    assert torch.equal(output[:, :1], batch["mask"])
    assert (output[:, 1:][batch["mask"] == 0] == 0).all()


def shapr(**more):
    torch.manual_seed(0)
    config = SHAPRConfig(base_channels=2)
    return SHAPRModule(
        config.build_discriminator(), SHAPRLossConfig().build(), network=config.build(),
        metadata=SHAPRMetadata(task="shapr", model={}),
        field=OccupancyConfig().build(), optimizer=AdamW(lr=1e-3, schedule="constant", weight_decay=0.0), **more,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("supervised", "judged"), [(1.0, False), (0.0, True)])
def test_the_discriminator_is_trained_in_the_second_stage_only(tmp_path, cells, supervised, judged):
    model = shapr(supervised=supervised)
    before = [p.detach().clone() for p in model.discriminator.parameters()]
    trainer(tmp_path, max_steps=2).fit(model, loader(cells))
    changed = any(not torch.equal(a, b) for a, b in zip(before, model.discriminator.parameters(), strict=True))
    assert changed == judged


def test_the_loss_of_the_generator_does_not_train_the_discriminator(cells):
    model = shapr(supervised=0.0)
    logits = torch.zeros(2, 1, 64, 64, 64, requires_grad=True)
    from lightning_modules.base import frozen

    with frozen(model.discriminator.parameters()):
        verdict = model.discriminator(torch.sigmoid(logits))
    verdict.sum().backward()
    assert logits.grad is not None
    assert logits.grad.any()
    assert all(p.grad is None for p in model.discriminator.parameters())
    assert all(p.requires_grad for p in model.discriminator.parameters())


def test_shapr_is_deterministic(cells):
    model = shapr().eval()
    model.views = False
    shapes = model.shapes(cells[0]["image"], cells[0]["mask"], 0, 2)
    assert torch.equal(shapes.samples_NZYX[0], shapes.samples_NZYX[1])


def test_the_batch_of_samples_is_larger_on_a_cuda_device():
    assert samples_at_once(torch.device("cpu")) == 8
    assert samples_at_once(torch.device("cuda", 1)) == 16


class Limited(torch.nn.Module):
    """A network that runs out of memory above a batch size; its outputs do not depend on the batch size."""

    def __init__(self, most):
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, x, t, condition):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.seen.append(len(x))
        return (condition[:, :1, None, ::4, ::4] - 0.5) + 0.3 * x


@pytest.mark.parametrize("traits", [None, TraitsConfig()])
def test_samples_do_not_depend_on_the_batch_size(cells, traits):
    found = {}
    for batch in (5, 8, 16):
        shape = module(traits)
        shape.network, shape.sampler.limits = Limited(99), DeviceLimits(batch)
        found[batch] = shape.shapes(cells[2]["image"], cells[2]["mask"], 7, 20)
        assert max(shape.network.seen) == batch
    for other in (5, 16):
        assert nearly_equal(found[other].samples_NZYX, found[8].samples_NZYX)
        assert (found[other].mean_ZYX != found[8].mean_ZYX).float().mean() < 1e-3


@pytest.mark.parametrize("traits", [None, TraitsConfig()])
def test_halving_a_batch_that_exceeds_the_memory_does_not_change_the_samples(cells, traits, capsys):
    def drawn(most):
        shape = module(traits)
        shape.network = Limited(most)
        return shape, shape.shapes(cells[2]["image"], cells[2]["mask"], 7, 11)

    _, expected = drawn(99)
    shape, found = drawn(3)
    assert nearly_equal(found.samples_NZYX, expected.samples_NZYX)
    assert (found.mean_ZYX != expected.mean_ZYX).float().mean() < 1e-3
    notes = capsys.readouterr().err.splitlines()
    assert [note[:26] for note in notes] == ["note: a batch of 8 shapes ", "note: a batch of 4 shapes "]
    assert set(shape.network.seen) == {2, 1}
    shape.shapes(cells[2]["image"], cells[2]["mask"], 8, 4)
    assert capsys.readouterr().err == ""  # remembered


def test_a_single_sample_that_exceeds_the_memory_is_an_input_error(cells):
    shape = module()
    shape.network = Limited(0)
    with pytest.raises(InputError, match="out of memory on the device with one shape at a time"):
        shape.shapes(cells[0]["image"], cells[0]["mask"], 0, 2)
