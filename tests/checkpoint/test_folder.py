"""Saved and loaded is the same model; a folder that is not whole does not load."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image as PilImage
from safetensors.torch import load_file, save_file

import llava_lite
from llava_lite.checkpoint.folder import load, load_processor, save
from llava_lite.checkpoint.parts import CheckpointError, Parts, assemble
from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Sampling
from llava_lite.models.llava import Llava
from llava_lite.models.pretrained import PartError
from llava_lite.processor import Processor
from tests.conftest import assemble_lively

SHORT = Sampling(max_new_tokens=6)


def reply(model: Llava, processor: Processor, world: Path) -> str:
    image = sorted((world / "images").glob("*.png"))[0]
    return Assistant(model, processor).reply([Conversation().ask("What is it?", [image])], SHORT)[0]


def assert_same(a: tuple[Llava, Processor], b: tuple[Llava, Processor], world: Path) -> None:
    assert a[0].state_dict().keys() == b[0].state_dict().keys()
    assert all(torch.equal(value, b[0].state_dict()[name]) for name, value in a[0].state_dict().items())
    assert a[1].template == b[1].template and a[1].bos == b[1].bos and a[1].transform == b[1].transform
    assert reply(*a, world) == reply(*b, world) != ""


@pytest.mark.parametrize(
    ("projector", "mode"),
    [
        ("mlp2x_gelu", "pad"),
        ("linear", "pad"),
        ("mlp3x_gelu", "crop"),
        ("mlp2x_gelu", "crop"),
        ("mlp2x_gelu", "resize"),
    ],
)
def test_saved_and_loaded_gives_the_same_reply(
    clip_dir: Path, lm_dir: Path, tmp_path: Path, world: Path, projector: str, mode: str
) -> None:
    before = assemble_lively(Parts(str(clip_dir), str(lm_dir), projector=projector, image_mode=mode))
    save(tmp_path, *before)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == (
        "llava" if projector == "mlp2x_gelu" else "llava_lite"
    )
    assert_same(before, load(tmp_path, dtype=torch.float32), world)


@pytest.mark.parametrize("kind", ["native", "llava_lite", "projector", "language model"])
def test_the_processor_alone_is_the_one_that_comes_with_the_model(
    parts: Parts, lm_dir: Path, tmp_path: Path, kind: str
) -> None:
    projector = "pool2_mlp2x_gelu" if kind == "llava_lite" else "mlp2x_gelu"
    parts = replace(parts, projector=projector, image_mode="crop")
    save(tmp_path, *assemble_lively(parts), parts=parts if kind == "projector" else None)
    folder = lm_dir if kind == "language model" else tmp_path
    whole = load(folder, dtype=torch.float32)[1]
    alone = load_processor(folder)
    assert alone.fingerprint == whole.fingerprint and alone.transform == whole.transform
    assert alone.max_positions == whole.max_positions == 2048


def test_a_towers_own_resize_survives_a_mode_that_does_not_use_it(parts: Parts, tmp_path: Path) -> None:
    model, processor = assemble_lively(parts)
    processor = replace(processor, transform=processor.transform.with_short_side(40))
    save(tmp_path, model, processor)
    assert load(tmp_path, dtype=torch.float32)[1].with_image_mode("crop").transform.tower.short_side == 40


@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_a_folder_that_does_not_name_its_mode_has_the_one_of_its_image_processor(
    parts: Parts, tmp_path: Path, mode: str
) -> None:
    save(tmp_path, *assemble_lively(replace(parts, image_mode=mode)))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["llava_lite"].pop("image_mode") == mode
    del config["llava_lite"]["tower_short_side"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(tmp_path, dtype=torch.float32)[1].transform.mode == mode


def test_a_projector_checkpoint_holds_the_projector_and_finds_its_parts(
    parts: Parts, tmp_path: Path, world: Path
) -> None:
    before = assemble_lively(parts)
    fresh = load_parts_untouched(before, parts)
    save(tmp_path / "align", *fresh, parts=parts)
    assert sorted(p.name for p in (tmp_path / "align").iterdir()) == ["config.json", "projector.safetensors"]
    assert_same(fresh, load(tmp_path / "align", dtype=torch.float32), world)


def load_parts_untouched(lively: tuple[Llava, Processor], parts: Parts) -> tuple[Llava, Processor]:
    """The lively projector beside parts as they lie on disk, as after align."""
    model, processor = assemble(parts, dtype=torch.float32)
    model.projector.load_state_dict(lively[0].projector.state_dict())
    return model.eval(), processor


def moved_parts(clip_dir: Path, lm_dir: Path, folder: Path) -> Parts:
    shutil.copytree(clip_dir, folder / "clip")
    shutil.copytree(lm_dir, folder / "lm")
    return Parts(str(folder / "clip"), str(folder / "lm"))


def test_parts_are_found_when_all_folders_move_together(clip_dir: Path, lm_dir: Path, tmp_path: Path) -> None:
    parts = moved_parts(clip_dir, lm_dir, tmp_path / "here")
    save(tmp_path / "here" / "align", *assemble_lively(parts), parts=parts)
    (tmp_path / "here").rename(tmp_path / "there")
    load(tmp_path / "there" / "align", dtype=torch.float32)


def test_a_lost_part_names_the_option_that_supplies_it(clip_dir: Path, lm_dir: Path, tmp_path: Path) -> None:
    parts = moved_parts(clip_dir, lm_dir, tmp_path)
    save(tmp_path / "align", *assemble_lively(parts), parts=parts)
    (tmp_path / "lm").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"its language_model is not at .*model.language_model=\.\.\."):
        load(tmp_path / "align", dtype=torch.float32)
    load(tmp_path / "align", dtype=torch.float32, language_model=str(tmp_path / "elsewhere"))


def test_another_language_model_is_refused(clip_dir: Path, lm_dir: Path, tmp_path: Path) -> None:
    parts = moved_parts(clip_dir, lm_dir, tmp_path)
    save(tmp_path / "align", *assemble_lively(parts), parts=parts)
    weights = load_file(tmp_path / "lm" / "model.safetensors")
    weights["lm_head.weight"] += 1
    save_file(weights, tmp_path / "lm" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="is not the language_model its projector was trained against"):
        load(tmp_path / "align", dtype=torch.float32)


def test_a_text_only_model_is_saved_as_a_plain_language_model(lm_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, processor = assemble(Parts(None, str(lm_dir)), dtype=torch.float32)
    save(tmp_path, model, processor)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(w, plain.state_dict()[name]) for name, w in model.language_model.state_dict().items())
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(lm_dir)
    assert theirs.encode("USER: What is it?") == ours.encode("USER: What is it?")
    assert "<image>" not in theirs.get_vocab()
    again, _ = load(tmp_path, dtype=torch.float32)
    assert again.vision_tower is None


def edit_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("what", ["missing", "unexpected"])
def test_missing_and_unexpected_weights_are_named(llava_dir: Path, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(llava_dir, folder)
    name = "multi_modal_projector.linear_1.bias"
    if what == "missing":
        edit_weights(folder, lambda w: {k: v for k, v in w.items() if k != name})
    else:
        edit_weights(folder, lambda w: {**w, "multi_modal_projector.linear_3.bias": torch.zeros(1)})
    with pytest.raises(PartError, match=rf"1 {what} weights: .*(projector.0.bias|linear_3.bias)"):
        load(folder, dtype=torch.float32)


def test_a_damaged_weight_file_is_named(llava_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(llava_dir, folder)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"model.safetensors: cannot be read"):
        load(folder, dtype=torch.float32)


def test_an_interrupted_save_does_not_load(llava: tuple[Llava, Processor], tmp_path: Path, monkeypatch) -> None:
    save(tmp_path, *llava)
    moved = []
    replace = Path.replace

    def die_after_two(self: Path, target: Path) -> Path:
        moved.append(self.name)
        if len(moved) == 3:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", die_after_two)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, *llava)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load(tmp_path, dtype=torch.float32)
    save(tmp_path, *llava)
    load(tmp_path, dtype=torch.float32)


def test_shards_are_indexed_and_come_back(
    llava: tuple[Llava, Processor], tmp_path: Path, world: Path, monkeypatch
) -> None:
    monkeypatch.setattr("llava_lite.checkpoint.weights._MAX_SHARD", "100KB")
    save(tmp_path, *llava)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_same(llava, load(tmp_path, dtype=torch.float32), world)
    monkeypatch.undo()
    save(tmp_path, *llava)
    assert [p.name for p in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]


def test_whoever_may_read_the_config_may_read_the_weights(llava_dir: Path) -> None:
    assert {path.stat().st_mode for path in llava_dir.iterdir() if path.is_file()} == {
        (llava_dir / "config.json").stat().st_mode
    }


@pytest.mark.parametrize("language_model", ["lm_dir", "vicuna_dir", "legacy_dir"])
def test_without_our_section_a_native_folder_says_the_same(
    clip_dir: Path, tmp_path: Path, request: pytest.FixtureRequest, language_model: str
) -> None:
    save(tmp_path, *assemble_lively(Parts(str(clip_dir), str(request.getfixturevalue(language_model)))))
    _, ours = load(tmp_path, dtype=torch.float32)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["llava_lite"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, read_off = load(tmp_path, dtype=torch.float32)
    asked = Conversation().ask("What is it?", [PilImage.new("RGB", (40, 30))]).answer("A cat.").ask("And its color?")
    assert read_off.encode(asked).input_ids.tolist() == ours.encode(asked).input_ids.tolist()
    assert read_off.transform.mode == ours.transform.mode == "pad"


def test_a_folder_of_ours_that_lost_our_section_is_broken(parts: Parts, tmp_path: Path) -> None:
    save(tmp_path, *assemble_lively(replace(parts, projector="linear")))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["llava_lite"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="its section llava_lite is gone"):
        load(tmp_path, dtype=torch.float32)


def test_a_stopped_runs_folder_names_its_newest_checkpoint(llava_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(llava_dir, tmp_path / "step-2")
    with pytest.raises(CheckpointError, match=r"its newest checkpoint is .*step-2"):
        load(tmp_path, dtype=torch.float32)


def test_a_shard_index_cannot_lead_out_of_the_folder(llava_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(llava_dir, folder)
    index = {"weight_map": {"a": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError):
        load(folder, dtype=torch.float32)


JINJA = (
    "{{ bos_token }}{% for m in messages %}{{ m.role + ' says ' + m.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant says {% endif %}"
)


@pytest.fixture
def talking_lm_dir(lm_dir: Path, tmp_path: Path) -> Path:
    """A language model whose tokenizer brings a chat template of its own."""
    shutil.copytree(lm_dir, tmp_path / "talking")
    (tmp_path / "talking" / "chat_template.jinja").write_text(JINJA)
    return tmp_path / "talking"


@pytest.mark.parametrize("kind", ["whole", "of another class", "projector", "text"])
def test_a_tokenizers_own_template_is_stored_whole_and_never_derived_again(
    clip_dir: Path, talking_lm_dir: Path, tmp_path: Path, monkeypatch, kind: str
) -> None:
    tower = None if kind == "text" else str(clip_dir)
    projector = "linear" if kind == "of another class" else "mlp2x_gelu"
    parts = Parts(tower, str(talking_lm_dir), projector=projector, template="tokenizer")
    model, processor = assemble_lively(parts) if tower else assemble(parts, dtype=torch.float32)
    assert processor.template.user == "user says {}</s>assistant says " and processor.template.end == "</s>"
    save(tmp_path / "m", model, processor, parts=parts if kind == "projector" else None)
    monkeypatch.setattr("llava_lite.checkpoint.parts.derive_template", lambda *_: 1 / 0)
    _, again = load(tmp_path / "m", dtype=torch.float32)
    assert again.template == processor.template and again.writes_bos
    conversation = Conversation().ask("Hello.").answer("Hello.").ask("And?")
    assert again.encode(conversation).input_ids.tolist() == processor.encode(conversation).input_ids.tolist()


def test_a_checkpoints_tokenizer_brings_the_template_it_was_trained_with(
    clip_dir: Path, talking_lm_dir: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    for tower in (str(clip_dir), None):
        save(tmp_path / "m", *assemble(Parts(tower, str(talking_lm_dir), template="vicuna_v1"), dtype=torch.float32))
        messages = [{"role": "user", "content": "Hello."}]
        text = AutoTokenizer.from_pretrained(tmp_path / "m").apply_chat_template(messages, tokenize=False)
        assert text.endswith("USER: Hello. ASSISTANT:")


def test_a_tokenizer_without_a_template_says_so(clip_dir: Path, lm_dir: Path) -> None:
    with pytest.raises(
        ConversationError,
        match=r"lm\d*: its tokenizer has no chat template; give one: template=\.\.\. of .*, model\.template=",
    ):
        assemble(Parts(str(clip_dir), str(lm_dir), template="tokenizer"), dtype=torch.float32)


def test_a_template_that_writes_todays_date_is_refused(talking_lm_dir: Path) -> None:
    (talking_lm_dir / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}" + JINJA)
    with pytest.raises(ConversationError, match=r"talking: .* writes today's date; give one: template="):
        assemble(Parts(None, str(talking_lm_dir), template="tokenizer"), dtype=torch.float32)


def test_the_processor_of_a_projector_reads_no_weights_of_its_parts(
    parts: Parts, tmp_path: Path, clip_dir: Path, lm_dir: Path
) -> None:
    for name, source in (("clip", clip_dir), ("lm", lm_dir)):
        shutil.copytree(source, tmp_path / name)
    here = replace(parts, vision_tower=str(tmp_path / "clip"), language_model=str(tmp_path / "lm"))
    save(tmp_path / "align", *assemble_lively(here), parts=here)
    expected = load_processor(tmp_path / "align").fingerprint
    for weights in tmp_path.rglob("model.safetensors"):
        weights.unlink()
    assert load_processor(tmp_path / "align").fingerprint == expected


def test_the_python_api_finds_lost_parts_and_takes_a_template(parts: Parts, tmp_path: Path) -> None:
    """As the message says that names what is lost."""
    for name in ("vision_tower", "language_model"):
        shutil.copytree(str(getattr(parts, name)), tmp_path / name)
    here = replace(parts, vision_tower=str(tmp_path / "vision_tower"), language_model=str(tmp_path / "language_model"))
    save(tmp_path / "m", *assemble_lively(here), parts=here)
    for name in ("vision_tower", "language_model"):
        shutil.rmtree(tmp_path / name)
        with pytest.raises(CheckpointError, match=rf"its {name} is not at .*: {name}=\.\.\. of llava_lite\.load"):
            llava_lite.load(tmp_path / "m", **({} if name == "vision_tower" else {"vision_tower": parts.vision_tower}))
    again = {"vision_tower": parts.vision_tower, "language_model": parts.language_model}
    assert llava_lite.load(tmp_path / "m", template="llava_v1", **again).processor.template.name == "llava_v1"
