"""Asking: batch equals single, streamed equals whole, no broken characters, and a reader may leave."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import llava_lite
from llava_lite.conversation.families import find_template
from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Sampling
from llava_lite.generation.streaming import TextQueue
from tests.conftest import assemble_lively

SHORT = Sampling(max_new_tokens=10)


@pytest.fixture(scope="module")
def assistant(parts) -> Assistant:
    return Assistant(*assemble_lively(parts))


@pytest.fixture
def conversations(world: Path) -> list[Conversation]:
    """Ragged: no image, one, two, a long dialogue."""
    a, b = sorted((world / "images").glob("*.png"))[:2]
    return [
        Conversation().ask("Hello."),
        Conversation().ask("What color is it?", [a]),
        Conversation().ask("Compare them.", [a, b]),
        Conversation().ask("What is it?", [b]).answer("A red circle at the top left.").ask("Are there two of them?"),
    ]


def test_batch_equals_single(assistant: Assistant, conversations: list[Conversation]) -> None:
    replies = assistant.reply(conversations, SHORT)
    assert replies == [assistant.reply([conversation], SHORT)[0] for conversation in conversations]
    assert len(set(replies)) > 1


def test_batched_logits_equal_single_ones(assistant: Assistant, conversations: list[Conversation]) -> None:
    scores: dict[str, list[torch.Tensor]] = {"batch": [], "single": []}
    head = assistant.model.language_model.get_output_embeddings()
    for key, groups in (("batch", [conversations]), ("single", [[c] for c in conversations])):
        hook = head.register_forward_hook(lambda m, args, out, key=key: scores[key].append(out[:, -1]))
        for group in groups:
            assistant.reply(group, Sampling(max_new_tokens=1))
        hook.remove()
    torch.testing.assert_close(scores["batch"][0], torch.cat(scores["single"]), atol=1e-5, rtol=0)


def test_streamed_equals_whole(assistant: Assistant, conversations: list[Conversation]) -> None:
    for conversation in conversations:
        pieces = list(assistant.stream(conversation, SHORT))
        assert "".join(pieces) == assistant.reply([conversation], SHORT)[0]
        assert len(pieces) > 1


def test_cached_decoding_equals_a_fresh_forward(assistant: Assistant, conversations: list[Conversation]) -> None:
    for conversation in conversations:
        example = assistant.processor.encode(conversation)
        ids = assistant._generate([example], SHORT)[0]
        whole = torch.cat([example.input_ids, ids])
        logits = assistant.model.logits(
            input_ids=whole[None],
            position_ids=torch.arange(len(whole))[None],
            pixel_values=example.pixel_values,
            patch_index=example.patch_index,
        )[0, len(example.input_ids) - 1 : -1]
        logits[:, assistant.processor.image_token_id] = -torch.inf
        assert logits.argmax(-1).tolist() == ids.tolist()


@pytest.fixture(scope="module")
def whole(assistant: Assistant) -> str:
    """What the model says where its answers end only at a token."""
    return assistant.ask("Hello.", sampling=SHORT)


@pytest.mark.parametrize("place", range(2, 12, 3))
def test_an_answer_ends_before_its_end_text_in_a_batch_alone_and_streamed(
    assistant: Assistant, conversations: list[Conversation], whole: str, place: int
) -> None:
    end = whole[place : place + 4]
    template = replace(assistant.processor.template, answer=f" {{}}{end}")
    ending = Assistant(assistant.model, assistant.processor.with_template(template))
    asked = conversations[:3]
    cut = [reply.partition(end)[0].strip() for reply in assistant.reply(asked, SHORT)]
    assert ending.reply(asked, SHORT) == cut and cut[0] != whole
    assert [ending.reply([conversation], SHORT)[0] for conversation in asked] == cut
    assert ["".join(ending.stream(conversation, SHORT)) for conversation in asked] == cut


def test_generation_stops_at_the_end_text(assistant: Assistant, whole: str) -> None:
    example = assistant.processor.encode(Conversation().ask("Hello."))
    template = replace(assistant.processor.template, answer=f" {{}}{whole[:3]}")
    ending = Assistant(assistant.model, assistant.processor.with_template(template))
    assert len(ending._generate([example], SHORT)[0]) < len(assistant._generate([example], SHORT)[0])


@pytest.mark.parametrize("said", ["a cat ###\nHuman: and", "a # b## c##", "a cat #", "###", "a####"])
def test_what_may_become_the_end_text_waits(assistant: Assistant, said: str) -> None:
    processor = assistant.processor.with_template(find_template("llava_v0"))
    texts = TextQueue(processor.decode, processor.end_text)
    ids = processor.tokenizer.encode(said, add_special_tokens=False)
    for token in ids:
        texts.put(torch.tensor([token]))
    texts.end()
    pieces = [texts.pieces.get() for _ in range(texts.pieces.qsize() - 1)]
    assert "".join(pieces) == processor.decode(ids) == said.partition("###")[0].strip()


def test_characters_of_several_tokens_are_not_broken(assistant: Assistant) -> None:
    tokenizer = assistant.processor.tokenizer
    text = "a 日本 🦙 circle"
    texts = TextQueue(assistant.processor.decode)
    for token in tokenizer.encode(text, add_special_tokens=False):
        texts.put(torch.tensor([token]))
    texts.end()
    pieces = [texts.pieces.get() for _ in range(texts.pieces.qsize() - 1)]
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_a_reader_that_leaves_stops_the_generation(assistant: Assistant) -> None:
    steps = []
    hook = assistant.model.language_model.register_forward_hook(lambda *args: steps.append(1))
    stream = assistant.stream(Conversation().ask("Hello."), Sampling(max_new_tokens=500))
    next(stream)
    stream.close()
    hook.remove()
    assert len(steps) < 400


def test_an_error_while_streaming_reaches_the_reader(assistant: Assistant, monkeypatch) -> None:
    monkeypatch.setattr(assistant.model.language_model, "generate", lambda **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(assistant.stream(Conversation().ask("Hello."), SHORT))


def test_sampling_depends_on_its_seed_alone(assistant: Assistant, conversations: list[Conversation]) -> None:
    def draw(seed: int) -> str:
        torch.manual_seed(torch.seed() % 1000)
        return assistant.reply(conversations[1:2], Sampling(max_new_tokens=10, temperature=1.0, seed=seed))[0]

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_asking_draws_no_global_random_number(assistant: Assistant) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assistant.ask("Hello.", sampling=Sampling(max_new_tokens=2, temperature=1.0))
    assert torch.equal(before, torch.get_rng_state())


def test_a_conversation_that_awaits_no_answer_is_refused(assistant: Assistant) -> None:
    with pytest.raises(ConversationError, match="ends with an answer"):
        assistant.reply([Conversation().ask("a").answer("b")])


def test_load_opens_a_folder_by_its_path(llava_dir: Path, world: Path) -> None:
    image = sorted((world / "images").glob("*.png"))[0]
    assistant = llava_lite.load(llava_dir)
    assert assistant.ask("What is it?", [image], sampling=SHORT) == assistant.ask(
        "What is it?", [image.read_bytes()], sampling=SHORT
    )
    assert assistant.reply([]) == []
