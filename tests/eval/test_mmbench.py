"""MMBench: VLMEvalKit's reading without a judge, rolls that count together, and the server's workbook."""

import base64
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.modes import MODES, Mode
from llava_lite.evaluation.runner import read_questions, run
from llava_lite.generation.chat_model import ChatModel, Sampling
from tests.eval.benchmark_files import asked, evaluate_by_command, load, mark_of, png, shade, write_lines, write_parquet

M = 1_000_000
OPTIONS = {1: ["red", "blue"], 7: ["a cat", "a dog", "a horse"]}
HEADER = [
    "index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category",
    "comment", "split",
]  # fmt: skip


@pytest.fixture
def mmbench() -> Benchmark:
    return load("mmbench")


def rolled() -> list[dict[str, Any]]:
    """Question 1 with two options and question 7 with three, in all their rolls; pictures of shade 1 and 7."""
    rows = []
    for group, options in OPTIONS.items():
        for roll in range(len(options)):
            order = options[roll:] + options[:roll]
            row = dict.fromkeys(HEADER, "") | {"index": roll * M + group, "question": f"What is {group}?"}
            row |= dict(zip("ABCD", order, strict=False)) | {"answer": "ABCD"[order.index(options[0])]}
            row |= {"hint": "Look." if group == 7 else "", "category": ("color", "animal")[group == 7]}
            row |= {"l2-category": "perception", "source": "made", "split": "dev", "image": group}
            rows.append(row)
    return rows


def write_tsv(path: Path, *, header: list[str] = HEADER, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        for row in rolled():
            writer.writerow(row | {"image": base64.b64encode(png(row["image"])).decode()} | changes)
    return path


def write_hub(data: Path, config: str = "en", split: str = "dev") -> Path:
    """The same as lmms-lab has it: nan where there is none, L2-category, real pictures."""
    rows = []
    for row in rolled():
        row = {name: row[name] or "nan" for name in row if name != "l2-category"}
        rows.append({**row, "L2-category": "perception", "image": png(int(row["image"])), "split": split})
        if split == "test":
            del rows[-1]["answer"]
    write_parquet(data / "MMBench" / config / f"{split}-00000-of-00001.parquet", rows)
    return data


@dataclass
class Shades(ChatModel):
    """A model that says A and notes which pictures it saw."""

    seen: list[int | None]
    name: str = "shades"

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[str]:
        for conversation in conversations:
            self.seen.append(shade(conversation.images[0].source) if conversation.images else None)
        return ["A"] * len(conversations)


def dev(folder: Path) -> Path:
    write_tsv(folder / "mmbench" / "mmbench_dev_20230712.tsv")
    return folder


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B) a dog", "B"),
        ("*B*", "B"),
        ("A dog", "A"),  # an article is a letter
        ("The answer is B", "B"),
        ("B is what I would choose", None),  # not among the last four words
        ("B is my answer here", None),
        ("The correct answer is **B** as far as anyone can tell", "B"),
        ("the answer is a dog", "A"),  # so says the pattern, in any case
        ("A or B", None),
        ("a dog", "B"),
        ("It is a dog!", "B"),
        ("It is a dog on the lawn in the sun", "B"),
        ("It is a dog on the lawn in the sun.", None),  # longer than twice all options
        ("a cat and a dog", None),
        ("D", None),  # beyond the options
        ("Z", "Z"),
        ("I'm sorry, but without the image provided B", "Z"),
        ("b", None),
        ("", None),
    ],
)
def test_answers_are_read_as_vlmevalkit_reads_them(
    mmbench: Benchmark, tmp_path: Path, text: str, letter: str | None
) -> None:
    question = next(question for question in mmbench.questions(dev(tmp_path)) if question.id == 7)
    assert question.options == ("a cat", "a dog", "a horse")
    assert mark_of(mmbench, question, text).parsed == letter


def test_strict_scoring_takes_no_article_for_a_letter(mmbench: Benchmark, tmp_path: Path) -> None:
    question = next(question for question in mmbench.questions(dev(tmp_path)) if question.id == 7)
    assert mark_of(mmbench, question, "A lawn").credit == 1.0
    assert mark_of(mmbench, question, "A lawn", strict=True).parsed is None
    assert mark_of(mmbench, question, "A. a cat", strict=True).credit == 1.0


def test_a_question_counts_when_all_its_rolls_are_right(mmbench: Benchmark, tmp_path: Path) -> None:
    questions = mmbench.questions(dev(tmp_path))
    answers = [Answer(question.id, question.correct[0]) for question in questions]
    scores = mmbench.score(questions, answers[::-1])
    assert scores.figures == {"accuracy": 1.0, "roll_accuracy": 1.0}
    answers[-1] = Answer(2 * M + 7, "Z")
    scores = mmbench.score(questions[::-1], answers)
    assert scores.figures == {"accuracy": 0.5, "roll_accuracy": 0.8}
    assert scores.kinds == {
        "animal": {"accuracy": 0.0, "roll_accuracy": 2 / 3, "n": 3},
        "color": {"accuracy": 1.0, "roll_accuracy": 1.0, "n": 2},
    }
    assert scores.groups == {"perception": {"accuracy": 0.5, "roll_accuracy": 0.8, "n": 5}}


