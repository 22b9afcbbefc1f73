"""The exported Jinja template writes what we write: for every row of the table, its text, and its ids where one
tokenizer call has to give what we tokenise in parts."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImage

from llava_lite.checkpoint.chat_template import chat_template
from llava_lite.checkpoint.transformers_format import generation_config
from llava_lite.conversation.derived import derive_template
from llava_lite.conversation.families import TEMPLATES, find_template
from llava_lite.conversation.message import Conversation, Image, Message
from llava_lite.conversation.template import ChatTemplate
from llava_lite.models.language_model import LANGUAGE_MODELS, load_language_model
from llava_lite.processor import Processor, prepare_tokenizer
from tests.conftest import row_tokenizer
from tests.strategies import ANY, contents, conversations

P = 16
RED, BLUE = (Image(PilImage.new("RGB", (24, 16), color)) for color in ("red", "blue"))

CONVERSATIONS = {
    "one image first": Conversation().ask("Q1 ?", [RED]),
    "several turns": Conversation().ask("Q1", [RED]).answer("A1").ask("Q2").answer("A2").ask("Q3"),
    "an answer last": Conversation().ask("Q1", [RED]).answer("A1").ask("Q2").answer("A2"),
    "an image in a later turn": Conversation().ask("Q1").answer("A1").ask("Q2", [RED]),
    "two images": Conversation().ask("Q1", [RED, BLUE]),
    "images between words": Conversation((Message("user", ("Is ", RED, " like", BLUE, "?")),)),
    "images after leading words": Conversation((Message("user", (" Is \n", RED, BLUE, "\n it? ")),)),
    "images last": Conversation((Message("user", ("Compare", RED, BLUE)),)),
    "an image alone": Conversation().ask("", [RED]),
    "text alone": Conversation().ask("Q1").answer("A1").ask("Q2"),
    "white space": Conversation().ask(" Q1\n").answer("\n A1 ").ask(" Q2 ", [RED]),
}
SYSTEMS = {"a system text": "Be brief.", "a system text with space": " Be\nbrief. ", "no system text": ""}
ROWS = list({replace(template, name=""): name for name, template in TEMPLATES.items()}.values())
"""Every row once, whatever its names."""
PLAIN = ("one image first", "two images", "images between words", "an image alone")
"""What stage one's template can write: an image in every turn."""


def messages_of(conversation: Conversation) -> list[dict[str, object]]:
    """A conversation as transformers' chat messages."""
    messages: list[dict[str, object]] = []
    if conversation.system is not None:
        messages.append({"role": "system", "content": [{"type": "text", "text": conversation.system}]})
    return messages + [
        {"role": message.role, "content": content_of(message.content)} for message in conversation.messages
    ]


def content_of(parts: tuple[str | Image, ...]) -> list[dict[str, str]]:
    return [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]


def exported_text(processor: Processor, conversation: Conversation) -> str:
    return written(processor, messages_of(conversation))


def written(processor: Processor, messages: list[dict[str, object]]) -> str:
    return str(
        processor.tokenizer.apply_chat_template(
            messages,
            chat_template=chat_template(processor),
            tokenize=False,
            add_generation_prompt=True,
        )
    )


def exported_ids(processor: Processor, conversation: Conversation) -> list[int]:
    text = exported_text(processor, conversation).replace("<image>", "<image>" * P)
    ids: list[int] = processor.tokenizer(text, add_special_tokens=False).input_ids
    return ids


def talks(template: ChatTemplate) -> dict[str, Conversation]:
    if not template.user_text:
        return {name: CONVERSATIONS[name] for name in PLAIN}
    if not template.system:
        return CONVERSATIONS
    first = CONVERSATIONS["several turns"]
    return CONVERSATIONS | {name: replace(first, system=text) for name, text in SYSTEMS.items()}


@pytest.mark.parametrize("row_processor", ["bytes"], indirect=True)
@pytest.mark.parametrize("name", ROWS)
def test_the_exported_template_writes_every_rows_text(row_processor: Processor, name: str) -> None:
    processor = row_processor.with_template(find_template(name))
    for talk, conversation in talks(processor.template).items():
        assert exported_text(processor, conversation) == processor.template.render(conversation).text, talk


@pytest.mark.parametrize("name", ROWS)
def test_the_exported_template_gives_every_rows_ids(row_processor: Processor, name: str) -> None:
    processor = row_processor.with_template(find_template(name))
    for talk, conversation in talks(processor.template).items():
        assert exported_ids(processor, conversation) == processor.encode(conversation).input_ids.tolist(), talk


