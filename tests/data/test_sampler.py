"""Which samples form a step: shuffled epochs end to end, a pure function of seed and step."""

from hypothesis import given
from hypothesis import strategies as st

from llava_lite.data.sampler import Order, permutation


def laid_out(order: Order) -> list[int]:
    return [sample for step in range(order.num_steps) for sample in order.step(step)]


@given(size=st.integers(1, 40), per_step=st.integers(1, 50), seed=st.integers(0, 5), epochs=st.integers(1, 3))
def test_each_epoch_holds_every_sample_once(size: int, per_step: int, seed: int, epochs: int) -> None:
    samples = laid_out(Order(size, per_step, seed, epochs))
    assert len(samples) == size * epochs
    assert all(sorted(samples[i : i + size]) == list(range(size)) for i in range(0, len(samples), size))


def test_each_epoch_and_each_seed_has_an_order_of_its_own() -> None:
    samples = laid_out(Order(20, 20, seed=1, epochs=2))
    assert samples[:20] != samples[20:] != list(range(20))
    assert laid_out(Order(20, 20, seed=2)) != samples[:20]


def test_a_step_depends_on_seed_and_number_alone() -> None:
    forward = [Order(10, 4, seed=1, epochs=3).step(i) for i in range(8)]
    permutation.cache_clear()
    backward = [Order(10, 4, seed=1, epochs=3).step(i) for i in reversed(range(8))]
    assert forward == backward[::-1]


def test_steps_cut_the_same_order_whatever_their_size() -> None:
    assert laid_out(Order(10, 3, seed=1, epochs=2)) == laid_out(Order(10, 7, seed=1, epochs=2))


def test_the_last_step_may_be_short() -> None:
    order = Order(10, 4, seed=1)
    assert [len(order.step(i)) for i in range(order.num_steps)] == [4, 4, 2]
    assert order.step(3) == []


def test_part_of_an_epoch_is_the_start_of_a_whole_one() -> None:
    whole, half = Order(10, 4, seed=1, epochs=2), Order(10, 4, seed=1, epochs=1.5)
    assert half.num_steps == 4
    assert laid_out(half) == laid_out(whole)[:15]


def test_max_steps_stops_earlier_or_later_in_the_same_order() -> None:
    whole = laid_out(Order(10, 4, seed=1, epochs=3))
    assert laid_out(Order(10, 4, seed=1, epochs=3, max_steps=2)) == whole[:8]
    longer = Order(10, 4, seed=1, epochs=1, max_steps=6)
    assert longer.num_steps == 6 and laid_out(longer) == whole[:24]
