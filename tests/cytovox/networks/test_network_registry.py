"""Networks of this and of other packages are found by name."""

import ast
import dataclasses
import inspect
import itertools
import sys
import textwrap
from importlib.metadata import EntryPoint

import pytest
import torch
import yaml
from torch import nn

from cytovox.errors import InputError
from cytovox.models.metadata import read_checkpoint
from cytovox.models.networks import organelle_network
from cytovox.networks import NETWORKS, network_config, network_names, registry


@dataclasses.dataclass
class GoodConfig:
    """Config of a network in another package."""

    width: int = 4
    """Feature maps."""

    divisor = (1, 1, 1)
    minimum = (1, 1, 1)

    def errors(self, patch_ZYX=None):
        return []

    def build(self, in_channels, out_channels):
        layers = [nn.Conv3d(in_channels, self.width, 1), nn.ReLU(), nn.Conv3d(self.width, out_channels, 1)]
        nn.init.zeros_(layers[-1].weight)
        return nn.Sequential(*layers)


@dataclasses.dataclass
class NeedsAValue:
    width: int
    divisor = minimum = (1, 1, 1)

    def errors(self, patch_ZYX=None):
        return []

    def build(self, in_channels, out_channels):
        return nn.Identity()


@dataclasses.dataclass
class NoBuild:
    divisor = minimum = (1, 1, 1)

    def errors(self, patch_ZYX=None):
        return []


not_a_class = 3


@pytest.fixture
def offer(monkeypatch):
    """Pretend that installed packages add these ``name = attribute of this module``."""

    def pretend(*pairs):
        entries = [EntryPoint(name, value, registry.GROUP) for name, value in pairs]
        monkeypatch.setattr(registry, "entry_points", lambda group: [e for e in entries if e.group == group])

    return pretend


def here(name: str) -> str:
    return f"{__name__}:{name}"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Entry points import by name; pytest's importlib mode may not have put this module where they look."""
    module = type(sys)(__name__)
    module.__dict__.update(globals())
    monkeypatch.setitem(sys.modules, __name__, module)


def test_the_two_networks_of_the_package_are_there():
    assert list(NETWORKS) == ["residual_unet", "scnas"]
    assert network_config("scnas") is NETWORKS["scnas"]


def test_a_misspelt_name_is_answered_with_the_nearest_and_all_names():
    with pytest.raises(InputError, match=r"'residual_unett'.*did you mean residual_unet\?.*residual_unet, scnas"):
        network_config("residual_unett")


def test_a_name_like_no_other_is_answered_with_all_names_and_no_guess():
    with pytest.raises(InputError) as caught:
        network_config("qqqq")
    assert "did you mean" not in str(caught.value)
    assert "residual_unet, scnas" in str(caught.value)


def test_another_package_adds_a_network_by_an_entry_point(offer):
    offer(("mine", here("GoodConfig")))
    assert network_names() == ["residual_unet", "scnas", "mine"]
    assert network_config("mine")().build(2, 3)(torch.zeros(1, 2, 4, 4, 4)).shape == (1, 3, 4, 4, 4)


def test_a_config_trains_an_added_network_for_one_step(offer, tmp_path, monkeypatch):
    from experiments.run import main

    offer(("mine", here("GoodConfig")))
    monkeypatch.setenv("CYTOVOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CYTOVOX_RUN_DIR", raising=False)
    config = {
        "name": "added",
        "runs_dir": str(tmp_path / "runs"),
        "stages": ["fit"],
        "model": {"network": "mine", "width": 5},
        "data": {
            "source": "simulator", "shape": [16, 32, 32], "spacing_um": [0.6, 0.6, 0.6],
            "train": {"count": 1, "first_seed": 0}, "val": {"count": 1, "first_seed": 100},
            "resample_spacing_um": [0.6, 0.6, 0.6], "patch_size": [16, 32, 32], "batch_size": 2, "patches_per_epoch": 2,
            "num_workers": 0,
        },
        "optimizer": {"name": "adam", "lr": 0.01, "schedule": "constant"},
        "trainer": {
            "max_steps": 1, "accelerator": "cpu", "devices": 1, "precision": "32-true", "enable_progress_bar": False,
        },
        "predict": {"stride": [16, 32, 32], "pad_yx": [0, 0]},
        "logging": {"wandb": "disabled"},
    }  # fmt: skip
    path = tmp_path / "added.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main([str(path)]) == 0
    (checkpoint,) = tmp_path.glob("runs/added/*/checkpoints/last.ckpt")
    weights = read_checkpoint(checkpoint, "organelle", "test")
    assert weights.metadata.model == {"network": "mine", "width": 5}
    assert weights.network_state["2.weight"].any()  # 0 before the step
    network = organelle_network(weights, (16, 32, 32), "test")
    assert network(torch.zeros(1, 1, 4, 4, 4)).shape == (1, len(weights.metadata.organelles), 4, 4, 4)


def test_a_near_miss_of_an_added_network_names_it(offer):
    offer(("transformer_net", here("GoodConfig")))
    with pytest.raises(InputError, match="did you mean transformer_net"):
        network_config("transformr_net")


def test_listing_names_imports_nothing(offer):
    offer(("broken", "no_such_module_at_all:Config"))
    assert "broken" in network_names()
    assert network_config("scnas")


def test_a_package_that_cannot_be_imported_is_named(offer):
    offer(("broken", "no_such_module_at_all:Config"))
    with pytest.raises(InputError, match=r"broken.*no_such_module_at_all:Config.*ModuleNotFoundError"):
        network_config("broken")


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("not_a_class", "expected a dataclass"),
        ("here", "expected a dataclass"),
        ("NoBuild", "lacks build"),
        ("NeedsAValue", "a default for width"),
    ],
)
def test_an_entry_point_that_is_no_config_is_refused(offer, attribute, message):
    offer(("odd", here(attribute)))
    with pytest.raises(InputError, match=message):
        network_config("odd")


def test_a_package_cannot_take_over_a_built_in_name(offer):
    offer(("scnas", here("GoodConfig")))
    assert network_config("scnas") is NETWORKS["scnas"]
    assert network_names() == ["residual_unet", "scnas"]


def test_two_packages_with_one_name_are_not_chosen_between(offer):
    offer(("mine", here("GoodConfig")), ("mine", here("NoBuild")))
    with pytest.raises(InputError, match="several packages"):
        network_config("mine")


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_option_has_a_default_and_a_docstring_right_below(name):
    config = NETWORKS[name]
    body = ast.parse(textwrap.dedent(inspect.getsource(config))).body[0].body
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(below, ast.Expr), field.target.id
            assert isinstance(below.value, ast.Constant), field.target.id
    config()


@pytest.mark.parametrize("name", list(NETWORKS))
def test_omegaconf_takes_the_config_as_its_schema_and_gives_it_back(name):
    omegaconf = pytest.importorskip("omegaconf")
    schema = omegaconf.OmegaConf.structured(NETWORKS[name])
    back = omegaconf.OmegaConf.to_object(schema)
    assert back == NETWORKS[name]()
    assert back.errors((64, 128, 128)) == []
    with pytest.raises(omegaconf.errors.ConfigKeyError):
        omegaconf.OmegaConf.merge(schema, {"no_such_option": 1})