@pytest.fixture(scope="module")
def byte_processor(clip_dir: Path, vicuna_dir: Path) -> Processor:
    tokenizer = row_tokenizer("bytes", vicuna_dir)
    return Processor(tokenizer, find_template("plain"), None, 0, prepare_tokenizer(tokenizer, image=False))


@pytest.fixture(scope="module")
def derived(byte_processor: Processor) -> dict[str, ChatTemplate]:
    """Every row's exported template, read back as a tokenizer's own."""

    def read_back(name: str) -> ChatTemplate:
        exported = chat_template(byte_processor.with_template(find_template(name)))

        def render(messages: list[dict[str, str]], ask: bool) -> str:
            write = byte_processor.tokenizer.apply_chat_template
            return str(write(messages, chat_template=exported, tokenize=False, add_generation_prompt=ask))

        return derive_template(name, render, byte_processor.tokenizer.bos_token)

    return {name: read_back(name) for name in ROWS if TEMPLATES[name].user_text}


def test_an_exported_row_is_read_back(derived: dict[str, ChatTemplate]) -> None:
    for name, template in derived.items():
        assert template == replace(find_template(name), image="{}", bos=False)


@ANY
@given(data=st.data())
def test_an_exported_row_read_back_writes_the_rows_text(derived: dict[str, ChatTemplate], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(derived)))
    conversation = data.draw(conversations(images=False))
    if not find_template(name).system:
        conversation = replace(conversation, system=None)
    assert derived[name].render(conversation) == find_template(name).render(conversation)


@ANY
@given(data=st.data())
def test_the_exported_template_writes_any_conversation(byte_processor: Processor, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in ROWS if TEMPLATES[name].user_text]))
    conversation = data.draw(conversations(images=True))
    if not find_template(name).system:
        conversation = replace(conversation, system=None)
    processor = byte_processor.with_template(find_template(name))
    assert exported_text(processor, conversation) == processor.template.render(conversation).text


@ANY
@given(name=st.sampled_from(["vicuna_v1", "v1_mmtag", "gemma"]), parts=contents)
def test_the_exported_template_spells_a_turn_as_we_do(
    byte_processor: Processor, name: str, parts: tuple[str | Image, ...]
) -> None:
    processor = byte_processor.with_template(find_template(name))
    ours = processor.template.render(Conversation((Message("user", parts),))).text
    assert written(processor, [{"role": "user", "content": content_of(parts)}]) == ours


def test_an_opening_is_exported(row_processor: Processor) -> None:
    template = ChatTemplate(name="t", user="{}>", answer="{}.", system="[{}]", opening="[]", bos=False)
    text = chat_template(row_processor.with_template(template))
    write = row_processor.tokenizer.apply_chat_template
    ask = {"role": "user", "content": "Q"}
    assert write([ask], chat_template=text, tokenize=False) == "[]Q>"
    assert write([{"role": "system", "content": "S"}, ask], chat_template=text, tokenize=False) == "[S]Q>"


def test_an_exported_template_without_a_place_refuses_a_system_text(row_processor: Processor) -> None:
    with pytest.raises(Exception, match="no place for a system text"):
        exported_text(row_processor.with_template(find_template("gemma")), Conversation(system="S").ask("Q"))


@pytest.mark.parametrize(
    ("name", "end"),
    [("vicuna_v1", "</s>"), ("llama_2", "</s>"), ("qwen_2_5", "<|im_end|>"), ("gemma", "<end_of_turn>")],
)
def test_generation_ends_at_the_token_in_the_end_mark(row_processor, lm_dir, name: str, end: str) -> None:
    config = generation_config(
        load_language_model(str(lm_dir), dtype="float32"), row_processor.with_template(find_template(name))
    )
    vocabulary = row_processor.tokenizer.get_vocab()
    assert set(config.eos_token_id) == {vocabulary["</s>"], vocabulary[end]} and config.stop_strings is None


def test_generation_ends_at_a_text_where_no_token_does(row_processor: Processor, lm_dir) -> None:
    config = generation_config(
        load_language_model(str(lm_dir), dtype="float32"), row_processor.with_template(find_template("llava_v0"))
    )
    assert config.stop_strings == ["###"] and config.eos_token_id == [row_processor.tokenizer.eos_token_id]


def test_every_language_familys_template_is_a_row() -> None:
    assert {family.template for family in LANGUAGE_MODELS.values()} <= set(TEMPLATES)
