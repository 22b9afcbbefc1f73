"""Whatever a folder holds, opening it runs none of its code, and what cannot be read is said in one line."""

import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from llava_lite.checkpoint.folder import load, load_processor, save
from llava_lite.checkpoint.parts import CheckpointError, Parts
from llava_lite.cli import app
from llava_lite.models.language_model import load_tokenizer
from llava_lite.models.pretrained import PartError
from tests.checkpoint.original_llava import Plain
from tests.conftest import assemble_lively
from tests.foreign import ROLES, write_foreign

CODE = "from pathlib import Path\nPath({!r}).touch()\n"


@pytest.fixture(scope="session", params=["native", "own", "projector", "foreign", "original"])
def good(
    request: pytest.FixtureRequest, parts: Parts, vicuna_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder: Path = tmp_path_factory.mktemp(request.param)
    for name in ("vision_tower", "language_model"):  # where a copy finds them, too
        shutil.copytree(getattr(parts, name), folder / name)
    parts = replace(parts, vision_tower=str(folder / "vision_tower"), language_model=str(folder / "language_model"))
    if request.param == "foreign":
        write_foreign(folder, load_tokenizer(str(vicuna_dir)), ROLES)
    elif request.param == "original":
        Plain(vicuna_dir, Path(str(parts.vision_tower))).write_whole(folder)
    else:
        parts = replace(parts, projector="linear" if request.param == "own" else "mlp2x_gelu")
        save(folder, *assemble_lively(parts), parts=parts if request.param == "projector" else None)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "m", symlinks=True))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def refusal(folder: Path) -> str:
    """What opening it raises: one line, of a class whose messages the CLI shows."""
    with pytest.raises((CheckpointError, PartError)) as caught:
        load(folder, dtype=torch.float32)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("model_type", ["evil", None])
def test_code_beside_a_checkpoint_is_never_run_whatever_the_terminal_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model_type: str | None
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    ran = folder / "ran"
    for place in (folder, folder / "vision_tower", folder / "language_model"):
        (place / "evil.py").write_text(CODE.format(str(ran)))
    names = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoProcessor": "evil.P"}
    for path in folder.rglob("*config.json"):
        edit(path, lambda config: config.update(auto_map={**names, "AutoTokenizer": ["evil.T", "evil.T"]}))
    if model_type:
        edit(folder / "config.json", lambda config: config.update(model_type=model_type))
    try:
        load(folder, dtype=torch.float32)
    except (CheckpointError, PartError):
        assert model_type
    assert not ran.exists()


def test_a_language_models_code_is_never_run(lm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    shutil.copytree(lm_dir, tmp_path / "lm")
    (tmp_path / "lm" / "evil.py").write_text(CODE.format(str(tmp_path / "ran")))
    edit(tmp_path / "lm" / "config.json", lambda c: c.update(model_type="evil", auto_map={"AutoConfig": "evil.C"}))
    assert "no model here" in refusal(tmp_path / "lm")
    assert not (tmp_path / "ran").exists()


def test_no_attention_kernel_is_fetched_that_a_config_names(folder: Path, lm_dir: Path, tmp_path: Path) -> None:
    def name(config: dict[str, Any]) -> None:
        for one in (config, config.get("text_config", {}), config.get("vision_config", {})):
            one.update(attn_implementation="someone/kernel", _attn_implementation="someone/kernel")

    shutil.copytree(lm_dir, tmp_path / "lm")
    for config in (folder / "config.json", tmp_path / "lm" / "config.json"):
        edit(config, name)
        load(config.parent, dtype=torch.float32)
