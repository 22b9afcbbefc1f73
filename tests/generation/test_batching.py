"""Many who ask at the same time: each gets what it would get alone, whoever comes, goes or fails meanwhile."""

import queue
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llava_lite import distributed
from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.batching import Batcher
from llava_lite.generation.chat_model import Busy, Closed, Event, Finish, Sampling, TooLong
from llava_lite.images.loading import ImageError
from tests.conftest import assemble_lively

SHORT = Sampling(max_new_tokens=12)
ENDLESS = Sampling(max_new_tokens=1500)
IDLE = (0, 0)


@pytest.fixture(scope="module")
def alone(parts) -> Assistant:
    return Assistant(*assemble_lively(parts), keep_tokens=0)


@pytest.fixture
def batcher(alone: Assistant) -> Iterator[Batcher]:
    batcher = Batcher(Assistant(alone.model, alone.processor), max_answering=3, max_waiting=2)
    yield batcher
    batcher.close()


@pytest.fixture
def talks(world: Path) -> list[Conversation]:
    a, b = sorted((world / "images").glob("*.png"))[:2]
    return [
        Conversation().ask("Hello."),
        Conversation().ask("What color is it?", [a]),
        Conversation().ask("Compare them.", [a, b]),
        Conversation().ask("What is it?", [b]).answer("A red circle at the top left.").ask("Are there two of them?"),
        Conversation().ask("Is it blue?", [b]),
    ]


