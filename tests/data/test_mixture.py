"""A mixture takes what its YAML says of each source, the same every time, and writes down what it took."""

import json
import math
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llava_lite.config import ConfigError
from llava_lite.data.mixture import DataConfig, Mixture, SourceConfig, select
from llava_lite.data.records import SampleError

TURNS = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]


def write(path: Path, count: int) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps([{"id": f"{path.stem}{i}", "conversations": TURNS} for i in range(count)]))
    return path


def ids(mixture: Mixture) -> list[str]:
    return [mixture.sample(entry).id for entry in range(len(mixture))]


@pytest.mark.parametrize(
    ("take", "expected"),
    [
        ("all", list(range(10))),
        ("first:3", [0, 1, 2]),
        ("end:2", [8, 9]),
        ("first:25%", [0, 1, 2]),
        ("end:1%", [9]),
        ("first:99", list(range(10))),
        ("100%", list(range(10))),
    ],
)
def test_take_means_what_it_says(take: str, expected: list[int]) -> None:
    assert select(10, take, 1.0, torch.Generator()).tolist() == expected


@given(
    size=st.integers(1, 300),
    percent=st.integers(1, 100),
    repeat=st.floats(0.01, 4),
    seed=st.integers(0, 9),
)
def test_a_random_share_is_rounded_up_repeated_evenly_and_the_same_for_a_seed(
    size: int, percent: int, repeat: float, seed: int
) -> None:
    chosen, again = (select(size, f"random:{percent}%", repeat, torch.Generator().manual_seed(seed)) for _ in range(2))
    count = math.ceil(size * percent / 100)
    assert np.array_equal(chosen, again)
    assert len(chosen) == int(repeat) * count + round((repeat - int(repeat)) * count)
    times = np.bincount(chosen, minlength=size)
    assert set(times[times > 0]) <= {int(repeat), int(repeat) + 1} and (times > 0).sum() <= count


@pytest.mark.parametrize("take", ["some", "first", "first:x", "150%", "last:3", "-3", "random:"])
def test_a_take_that_is_not_understood_is_refused(take: str) -> None:
    with pytest.raises(SampleError, match=r"is not understood; write all, first:N, end:N, random:N or 10%"):
        select(10, take, 1.0, torch.Generator())


def test_sources_are_taken_each_with_its_own_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (write(tmp_path / name / "x.json", 4)).write_text(
            json.dumps(
                [{"id": name, "image": "i.png", "conversations": [{"from": "human", "value": "<image>"}, TURNS[1]]}]
            )
        )
    sources = [
        SourceConfig(path=tmp_path / "a" / "x.json"),
        SourceConfig(path=tmp_path / "b" / "x.json", image_dir=tmp_path / "elsewhere", repeat=2),
    ]
    mixture = Mixture(DataConfig(sources=tuple(sources)))
    places = [mixture.sample(entry).conversation.images[0].source for entry in range(len(mixture))]
    assert places == [tmp_path / "a" / "i.png", *[tmp_path / "elsewhere" / "i.png"] * 2]


def test_our_yaml_and_llava_nexts_give_the_same_mixture(tmp_path: Path) -> None:
    write(tmp_path / "a.json", 10)
    write(tmp_path / "sub" / "b.json", 5)
    ours = {"sources": [{"path": "a.json", "take": "first:2"}, {"path": "sub/b.json"}]}
    theirs = {
        "datasets": [
            {"json_path": str(tmp_path / "a.json"), "sampling_strategy": "first:2"},
            {"json_path": "sub/b.json", "sampling_strategy": "all"},
        ]
    }
    for content in (ours, theirs):
        (tmp_path / "mix.yaml").write_text(yaml.safe_dump(content))
        assert ids(Mixture(DataConfig(path=tmp_path / "mix.yaml"))) == ["a0", "a1", "b0", "b1", "b2", "b3", "b4"]


def test_a_mixture_file_finds_images_and_reader_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mix").mkdir()
    (tmp_path / "mix" / "img").mkdir()
    (tmp_path / "mix" / "my_reader.py").write_text(READER)
    (tmp_path / "mix" / "rows.jsonl").write_text('{"file": "i.png", "q": "Q", "a": "A"}\n')
    source = {"path": "rows.jsonl", "image_dir": "img", "reader": "my_reader.py:read"}
    (tmp_path / "mix" / "mix.yaml").write_text(yaml.safe_dump({"sources": [source]}))
    monkeypatch.chdir(tmp_path)
    [image] = Mixture(DataConfig(path=Path("mix/mix.yaml"))).sample(0).conversation.images
    assert image.source == Path("mix/img/i.png")


