"""The house: who may import whom (the table of rooms), no import circle, recipes that stand alone, YAML that parses."""

import ast
import graphlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import llava_lite
from llava_lite.config import read_config
from llava_lite.recipes import load_recipe

ROOT = Path(__file__).parents[1]
ANY = frozenset({"*"})


@dataclass(frozen=True)
class Row:
    """What a room may import of llava_lite and of other packages, and what it must never import; its own is free."""

    may: frozenset[str]
    outside: frozenset[str] = ANY
    never: frozenset[str] = frozenset()


def row(may: str, outside: str = "*", never: str = "") -> Row:
    return Row(frozenset(may.split()), frozenset(outside.split()), frozenset(never.split()))


GROUND = row("config distributed recipes flops", outside="pydantic yaml")
ABOVE_A_MODEL = "generation.chat_model conversation images.loading distributed config"
ROWS = {
    "config": GROUND,
    "distributed": row("config distributed recipes flops", outside="pydantic yaml torch"),
    "recipes": GROUND,
    "flops": GROUND,
    "conversation": row("", outside=""),
    "images": row("", outside="PIL numpy torch transformers"),
    "token_counter": row("", outside="tokenizers"),
    "example": row("images.layout", outside="torch"),
    "processor": row("example conversation images token_counter"),
    "models": row("processor conversation images distributed flops"),
    "checkpoint": row("models processor example conversation images distributed"),
    "data": row("processor example conversation images distributed config"),
    "training": row("models.loss distributed config flops", never="PIL"),
    # `distributed` for the device and the dtype, which are decided there
    "stage": row(
        "training data evaluation generation checkpoint models processor conversation images distributed config recipes"
    ),
    "generation": row("models checkpoint processor example conversation images distributed"),
    "evaluation": row(f"{ABOVE_A_MODEL} recipes", never="torch"),  # finds eval files by name
    "synthesis": row(f"{ABOVE_A_MODEL} data.sample", never="torch datasets"),
    "agent": row(ABOVE_A_MODEL, never="torch datasets"),
    # fetches images where its operator allows it
    "serve": row(f"{ABOVE_A_MODEL} images.fetching", never="torch transformers datasets"),
    "chat": row(ABOVE_A_MODEL, never="torch datasets"),
    # `generation` and DTYPES: it is where lmms-eval's command line opens a checkpoint
    "lmms_eval_plugin": row("generation conversation checkpoint.proof", outside="lmms_eval tqdm torch"),
    # reckons with the modules that a run would make and reads what it would read; `training` for what engines hold
    "budget": row("flops config recipes models checkpoint training data processor images", never="PIL"),
    # reads what training, data and evaluation wrote, in the words of those who wrote it
    "card": row("checkpoint data training evaluation models.adapter recipes", outside="huggingface_hub safetensors"),
    "demo": row("*"),
    "cli": row("*"),
    "train": row("*", outside="torch", never="llava_lite.cli"),
    "eval": row("*", outside="torch", never="llava_lite.cli"),
}
# (an import, made anywhere in this room, belongs in this module only); "" is the whole package
ONLY_IN = [
    ("torch", "images", "images.transform"),
    ("transformers", "images", "images.transform"),
    ("peft", "", "models.adapter"),
    ("openai", "", "generation.remote"),
    ("bitsandbytes", "training", "training.optimizer"),
    ("llava_lite.demo", "", "cli"),
]
# rooms that import this inside functions only; "" is everything but the standard library and `outside`
LATE = [("distributed", "torch"), ("cli", "")]
LIGHT = frozenset({"typer"})


@dataclass(frozen=True)
class Import:
    target: str  # llava_lite.models.llava.Llava, torch.nn
    line: int
    late: bool  # inside a function
    typing: bool  # inside `if TYPE_CHECKING:`


