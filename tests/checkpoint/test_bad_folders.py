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
from llava_lite.models.adapter import AdapterError
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


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


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


def claims_a_gigabyte(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**30) + b"{}")


def resize(path: Path, size: int) -> None:
    edit(path, lambda config: config["text_config"].update(intermediate_size=size))


def holds_code(path: Path) -> None:
    torch.save({"w": torch.nn.Linear(1, 1)}, path)


def shards(path: Path, names: dict[str, Any], twice: bool = False) -> None:
    weights = load_file(path.parent / "model.safetensors")
    first, *rest = sorted(weights)
    save_file({first: weights[first]}, path.parent / "a.safetensors")
    save_file({name: weights[name] for name in ([first, *rest] if twice else rest)}, path.parent / "b.safetensors")
    path.write_text(json.dumps({"weight_map": names or {first: "a.safetensors", rest[0]: "b.safetensors"}}))


INDEX = "model.safetensors.index.json"
CASES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a config that is a list": ("config.json", lambda path: path.write_text("[1]"), "damaged"),
    "a config that is no UTF-8": ("config.json", lambda path: path.write_bytes(b"\xff\xfe{"), "damaged"),
    "a config without end": ("config.json", lambda path: path.write_text("[" * 100_000), "damaged"),
    "a model type that is none": ("config.json", lambda path: path.write_text('{"model_type": []}'), "model_type"),
    "sizes of no machine": ("config.json", lambda path: resize(path, 10**12), "no model can be made of the sizes"),
    "a size below zero": ("config.json", lambda path: resize(path, -1), "no model can be made of the sizes"),
    "a header of a gigabyte": ("model.safetensors", claims_a_gigabyte, "cannot be read"),
    "a file above": (INDEX, lambda path: shards(path, {"w": "../m/b.safetensors"}), "outside its folder"),
    "a file anywhere": (INDEX, lambda path: shards(path, {"w": "/etc/passwd"}), "outside its folder"),
    "the folder above": (INDEX, lambda path: shards(path, {"w": ".."}), "cannot be read"),
    "an index of numbers": (INDEX, lambda path: shards(path, {"w": 5}), "damaged"),
    "an index that is a list": (INDEX, lambda path: path.write_text("[]"), "damaged"),
    "a weight in two files": (INDEX, lambda path: shards(path, {}, twice=True), "as another file beside it does"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_broken_is_said_in_a_line_and_ends_with_2(llava_dir: Path, tmp_path: Path, case: str) -> None:
    name, breaks, told = CASES[case]
    folder = Path(shutil.copytree(llava_dir, tmp_path / "m"))
    breaks(folder / name)
    assert told in refusal(folder)
    done = CliRunner().invoke(app, ["ask", str(folder), "What is it?"])
    assert done.exit_code == 2


@pytest.mark.parametrize("value", [None, "x", [5]])
def test_no_value_of_a_config_ends_in_a_traceback(folder: Path, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    for section in (config, *(config[name] for name in sorted(config) if isinstance(config[name], dict))):
        for key in sorted(section):
            kept, section[key] = section[key], value
            (folder / "config.json").write_text(json.dumps(config))
            try:
                load_processor(folder)
            except ValueError as error:
                assert type(error).__module__.startswith("llava_lite."), key
                assert "\n" not in str(error)
            section[key] = kept


def test_links_lead_out_of_a_folder_as_the_hub_clients_do(llava_dir: Path, tmp_path: Path) -> None:
    for path in llava_dir.iterdir():
        (tmp_path / path.name).symlink_to(path)
    load(tmp_path, dtype=torch.float32)


@pytest.mark.parametrize("name", ["non_lora_trainables.bin", "adapter_model.bin", "mm_projector.bin"])
def test_pickles_of_more_than_tensors_are_refused(vicuna_dir: Path, clip_dir: Path, tmp_path: Path, name: str) -> None:
    plain = Plain(vicuna_dir, clip_dir)
    plain.write_projector(tmp_path / "m") if "mm" in name else plain.write_lora(tmp_path / "m", base=str(vicuna_dir))
    holds_code(tmp_path / "m" / name)
    assert "more than tensors" in refusal(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"peft_type": "IA3"}, "only LORA is read"),
        ({"r": 10**9}, r"r is 1000000000, that of the weights \[3\]"),
        ({"base_model_name_or_path": "/etc"}, "its language_model '/etc' is not to be found"),
        ({"base_model_name_or_path": "x" * 5000}, "is not to be found"),
        ({"base_model_name_or_path": "."}, "is not to be found"),
    ],
)
def test_an_adapter_that_asks_for_more_is_refused(
    vicuna_dir: Path, clip_dir: Path, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    Plain(vicuna_dir, clip_dir).write_lora(tmp_path / "m", base=str(vicuna_dir))
    edit(tmp_path / "m" / "adapter_config.json", lambda config: config.update(change))
    with pytest.raises((AdapterError, CheckpointError), match=told):
        load(tmp_path / "m", dtype=torch.float32)