def test_sources_without_images_of_their_own_take_the_datas(tmp_path: Path) -> None:
    source = SourceConfig(path=write(tmp_path / "a.json", 1))
    config = DataConfig(sources=(source,), image_dir=tmp_path / "images")
    assert Mixture(config).sources[0].image_dir == tmp_path / "images"


def test_the_seed_decides_what_is_drawn(tmp_path: Path) -> None:
    source = SourceConfig(path=write(tmp_path / "a.json", 100), take="random:10")
    drawn = [ids(Mixture(DataConfig(sources=(source,), seed=seed))) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_lineage_tells_sources_counts_and_content(tmp_path: Path) -> None:
    source = SourceConfig(path=write(tmp_path / "a.json", 10), take="random:50%", repeat=2)
    [told] = Mixture(DataConfig(sources=(source,))).lineage()
    assert (told["records"], told["entries"], told["take"], told["repeat"]) == (10, 10, "random:50%", 2)
    write(tmp_path / "a.json", 11)
    [other] = Mixture(DataConfig(sources=(source,))).lineage()
    assert told["sha256"] != other["sha256"] and told["entries_sha256"] != other["entries_sha256"]


def test_the_lineage_tells_what_came_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = datasets.Dataset.from_list([{"id": "1", "conversations": TURNS}])
    monkeypatch.setattr("datasets.load_dataset", lambda name, subset: table)
    sources = (SourceConfig(path=Path("some/set")), SourceConfig(path=write(tmp_path / "a.json", 1)))
    assert [told["hub"] for told in Mixture(DataConfig(sources=sources)).lineage()] == [True, False]


READER = """
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Row:
    file: str
def read(record):
    image, question, answer = record["file"], record["q"], record["a"]
    turns = [{"from": "human", "value": "<image>" + question}, {"from": "gpt", "value": answer}]
    return {"id": image, "image": image, "conversations": turns}
def broken(record):
    return record["nothing"]
def wrong(record):
    return [record]
number = 3
"""


def open_read(tmp_path: Path, function: str) -> Mixture:
    (tmp_path / "my_reader.py").write_text(READER)
    (tmp_path / "rows.jsonl").write_text('{"file": "i.png", "q": "Q", "a": "A"}\n')
    source = SourceConfig(path=tmp_path / "rows.jsonl", reader=f"{tmp_path}/my_reader.py:{function}")
    return Mixture(DataConfig(sources=(source,)))


def test_a_reader_of_ones_own_reads_another_format(tmp_path: Path) -> None:
    sample = open_read(tmp_path, "read").sample(0)
    assert sample.id == "i.png" and sample.conversation.messages[1].text == "A"


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("broken", r"sample 0 \(rows\.jsonl\): .*failed: KeyError: 'nothing'"),
        ("wrong", "returned list; return a record"),
    ],
)
def test_a_reader_that_fails_names_the_record(tmp_path: Path, function: str, complaint: str) -> None:
    with pytest.raises(SampleError, match=complaint):
        open_read(tmp_path, function).sample(0)


@pytest.mark.parametrize("reader", ["gone.py:read", "reader", "os:system"])
def test_a_reader_that_is_not_there_is_refused(tmp_path: Path, reader: str) -> None:
    with pytest.raises(SampleError, match=r"no such file; write my_reader\.py:function"):
        Mixture(DataConfig(sources=(SourceConfig(path=write(tmp_path / "a.json", 1), reader=reader),)))
    for name in ("gone", "number"):
        with pytest.raises(SampleError, match=f"has no function '{name}'"):
            open_read(tmp_path, name)


@pytest.mark.parametrize("code", ["def read(", "import nothing_of_this_name", "1 / 0"])
def test_a_reader_that_does_not_run_is_named(tmp_path: Path, code: str) -> None:
    (tmp_path / "broken.py").write_text(code)
    with pytest.raises(SampleError, match=r"broken\.py does not run: \w+Error"):
        Mixture(
            DataConfig(sources=(SourceConfig(path=write(tmp_path / "a.json", 1), reader=f"{tmp_path}/broken.py:read"),))
        )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sources: [{paht: a.json}]", "paht.*path"),
        ("sources: []", "no `sources:` and no `datasets:` in it"),
        ("- a.json", "should hold `key: value` lines"),
    ],
)
def test_a_mixture_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises((SampleError, ConfigError), match=complaint):
        Mixture(DataConfig(path=tmp_path / "mix.yaml"))


def test_path_and_sources_exclude_each_other(tmp_path: Path) -> None:
    source = SourceConfig(path=write(tmp_path / "a.json", 1))
    for config in (DataConfig(), DataConfig(path=source.path, sources=(source,))):
        with pytest.raises(SampleError, match="give either path or sources"):
            Mixture(config)
