"""A LLaVA that transformers wrote opens here as it is: its ids, its pixels, its logits; or it is refused with why."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PilImage
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration, PreTrainedTokenizerBase, SiglipImageProcessorPil

from llava_lite.checkpoint.folder import load, load_processor, save
from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.conversation.message import Conversation
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Sampling
from llava_lite.images.loading import ImageError
from llava_lite.models.language_model import load_tokenizer
from llava_lite.models.pretrained import PartError
from llava_lite.processor import Processor
from tests.families import make_gemma_tokenizer, make_qwen_tokenizer
from tests.foreign import BOS_ROLES, CHATML, GEMMA, ROLES, SQUARE, TILE, padding_image_processor, write_foreign
from tests.models.test_adapter import LORA
from tests.test_house import ROOT, config_of

PICTURES = [PilImage.linear_gradient("L").resize(size).convert("RGB").rotate(30) for size in ((70, 40), (40, 90))]
MAKERS = {
    "sentencepiece": lambda vicuna, legacy: load_tokenizer(str(vicuna)),
    "sentencepiece, legacy": lambda vicuna, legacy: load_tokenizer(str(legacy)),
    "byte-level": lambda vicuna, legacy: make_qwen_tokenizer(),
    "gemma": lambda vicuna, legacy: make_gemma_tokenizer(),
}
CASES = [(kind, template) for kind in MAKERS for template in (ROLES, CHATML, GEMMA, BOS_ROLES)]
CASES = [
    (kind, template)
    for kind, template in CASES
    if not (kind == "byte-level" and "bos_token" in template) and (kind == "byte-level" or template != CHATML)
]


@pytest.fixture(scope="session")
def tokenizer_of(vicuna_dir: Path, legacy_dir: Path) -> Callable[[str], PreTrainedTokenizerBase]:
    def make(kind: str) -> PreTrainedTokenizerBase:
        tokenizer = MAKERS[kind](vicuna_dir, legacy_dir)
        if "sentencepiece" in kind:
            tokenizer.add_tokens(["<end_of_turn>", "<start_of_turn>"], special_tokens=True)
        return tokenizer

    return make


def conversations() -> dict[str, Conversation]:
    one = Conversation().ask("What is it?", PICTURES[:1])
    return {
        "an image": one,
        "two rounds": one.answer("A red cat.").ask("And left of it?"),
        "an image in a later turn": Conversation().ask("Hello.").answer("Hello.").ask("What is it?", PICTURES[1:]),
        "two images": Conversation().ask("Compare them.", PICTURES),
        "text alone": Conversation().ask("What is a circle?"),
        "a line break": Conversation().ask("Two\n\nlines, and  spaces", PICTURES[:1]),
        "a system text": Conversation(system="Be brief.").ask("What is it?", PICTURES[:1]),
    }


def messages_of(conversation: Conversation) -> list[dict[str, Any]]:
    texts = [{"role": "system", "content": [{"type": "text", "text": conversation.system}]}]
    return [
        *(texts if conversation.system else []),
        *(
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part.source}
                    for part in message.content
                ],
            }
            for message in conversation.messages
        ),
    ]


def inputs_of(folder: Path, conversation: Conversation) -> dict[str, torch.Tensor]:
    """What transformers' own processor makes of a conversation."""
    return AutoProcessor.from_pretrained(folder).apply_chat_template(
        messages_of(conversation), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def assert_same_inputs(folder: Path, processor: Processor) -> None:
    for name, conversation in conversations().items():
        theirs, ours = inputs_of(folder, conversation), processor.encode(conversation)
        assert theirs["input_ids"][0].tolist() == ours.input_ids.tolist(), name
        assert processor.num_tokens(conversation) == len(ours.input_ids) == processor.length(conversation)[0], name
        if conversation.images:
            assert torch.equal(theirs["pixel_values"].flatten(0, -4), ours.pixel_values), name


@pytest.mark.parametrize(("kind", "template"), CASES)
def test_its_own_processor_and_ours_give_the_same_ids_and_pixels(
    tokenizer_of: Callable[[str], PreTrainedTokenizerBase], tmp_path: Path, kind: str, template: str
) -> None:
    write_foreign(tmp_path, tokenizer_of(kind), template)
    processor = load_processor(tmp_path)
    assert processor.transform.mode == "crop"
    assert_same_inputs(tmp_path, processor)


@pytest.fixture(scope="module")
def foreign_dir(vicuna_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    write_foreign(folder, load_tokenizer(str(vicuna_dir)), ROLES)
    return folder


def edit(folder: Path, source: Path, **changes: Any) -> Path:
    """Copy a folder and change its config.json."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@torch.no_grad()
def assert_same_model(theirs: LlavaForConditionalGeneration, folder: Path) -> None:
    model, processor = load(folder, dtype=torch.float32)
    conversation = conversations()["an image"]
    example = processor.encode(conversation)
    logits = model.logits(
        input_ids=example.input_ids[None],
        position_ids=torch.arange(len(example.input_ids))[None],
        pixel_values=example.pixel_values,
        patch_index=example.patch_index,
    )
    inputs = inputs_of(folder, conversation)
    torch.testing.assert_close(theirs(**inputs).logits, logits, atol=1e-5, rtol=0)
    new = theirs.generate(**inputs, max_new_tokens=8, do_sample=False)[0, len(example.input_ids) :]
    ours = Assistant(model, processor).reply([conversation], Sampling(max_new_tokens=8))[0]
    assert processor.tokenizer.decode(new, skip_special_tokens=True).strip() == ours


@pytest.mark.parametrize("layer", [-2, -1, 2])
@pytest.mark.parametrize("names", ["as saved", "in memory", "published"])
def test_logits_and_answers_are_its_own_in_every_layout(
    vicuna_dir: Path, tmp_path: Path, names: str, layer: int
) -> None:
    theirs = write_foreign(
        tmp_path,
        load_tokenizer(str(vicuna_dir)),
        ROLES,
        original_format=names != "in memory",
        vision_feature_layer=layer,
    )
    if names == "published":
        weights = load_file(tmp_path / "model.safetensors")
        weights = {name.replace("vision_tower.", "vision_tower.vision_model."): w for name, w in weights.items()}
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same_model(theirs, tmp_path)
    vocabulary = load(tmp_path, dtype=torch.float32)[0].language_model.config.vocab_size
    assert vocabulary % 64 == 0 and vocabulary > len(load_processor(tmp_path).tokenizer)


def test_pickled_weights_are_read_where_there_are_no_others(foreign_dir: Path, tmp_path: Path) -> None:
    folder = edit(tmp_path / "m", foreign_dir)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_same_model(LlavaForConditionalGeneration.from_pretrained(foreign_dir).eval(), folder)


def test_code_in_pickled_weights_does_not_run(foreign_dir: Path, tmp_path: Path) -> None:
    folder = edit(tmp_path / "m", foreign_dir)
    (folder / "model.safetensors").unlink()
    torch.save({"a": Path("not a tensor")}, folder / "pytorch_model.bin")
    with pytest.raises(
        PartError, match=r"pytorch_model.bin: holds something else than tensors|it holds more than tensors"
    ):
        load(folder, dtype=torch.float32)


TOWERS: dict[str, dict[str, Any]] = {
    "siglip": {
        "vision": {"model_type": "siglip_vision_model"},
        "strategy": "full",
        "num_additional": 0,
        "image_processor": SiglipImageProcessorPil(size=SQUARE),
    },
    "dinov2": {"vision": {"model_type": "dinov2"}},
    "padded": {"image_processor": padding_image_processor()},
}


@pytest.mark.parametrize(("tower", "mode"), [("siglip", "resize"), ("dinov2", "crop"), ("padded", "pad")])
def test_towers_and_image_processors_are_its_own(vicuna_dir: Path, tmp_path: Path, tower: str, mode: str) -> None:
    theirs = write_foreign(tmp_path, load_tokenizer(str(vicuna_dir)), ROLES, **TOWERS[tower])
    processor = load_processor(tmp_path)
    assert processor.transform.mode == mode
    assert_same_inputs(tmp_path, processor)
    assert_same_model(theirs, tmp_path)


@pytest.mark.parametrize("text", [{"model_type": "qwen2", "tie_word_embeddings": True}, {"model_type": "gemma"}])
def test_tied_embeddings_stay_tied(tmp_path: Path, text: dict[str, Any]) -> None:
    tokenizer = make_qwen_tokenizer() if text["model_type"] == "qwen2" else make_gemma_tokenizer()
    theirs = write_foreign(tmp_path, tokenizer, CHATML if text["model_type"] == "qwen2" else GEMMA, text=text)
    assert_same_model(theirs, tmp_path)


def test_an_image_token_of_another_name_is_kept(tmp_path: Path) -> None:
    theirs = write_foreign(
        tmp_path / "a", make_qwen_tokenizer(), CHATML.replace("<image>", "<|picture|>"), image_token="<|picture|>"
    )
    assert_same_inputs(tmp_path / "a", load_processor(tmp_path / "a"))
    assert_same_model(theirs, tmp_path / "a")
    save(tmp_path / "b", *load(tmp_path / "a", dtype=torch.float32))
    assert load_processor(tmp_path / "b").fingerprint == load_processor(tmp_path / "a").fingerprint
    assert_same_inputs(tmp_path / "b", load_processor(tmp_path / "b"))


@pytest.mark.parametrize(("kind", "template"), CASES)
def test_saved_by_us_it_opens_in_transformers_with_the_same_ids(
    tokenizer_of: Callable[[str], PreTrainedTokenizerBase], tmp_path: Path, kind: str, template: str
) -> None:
    write_foreign(tmp_path / "a", tokenizer_of(kind), template)
    model, processor = load(tmp_path / "a", dtype=torch.float32)
    save(tmp_path / "b", model, processor)
    again, its_processor = load(tmp_path / "b", dtype=torch.float32)
    assert its_processor.template == processor.template and its_processor.transform == processor.transform
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())
    assert_same_inputs(tmp_path / "b", processor)
    assert_same_inputs(tmp_path / "b", its_processor)


def test_a_template_of_the_table_may_be_given(foreign_dir: Path, tmp_path: Path) -> None:
    assert load_processor(foreign_dir, template="vicuna_v1").template.name == "vicuna_v1"
    silent = edit(tmp_path / "m", foreign_dir)
    (silent / "chat_template.jinja").unlink()
    with pytest.raises(
        CheckpointError, match=r"has no chat template; say .*, one of chatml, .*: template=\.\.\. of llava_lite.load"
    ):
        load_processor(silent)
    model, processor = load(silent, dtype=torch.float32, template="vicuna_v1")
    assert processor.template.end == "</s>" and model.vision_tower is not None


@pytest.mark.parametrize("place", ["chat_template.json", "processor_config.json", "tokenizer"])
def test_the_chat_template_is_found_wherever_transformers_finds_it(
    foreign_dir: Path, tmp_path: Path, place: str
) -> None:
    folder = edit(tmp_path / "m", foreign_dir)
    text = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    name = "tokenizer_config.json" if place == "tokenizer" else place
    settings = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    (folder / name).write_text(json.dumps(settings | {"chat_template": text}))
    assert load_processor(folder).template == load_processor(foreign_dir).template


REFUSED = {
    "no newline": (ROLES.replace("'<image>\n'", "'<image>'"), r"it writes 'USER: <image>' where .*template=\.\.\."),
    "images last": (
        CHATML.replace("<image>\n", "").replace("{{ '<|im_end|>", "{{ '<image>' if m.role == 'user' }}{{ '<|im_end|>"),
        r"template=\.\.\.",
    ),
    "one image at most": (
        ROLES.replace(
            "{% for part in m.content if part.type == 'image' %}", "{% if m.content[0].type == 'image' %}", 1
        ).replace("{{ '<image>\n' }}{% endfor %}", "{{ '<image>\n' }}{% endif %}", 1),
        r"it writes .* where fixed strings give .*template=\.\.\.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_images_in_other_places_than_ours_are_refused_with_the_remedy(
    foreign_dir: Path, tmp_path: Path, case: str
) -> None:
    folder = edit(tmp_path / "m", foreign_dir)
    (folder / "chat_template.jinja").write_text(REFUSED[case][0])
    with pytest.raises(CheckpointError, match=REFUSED[case][1]):
        load_processor(folder)
    assert load_processor(folder, template="vicuna_v1")


def vision(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda config: {"vision_config": config["vision_config"] | changes}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"vision_feature_layer": [-2, -1]}, r"vision_feature_layer \[-2, -1\] \(several layers"),
        ({"vision_feature_layer": -7}, "has no layer -7; it has 4 blocks"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy full"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act relu"),
        ({"multimodal_projector_bias": False}, "a projector without bias"),
        ({"image_token_index": 7}, r"config.json has the image token at 7, and '<image>' is at \d+"),
        ({"vision_config": {"model_type": "vit"}}, "unknown vision tower 'vit'; known: clip_vision_model"),
        ({"text_config": {"model_type": "opt"}}, "unknown language model 'opt'"),
        ({"image_token_index": "x"}, "config.json, .* is broken .*'image_token_index' expected int, got str"),
        ({"text_config": 3}, "config.json, .* is broken .*'int' object is not iterable"),
    ],
)
def test_what_ours_cannot_follow_is_refused_with_why(
    foreign_dir: Path, tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    folder = edit(tmp_path / "m", foreign_dir, **changes)
    for open_it in (load_processor, lambda folder: load(folder, dtype=torch.float32)):
        with pytest.raises((CheckpointError, PartError), match=what):
            open_it(folder)


def test_an_image_processor_that_cuts_a_padded_picture_is_refused(vicuna_dir: Path, tmp_path: Path) -> None:
    processor = padding_image_processor()
    processor.size = {"shortest_edge": TILE + 8}
    write_foreign(tmp_path, load_tokenizer(str(vicuna_dir)), ROLES, image_processor=processor)
    with pytest.raises(ImageError, match="cuts tiles of 32 pixels out of 40, which no image mode does but crop"):
        load_processor(tmp_path)


@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_a_folder_without_a_processor_says_so(foreign_dir: Path, tmp_path: Path, file: str) -> None:
    folder = edit(tmp_path / "m", foreign_dir)
    for name in ("preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="no LLaVA processor here"):
        load_processor(folder)


def test_an_adapter_beside_it_remembers_the_template_that_was_given(foreign_dir: Path, tmp_path: Path) -> None:
    silent = edit(tmp_path / "m", foreign_dir)
    (silent / "chat_template.jinja").unlink()
    model, processor = load(silent, dtype=torch.float32, template="vicuna_v1")
    model.add_lora(LORA)
    save(tmp_path / "a", model, processor, parts=str(silent))
    assert load_processor(tmp_path / "a").fingerprint == processor.fingerprint
    assert load(tmp_path / "a", dtype=torch.float32)[1].template.name == "vicuna_v1"


def test_stage_two_starts_from_it_with_the_template_that_it_lacks(foreign_dir: Path, tmp_path: Path) -> None:
    silent = edit(tmp_path / "m", foreign_dir)
    (silent / "chat_template.jinja").unlink()
    finetune = sys.modules[config_of(ROOT / "train" / "finetune.py").__module__]
    start = finetune.ModelConfig(checkpoint=str(silent), template="vicuna_v1", image_mode="pad")
    model, processor = finetune.start_model(start)
    assert processor.template.name == "vicuna_v1" and processor.transform.mode == "pad"
    assert model.vision_tower.model.config.num_hidden_layers == 3