def test_a_question_with_an_unanswered_roll_does_not_count_as_right(mmbench: Benchmark, tmp_path: Path) -> None:
    questions = mmbench.questions(dev(tmp_path))
    answers = [Answer(question.id, question.correct[0]) for question in questions if question.id != M + 7]
    scores = mmbench.score(questions, answers)
    assert scores.figures == {"accuracy": 0.5, "roll_accuracy": 1.0}
    assert (scores.n, scores.total, scores.complete) == (4, 5, False)


def test_the_prompt_is_hint_question_options_and_instruction(tmp_path: Path) -> None:
    write_tsv(tmp_path / "mmbench_dev_20230712.tsv")
    write_tsv(tmp_path / "mmbench_dev_cn_20231003.tsv")
    plain, _, hinted, *_ = load("mmbench").questions(tmp_path)
    assert asked(plain) == (
        "What is 1?\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly.", 1
    )  # fmt: skip
    assert asked(hinted) == (
        "Look.\nWhat is 7?\nA. a cat\nB. a dog\nC. a horse\n"
        "Answer with the option's letter from the given choices directly.", 1,
    )  # fmt: skip
    assert asked(load("mmbench", "cn").questions(tmp_path)[0]) == (
        "What is 1?\nA. red\nB. blue\n请直接回答选项字母。",
        1,
    )
    assert load("mmbench").max_new_tokens == 1024


def test_the_list_of_options_ends_at_the_first_that_is_none(mmbench: Benchmark, tmp_path: Path) -> None:
    for none in ("", "nan", "None", "none", "NA"):
        write_tsv(tmp_path / "mmbench_dev_20230712.tsv", B=none, answer="A", C="more", hint=none)
        assert asked(mmbench.questions(tmp_path)[0])[0].startswith("What is 1?\nA. red\nAnswer with")


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("en", "mmbench/mmbench_dev_20230712.tsv"),
        ("en", "MMBench_DEV_EN.tsv"),
        ("cn", "mmbench_cn/mmbench_dev_cn_20231003.tsv"),
        ("cn", "mmbench/mmbench_dev_cn_20231003.tsv"),
        ("en-test", "mmbench/mmbench_test_en_20231003.tsv"),
        ("cn-test", "MMBench_TEST_CN.tsv"),
        ("en-v11", "mmbench/MMBench_DEV_EN_V11.tsv"),
        ("cn-test-v11", "MMBench_TEST_CN_V11.tsv"),
    ],
)
def test_each_variant_has_its_file(tmp_path: Path, variant: str, name: str) -> None:
    benchmark = load("mmbench", variant)
    with pytest.raises(EvaluationError, match=rf"{Path(name).name}.* is missing; get it from"):
        benchmark.questions(tmp_path)
    write_tsv(tmp_path / name)
    questions = read_questions(benchmark, tmp_path)
    assert [question.id for question in questions] == [1, M + 1, 7, M + 7, 2 * M + 7]
    assert [shade(question.conversation.images[0].source) for question in questions] == [1, 1, 7, 7, 7]
    assert benchmark.name == ("mmbench" if variant == "en" else f"mmbench-{variant}")


