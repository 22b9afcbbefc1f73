"""The README's commands name what exists: verbs, options, recipes, configurations with their keys, targets, imports."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import llava_lite
from llava_lite import recipes
from llava_lite.cli import app
from llava_lite.config import read_config
from tests.test_house import ROOT, config_of

README = ROOT / "README.md"
PROGRAMS = ("llava-lite", "make", "python", "python3", "torchrun")


def blocks(*languages: str) -> list[str]:
    text = README.read_text("utf-8") if README.is_file() else ""
    fenced = re.findall(r"^```(\w+)[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [body for language, body in fenced if language in languages]


def commands() -> Iterator[list[str]]:
    """Yield every command of our programs as words, without what stands before (VAR=x) or after (&&, |, >) it."""
    for block in blocks("sh", "bash", "shell", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(re.sub(r"(^| )#.*", "", line).removeprefix("$ "), posix=True, punctuation_chars="&|;<>")
            lexer.whitespace_split = True
            lexer.commenters = ""  # within a word, as in an address, # is a letter
            words: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set("&|;<>"):
                    if words and Path(words[0]).name in PROGRAMS:
                        yield [Path(words[0]).name, *words[1:]]
                    words = []
                elif words or not re.fullmatch(r"\w+=.*", word):
                    words.append(word)


def check_recipe(recipe: Path, arguments: list[str]) -> None:
    assert recipe.is_file(), f"no {recipe}"
    if recipe.parent.name != "train":
        return
    config = ROOT / arguments.pop(arguments.index("--config") + 1) if "--config" in arguments else None
    overrides = [word for word in arguments if not word.startswith("-")]
    read_config(config_of(recipe), config, overrides)


def check_llava(words: list[str]) -> None:
    group = typer.main.get_command(app)
    if words[0].startswith("-"):
        return
    assert words[0] in group.commands, f"no verb {words[0]}"  # type: ignore[attr-defined]
    verb = group.commands[words[0]]  # type: ignore[attr-defined]
    given = verb.make_context(words[0], words[1:]).params  # parses and checks the options, runs nothing
    if words[0] == "train" and not given["help"]:
        config = ["--config", str(given["config"])] if given["config"] else []
        check_recipe(recipes.find("train", given["recipe"]), [*config, *(given["overrides"] or [])])
    if words[0] == "inspect" and given["config"]:
        recipe = recipes.recipe_of(given["config"], given["recipe"])
        recipes.load_recipe(recipe, needs="open_processor")
        overrides = [word for word in given["words"] or [] if "=" in word]
        check_recipe(recipe, ["--config", str(given["config"]), *overrides])
    for name in given["names"] if words[0] == "eval" else []:
        recipes.find("eval", name)
    if words[0] == "copy":
        kind, _, name = given["source"].partition("/")
        recipes.find(kind, name)


def check_python(words: list[str]) -> None:
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), f"no module {words[1]}"
    elif words[0] == "-c":
        check_imports(words[1])
    elif not words[0].startswith("-"):
        check_recipe(ROOT / words[0], words[1:])


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    variables = re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    for word in words:
        name, equals, _ = word.partition("=")
        assert name in (variables if equals else targets), f"make knows no {name}"


def check_imports(source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "llava_lite":
            assert hasattr(llava_lite, node.attr), f"llava_lite has no {node.attr}"


def check(words: list[str]) -> None:
    program, *rest = words
    if program == "llava-lite":
        check_llava(rest)
    elif program == "make":
        check_make(rest)
    elif program == "torchrun":
        script = next(i for i, word in enumerate(rest) if word.endswith(".py"))
        check_recipe(ROOT / rest[script], rest[script + 1 :])
    else:
        check_python(rest)


def test_the_readme_has_commands_and_python() -> None:
    assert list(commands())
    assert blocks("python")


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_a_command_of_the_readme_names_what_exists(words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize("source", blocks("python"))
def test_the_imports_of_the_readme_resolve(source: str) -> None:
    check_imports(source)


@pytest.mark.parametrize(
    "line",
    [
        "llava-lite trian align",
        "llava-lite train aling",
        "llava-lite train align --config configs/nowhere.yaml",
        "llava-lite train align --confg x",
        "llava-lite train align optim.lrr=1",
        "llava-lite eval popp --model m --data d",
        "llava-lite eval pope --model m --data d --batchsize 3",
        "llava-lite copy train/aling.py mine.py",
        "llava-lite inspect --config configs/demo/finetun.yaml",
        "llava-lite inspect --config configs/demo/contrastive.yaml",
        "llava-lite inspect --config configs/demo/finetune.yaml optim.lrr=1",
        "make demos",
        "make demo DEMO_ARG=--short",
        "python train/aling.py",
        "python eval/popp.py",
        "python -m llava_light",
        "python -c 'from llava_lite import lod'",
        "python -c 'import llava_lite; llava_lite.lod(1)'",
        "torchrun --nproc-per-node 8 train/aling.py",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises((AssertionError, ImportError, ValueError, typer.TyperException)):
        check(shlex.split(line))
