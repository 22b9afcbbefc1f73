"""Asking: batch equals single, streamed equals whole, no broken characters, and a reader may leave."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import llava_lite
from llava_lite.checkpoint.folder import save
from llava_lite.checkpoint.parts import Parts
from llava_lite.conversation.families import find_template
from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.demo.parts import write_language_model
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import GenerationError, Sampling
from llava_lite.generation.decoding import Row
from llava_lite.generation.streaming import Transcript
from llava_lite.processor import Processor
from tests.conftest import assemble_lively
from tests.strategies import ANY

SHORT = Sampling(max_new_tokens=10)


@pytest.fixture(scope="module")
def assistant(parts) -> Assistant:
    return Assistant(*assemble_lively(parts))


def answered(assistant: Assistant, conversation: Conversation, sampling: Sampling = SHORT) -> Row:
    """Answer alone, with nothing kept of earlier turns."""
    decoder, row = assistant.decoder(keep=False), assistant.prepare(conversation, sampling)
    decoder.join([row])
    while decoder.release():
        decoder.step()
    return row


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
    batches = [conversations[:3], [], conversations[3:]]
    assert list(assistant.replies(batches, SHORT)) == [replies[:3], [], replies[3:]]


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
        ids = answered(assistant, conversation).ids
        whole = torch.cat([example.input_ids, torch.tensor(ids)])
        logits = assistant.model.logits(
            input_ids=whole[None],
            position_ids=torch.arange(len(whole))[None],
            pixel_values=example.pixel_values,
            patch_index=example.patch_index,
        )[0, len(example.input_ids) - 1 : -1]
        logits[:, assistant.processor.image_token_id] = -torch.inf
        assert logits.argmax(-1).tolist() == ids


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
    asked = Conversation().ask("Hello.")
    template = replace(assistant.processor.template, answer=f" {{}}{whole[:3]}")
    ending = Assistant(assistant.model, assistant.processor.with_template(template))
    assert len(answered(ending, asked).ids) < len(answered(assistant, asked).ids)


@pytest.mark.parametrize("place", range(2, 12, 3))
def test_an_answer_ends_before_the_first_stop_text(
    assistant: Assistant, conversations: list[Conversation], whole: str, place: int
) -> None:
    stop = replace(SHORT, stop=("not there", whole[place : place + 3], whole[place + 1 : place + 5]))
    cut = whole[: min(whole.find(text) for text in stop.stop[1:])].strip()
    assert assistant.reply(conversations[:3], stop)[0] == cut
    assert "".join(assistant.stream(conversations[0], stop)) == cut
    assert answered(assistant, conversations[0], stop).finish.reason == "stop"


def pieces_of(transcript: Transcript, ids: list[int]) -> list[str]:
    """Read an answer a token at a time, as far as it goes."""
    pieces = []
    for end in range(1, len(ids) + 1):
        pieces.append(transcript.read(ids[:end], last=end == len(ids)))
        if transcript.ended:
            break
    return pieces


@pytest.mark.parametrize("said", ["a cat ###\nHuman: and", "a # b## c##", "a cat #", "###", "a####"])
def test_what_may_become_the_end_text_waits(assistant: Assistant, said: str) -> None:
    processor = assistant.processor.with_template(find_template("llava_v0"))
    ids = processor.tokenizer.encode(said, add_special_tokens=False)
    pieces = pieces_of(Transcript(processor.read, [processor.end_text]), ids)
    assert "".join(pieces) == processor.decode(ids) == said.partition("###")[0].strip()


@ANY
@given(text=st.text("ab #\n日🦙"), ends=st.lists(st.text("ab#", min_size=1, max_size=3), max_size=1))
def test_pieces_joined_are_the_answer_up_to_its_end(assistant: Assistant, text: str, ends: list[str]) -> None:
    ids = assistant.processor.tokenizer.encode(text, add_special_tokens=False) or [assistant.processor.end_token_id]
    whole = assistant.processor.read(ids)
    places = [place for end in ends if (place := whole.find(end)) >= 0]
    expected = whole[: min(places, default=len(whole))].strip()
    transcript = Transcript(assistant.processor.read, ends, assistant.processor.word_tokens)
    assert "".join(pieces_of(transcript, ids)) == transcript.text == expected


@ANY
@given(data=st.data())
def test_pieces_joined_are_what_any_tokens_say(row_processor: Processor, data: st.DataObject) -> None:
    """Among them bytes that make no character, special tokens, and one that the tokenizer does not have."""
    ids = data.draw(st.lists(st.sampled_from([*range(0, 400, 3), 5000]), min_size=1, max_size=12))
    transcript = Transcript(row_processor.read, (), row_processor.word_tokens)
    assert "".join(pieces_of(transcript, ids)) == row_processor.read(ids).strip()


def test_characters_of_several_tokens_are_not_broken(assistant: Assistant) -> None:
    text = "a 日本 🦙 circle"
    ids = assistant.processor.tokenizer.encode(text, add_special_tokens=False)
    pieces = pieces_of(Transcript(assistant.processor.read, (), assistant.processor.word_tokens), ids)
    assert "".join(pieces) == text and len(ids) > len(text)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_characters_whose_bytes_are_words_of_their_own_are_not_broken() -> None:
    text = "a 日本 🦙 circle"  # as byte-level tokenizers cut it, none of whose tokens is written <0x0A>
    pieces = pieces_of(Transcript(lambda ids: bytes(ids).decode(errors="replace")), list(text.encode()))
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
    monkeypatch.setattr(assistant.model, "extend", lambda **kwargs: 1 / 0)
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


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"max_new_tokens": 0}, {"stop": ("",)}]
)
def test_sampling_out_of_range_is_refused(wrong: dict) -> None:
    with pytest.raises(GenerationError, match=f"out of range: {next(iter(wrong))}="):
        Sampling(**wrong)


def test_top_k_of_one_is_greedy_and_a_row_draws_alone_what_it_draws_beside_others(
    assistant: Assistant, conversations: list[Conversation]
) -> None:
    greedy = assistant.reply(conversations, SHORT)
    assert assistant.reply(conversations, replace(SHORT, temperature=2.0, top_k=1)) == greedy
    assert assistant.reply(conversations, replace(SHORT, temperature=2.0, top_p=1e-6)) == greedy
    drawing = replace(SHORT, temperature=1.5, top_p=0.9, top_k=50, seed=3)
    drawn = assistant.reply(conversations, drawing)
    assert drawn == [assistant.reply([conversation], drawing)[0] for conversation in conversations] != greedy


def test_a_repetition_penalty_makes_words_rarer(assistant: Assistant, conversations: list[Conversation]) -> None:
    plain = answered(assistant, conversations[1], replace(SHORT, max_new_tokens=40)).ids
    varied = answered(assistant, conversations[1], replace(SHORT, max_new_tokens=40, repetition_penalty=3.0)).ids
    assert len(set(varied)) / len(varied) > len(set(plain)) / len(plain)


def test_a_conversation_longer_than_the_context_is_refused_with_both_numbers(assistant: Assistant, world: Path) -> None:
    image = sorted((world / "images").glob("*.png"))[0]
    long = Conversation().ask("What is it?", [image]).answer("A red circle.").ask("And what color is the square?")
    num_tokens = len(assistant.processor.encode(long).input_ids)
    small = Assistant(assistant.model, replace(assistant.processor, max_positions=num_tokens))
    with pytest.raises(GenerationError, match=f"has {num_tokens} tokens, but the model's context is {num_tokens}"):
        small.reply([long])
    roomy = Assistant(assistant.model, replace(assistant.processor, max_positions=num_tokens + 2))
    finish = answered(roomy, long, SHORT).finish
    assert (finish.reason, finish.num_prompt_tokens, finish.num_answer_tokens) == ("length", num_tokens, 2)


def test_the_oldest_rounds_are_dropped_where_asked(assistant: Assistant, world: Path) -> None:
    image = sorted((world / "images").glob("*.png"))[0]
    last = Conversation().ask("What color is it?", [image])
    long = Conversation().ask("What?", [image]).answer("A.").ask("And?", [image]).answer("B.")
    long = replace(long, messages=long.messages + last.messages)
    room = len(assistant.processor.encode(last).input_ids) + 10
    dropping = Assistant(assistant.model, replace(assistant.processor, max_positions=room), drop_oldest=True)
    row = answered(dropping, long)
    assert row.finish.num_dropped_turns == 4 and row.text == answered(assistant, last).text
    with pytest.raises(GenerationError, match="the last turn has"):
        dropping.reply([Conversation().ask("Hi").answer("A.").ask("red " * room)])


def test_rounds_are_dropped_for_a_whole_answer_and_no_more_than_that_takes(assistant: Assistant) -> None:
    talk = Conversation().ask("red " * 20).answer("b").ask("blue " * 20).answer("d").ask("e")
    num_tokens = assistant.processor.num_tokens(talk)
    asked = Sampling(max_new_tokens=8)
    for spare, num_dropped in ((8, 0), (7, 2)):
        processor = replace(assistant.processor, max_positions=num_tokens + spare)
        dropping = Assistant(assistant.model, processor, drop_oldest=True)
        assert answered(dropping, talk, asked).finish.num_dropped_turns == num_dropped
        refusing = Assistant(assistant.model, processor)
        assert answered(refusing, talk, asked).finish.num_dropped_turns == 0


def test_what_is_dropped_is_not_counted_over_and_over(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation()
    for _ in range(200):
        talk = talk.ask("red " * 50).answer("A circle.")
    dropping = Assistant(assistant.model, replace(assistant.processor, max_positions=300), drop_oldest=True)
    counted: list[int] = []
    num_tokens = Processor.num_tokens

    def count(processor: Processor, conversation: Conversation) -> int:
        counted.append(len(conversation.messages))
        return num_tokens(processor, conversation)

    monkeypatch.setattr(Processor, "num_tokens", count)
    dropping.prepare(talk.ask("And?"), SHORT)
    assert counted[0] == 401 and max(counted[1:]) < 20


@pytest.fixture(scope="module")
def broad_dir(clip_dir: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint whose matrices are as broad as bitsandbytes' blocks of 4 bits."""
    lm, folder = tmp_path_factory.mktemp("broad-lm"), tmp_path_factory.mktemp("broad")
    write_language_model(lm, world, hidden_size=64, num_layers=2, num_heads=2, intermediate_size=128)
    save(folder, *assemble_lively(Parts(str(clip_dir), str(lm))))
    return folder


@pytest.mark.parametrize(
    ("options", "dtype", "layer"),
    [
        ({}, torch.float32, "Linear"),
        ({"device": "cpu", "dtype": torch.float16}, torch.float16, "Linear"),
        ({"quantize": "4bit"}, torch.float32, "Linear4bit"),
        ({"quantize": "8bit"}, torch.float32, "Linear8bitLt"),
    ],
)
def test_a_folder_is_opened_on_a_device_in_a_dtype_and_quantised(
    broad_dir: Path, world: Path, options: dict, dtype: torch.dtype, layer: str
) -> None:
    assistant = llava_lite.load(broad_dir, **options)
    assert assistant.model.language_model.dtype == assistant.model.projector[0].weight.dtype == dtype
    assert type(assistant.model.language_model.model.layers[0].mlp.up_proj).__name__ == layer
    image = sorted((world / "images").glob("*.png"))[0]
    assert assistant.ask("What is it?", [image], sampling=SHORT)
