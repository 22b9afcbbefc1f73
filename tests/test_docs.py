"""What the pages under docs/ show can be used as it stands."""

import json
import re
from pathlib import Path

import yaml

from llava_lite.data.mixture import DataConfig, Mixture, SourceConfig
from llava_lite.data.sample import read_sample
from tests.test_house import ROOT


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_records_are_read() -> None:
    lines = [line for block in blocks("data.md", "json") for line in block.splitlines()]
    samples = [read_sample(json.loads(line), source="page", number=0, image_dir=Path()) for line in lines]
    assert [len(sample.conversation.images) for sample in samples] == [1, 1]


def test_the_mixtures_are_understood() -> None:
    for block in blocks("data.md", "yaml"):
        assert DataConfig.model_validate(yaml.safe_load(block)["data"]).sources


def test_the_reader_reads_in_less_than_thirty_lines(tmp_path: Path) -> None:
    [code] = blocks("data.md", "python")
    assert len(code.splitlines()) < 30
    (tmp_path / "my_reader.py").write_text(code)
    row = {"key": "7", "file": "7.jpg", "pairs": [{"question": "What?", "answer": "A cat."}]}
    (tmp_path / "annotations.jsonl").write_text(json.dumps(row))
    source = SourceConfig(path=tmp_path / "annotations.jsonl", reader=f"{tmp_path}/my_reader.py:read")
    sample = Mixture(DataConfig(sources=(source,))).sample(0)
    assert sample.id == "7" and sample.conversation.messages[1].text == "A cat."
    assert sample.conversation.images[0].source == tmp_path / "7.jpg"
