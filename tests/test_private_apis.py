"""Private names of other packages are used only where they are listed, each with the version it was checked with."""

import ast
import importlib
import inspect
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = ("cytovox", "datamodules", "training", "lightning_modules", "transforms", "experiments")
CHECKED = (*OWN, "benchmarks", "studies", "docs")
#: Public in spite of the underscore: named tuples document these, and Python documents os._exit.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_make", "_exit"}


@dataclass(frozen=True)
class Use:
    """A private name of another package that is used on purpose."""

    package: str
    checked: str
    """Version, to its minor number, whose source was read."""
    owner: str
    """`module:Name` that has the attribute, or `module` for a name in a module."""
    reason: str
    source: str = ""
    """Text that the source of the owner contains; for attributes that only instances have."""


ALLOWED: dict[str, Use] = {
    "_do_transform": Use(
        "monai",
        "1.6",
        "monai.transforms.transform:RandomizableTransform.randomize",
        "MONAI's own random transforms read it after randomize; its documentation of RandomizableTransform uses it",
        "self._do_transform = ",
    ),
    "_actions": Use(
        "python",
        "3.11",
        "argparse:_ActionsContainer.__init__",
        "argparse has no public list of a parser's arguments",
        "self._actions = []",
    ),
    "torch._dynamo.exc.TorchDynamoException": Use(
        "torch", "2.13", "torch._dynamo.exc:TorchDynamoException", "the base of all errors of torch.compile"
    ),
    "torch._subclasses.fake_tensor.FakeTensorMode": Use(
        "torch", "2.13", "torch._subclasses.fake_tensor:FakeTensorMode", "memory is planned without allocating tensors"
    ),
    "torch.utils._python_dispatch.TorchDispatchMode": Use(
        "torch",
        "2.13",
        "torch.utils._python_dispatch:TorchDispatchMode",
        "the only way to see every operation; torch documents it under this name",
    ),
    "torch.utils._pytree.tree_leaves": Use(
        "torch", "2.13", "torch.utils._pytree:tree_leaves", "arguments of an operation are nested"
    ),
    "torch.utils._pytree.tree_map": Use(
        "torch", "2.13", "torch.utils._pytree:tree_map", "arguments of an operation are nested"
    ),
    "omegaconf._yaml.get_yaml_loader": Use(
        "omegaconf",
        "2.4",
        "omegaconf._yaml:get_yaml_loader",
        "a config is parsed as OmegaConf does, and each key keeps its line for error messages",
    ),
    "_foreach_lerp_": Use("torch", "2.13", "torch:_foreach_lerp_", "one kernel for all parameters of an average"),
    "_execution_engine": Use(
        "torch", "2.13", "torch.autograd:Variable._execution_engine", "Tensor.backward turns off modes of functions"
    ),
    "_parameters": Use(
        "torch",
        "2.13",
        "torch.nn:Module",
        "parameters are replaced in place, which named_parameters cannot",
        "_parameters",
    ),
    "_buffers": Use(
        "torch", "2.13", "torch.nn:Module", "buffers are replaced in place, which named_buffers cannot", "_buffers"
    ),
    "_cdata": Use("torch", "2.13", "torch:UntypedStorage._cdata", "identity of a storage without memory"),
    "_processes": Use(
        "python",
        "3.11",
        "concurrent.futures:ProcessPoolExecutor",
        "the executor cannot kill its workers otherwise",
        "self._processes = {}",
    ),
    "_average_model": Use(
        "pytorch-lightning",
        "2.6",
        "pytorch_lightning.callbacks:WeightAveraging",
        "the averaged weights",
        "self._average_model",
    ),
    "_copy_average_to_current": Use(
        "pytorch-lightning",
        "2.6",
        "pytorch_lightning.callbacks:WeightAveraging._copy_average_to_current",
        "what the end of a training does, for a run that is resumed after its last epoch",
    ),
    "_load_combined_loader_states": Use(
        "pytorch-lightning",
        "2.6",
        "pytorch_lightning.loops.fit_loop:_FitLoop._load_combined_loader_states",
        "Lightning skips it where the number of steps is asked for before the state is restored",
    ),
    "_restarting": Use(
        "pytorch-lightning",
        "2.6",
        "pytorch_lightning.loops.loop:_Loop",
        "a checkpoint at an epoch's end must not count as one in its middle",
        "self._restarting = False",
    ),
    "_broadcast_sigterm_tensor": Use(
        "pytorch-lightning",
        "2.6",
        "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop._broadcast_sigterm_tensor",
        "Lightning's handling of SIGTERM runs a collective that can block for ever",
    ),
    "_signal_connector": Use(
        "pytorch-lightning",
        "2.6",
        "pytorch_lightning:Trainer",
        "Lightning's handling of SIGTERM runs a collective that can block for ever",
        "self._signal_connector = _SignalConnector(self)",
    ),
    "_should_accumulate": Use(
        "pytorch-lightning",
        "2.6",
        "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop._should_accumulate",
        "a checkpoint holds no accumulated gradients, so none is written before the optimizer's step",
    ),
    "_num_ready_batches_reached": Use(
        "pytorch-lightning",
        "2.6",
        "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop._num_ready_batches_reached",
        "whether this batch is the last of its epoch",
    ),
    "_wandb_init": Use(
        "pytorch-lightning",
        "2.6",
        "pytorch_lightning.loggers:WandbLogger",
        "Lightning passes W&B an argument of which W&B warns",
        "self._wandb_init",
    ),
    "_ddp_kwargs": Use(
        "pytorch-lightning",
        "2.6",
        "pytorch_lightning.strategies:DDPStrategy",
        "a module knows whether all its parameters are used; the strategy is made before it",
        "self._ddp_kwargs = kwargs",
    ),
    "_trainer": Use(
        "pytorch-lightning",
        "2.6",
        "pytorch_lightning:LightningModule",
        "the property `trainer` raises an error where there is none",
        "self._trainer",
    ),
}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def is_own(module: str) -> bool:
    return module.split(".")[0] in (*CHECKED, "tests")


