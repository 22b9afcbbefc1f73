"""Completion, and where lines are kept."""

from pathlib import Path

import pytest

from llava_lite.chat.keyboard import complete, history_path

ARGUMENTS = {"image": None, "save": None, "save!": None, "set": ("seed", "stop"), "help": ()}


def completed(line: str) -> list[str]:
    """The whole lines that Tab offers."""
    begin = max(line.rfind(" "), line.rfind("\t")) + 1
    return [line[:begin] + end for end in complete(line, begin, ARGUMENTS)]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("/i", ["/image "]),
        ("/s", ["/save ", "/save! ", "/set "]),
        ("/set s", ["/set seed ", "/set stop "]),
        ("/set seed", ["/set seed "]),
        ("/help x", []),
        ("/nothing x", []),
        ("im", []),
        ("tell im", []),
        ("//i", []),
    ],
)
def test_commands_and_settings_are_completed(line: str, offered: list[str]) -> None:
    assert completed(line) == offered


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("a", [r"a\ b.png ", "a.png "]),
        ("a ", [r"a a\ b.png ", r"a a.png ", r"a it\'s/"]),
        (r"a\ ", [r"a\ b.png "]),
        ('"a ', ['"a b.png"']),
        ("'a ", ["'a b.png'"]),
        ("x.png a.", ["x.png a.png "]),
        ("i", [r"it\'s/"]),
        ('"i', ["\"it's/"]),
        (r"it\'s/", [r"it\'s/deep.png "]),
        (".", [".hidden "]),
        ("nowhere/", []),
        ('"a.', ['"a.png"']),
    ],
)
def test_names_of_files_are_completed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: str, offered: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's").mkdir()
    for name in ("a.png", "a b.png", ".hidden", "it's/deep.png"):
        (tmp_path / name).touch()
    assert completed(f"/image {typed}") == [f"/image {line}" for line in offered]


def test_a_home_is_found_behind_its_sign(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").touch()
    assert completed("/image ~/") == ["/image ~/a.png "]


def test_lines_are_kept_in_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    assert history_path({"XDG_STATE_HOME": "/state"}) == Path("/state/llava_lite/chat_history")
    kept = Path("/home/x/.local/state/llava_lite/chat_history")
    assert history_path({}) == history_path({"XDG_STATE_HOME": "not/absolute"}) == kept