def imports(tree: ast.AST, module: str, package: bool, late: bool = False, typing: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        for target in targets(node, module, package):
            yield Import(target, node.lineno, late, typing)  # type: ignore[attr-defined]
        function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        checking = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        yield from imports(node, module, package, late or function, typing or checking)


def targets(node: ast.AST, module: str, package: bool) -> Iterable[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom):
        home = (module if package else module.rpartition(".")[0]).split(".")
        home = [*home[: len(home) - node.level + 1], *filter(None, [node.module])] if node.level else [str(node.module)]
        return [resolved(".".join([*home, name.name])) for name in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        return [word.value for word in node.args[:1] if isinstance(word, ast.Constant)]
    return []


def resolved(target: str) -> str:
    """Name the home of a public name: `from llava_lite import load` imports generation."""
    package, _, name = target.partition(".")
    return f"{llava_lite._HOMES[name]}.{name}" if package == "llava_lite" and name in llava_lite._HOMES else target


def within(target: str, names: Iterable[str]) -> bool:
    return any(name == "*" or target == name or target.startswith(f"{name}.") for name in names)


def complaints(module: str, source: str, *, package: bool = False) -> list[str]:
    """Say which imports of a module (`llava_lite.models.llava`, `train.align`) break the table."""
    inner = module.removeprefix("llava_lite.")
    room = inner.partition(".")[0]
    if room not in ROWS:
        return [f"{module}: no row for this room; add it to the table"]
    return [
        f"line {item.line}: {item.target}: {problem}"
        for item in imports(ast.parse(source), module, package)
        for problem in broken(inner, room, ROWS[room], item)
    ]


def broken(inner: str, room: str, allowed: Row, item: Import) -> Iterator[str]:
    top, _, rest = item.target.partition(".")
    if top == "llava_lite" and within(rest, [room]):
        return
    if top == "llava_lite":
        if not rest and room not in ("cli", "demo", "train", "eval"):
            yield "import what you need by its own name"
        if rest and not rest.startswith("__") and not within(rest, allowed.may):
            yield f"{room} may import only {', '.join(sorted(allowed.may)) or 'nothing'} of llava_lite"
    elif top in ("train", "eval", "configs", "tests"):
        yield "the library never imports a recipe, and recipes stand alone"
    elif top not in sys.stdlib_module_names and not within(item.target, allowed.outside):
        yield f"{room} may import only {', '.join(sorted(allowed.outside)) or 'nothing'} besides the standard library"
    if within(item.target, allowed.never):
        yield f"{room} must never import it"
    for target, inside, home in ONLY_IN:
        if within(item.target, [target]) and within(inner, [inside or "*"]) and not within(inner, [home]):
            yield f"only {home} imports it"
    for place, target in LATE:
        heavy = top not in sys.stdlib_module_names | LIGHT if not target else within(item.target, [target])
        if room == place and heavy and not item.late and not item.typing:
            yield "inside functions only"


def modules() -> dict[str, Path]:
    """Map every module of the package to its file."""
    files = sorted((ROOT / "llava_lite").rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def recipes() -> list[Path]:
    return sorted([*(ROOT / "train").glob("*.py"), *(ROOT / "eval").glob("*.py")])


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("module", [module for module in modules() if module != "llava_lite"])
def test_a_room_imports_only_what_its_row_allows(module: str) -> None:
    path = modules()[module]
    assert complaints(module, path.read_text("utf-8"), package=path.name == "__init__.py") == []


@pytest.mark.parametrize("path", recipes(), ids=relative)
def test_a_recipe_imports_only_the_library_and_torch(path: Path) -> None:
    assert complaints(f"{path.parent.name}.{path.stem}", path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("llava_lite.config", "import torch"),
        ("llava_lite.config", "from llava_lite import conversation"),
        ("llava_lite.distributed", "import torch"),
        ("llava_lite.conversation.message", "import numpy"),
        ("llava_lite.conversation.message", "def f():\n    import torch"),
        ("llava_lite.images.loading", "from torch import Tensor"),
        ("llava_lite.images.layout", "from llava_lite.conversation import message"),
        ("llava_lite.processor", "from llava_lite.models.llava import Llava"),
        ("llava_lite.models.llava", "from llava_lite.checkpoint import folder"),
        ("llava_lite.models.llava", "import peft"),
        ("llava_lite.models.llava", "from ..data.sample import Sample"),
        ("llava_lite.data.sample", "from llava_lite import Llava"),
        ("llava_lite.training.loop", "from llava_lite.models.llava import Llava"),
        ("llava_lite.training.loop", "import bitsandbytes"),
        ("llava_lite.training.loop", "from PIL import Image"),
        ("llava_lite.generation.assistant", "if TYPE_CHECKING:\n    from llava_lite.data.sample import Sample"),
        ("llava_lite.generation.assistant", "import llava_lite"),
        ("llava_lite.evaluation.judge", "def f():\n    from openai import OpenAI"),
        ("llava_lite.evaluation.runner", "import importlib\nimportlib.import_module('torch')"),
        ("llava_lite.evaluation.runner", "from llava_lite.images.transform import ImageTransform"),
        ("llava_lite.serve.server", "from llava_lite.agent import plan"),
        ("llava_lite.checkpoint.folder", "from llava_lite.demo import world"),
        ("llava_lite.cli", "from llava_lite.recipes import find"),
        ("llava_lite.cli", "import rich"),
        ("llava_lite.cli", "def f():\n    import train.align"),
        ("llava_lite.kitchen", ""),
        ("train.align", "import datasets"),
        ("train.align", "from finetune import Config"),
        ("train.align", "from train.finetune import Config"),
        ("train.align", "from .finetune import Config"),
        ("train.align", "from llava_lite.demo.world import write"),
    ],
)
def test_a_broken_row_is_reported(module: str, source: str) -> None:
    assert complaints(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("llava_lite.distributed", "if TYPE_CHECKING:\n    import torch\ndef f():\n    import torch.distributed"),
        ("llava_lite.images.transform", "import torch\nfrom llava_lite.images.loading import load_image"),
        ("llava_lite.training.loop", "from llava_lite.models.loss import Loss"),
        ("llava_lite.cli", "import typer\ndef f():\n    import llava_lite"),
        ("train.align", "import json\nimport torch\nfrom llava_lite.recipes import run"),
    ],
)
def test_a_kept_row_is_not_reported(module: str, source: str) -> None:
    assert complaints(module, source) == []


def test_no_import_circle() -> None:
    known = modules()
    graph = {}
    for module, path in known.items():
        found = imports(ast.parse(path.read_text("utf-8")), module, package=path.name == "__init__.py")
        needed = [item.target for item in found if not item.late and not item.typing]
        homes = {target if target in known else target.rpartition(".")[0] for target in needed}
        graph[module] = (homes & known.keys()) - {module}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", recipes(), ids=relative)
def test_no_recipe_shadows_a_standard_module(path: Path) -> None:
    # `python eval/statistics.py` puts eval/ first on the path: every library would then import it as the standard one
    assert path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.y*ml")), ids=relative)
def test_every_yaml_parses_with_its_recipe(path: Path) -> None:
    first = path.read_text("utf-8").partition("\n")[0]
    named = re.fullmatch(r"# recipe: (\w+)", first.strip())
    recipe = ROOT / "train" / f"{named[1] if named else path.stem}.py"
    assert recipe.is_file(), f"{relative(path)}: no {relative(recipe)}; say `# recipe: NAME` in the first line"
    read_config(config_of(recipe), path)


def config_of(recipe: Path) -> type:
    """Load a recipe without running it and return its Config."""
    return load_recipe(recipe).Config
