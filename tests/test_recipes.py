"""Recipes: found in a checkout and in a wheel, copied, launched; and a user's mistake ends without a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from llava_lite import recipes
from llava_lite.config import ConfigError
from llava_lite.recipes import RecipeError, copy, find, launch, names, report_mistakes

TOY = '''
"""Count to a number."""

import os
import sys

from llava_lite.config import ConfigError, Strict
from llava_lite.recipes import run


class Config(Strict):
    steps: int = 3
    """How far."""
    bug: bool = False


def main(config: Config) -> None:
    if config.bug:
        raise ValueError("a bug")
    if config.steps == 0:
        raise ConfigError("nothing to count")
    print(f"process {os.environ.get('RANK')} counts to {config.steps} as {sys.argv[0]}")


if __name__ == "__main__":
    run(main, Config)
'''


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "toy.py").write_text(TOY.lstrip(), encoding="utf-8")
    return tmp_path / "toy.py"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder as the wheel unpacks it: train/, eval/ and configs/ inside."""
    package = tmp_path / "site-packages" / "llava_lite"
    for name in ("train/align.py", "train/finetune.py", "eval/pope.py", "configs/demo/align.yaml"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    monkeypatch.setattr(recipes, "__file__", str(package / "recipes.py"))
    return package


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


def test_files_in_the_wheel_are_found_by_name(wheel: Path) -> None:
    assert names("train") == ["align", "finetune"]
    assert names("configs") == ["demo/align"]
    assert find("train", "align") == wheel / "train/align.py"
    assert find("configs", "demo/align.yaml") == wheel / "configs/demo/align.yaml"


def test_files_in_a_checkout_are_found_beside_the_package(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "__file__", str(wheel / "llava_lite" / "recipes.py"))
    assert find("eval", "pope") == wheel / "eval/pope.py"


@pytest.mark.parametrize(
    ("name", "expected"), [("finetun", "did you mean finetune?"), ("xyzzy", "there are: align, finetune")]
)
def test_an_unknown_name_is_an_error_with_the_nearest_one(wheel: Path, name: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected.replace("?", r"\?")):
        find("train", name)


def test_a_copy_has_the_text_and_never_overwrites(wheel: Path, tmp_path: Path) -> None:
    target = copy("train/align.py", tmp_path / "new" / "mine.py")
    assert target.read_text() == "train/align.py"
    assert copy("eval/pope.py", tmp_path) == tmp_path / "pope.py"
    for again in (target, tmp_path):
        with pytest.raises(RecipeError, match="is there already"):
            copy("eval/pope.py", again)
    assert target.read_text() == "train/align.py"


def test_a_copy_of_something_else_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="should start with train/, eval/ or configs/"):
        copy("align", tmp_path)


def test_launch_runs_a_recipe_here_with_its_own_command_line(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = list(sys.argv)
    assert launch(toy, ["steps=5"]) == 0
    assert f"counts to 5 as {toy}" in capsys.readouterr().out
    assert sys.argv == argv


def test_launch_returns_the_exit_code_of_a_mistake(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(toy, ["step=5"]) == 2
    assert capsys.readouterr().err == "error: step (override step=5): unknown key; did you mean steps?\n"


@pytest.mark.multiprocess
def test_launch_runs_many_processes_and_a_mistake_in_them_shows_no_traceback(
    toy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert launch(toy, ["steps=5"], processes=2) == 0
    printed = capfd.readouterr().out
    assert "process 0 counts to 5" in printed
    assert "process 1 counts to 5" in printed
    assert launch(toy, ["steps=0"], processes=2) == 2
    printed = capfd.readouterr().err
    assert "rank 0: error: nothing to count" in printed or "rank 1: error: nothing to count" in printed
    assert "Traceback" not in printed


def test_a_recipe_reads_its_file_and_its_overrides_in_any_order(toy: Path) -> None:
    file = toy.with_name("toy.yaml")
    file.write_text("steps: 7\n")
    assert "counts to 7" in python(str(toy), "bug=no", "--config", str(file)).stdout
    assert "counts to 8" in python(str(toy), "bug=no", "--config", str(file), "steps=8").stdout


def test_the_help_of_a_recipe_shows_its_docstring_and_its_keys(toy: Path) -> None:
    printed = python(str(toy), "--help").stdout
    assert "Count to a number." in printed
    assert "steps  int = 3\n        How far." in printed


def test_a_bug_keeps_its_traceback(toy: Path) -> None:
    result = python(str(toy), "bug=yes")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "ValueError: a bug" in result.stderr


def test_a_mistake_is_a_line_on_standard_error_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, report_mistakes():
        raise ConfigError("seed: should be a number")
    assert end.value.code == 2
    assert capsys.readouterr() == ("", "error: seed: should be a number\n")


def test_a_mistake_shows_its_traceback_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLAVA_LITE_TRACEBACK", "1")
    with pytest.raises(SystemExit) as end, report_mistakes():
        raise ConfigError("seed: should be a number")
    assert end.value.code == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_mistake_names_its_rank_among_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit), report_mistakes():
        raise ConfigError("no")
    assert capsys.readouterr().err == "rank 1: error: no\n"


def test_an_interruption_is_one_line_and_exit_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, report_mistakes():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def fail_in_torch(words: str) -> None:
    exec(compile(f"raise RuntimeError({words!r})", "site-packages/torch/distributed/some.py", "exec"))


def test_a_process_that_lost_the_others_says_so_in_a_line_and_leaves_the_last_word_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "TORCHELASTIC_ERROR_FILE": str(tmp_path / "e")}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end, report_mistakes():
        fail_in_torch("Connection closed by peer [127.0.0.1]")
    assert end.value.code == 1
    assert capsys.readouterr().err == "rank 1: lost the other processes (Connection closed by peer [127.0.0.1])\n"
    assert not (tmp_path / "e").exists()
    with pytest.raises(RuntimeError, match="out of memory"), report_mistakes():
        fail_in_torch("out of memory")  # its own
    assert "out of memory" in (tmp_path / "e").read_text()


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x")])
def test_any_other_exception_passes(error: Exception) -> None:
    with pytest.raises(type(error)), report_mistakes():
        raise error


class Broken:
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise ConfigError("sample 1: no image\nadd one")


def test_a_mistake_in_a_loader_worker_shows_its_message_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from torch.utils.data import DataLoader

    with pytest.raises(SystemExit), report_mistakes():
        list(DataLoader(Broken(), num_workers=1))  # type: ignore[arg-type]
    assert capsys.readouterr().err == "error: sample 1: no image\nadd one\n"
