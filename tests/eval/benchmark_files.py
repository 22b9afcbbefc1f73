"""What the tests of the eval files share: small files as people download them, and the commands run on them."""

import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image
from typer.testing import CliRunner

from llava_lite.cli import app
from llava_lite.evaluation.benchmark import Answer, Benchmark, Mark, Question, Scores
from llava_lite.evaluation.command import load_benchmark
from llava_lite.images.loading import load_image

CHECKOUT = Path(__file__).parents[2]
REFERENCE = CHECKOUT.parent / "shared" / "reference_scores"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no reference scores at {REFERENCE}")


def load(title: str, variant: str = "") -> Benchmark:
    return load_benchmark(CHECKOUT / "eval" / f"{title}.py", variant)


def expected_scores() -> dict[str, Any]:
    return json.loads((REFERENCE / "expected.json").read_text())


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def shade(source: object) -> int:
    """Which `png` a picture is."""
    return load_image(source).getpixel((0, 0))[0]


def write_png(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(shade))


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def unpack(packed: Path, path: Path) -> Path:
    """Write a .gz file of the reference scores as it is downloaded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as lmms-lab does; bytes become pictures, and lists of bytes lists of pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_list([{name: _cell(value) for name, value in row.items()} for row in rows])
    for name in rows[0]:
        if any(isinstance(row[name], bytes) for row in rows):
            table = table.cast_column(name, datasets.Image())
        elif any(isinstance(row[name], list) and any(isinstance(v, bytes) for v in row[name]) for row in rows):
            table = table.cast_column(name, datasets.Sequence(datasets.Image()))
    table.to_parquet(path)


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return [_cell(item) for item in value]
    return {"bytes": value, "path": None} if isinstance(value, bytes) else value


def asked(question: Question) -> tuple[str, int]:
    """The words of a question that is one turn, and how many images stand before them."""
    (message,) = question.conversation.messages
    assert message.num_leading_images == len(message.images)
    return message.text, len(message.images)


def score(benchmark: Benchmark, questions: Sequence[Question], texts: Sequence[str], *, strict: bool = False) -> Scores:
    """Score one answer to each question, in their order."""
    answers = [Answer(question.id, text) for question, text in zip(questions, texts, strict=True)]
    return benchmark.score(questions, answers, strict=strict)


def mark_of(benchmark: Benchmark, question: Question, text: str, *, strict: bool = False) -> Mark:
    return benchmark.score([question], [Answer(question.id, text)], strict=strict).marks[question.id]


def evaluate_by_command(*arguments: object) -> str:
    """Run `llava-lite eval` and return what it prints, in one line."""
    result = CliRunner().invoke(app, ["eval", *map(str, arguments)], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    return " ".join(result.output.split())
