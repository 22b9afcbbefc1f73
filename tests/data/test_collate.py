"""Examples to one batch: positions restart, targets stay within their example, each visual token finds its patch."""

from dataclasses import replace

import torch

from llava_lite.data.collate import Batch, collate
from llava_lite.example import IGNORE, Example

P = 2
IMAGE = 99


def example(*ids: int, learnt: int = 1, tiles: int = 0) -> Example:
    """Some tokens of which the last `learnt` are learnt, behind the visual tokens of `tiles` images."""
    words = [IMAGE] * (tiles * P) + list(ids)
    return Example(
        input_ids=torch.tensor(words),
        labels=torch.tensor([IGNORE] * (len(words) - learnt) + words[len(words) - learnt :]),
        pixel_values=torch.full((tiles, 3, 4, 4), float(ids[0])),
        patch_index=torch.arange(tiles * P),
    )


def join(*examples: Example, packed: bool = True, tile_size: int = 4) -> Batch:
    return collate(examples, num_patches=P, packed=packed, tile_size=tile_size)


def test_packed_examples_share_one_row_and_positions_restart() -> None:
    batch = join(example(1, 2, 3, 4), example(5, 6), example(7, 8, 9))
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2]]


def test_padded_examples_have_a_row_each() -> None:
    batch = join(example(1, 2, 3, 4, learnt=2), example(5, 6), packed=False)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert batch["labels"].tolist() == [[IGNORE, 3, 4, IGNORE], [6, IGNORE, IGNORE, IGNORE]]


def test_a_target_stands_where_it_is_predicted_and_never_in_a_neighbour() -> None:
    batch = join(example(1, 2, 3, learnt=2), example(5, 6, 7, learnt=3))
    assert batch["labels"].tolist() == [[2, 3, IGNORE, 6, 7, IGNORE]]


def test_patch_index_counts_on_over_the_images_of_the_batch() -> None:
    batch = join(example(1, tiles=2), example(2), example(3, tiles=1), example(4, tiles=2))
    assert batch["patch_index"].tolist() == list(range(5 * P))
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [1, 1, 3, 4, 4]
    assert int((batch["input_ids"] == IMAGE).sum()) == len(batch["patch_index"])


def test_an_order_of_patches_within_an_example_is_kept() -> None:
    second = example(3, tiles=2)
    turned = Example(second.input_ids, second.labels, second.pixel_values, second.patch_index.flip(0))
    assert join(example(1, tiles=1), turned)["patch_index"].tolist() == [0, 1, 5, 4, 3, 2]


def test_the_newline_is_the_newline_wherever_its_example_stands() -> None:
    second = replace(example(3, tiles=2), patch_index=torch.tensor([2, 3, -1, 0]))
    assert join(example(1, tiles=1), second)["patch_index"].tolist() == [0, 1, 4, 5, -1, 2]
    assert "patch_weight" not in join(example(1, tiles=1), second)


def test_beside_tokens_between_patches_the_others_count_their_one_patch_whole() -> None:
    one = replace(example(1, tiles=1), patch_index=torch.tensor([1, -1]))
    taps, weight = torch.tensor([[0, 1, 2, 3], [-1, -1, -1, -1]]), torch.tensor([[0.1, 0.2, 0.3, 0.4], [1, 0, 0, 0]])
    four = replace(example(2, tiles=2), patch_index=taps, patch_weight=weight)
    batch = join(one, example(5, 6), four)
    assert batch["patch_index"].tolist() == [[1] * 4, [-1] * 4, [2, 3, 4, 5], [-1] * 4]
    assert torch.equal(batch["patch_weight"], torch.cat([torch.tensor([[1.0, 0, 0, 0]] * 2), weight]))


def test_a_batch_without_images_carries_one_blank_tile_that_no_token_shows() -> None:
    batch = join(example(1, 2), example(3, 4))
    assert torch.equal(batch["pixel_values"], torch.zeros(1, 3, 4, 4))
    assert batch["patch_index"].tolist() == []


def test_a_model_without_a_tower_gets_no_tile() -> None:
    assert join(example(1, 2), tile_size=0)["pixel_values"].shape == (0, 3, 0, 0)


def test_an_empty_row_is_a_batch_that_teaches_nothing() -> None:
    for packed in (True, False):
        batch = join(packed=packed)
        assert batch["input_ids"].shape == batch["position_ids"].shape == (1, 1)
        assert batch["labels"].tolist() == [[IGNORE]]
        assert batch["pixel_values"].shape == (1, 3, 4, 4) and batch["patch_index"].tolist() == []
        assert all(batch[name].dtype == torch.long for name in ("input_ids", "labels", "position_ids", "patch_index"))