def is_self(node: ast.AST) -> bool:
    """Return whether a node is an attribute of `self` or `cls`."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def defined(tree: ast.AST) -> set[str]:
    """Return the names that a file defines: functions, classes, arguments, variables and attributes it assigns."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node):
            names.add(node.attr)
    return names


def imported(node: ast.AST) -> list[str]:
    """Return the private dotted names of other packages that an import statement takes."""
    found = []
    if isinstance(node, ast.Import):
        found = [alias.name for alias in node.names if not is_own(alias.name)]
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module and not is_own(node.module):
        found = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if any(private(part) for part in name.split("."))]


def accessed(node: ast.AST) -> str | None:
    """Return the private attribute that an expression reads or sets, also by getattr, setattr, hasattr and delattr."""
    if isinstance(node, ast.Attribute) and private(node.attr):
        return node.attr
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
        name = node.args[1]
        if node.func.id in ("getattr", "setattr", "hasattr", "delattr") and isinstance(name, ast.Constant):
            return name.value if isinstance(name.value, str) and private(name.value) else None
    return None


def uses(folders: tuple[str, ...] = CHECKED) -> Iterator[tuple[str, str]]:
    """Yield (`file:line`, name) of every private name that no file of this repository defines."""
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    own_of_all = set().union(*map(defined, trees.values()))
    for path, tree in trees.items():
        own = defined(tree)
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT).as_posix()}:{getattr(node, 'lineno', 0)}"
            for name in imported(node):
                yield where, name
            attribute = accessed(node)
            if attribute is None or attribute in (own - set(ALLOWED)) | DOCUMENTED:
                continue
            on_self = isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls")
            if attribute in ALLOWED or not (
                on_self and attribute in own_of_all
            ):  # inherited from a class of another file
                yield where, attribute


def test_private_names_of_other_packages_are_listed():
    found = list(uses())
    unlisted = [f"{where}: {name}" for where, name in found if name not in ALLOWED]
    assert not unlisted, "use a public name, or add it to ALLOWED with a reason"
    assert set(ALLOWED) == {name for _, name in found}, "listed, but not used any more"


@pytest.mark.parametrize("name", ALLOWED)
def test_listed_names_exist_in_the_installed_version(name):
    use = ALLOWED[name]
    installed = platform.python_version() if use.package == "python" else version(use.package)
    hint = f"{use.package} {installed}, checked with {use.checked}: {use.owner}: {use.reason}"
    module, _, path = use.owner.partition(":")
    owner = importlib.import_module(module)
    for part in path.split("."):
        assert hasattr(owner, part), hint
        owner = getattr(owner, part)
    assert use.source in (inspect.getsource(owner) if use.source else ""), hint


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import zarr._storage", "zarr._storage"),
        ("from tifffile import _imagecodecs", "tifffile._imagecodecs"),
        ("from torch._six import inf", "torch._six.inf"),
    ],
)
def test_private_imports_are_found(code, name):
    assert imported(ast.parse(code).body[0]) == [name]
    assert imported(ast.parse("from cytovox.io.tiff import _describe").body[0]) == []


@pytest.mark.parametrize("code", ["loop._hidden", "getattr(loop, '_hidden', 1)", "setattr(loop, '_hidden', 1)"])
def test_private_attributes_are_found(code):
    assert accessed(ast.parse(code, mode="eval").body) == "_hidden"
    assert accessed(ast.parse("loop.__class__", mode="eval").body) is None


if __name__ == "__main__":
    for where, name in uses():
        print(where, name)
