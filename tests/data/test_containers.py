"""The same records in every container and format give the same steps, tensor for tensor."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch
import yaml

from llava_lite.conversation.families import find_template
from llava_lite.data.dataset import InstructionDataset
from llava_lite.data.mixture import DataConfig
from llava_lite.data.steps import plan_steps
from llava_lite.images.transform import ImageTransform
from llava_lite.models.language_model import load_tokenizer
from llava_lite.processor import Processor, prepare_tokenizer


@pytest.fixture(scope="module")
def processor(lm_dir: Path, clip_dir: Path) -> Processor:
    tokenizer = load_tokenizer(str(lm_dir))
    bos = prepare_tokenizer(tokenizer, image=True)
    return Processor(tokenizer, find_template("vicuna_v1"), ImageTransform.from_tower(clip_dir, "pad"), 16, bos)


@pytest.fixture(scope="module")
def records(world: Path) -> list[dict]:
    """Twelve records of the demo world, one of them without an image."""
    records = json.loads((world / "instructions.json").read_text())[:11]
    return [
        *records,
        {"id": "text", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "red"}]},
    ]


def openai(record: dict, images: Path) -> dict:
    """The record as OpenAI's messages."""
    roles = {"human": "user", "gpt": "assistant"}
    messages = []
    for turn in record["conversations"]:
        before, mark, after = turn["value"].partition("<image>")
        parts: list[dict] = [{"type": "text", "text": before}]
        if mark:
            parts.append({"type": "image_url", "image_url": {"url": f"file://{images / record['image']}"}})
            parts.append({"type": "text", "text": after})
        messages.append({"role": roles[turn["from"]], "content": parts if turn["from"] == "human" else turn["value"]})
    return {"id": record["id"], "messages": messages}


def write_json(folder: Path, records: list[dict], images: Path) -> Path:
    (folder / "mix.json").write_text(json.dumps(records))
    return folder / "mix.json"


def write_jsonl(folder: Path, records: list[dict], images: Path) -> Path:
    (folder / "mix.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / "mix.jsonl"


def write_messages(folder: Path, records: list[dict], images: Path) -> Path:
    return write_jsonl(folder, [openai(record, images) for record in records], images)


def write_parquet(folder: Path, records: list[dict], images: Path) -> Path:
    rows = [
        {**r, "image": {"bytes": (images / r["image"]).read_bytes(), "path": None} if "image" in r else None}
        for r in records
    ]
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    table.to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def write_disk(folder: Path, records: list[dict], images: Path) -> Path:
    datasets.Dataset.from_list([{**r, "image": r.get("image")} for r in records]).save_to_disk(folder / "table")
    return folder / "table"


def write_shards(folder: Path, records: list[dict], images: Path) -> Path:
    (folder / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(folder / "shards" / f"{shard}.tar", "w") as archive:
            for record in records[6 * shard : 6 * shard + 6]:
                members = {"json": json.dumps({k: v for k, v in record.items() if k != "image"}).encode()}
                if "image" in record:
                    members["png"] = (images / record["image"]).read_bytes()
                for suffix, data in members.items():
                    info = tarfile.TarInfo(f"{record['id']}.{suffix}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return folder / "shards"


def write_mixture(folder: Path, records: list[dict], images: Path) -> Path:
    write_json(folder, records[:5], images)
    write_messages(folder, records[5:], images)
    entries = [{"json_path": "mix.json", "sampling_strategy": "all"}, {"json_path": str(folder / "mix.jsonl")}]
    (folder / "mix.yaml").write_text(yaml.safe_dump({"datasets": entries}))
    return folder / "mix.yaml"


Writer = Callable[[Path, list[dict], Path], Path]
WRITERS: list[Writer] = [
    write_jsonl,
    write_messages,
    write_parquet,
    write_disk,
    write_shards,
    write_mixture,
]


def read_steps(path: Path, images: Path, processor: Processor) -> list:
    dataset = InstructionDataset(DataConfig(path=path, image_dir=images), processor, row_tokens=400)
    steps = plan_steps(dataset, samples=5, rows=None, row_tokens=400, packing=True, seed=0, epochs=1, max_steps=None)
    return [steps.make(number) for number in range(steps.num_steps)]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__.removeprefix("write_"))
def test_every_container_gives_the_same_steps(
    tmp_path: Path, world: Path, records: list[dict], processor: Processor, write: Writer
) -> None:
    images = world / "images"
    (tmp_path / "own").mkdir()
    expected = read_steps(write_json(tmp_path / "own", records, images), images, processor)
    found = read_steps(write(tmp_path, records, images), images, processor)
    assert len(found) == len(expected) == 3
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.ids == theirs.ids and ours.tokens == theirs.tokens
        for a, b in zip(ours.batches, theirs.batches, strict=True):
            assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
