"""Instruction data: what is wrong is said on opening or by the step that meets it; steps are the same everywhere."""

import json
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image as PilImage

from llava_lite.conversation.families import find_template
from llava_lite.data.dataset import InstructionDataset
from llava_lite.data.loader import Failure, FailureLog, LoaderConfig, Step, read_steps
from llava_lite.data.mixture import DataConfig
from llava_lite.data.records import SampleError
from llava_lite.data.steps import InstructionSteps, plan_steps
from llava_lite.example import IGNORE
from llava_lite.images.transform import ImageTransform
from llava_lite.models.language_model import load_tokenizer
from llava_lite.processor import Processor, prepare_tokenizer

P = 16


@pytest.fixture(scope="module")
def processor(lm_dir: Path, clip_dir: Path) -> Processor:
    tokenizer = load_tokenizer(str(lm_dir))
    bos = prepare_tokenizer(tokenizer, image=True)
    return Processor(tokenizer, find_template("vicuna_v1"), ImageTransform.from_tower(clip_dir, "pad"), P, bos)


def record(number: int, *, image: bool = True) -> dict:
    """A question with or without image; answers of different lengths."""
    mark = {"image": f"{number}.png"} if image else {}
    question = "<image>\nWhat is it?" if image else "What is it?"
    answer = " ".join(["red"] * (1 + number * number % 7))
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": f"r{number}", **mark, "conversations": turns}