class Listener:
    """Collects the events of one answer."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def __call__(self, event: Event) -> None:
        self.events.put(event)

    def wait(self) -> tuple[str, Finish]:
        pieces = []
        while not isinstance(event := self.events.get(timeout=60), Finish):
            if isinstance(event, Exception):
                raise event
            pieces.append(event)
        assert self.events.empty()
        return "".join(pieces), event


def load_of(batcher: Batcher) -> tuple[int, int]:
    load = batcher.load()
    return load.num_answering, load.num_waiting


def wait_for(batcher: Batcher, load: tuple[int, int]) -> None:
    deadline = time.monotonic() + 60
    while load_of(batcher) != load:
        assert time.monotonic() < deadline, batcher.load()
        time.sleep(0.005)


def test_answers_made_together_are_those_made_alone(
    batcher: Batcher, alone: Assistant, talks: list[Conversation]
) -> None:
    lengths = (3, 12, 30, 7, 20)
    listeners = [Listener() for _ in talks]
    for talk, length, listener in zip(talks, lengths, listeners, strict=True):
        batcher.submit(talk, Sampling(max_new_tokens=length), listener)
        time.sleep(0.01)  # so that they join at different tokens
    for talk, length, listener in zip(talks, lengths, listeners, strict=True):
        text, finish = listener.wait()
        assert text == alone.reply([talk], Sampling(max_new_tokens=length))[0]
        assert finish.num_prompt_tokens == len(alone.processor.encode(talk).input_ids)
    wait_for(batcher, IDLE)


def test_it_is_a_chat_model(batcher: Batcher, alone: Assistant, talks: list[Conversation]) -> None:
    assert batcher.reply(talks, SHORT) == alone.reply(talks, SHORT)
    assert "".join(batcher.stream(talks[1], SHORT)) == alone.reply(talks[1:2], SHORT)[0]
    assert batcher.name == alone.name


def test_drawing_does_not_depend_on_who_else_asks(
    batcher: Batcher, alone: Assistant, talks: list[Conversation]
) -> None:
    drawing = Sampling(max_new_tokens=12, temperature=1.0, seed=7)
    beside = Listener()
    batcher.submit(talks[0], Sampling(max_new_tokens=60), beside)
    assert batcher.reply(talks[:3], drawing) == alone.reply(talks[:3], drawing)
    beside.wait()


def test_it_refuses_more_than_may_wait(batcher: Batcher, talks: list[Conversation]) -> None:
    listeners = [Listener() for _ in range(5)]
    tickets = [batcher.submit(talks[0], ENDLESS, listener) for listener in listeners]
    with pytest.raises(Busy, match="2 are waiting"):
        batcher.submit(talks[0], SHORT, Listener())
    for ticket in tickets:
        ticket.cancel()
    assert {listener.wait()[1].reason for listener in listeners} == {"cancelled"}
    wait_for(batcher, IDLE)
    assert batcher.reply(talks[:1], SHORT)


def test_a_cancelled_answer_frees_its_place(batcher: Batcher, alone: Assistant, talks: list[Conversation]) -> None:
    listeners = [Listener() for _ in range(4)]
    tickets = [batcher.submit(talks[0], ENDLESS, listener) for listener in listeners[:3]]
    batcher.submit(talks[1], SHORT, listeners[3])
    wait_for(batcher, (3, 1))
    tickets[1].cancel()
    assert listeners[3].wait()[0] == alone.reply(talks[1:2], SHORT)[0]
    for ticket in tickets:
        ticket.cancel()
    wait_for(batcher, IDLE)


def test_one_who_waits_and_goes_frees_the_place_at_once(batcher: Batcher, talks: list[Conversation]) -> None:
    tickets = [batcher.submit(talks[0], ENDLESS, Listener()) for _ in range(4)]
    tickets.append(batcher.submit(talks[1], SHORT, gone := Listener()))
    wait_for(batcher, (3, 2))
    tickets[4].cancel()
    assert gone.wait()[1].reason == "cancelled"
    assert load_of(batcher) == (3, 1)
    for ticket in tickets:
        ticket.cancel()
    wait_for(batcher, IDLE)


def test_a_reader_that_leaves_a_stream_frees_its_place(batcher: Batcher, talks: list[Conversation]) -> None:
    steps = []
    hook = batcher._assistant.model.language_model.register_forward_hook(lambda *args: steps.append(1))
    stream = batcher.stream(talks[0], ENDLESS)
    next(stream)
    stream.close()
    wait_for(batcher, IDLE)
    hook.remove()
    assert len(steps) < 100


def test_what_is_wrong_with_a_conversation_is_raised_at_once(batcher: Batcher, talks: list[Conversation]) -> None:
    with pytest.raises(ConversationError):
        batcher.submit(talks[0].answer("a"), SHORT, Listener())
    with pytest.raises(ImageError):
        batcher.submit(Conversation().ask("a", [b"no image"]), SHORT, Listener())
    with pytest.raises(TooLong, match="context"):
        batcher.submit(Conversation().ask("red " * 5000), SHORT, Listener())
    assert load_of(batcher) == IDLE


def test_a_failing_step_is_told_to_those_under_way_and_the_next_is_answered(
    batcher: Batcher, alone: Assistant, talks: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = alone.model
    extend = model.extend
    failing = threading.Event()

    def fails(**kwargs: object) -> object:
        if failing.is_set():
            raise MemoryError("no memory left")
        return extend(**kwargs)

    monkeypatch.setattr(model, "extend", fails)
    listener = Listener()
    batcher.submit(talks[0], ENDLESS, listener)
    wait_for(batcher, (1, 0))
    failing.set()
    with pytest.raises(MemoryError):
        listener.wait()
    with pytest.raises(MemoryError):
        batcher.reply(talks[:1], SHORT)
    failing.clear()
    assert batcher.reply(talks, SHORT) == alone.reply(talks, SHORT)
    wait_for(batcher, IDLE)


def test_a_prompt_that_cannot_be_read_stops_nobody_else(
    batcher: Batcher, alone: Assistant, talks: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = Listener()
    batcher.submit(talks[0], Sampling(max_new_tokens=200), under_way)
    wait_for(batcher, (1, 0))
    extend = alone.model.extend

    def fails(**kwargs: object) -> object:
        if kwargs.get("pixel_values") is not None:
            raise MemoryError("no memory left")
        return extend(**kwargs)

    monkeypatch.setattr(alone.model, "extend", fails)
    with pytest.raises(MemoryError):
        batcher.reply(talks[1:2], SHORT)
    monkeypatch.undo()
    assert under_way.wait()[0] == alone.reply(talks[:1], Sampling(max_new_tokens=200))[0]


def test_an_error_gives_up_what_is_kept_for_next_turns(
    batcher: Batcher, alone: Assistant, talks: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    following = talks[0].answer(batcher.reply(talks[:1], SHORT)[0]).ask("Why?")

    def fails(**kwargs: object) -> object:
        raise MemoryError("no memory left")

    monkeypatch.setattr(alone.model, "extend", fails)
    with pytest.raises(MemoryError):
        batcher.reply(talks[1:2], SHORT)
    monkeypatch.undo()
    listener = Listener()
    batcher.submit(following, SHORT, listener)
    assert listener.wait()[1].num_reused_tokens == 0


def test_an_error_that_is_told_holds_nothing_that_was_computed(
    batcher: Batcher, alone: Assistant, talks: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[weakref.ref[torch.Tensor]] = []

    def fails(**kwargs: object) -> object:
        activations = torch.zeros(3)
        computed.append(weakref.ref(activations))
        raise MemoryError("no memory left")

    monkeypatch.setattr(alone.model, "extend", fails)
    monkeypatch.setattr(distributed.logger, "propagate", False)  # pytest keeps what is logged
    listener = Listener()
    batcher.submit(talks[0], SHORT, listener)
    error = listener.events.get(timeout=60)
    wait_for(batcher, IDLE)
    assert isinstance(error, MemoryError) and computed[0]() is None


def test_a_model_that_cannot_start_anew_tells_all_and_closes(
    alone: Assistant, talks: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant = Assistant(alone.model, alone.processor)
    batcher = Batcher(assistant, max_answering=1)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    under_way, waiting = Listener(), Listener()
    for listener in (under_way, waiting):
        batcher.submit(talks[0], ENDLESS, listener)
    assert isinstance(under_way.events.get(timeout=60), str)  # it has been read, and is being answered

    def broken(**kwargs: object) -> object:
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(assistant, "decoder", broken)
    monkeypatch.setattr(alone.model, "extend", broken)
    with pytest.raises(RuntimeError, match="device-side"):
        under_way.wait()
    assert waiting.wait()[1].reason == "cancelled"
    with pytest.raises(Closed):
        batcher.load()
    batcher.close()


def test_a_listener_that_fails_loses_its_answer_alone(
    batcher: Batcher, alone: Assistant, talks: list[Conversation]
) -> None:
    def gone(event: Event) -> None:
        raise RuntimeError("nobody is there")

    batcher.submit(talks[0], ENDLESS, gone)
    assert batcher.reply(talks[:2], SHORT) == alone.reply(talks[:2], SHORT)
    wait_for(batcher, IDLE)


def test_a_next_turn_reuses_the_last_one(batcher: Batcher, alone: Assistant, talks: list[Conversation]) -> None:
    first, second = Listener(), Listener()
    batcher.submit(talks[1], SHORT, first)
    following = talks[1].answer(first.wait()[0]).ask("Are you sure?")
    batcher.submit(following, SHORT, second)
    text, finish = second.wait()
    assert text == alone.reply([following], SHORT)[0] and finish.num_reused_tokens > 10


def test_closing_ends_all_and_its_thread(alone: Assistant, talks: list[Conversation]) -> None:
    before = threading.active_count()
    batcher = Batcher(alone, max_answering=1)
    listeners = [Listener(), Listener()]
    for listener in listeners:
        batcher.submit(talks[0], ENDLESS, listener)
    batcher.close()
    assert [listener.wait()[1].reason for listener in listeners] == ["cancelled", "cancelled"]
    assert threading.active_count() == before
    with pytest.raises(Closed):
        batcher.submit(talks[0], SHORT, Listener())
    with pytest.raises(Closed):
        batcher.load()


def test_a_stream_that_closing_cuts_short_is_an_error(alone: Assistant, talks: list[Conversation]) -> None:
    batcher = Batcher(alone, max_answering=1)
    stream = batcher.stream(talks[0], ENDLESS)
    next(stream)
    batcher.close()
    with pytest.raises(Closed):
        list(stream)
