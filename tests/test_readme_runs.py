"""The README's sections on using a model run as they are written, on a tiny checkpoint where the demo's would be."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.test_house import ROOT

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
PORT = "8000"  # as the README writes it


def section(title: str) -> list[tuple[str, str]]:
    """The blocks of a section in order: what they are written in, and what they say."""
    text = (ROOT / "README.md").read_text("utf-8")
    body = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [(match[1], match[2]) for match in BLOCK.finditer(body)]


@pytest.fixture
def home(tmp_path: Path, llava_dir: Path, world: Path) -> Path:
    """A folder as the README has it before it."""
    shutil.copytree(llava_dir, tmp_path / "runs" / "demo" / "finetune")
    shutil.copytree(world, tmp_path / "runs" / "demo" / "world")
    shutil.copy(sorted((world / "images").glob("*.png"))[0], tmp_path / "scene.png")
    return tmp_path


def environment() -> dict[str, str]:
    """Commands that are those of this checkout."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}


def run(language: str, text: str, home: Path) -> str:
    """Run a block, of which every command must succeed; return what it printed."""
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(
        command, cwd=home, env=environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


@contextmanager
def serving(command: str, port: int, home: Path) -> Iterator[None]:
    server = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=home, env=environment())
    try:
        end = time.monotonic() + 120
        while server.poll() is None and time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        assert server.wait(timeout=60) == 0


@pytest.mark.slow
def test_the_python_api_asking_and_the_chat(home: Path) -> None:
    printed = [run(language, text, home) for language, text in section("Use it in Python")]
    assert len(printed) == 3 and all(printed[i].strip() for i in (0, 1, 2))


@pytest.mark.slow
def test_the_server_its_clients_and_endpoints_as_models(home: Path) -> None:
    (_, first), *others = section("Serve it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(first.strip().replace(PORT, str(port)), port, home):
        printed = [run(language, text.replace(PORT, str(port)), home) for language, text in others]
    assert len(printed) == 2 and all(text.strip() for text in printed)
    assert (home / "runs" / "eval-served" / "scores.json").is_file()


@pytest.mark.slow
def test_the_exports_and_what_opens_in_transformers(home: Path) -> None:
    for language, text in section("Export it, open others'"):
        run(language, text, home)
    made = {
        path.parent.name
        for path in (home / "runs" / "exported").glob("*/*")
        if path.suffix in (".safetensors", ".gguf")
    }
    assert made == {"transformers", "original", "gguf"}


@pytest.mark.slow
def test_evaluating_and_comparing(home: Path) -> None:
    (home / "eval").symlink_to(ROOT / "eval")
    (language, text), _card = section("Evaluate")  # a card is of a run that was trained: tests/card
    printed = run(language, text, home)
    assert "visual gain" in printed and "McNemar" in printed
