"""What is needed next is made ready meanwhile: in order, one batch ahead and no more, mistakes where they are due."""

import threading
from queue import SimpleQueue

import pytest

from llava_lite.generation.ahead import ahead


def test_batches_come_in_order_whoever_is_ready_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava_lite.generation.ahead.NUM_THREADS", 2)
    second = threading.Event()

    def prepare(item: int) -> int:
        if item == 1:
            assert second.wait(60)
        if item == 2:
            second.set()
        return item * 10

    assert list(ahead([[1, 2], [], [3]], prepare)) == [[10, 20], [], [30]]
    assert list(ahead([], prepare)) == []


def test_the_next_batch_is_made_ready_while_one_is_used_and_no_other() -> None:
    prepared: SimpleQueue[int] = SimpleQueue()
    batches = ahead(([i] for i in range(4)), prepared.put)
    next(batches)
    assert [prepared.get(timeout=60) for _ in range(2)] == [0, 1]  # nobody has asked for the second yet
    assert prepared.empty()
    next(batches)
    assert prepared.get(timeout=60) == 2
    batches.close()
    assert prepared.empty()


def test_what_goes_wrong_is_raised_where_it_is_due() -> None:
    batches = ahead([[1, 2], [0], [3]], lambda item: 6 // item)
    assert next(batches) == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(batches)