@pytest.fixture
def records(tmp_path: Path) -> list[dict]:
    """Ten records, every third of them text only, with their images beside them."""
    (tmp_path / "images").mkdir()
    for number in range(10):
        PilImage.new("RGB", (20, 12), (20 * number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    return [record(number, image=number % 3 > 0) for number in range(10)]


def open_data(
    tmp_path: Path, records: Sequence[dict], processor: Processor, *, row_tokens: int = 200, **policy: object
) -> InstructionDataset:
    (tmp_path / "mix.json").write_text(json.dumps(records))
    config = DataConfig(path=tmp_path / "mix.json", image_dir=tmp_path / "images", **policy)
    return InstructionDataset(config, processor, row_tokens=row_tokens)


def make_steps(
    dataset: InstructionDataset, *, row_tokens: int = 200, packing: bool = True, rows: int | None = None
) -> InstructionSteps:
    return plan_steps(
        dataset, samples=4, rows=rows, row_tokens=row_tokens, packing=packing, seed=0, epochs=2, max_steps=None
    )


def planned(steps: InstructionSteps, number: int) -> list[str]:
    """The ids of a step's samples."""
    return sorted(f"r{i}" for row in steps.plan.rows(number) for i in row)


def tensors(step: Step) -> list[torch.Tensor]:
    return [tensor for batch in step.batches for _, tensor in sorted(batch.items())]


def assert_same_steps(some: Sequence[Step], others: Sequence[Step]) -> None:
    assert [(s.ids, s.num_targets, s.num_samples, s.tokens) for s in some] == [
        (s.ids, s.num_targets, s.num_samples, s.tokens) for s in others
    ]
    for a, b in zip(some, others, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def test_images_lie_beside_the_data_file_by_default(tmp_path: Path, records: list[dict], processor: Processor) -> None:
    (tmp_path / "images" / "mix.json").write_text(json.dumps(records))
    dataset = InstructionDataset(DataConfig(path=tmp_path / "images" / "mix.json"), processor, row_tokens=200)
    assert len(dataset) == 10 and len(dataset.example(1)[1].pixel_values) == 1


def test_lengths_are_those_of_the_examples(tmp_path: Path, records: list[dict], processor: Processor) -> None:
    dataset = open_data(tmp_path, records, processor)
    assert dataset.lengths.tolist() == [len(dataset.example(i)[1].input_ids) for i in range(10)]


@pytest.mark.parametrize("image", ["gone.png", "x" * 300, "a\0b", "."])
def test_a_missing_image_is_named_on_opening(
    tmp_path: Path, records: list[dict], processor: Processor, image: str
) -> None:
    records[4]["image"] = image
    with pytest.raises(
        SampleError, match=r"^sample r4 \(mix\.json\): no image file .*; check data\.image_dir="
    ) as caught:
        open_data(tmp_path, records, processor)
    assert str(tmp_path / "images" / image) in str(caught.value)


@pytest.mark.parametrize(("image", "near"), [("4.jpg", "4.png"), ("4.PNG", "4.png")])
def test_a_missing_image_is_named_with_the_file_that_was_meant(
    tmp_path: Path, records: list[dict], processor: Processor, image: str, near: str
) -> None:
    records[4]["image"] = image
    with pytest.raises(SampleError, match=rf"^sample r4 \(mix\.json\): no image file .*{image}; there is {near}$"):
        open_data(tmp_path, records, processor)


def test_half_a_character_is_named_on_opening(tmp_path: Path, records: list[dict], processor: Processor) -> None:
    records[3]["conversations"][1]["value"] = "red \ud83e"
    with pytest.raises(SampleError, match=r"^sample r3 \(mix\.json\): half a character"):
        open_data(tmp_path, records, processor)


def test_a_conversation_that_the_template_cannot_write_is_named_on_opening(
    tmp_path: Path, records: list[dict], processor: Processor
) -> None:
    with pytest.raises(SampleError, match=r"^sample r0 \(mix\.json\): template 'plain' needs an image"):
        open_data(tmp_path, records, processor.with_template(find_template("plain")))


def test_an_image_for_a_model_without_tower_is_named_on_opening(
    tmp_path: Path, records: list[dict], lm_dir: Path
) -> None:
    tokenizer = load_tokenizer(str(lm_dir))
    blind = Processor(tokenizer, find_template("vicuna_v1"), None, 0, prepare_tokenizer(tokenizer, image=False))
    with pytest.raises(SampleError, match=r"^sample r1 \(mix\.json\): has an image.*set model\.vision_tower"):
        open_data(tmp_path, records, blind)
    steps = make_steps(open_data(tmp_path, [record(i, image=False) for i in range(4)], blind))
    assert [len(batch["pixel_values"]) for batch in steps.make(0).batches] == [0]


def test_a_record_longer_than_a_row_is_named_with_the_remedy(
    tmp_path: Path, records: list[dict], processor: Processor
) -> None:
    lengths = open_data(tmp_path, records, processor).lengths.tolist()
    longest = max(lengths)
    name = f"r{lengths.index(longest)}"
    open_data(tmp_path, records, processor, row_tokens=longest)
    with pytest.raises(
        SampleError, match=rf"^sample {name} \(mix\.json\): {longest} tokens do not fit in {longest - 1}; .*too_long"
    ):
        open_data(tmp_path, records, processor, row_tokens=longest - 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_names_record_and_path_and_no_worker(
    tmp_path: Path, records: list[dict], processor: Processor, workers: int
) -> None:
    steps = make_steps(open_data(tmp_path, records, processor))
    path = tmp_path / "images" / "4.png"
    path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(SampleError) as caught:
        list(read_steps(steps, 0, LoaderConfig(workers=workers)))
    message = str(caught.value)
    assert message.startswith(f"sample r4 (mix.json): {path}: broken image (")
    assert "\n" not in message and "worker" not in message
    assert "Caught" not in "".join(traceback.format_exception(caught.value))


def test_an_error_of_ours_keeps_its_traceback_across_workers(processor: Processor) -> None:
    class Broken:
        num_steps = 1

        def make(self, number: int) -> Step:
            raise ValueError("a mistake in the code")

    with pytest.raises(ValueError, match=r"in make\n.*raise ValueError\(\"a mistake in the code\"\)") as caught:
        list(read_steps(Broken(), 0, LoaderConfig(workers=1)))
    traceback.clear_frames(
        caught.tb
    )  # lets the loader go at once; found by the garbage collector, it waits five seconds


@pytest.mark.parametrize("packing", [True, False])
def test_a_step_holds_its_samples_once_in_rows_that_fit(
    tmp_path: Path, records: list[dict], processor: Processor, packing: bool
) -> None:
    records[3]["conversations"][1]["value"] = "red " * 60
    dataset = open_data(tmp_path, records, processor, row_tokens=1000)
    row_tokens = int(dataset.lengths[3] + dataset.lengths[1])  # both fit a packed row, and not a padded batch
    steps = make_steps(dataset, row_tokens=row_tokens, packing=packing)
    for number in range(steps.num_steps):
        step = steps.make(number)
        assert sorted(step.ids) == planned(steps, number)
        assert all(batch["input_ids"].numel() <= row_tokens for batch in step.batches)


def test_a_step_counts_what_is_in_it(tmp_path: Path, records: list[dict], processor: Processor) -> None:
    dataset = open_data(tmp_path, records, processor)
    step = make_steps(dataset).make(0)
    examples = [dataset.example(int(name.removeprefix("r")))[1] for name in step.ids]
    learnt = sum(int((example.labels != IGNORE).sum()) for example in examples)
    assert step.num_samples == 4
    assert step.num_targets == step.tokens["learnt"] == learnt
    assert step.tokens["image"] == P * sum(len(example.pixel_values) for example in examples)
    assert step.tokens["text"] + step.tokens["image"] == sum(len(example.input_ids) for example in examples)
    assert sorted(step.documents) == sorted(len(example.input_ids) for example in examples)
    assert step.num_tiles == sum(len(example.pixel_values) for example in examples)
    assert all(batch["pixel_values"].shape[2:] == (step.tile_size,) * 2 for batch in step.batches)


def test_a_blank_tile_is_not_counted(tmp_path: Path, records: list[dict], processor: Processor) -> None:
    for record in records:
        record.pop("image", None)
        for turn in record["conversations"]:
            turn["value"] = turn["value"].replace("<image>", "")
    step = make_steps(open_data(tmp_path, records, processor)).make(0)
    assert all(len(batch["pixel_values"]) == 1 for batch in step.batches)
    assert step.num_tiles == step.tokens["image"] == 0


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("packing", [True, False])
def test_ranks_get_equally_many_batches_and_together_every_sample_once(
    tmp_path: Path,
    records: list[dict],
    processor: Processor,
    monkeypatch: pytest.MonkeyPatch,
    packing: bool,
    world_size: int,
) -> None:
    steps = make_steps(open_data(tmp_path, records, processor), row_tokens=130, packing=packing)
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    for number in range(steps.num_steps):
        shares = []
        for rank in range(world_size):
            monkeypatch.setenv("RANK", str(rank))
            shares.append(steps.make(number))
        assert len({len(share.batches) for share in shares}) == 1
        assert sorted(name for share in shares for name in share.ids) == planned(steps, number)
        assert sum(share.num_samples for share in shares) == len(planned(steps, number))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_steps_are_the_same_for_any_number_of_workers(
    tmp_path: Path, records: list[dict], processor: Processor
) -> None:
    steps = make_steps(open_data(tmp_path, records, processor))
    alone, one, three = (list(read_steps(steps, 0, LoaderConfig(workers=workers))) for workers in (0, 1, 3))
    assert len(alone) == steps.num_steps == 5
    assert_same_steps(alone, one)
    assert_same_steps(alone, three)


def test_a_run_resumes_in_the_middle_with_the_same_steps(
    tmp_path: Path, records: list[dict], processor: Processor
) -> None:
    steps = make_steps(open_data(tmp_path, records, processor))
    whole = list(read_steps(steps, 0, LoaderConfig(workers=0)))
    again = make_steps(open_data(tmp_path, records, processor))
    assert_same_steps(whole[3:], list(read_steps(again, 3, LoaderConfig(workers=0))))
    assert list(read_steps(again, 5, LoaderConfig(workers=0))) == []


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_too_long_skip_leaves_out_counts_and_lists(tmp_path: Path, records: list[dict], processor: Processor) -> None:
    lengths = open_data(tmp_path, records, processor).lengths.tolist()
    limit = sorted(set(lengths))[-2]
    dataset = open_data(tmp_path, records, processor, max_length=limit, too_long="skip")
    longer = [f"r{i}" for i, length in enumerate(lengths) if length > limit]
    kept = [dataset.example(i)[0] for i in range(len(dataset))]
    assert longer and sorted(kept + longer) == sorted(r["id"] for r in records)
    dataset.write_lineage(tmp_path / "out")
    listed = read_lines(tmp_path / "out" / "left_out.jsonl")
    assert [(line["what"], line["why"].split()[1]) for line in listed] == [("too long", name) for name in longer]
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert lineage["samples"] == len(kept) and lineage["left_out"] == {"too long": len(longer)}


def test_too_long_truncate_cuts_the_end_and_keeps_whole_images(
    tmp_path: Path, records: list[dict], processor: Processor
) -> None:
    whole = open_data(tmp_path, records, processor)
    limit = int(whole.lengths[4]) - 1  # cuts an end mark or some words, never all of an answer
    dataset = open_data(tmp_path, records, processor, max_length=limit, too_long="truncate")
    cut = [i for i in range(10) if whole.lengths[i] > limit]
    assert cut and len(dataset) == 10
    for number in range(10):
        (_, long), (_, short) = whole.example(number), dataset.example(number)
        kept = min(limit, len(long.input_ids))
        assert torch.equal(short.input_ids, long.input_ids[:kept]) and torch.equal(short.labels, long.labels[:kept])
        assert torch.equal(short.pixel_values, long.pixel_values)
        assert dataset.lengths[number] == kept
    assert [loss.what for loss in dataset.left_out] == ["cut at the end"] * len(cut)


def test_a_sample_whose_every_label_would_be_cut_is_left_out_and_listed(
    tmp_path: Path, records: list[dict], processor: Processor
) -> None:
    lengths = open_data(tmp_path, records, processor).lengths.tolist()
    limit = lengths[0]  # the images alone take more
    dataset = open_data(tmp_path, records, processor, max_length=limit, too_long="truncate")
    ids = [dataset.example(i)[0] for i in range(len(dataset))]
    for number in range(len(dataset)):
        assert (dataset.example(number)[1].labels[1:] != IGNORE).any()
    gone = {loss.why.split()[1] for loss in dataset.left_out if loss.what == "too long"}
    assert gone and gone.isdisjoint(ids) and len(gone) + len(ids) == 10
    assert all("tokens hold none to learn" in loss.why for loss in dataset.left_out if loss.what == "too long")


def test_bad_records_end_the_run_together_with_the_remedy(
    tmp_path: Path, records: list[dict], processor: Processor
) -> None:
    records[3]["conversations"].pop()
    records[7]["image"] = "gone.png"
    with pytest.raises(SampleError, match=r"^sample r3 .*; and 1 more such records: .*on_bad_sample=skip; `llava-lite"):
        open_data(tmp_path, records, processor)


def test_bad_records_are_skipped_counted_and_listed_up_to_a_threshold(
    tmp_path: Path, records: list[dict], processor: Processor
) -> None:
    records[3]["conversations"].pop()
    dataset = open_data(tmp_path, records, processor, on_bad_sample="skip", max_bad=0.1)
    assert len(dataset) == 9 and [loss.what for loss in dataset.left_out] == ["bad record"]
    with pytest.raises(
        SampleError, match=r"1 of 10 records cannot be used, more than data\.max_bad=0\.05; the first: "
    ):
        open_data(tmp_path, records, processor, on_bad_sample="skip", max_bad=0.05)


def test_an_opening_answer_is_left_out_and_listed(tmp_path: Path, records: list[dict], processor: Processor) -> None:
    records[3]["conversations"].insert(0, {"from": "gpt", "value": "Hello!"})
    dataset = open_data(tmp_path, records, processor)
    assert len(dataset) == 10 and [loss.what for loss in dataset.left_out] == ["opening answer"]
    assert dataset.sample(3).conversation.messages[0].role == "user"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_fails_while_training_is_replaced_and_listed(
    tmp_path: Path, records: list[dict], processor: Processor, workers: int
) -> None:
    dataset = open_data(tmp_path, records, processor, on_bad_sample="skip", max_bad=0.2)
    steps = make_steps(dataset)
    path = tmp_path / "images" / "4.png"
    path.write_bytes(path.read_bytes()[:45])
    read = list(read_steps(steps, 0, LoaderConfig(workers=workers), FailureLog(tmp_path / "out", 2)))
    ids = [name for step in read for name in step.ids]
    assert len(ids) == 20 and "r4" not in ids
    listed = read_lines(tmp_path / "out" / "failed.jsonl")
    assert len(listed) == 2 and all(line["why"].startswith("sample r4 (mix.json): ") for line in listed)
    for line in listed:
        assert line["sample"] == "sample r4 (mix.json)" and "r4" in planned(steps, line["step"] - 1)
        other = dataset.lengths[int(line["why"].rpartition("replaced by r")[2])]
        assert other <= dataset.lengths[4]
    assert_same_steps(read, list(read_steps(steps, 0, LoaderConfig(workers=0))))


def test_too_many_failures_end_the_run(tmp_path: Path, records: list[dict], processor: Processor) -> None:
    steps = make_steps(open_data(tmp_path, records, processor, on_bad_sample="skip"))
    for number in (4, 5):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"")
    list(read_steps(steps, 0, LoaderConfig(workers=0), FailureLog(tmp_path / "out", 2)))  # two samples, in both epochs
    assert len(read_lines(tmp_path / "out" / "failed.jsonl")) == 4
    with pytest.raises(SampleError, match=r"more than 1 samples failed while training, .*data\.max_bad.*; the last: "):
        list(read_steps(steps, 0, LoaderConfig(workers=0), FailureLog(tmp_path / "out", 1)))


def test_a_resumed_run_lists_what_it_does_again_once(tmp_path: Path, records: list[dict], processor: Processor) -> None:
    steps = make_steps(open_data(tmp_path, records, processor, on_bad_sample="skip"))
    (tmp_path / "images" / "4.png").write_bytes(b"")
    for start in (0, 1, 3, 5):
        list(read_steps(steps, start, LoaderConfig(workers=0), FailureLog(tmp_path / "out", 1)))
        assert len(read_lines(tmp_path / "out" / "failed.jsonl")) == 2
    (tmp_path / "images" / "5.png").write_bytes(b"")
    log = FailureLog(tmp_path / "out", 1)  # what failed before the start counts
    with pytest.raises(SampleError, match="more than 1 samples failed"):
        last = max(line["step"] for line in read_lines(tmp_path / "out" / "failed.jsonl"))
        list(read_steps(steps, last - 1, LoaderConfig(workers=0), log))
        log.add(9, [Failure("sample r5 (mix.json)", "gone")])


def test_full_rows_hold_every_sample_once_an_epoch(tmp_path: Path, records: list[dict], processor: Processor) -> None:
    dataset = open_data(tmp_path, records, processor)
    steps = make_steps(dataset, rows=2)
    ids = [name for number in range(steps.num_steps) for name in steps.make(number).ids]
    assert sorted(ids) == sorted([f"r{i}" for i in range(10)] * 2)
    sizes = [len(steps.make(number).batches) for number in range(steps.num_steps)]
    assert sizes[:-1] == [2] * (len(sizes) - 1)
    assert all(batch["input_ids"].numel() <= 200 for batch in steps.make(0).batches)


@pytest.mark.parametrize("rows", [None, 1])
def test_epochs_that_make_no_step_are_an_error(
    tmp_path: Path, records: list[dict], processor: Processor, rows: int | None
) -> None:
    dataset = open_data(tmp_path, records[:1], processor)
    with pytest.raises(SampleError, match=r"epochs=0\.3 of 1 samples make no step; raise epochs"):
        plan_steps(dataset, samples=4, rows=rows, row_tokens=200, packing=True, seed=0, epochs=0.3, max_steps=None)
