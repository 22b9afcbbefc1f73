"""The command line: quick to answer, quiet on standard output, and clear about what the user got wrong."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import llava_lite
from llava_lite.cli import main
from llava_lite.recipes import names


def llava(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `llava-lite ...` in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["llava-lite", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


HELP = "from llava_lite.cli import main\ntry: main()\nexcept SystemExit: pass"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("import llava_lite", []), (HELP, ["--help"]), (HELP, ["list"]), (HELP, ["train", "--help"])],
)
def test_neither_the_import_nor_help_nor_list_imports_torch(script: str, arguments: list[str]) -> None:
    check = "\nimport sys; sys.exit('imported: ' + ' '.join({'torch', 'transformers', 'numpy'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", script + check, *arguments], capture_output=True, text=True)
    assert result.stderr.strip() == "imported:"


def test_help_answers_well_under_a_second() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", HELP, "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1


def test_every_public_name_resolves_and_no_other() -> None:
    for name in llava_lite.__all__:
        assert getattr(llava_lite, name).__name__ == name
        assert name in dir(llava_lite)
    with pytest.raises(AttributeError, match="has no attribute 'Lava'"):
        llava_lite.Lava  # noqa: B018


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert llava(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"{llava_lite.__version__}\n"


def test_list_names_every_file_as_copy_takes_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert llava(monkeypatch, "list") == 0
    lines = capsys.readouterr().out.split()
    assert len(lines) == sum(len(names(kind)) for kind in ("train", "eval", "configs"))
    assert {"train/align.py", "train/finetune.py", "train/contrastive.py", "eval/pope.py"} <= set(lines)
    for line in lines:
        assert llava(monkeypatch, "copy", line, str(tmp_path / line)) == 0
    assert (tmp_path / "train/align.py").read_text() == Path(__file__).parents[1].joinpath("train/align.py").read_text()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train aling", "error: train: nothing is called 'aling'; did you mean align?\n"),
        ("eval pop --model m --data d", "error: eval: nothing is called 'pop'; did you mean pope?\n"),
        ("copy train/aling.py x.py", "error: train: nothing is called 'aling.py'; did you mean align?\n"),
        ("copy align x.py", "error: 'align' should start with train/, eval/ or configs/;"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, expected: str
) -> None:
    assert llava(monkeypatch, *command.split()) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(expected)


@pytest.mark.parametrize("command", ["", "trian", "train align --confg x", "ask", "eval pope", "train"])
def test_a_wrong_command_line_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert llava(monkeypatch, *command.split()) == 2


def test_train_hands_config_and_overrides_to_the_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert llava(monkeypatch, "train", "align", "optim.lrr=1", "--config", "nowhere/x.yaml") == 2
    assert capsys.readouterr().err == "error: nowhere/x.yaml: no such file; the folder nowhere does not exist\n"
    assert llava(monkeypatch, "train", "align", "optim.lrr=1") == 2
    assert "optim.lrr (override optim.lrr=1): unknown key; did you mean optim.lr?" in capsys.readouterr().err


def test_help_of_a_recipe_shows_its_keys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert llava(monkeypatch, "train", "align", "--help") == 0
    assert "optim.lr" in capsys.readouterr().out


def test_an_interruption_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(kind: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("llava_lite.recipes.names", interrupted)
    assert llava(monkeypatch, "list") == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_ask_prints_the_answer_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Talkative:
        def ask(self, text: str, images: list[str], *, sampling: llava_lite.Sampling) -> str:
            print("loading ...")
            return f"{text} {images} {sampling.max_new_tokens} {sampling.temperature}"

    monkeypatch.setattr(llava_lite, "load", lambda model: Talkative(), raising=False)
    command = ["ask", "m", "What?", "--image", "a.png", "--image", "b.png", "--max-new-tokens", "7"]
    monkeypatch.setattr(sys, "argv", ["llava-lite", *command])
    assert llava(monkeypatch, *command) == 0
    assert capsys.readouterr() == ("What? ['a.png', 'b.png'] 7 0.0\n", "loading ...\n")
