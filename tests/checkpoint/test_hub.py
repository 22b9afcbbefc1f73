"""A hub id opens as a folder does, out of the hub client's cache; without network, and without running pickles."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects

from llava_lite.checkpoint import hub
from llava_lite.checkpoint.export import export_checkpoint
from llava_lite.checkpoint.folder import base_of, holds_adapter, load, load_processor
from llava_lite.checkpoint.hub import find_folder
from llava_lite.checkpoint.parts import CheckpointError
from tests.test_house import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_cache(cache: Path, name: str, source: Path) -> Path:
    """Lay a folder out as the hub client has it in its cache."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(source, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def test_a_hub_id_opens_as_its_folder(cache: Path, llava_dir: Path) -> None:
    snapshot = write_cache(cache, "someone/llava-tiny", llava_dir)
    assert find_folder("someone/llava-tiny") == snapshot
    model, processor = load("someone/llava-tiny", dtype=torch.float32)
    same, _ = load(llava_dir, dtype=torch.float32)
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in same.state_dict().items())
    assert load_processor("someone/llava-tiny").fingerprint == processor.fingerprint
    assert not holds_adapter("someone/llava-tiny") and base_of("someone/llava-tiny") == "someone/llava-tiny"


def test_an_id_that_cannot_be_had_names_both_possibilities(cache: Path) -> None:
    with pytest.raises(CheckpointError, match=r"someone/nothing: no folder .* is here, and the hub gave no model .*"):
        load("someone/nothing", dtype=torch.float32)


@pytest.mark.parametrize("name", ["runs/typo", "/nowhere/at/all", "single", "a/b/c", "../x"])
def test_what_can_only_be_a_path_is_not_asked_of_the_hub(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load(name, dtype=torch.float32)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_pickles_are_fetched_only_where_there_is_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    asked = []

    def fetch(name: str, allow_patterns: list[str], ignore_patterns: str) -> str:
        asked.append(allow_patterns)
        (tmp_path / weights).touch()
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    assert find_folder("someone/model") == tmp_path
    assert ["*.bin" in patterns for patterns in asked] == ([False] if "safe" in weights else [False, True])


def test_of_folders_inside_the_tower_of_an_original_comes_along(
    tmp_path: Path, llava_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, got = tmp_path / "source", tmp_path / "got"
    export_checkpoint(str(llava_dir), source, format="original")
    (source / "more").mkdir()
    for name in ("more/config.json", "clip_vision_tower/evil.py", "clip_vision_tower/pytorch_model.bin"):
        (source / name).touch()

    def fetch(name: str, **patterns: list[str] | str | None) -> str:
        files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
        for file in filter_repo_objects(files, **patterns):
            (got / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / file, got / file)
        return str(got)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    find_folder("someone/model")
    inside = {path.relative_to(got).as_posix() for path in got.glob("*/*")}
    assert inside == {
        f"clip_vision_tower/{name}" for name in ("config.json", "model.safetensors", "preprocessor_config.json")
    }
    shutil.rmtree(source)
    model, _ = load("someone/model", dtype=torch.float32)
    same, _ = load(llava_dir, dtype=torch.float32)
    assert all(torch.equal(weight, same.state_dict()[name]) for name, weight in model.state_dict().items())


def test_the_verbs_take_a_hub_id(tmp_path: Path, llava_dir: Path) -> None:
    write_cache(tmp_path / "hub", "someone/llava-tiny", llava_dir)
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("HF_HUB_CACHE", None)
    program = [sys.executable, "-c", "from llava_lite.cli import main; main()"]
    arguments = ["ask", "someone/llava-tiny", "What is it?", "--max-new-tokens", "2"]
    done = subprocess.run([*program, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    arguments[1] = "someone/nothing"
    done = subprocess.run([*program, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "no folder of that name is here" in done.stderr
    assert "Traceback" not in done.stderr
