"""docs/budget.md shows what the command prints. `python tests/budget/test_docs.py` writes it anew."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llava_lite.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "budget.md"
_FROM = "## The shipped configurations"
_SHOWN = re.compile(r"```sh\nllava-lite (budget [^\n]+)\n```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def shown() -> list[tuple[str, str]]:
    """The commands of the page, each with what it shows of them."""
    return _SHOWN.findall(DOCS.read_text("utf-8").partition(_FROM)[2])


def printed(command: str) -> str:
    result = CliRunner().invoke(app, shlex.split(command), env={"COLUMNS": "100"})
    lines = [line.rstrip() for line in result.output.splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


@pytest.mark.slow
@pytest.mark.parametrize(("command", "output"), shown(), ids=[command for command, _ in shown()])
def test_the_page_shows_what_is_printed(command: str, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert printed(command) == output, "python tests/budget/test_docs.py writes it anew"


def test_every_configuration_of_both_stages_is_shown() -> None:
    families = {path.parent.name for path in (ROOT / "configs").glob("*/finetune.yaml")}
    told = {re.search(r"--config configs/([^/ ]+)", command)[1] for command, _ in shown()}  # type: ignore[index]
    assert told == {name for name in families if not name.startswith("demo")}


def write() -> None:
    head, line, page = DOCS.read_text("utf-8").partition(_FROM)
    new = _SHOWN.sub(lambda at: f"```sh\nllava-lite {at[1]}\n```\n\n```text\n{printed(at[1])}```\n", page)
    DOCS.write_text(head + line + new, encoding="utf-8")


if __name__ == "__main__":
    write()
    sys.stdout.write(f"{DOCS}\n")
