"""Training samples of cells: labels, centres and maps move together."""

import numpy as np
import torch

from cytovox.losses.centre_offsets import CentreOffsetLossConfig
from transforms.cell_patches import RandOneNucleus, RandSoften, rand_cell_patch
from transforms.patches import foreground_centres

SHAPE = (16, 40, 44)


def sample():
    cells = np.zeros(SHAPE, np.uint16)
    cells[2:14, 3:18, 4:20], cells[2:14, 20:38, 22:40] = 5, 300
    nucleus = np.zeros(SHAPE, np.uint16)
    nucleus[5:11, 7:14, 8:16], nucleus[5:11, 25:33, 28:35] = 1, 1
    mask = np.stack([(cells > 0).astype(np.uint16), nucleus, cells])
    centres = [[5, 7.5, 10, 11.5], [300, 7.5, 28.5, 31]]
    return {
        "image": np.where(cells > 0, 0.5, 0.1).astype(np.float32)[None],
        "mask": mask,
        "labelled": np.array([True, True, True]),
        "centres": foreground_centres((mask > 0).astype(np.uint8)),
        "nuclei": np.array(centres),
        "spacing_um": np.array([0.5, 0.4, 0.3]),
    }


def test_centres_lie_in_their_own_nuclei_however_the_patch_is_turned():
    cut = rand_cell_patch((16, 40, 44), whole=True, p_scale=1.0, p_rotate=1.0, p_flip=0.5, scale_range=(0.7, 1.3))
    for seed in range(20):
        cut.set_random_state(seed)
        found = cut(sample())
        assert found["cells"].dtype == torch.int64
        assert set(found["cells"].unique().tolist()) <= {0, 5, 300}
        for label, *place in found["nuclei"].tolist():
            voxel = np.round(np.array(place) / found["spacing_um"].numpy()).astype(int)
            if np.all(voxel >= 1) and np.all(voxel < np.array(SHAPE) - 1):
                assert found["cells"][tuple(voxel)] == label
                assert found["nucleus"][tuple(voxel)] == 1


def test_a_crop_is_exact_and_a_membrane_nobody_drew_is_what_cells_fill():
    cut = rand_cell_patch(SHAPE, p_scale=0, p_rotate=0, p_flip=0)
    cut.set_random_state(0)
    given = sample()
    given["labelled"] = np.array([False, True, True])
    given["mask"] = given["mask"] * np.array([0, 1, 1], np.uint16)[:, None, None, None]
    found = cut(given)
    assert np.array_equal(found["cells"].numpy(), given["mask"][2])
    assert np.array_equal(found["membrane"].numpy() > 0, given["mask"][2] > 0)


def prepared(seed=0):
    cut = rand_cell_patch(SHAPE, p_scale=0, p_rotate=0, p_flip=0)
    cut.set_random_state(seed)
    return cut(sample())


def test_masks_become_probabilities_masks_or_alone():
    soft = RandSoften(0.0, 0.0)
    soft.set_random_state(1)
    found = soft(prepared())
    wrong = (found["nucleus"] >= 0.5) != (prepared()["nucleus"] > 0)
    assert 0 < wrong.float().mean() < 0.05
    assert ((found["nucleus"] > 0.05) & (found["nucleus"] < 0.95)).any()
    hard = RandSoften(1.0, 1.0)
    hard.set_random_state(1)
    found = hard(prepared())
    assert set(found["membrane"].unique().tolist()) == {0.0, 1.0}
    assert not found["image"].any()


def test_one_nucleus_is_chosen_and_all_others_stand_against_it():
    chosen = set()
    for seed in range(12):
        one = RandOneNucleus()
        one.set_random_state(seed)
        found = one({**prepared(), "nucleus": prepared()["nucleus"].float()})
        (label,) = found["cells"][found["positive"] > 0].unique().tolist()
        assert torch.equal(found["target"] > 0, found["cells"] == label)
        assert not found["positive"][found["negative"] > 0].any()
        chosen.add(label)
    assert chosen == {5, 300}
    empty = RandOneNucleus()({**prepared(), "nucleus": torch.zeros(SHAPE)})
    assert not empty["target"].any()


def test_perfect_votes_cost_next_to_nothing_and_wrong_ones_are_pulled_to_the_centre():
    found = prepared()
    loss = CentreOffsetLossConfig().build()
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, (0.5, 0.4, 0.3), strict=True)), indexing="ij")
    place = torch.from_numpy(np.stack([z, y, x])).float()
    perfect = torch.zeros_like(place)
    for label, *centre in found["nuclei"].tolist():
        own = found["cells"] == label
        perfect[:, own] = torch.tensor(centre)[:, None] - place[:, own]
    value, right = loss(perfect, found["cells"], found["nuclei"], found["spacing_um"])
    assert value < 0.05
    assert right == 1
    offsets = torch.zeros_like(place, requires_grad=True)
    value, _ = loss(offsets, found["cells"], found["nuclei"], found["spacing_um"])
    value.backward()
    assert offsets.grad is not None
    own = found["cells"] > 0
    assert ((-offsets.grad * perfect).sum(0)[own].mean()) > 0
    assert not offsets.grad[:, ~own].any()
    nobody, right = loss(offsets, found["cells"] * 0, found["nuclei"], found["spacing_um"])
    assert nobody == 0
    assert right.isnan()