def test_a_picture_may_be_that_of_another_row(mmbench: Benchmark, tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mmbench_dev_20230712.tsv")
    lines = path.read_text().splitlines(keepends=True)
    fields = lines[2].split("\t")
    fields[9] = "7"
    path.write_text("".join([*lines[:2], "\t".join(fields), *lines[3:]]))
    assert [shade(question.conversation.images[0].source) for question in mmbench.questions(tmp_path)] == [
        1,
        7,
        7,
        7,
        7,
    ]
    fields[9] = "8"
    path.write_text("".join([*lines[:2], "\t".join(fields), *lines[3:]]))
    with pytest.raises(EvaluationError, match=rf"index {M + 1} lacks its question or picture"):
        mmbench.questions(tmp_path)


def test_it_is_asked_with_its_pictures_in_every_mode(mmbench: Benchmark, tmp_path: Path) -> None:
    asked: dict[Mode, list[int | None]] = {mode: [] for mode in MODES}
    for mode, seen in asked.items():
        scores = run(mmbench, Shades(seen), data=dev(tmp_path), out=tmp_path / "out", mode=mode)
        assert scores.complete
    assert asked == {"normal": [7, 7, 7, 1, 1], "blind": [None] * 5, "shuffled": [1, 1, 1, 7, 7]}
    assert (tmp_path / "out" / "submission" / "mmbench.xlsx").exists()


def test_the_hubs_dataset_is_the_same_benchmark(mmbench: Benchmark, tmp_path: Path) -> None:
    tsv = mmbench.questions(dev(tmp_path / "tsv"))
    hub = read_questions(mmbench, write_hub(tmp_path))
    for mine, theirs in zip(tsv, hub, strict=True):
        assert (mine.id, asked(mine), mine.correct, mine.kind, mine.groups, mine.cluster, mine.options, mine.row) == (
            theirs.id, asked(theirs), theirs.correct, theirs.kind, theirs.groups, theirs.cluster, theirs.options,
            theirs.row,
        )  # fmt: skip
    assert [shade(question.conversation.images[0].source) for question in hub] == [1, 1, 7, 7, 7]
    with pytest.raises(EvaluationError, match="is missing"):
        load("mmbench", "cn").questions(tmp_path)
    with pytest.raises(EvaluationError, match="is missing"):
        load("mmbench", "en-v11").questions(tmp_path)


def test_the_submission_is_the_servers_workbook_and_reads_back(mmbench: Benchmark, tmp_path: Path) -> None:
    questions = mmbench.questions(dev(tmp_path / "data"))
    said = ["A", "=1+1", "C\x00\ud800", "<b>&\n", "B"]
    answers = [Answer(question.id, text) for question, text in zip(questions, said, strict=True)]
    (path,) = mmbench.submit(questions, answers[::-1], tmp_path / "submission")
    assert path == tmp_path / "submission" / "mmbench.xlsx"
    rows = list(openpyxl.load_workbook(path)["Sheet1"].iter_rows(values_only=True))
    assert rows[0] == ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split")
    assert rows[1] == (1, "What is 1?", "red", "blue", None, None, "A", "A", "dev")
    assert rows[3][:7] == (7, "What is 7?", "a cat", "a dog", "a horse", None, "C\ufffd\ufffd")
    again = mmbench.read_answers(path, questions)
    assert [answer.text for answer in again] == ["A", "=1+1", "C\ufffd\ufffd", "<b>&\n", "B"]
    assert [answer.question_id for answer in again] == [question.id for question in questions]


def test_a_test_split_is_only_submitted(tmp_path: Path) -> None:
    header = [name for name in HEADER if name != "answer"]
    write_tsv(tmp_path / "tsv" / "mmbench_test_en_20231003.tsv", header=header, split="test")
    write_hub(tmp_path / "hub", "en", "test")
    for data in (tmp_path / "tsv", tmp_path / "hub"):
        write_lines(tmp_path / "answers.jsonl", [{"question_id": row["index"], "text": "A"} for row in rolled()])
        options = ("--data", data, "--answers", tmp_path / "answers.jsonl", "--out", data / "out")
        evaluate_by_command("mmbench-en-test", *options)
        book = openpyxl.load_workbook(data / "out" / "submission" / "mmbench-en-test.xlsx")
        rows = list(book.active.iter_rows(values_only=True))
        assert rows[0] == ("index", "question", "A", "B", "C", "D", "prediction", "split")
        assert rows[5] == (2 * M + 7, "What is 7?", "a horse", "a cat", "a dog", None, "A", "test")


def test_a_row_without_a_prediction_is_unanswered(mmbench: Benchmark, tmp_path: Path) -> None:
    questions = mmbench.questions(dev(tmp_path / "data"))
    (path,) = mmbench.submit(questions, [Answer(q.id, q.correct[0]) for q in questions], tmp_path)
    book = openpyxl.load_workbook(path)
    book.active["G2"] = None
    book.save(path)
    options = ("--data", tmp_path / "data", "--answers", path, "--out", tmp_path / "out")
    assert "PARTIAL: normal 4 of 5 questions" in evaluate_by_command("mmbench", *options)


def test_faults_of_the_files_are_named(mmbench: Benchmark, tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mmbench_dev_20230712.tsv", header=HEADER[1:])
    with pytest.raises(EvaluationError, match=r"mmbench_dev_20230712.tsv: no column index among question, hint"):
        mmbench.questions(tmp_path)
    for answer in ("E", ""):
        write_tsv(path, answer=answer)
        with pytest.raises(EvaluationError, match=r"mmbench: index 1 has the answer ('E'|None)"):
            mmbench.questions(tmp_path)
    write_tsv(path, index="x")
    with pytest.raises(EvaluationError, match="index x lacks its question or picture"):
        mmbench.questions(tmp_path)
    write_tsv(path, index="3")
    with pytest.raises(EvaluationError, match="two questions have the id 3"):
        read_questions(mmbench, tmp_path)
    for broken in (b"", b"\xff\xfe\x00", b'index\tquestion\n1\t"open'):
        path.write_bytes(broken)
        with pytest.raises(EvaluationError, match=r"mmbench_dev_20230712.tsv: (cannot be read|no column)"):
            mmbench.questions(tmp_path)


def test_openpyxl_is_asked_for_by_name_before_anything_is_asked(
    mmbench: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(EvaluationError, match=r"pip install 'llava-lite\[eval\]'"):
        mmbench.questions(dev(tmp_path))
