"""MMBench: multiple-choice questions on twenty abilities, each asked as often as it has options, and those rolled.

Paper:   Liu et al., MMBench: Is Your Multi-modal Model an All-around Player?, ECCV 2024, arXiv:2307.06281
Split:   dev, English (the default) or Chinese (`cn`): LLaVA's files have 4,377 rows, which are 1,176 questions. The
         correct answers of the test splits are not public: their variants only write what the server takes.
Files:   under --data, --data/mmbench or --data/mmbench_cn its TSV, with images in base64:
         mmbench_dev_20230712.tsv, mmbench_dev_cn_20231003.tsv (LLaVA's) or the later MMBench_DEV_EN.tsv and its kin
         or --data/MMBench/{en,cn}/{dev,test}-*.parquet of lmms-lab/MMBench
         Needs openpyxl: pip install 'llava-lite[eval]'
Metric:  CircularEval: a question counts when all its rolls are answered right; over all, by ability and, as groups, by
         the L2 category. roll_accuracy is that of the rolls one by one.
Quirks:  all official (VLMEvalKit's exact_matching, no judge). The rolls of a question have its index plus multiples of
         1,000,000. A letter is read where exactly one stands among the words and is one of the last four, be it
         an article ("A cat"); then from "answer is X"; then from the one option whose text the answer contains,
         where it is not twice as long as all options together. What says nothing so is wrong, as are refusals ("Z").
         A question of which not all rolls are answered does not count as right.
         The list of options ends at the first that is empty or says nan or none.
         LLaVA asks with hint, question, options and its instruction, which is Chinese for `cn`.
         In the result's table a row without a prediction is unanswered, and characters that XML cannot hold are U+FFFD.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.choices import option_lines, stated_letter
from llava_lite.evaluation.clusters import count_clusters
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.metrics import ratio
from llava_lite.evaluation.spreadsheets import need_openpyxl, read_tsv, read_xlsx, write_xlsx
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

SUFFIXES = {
    "en": "\nAnswer with the option's letter from the given choices directly.",
    "cn": "\n请直接回答选项字母。",
}
FILES = {
    "en": ("mmbench_dev_20230712.tsv", "mmbench_dev_en_20231003.tsv", "MMBench_DEV_EN.tsv"),
    "cn": ("mmbench_dev_cn_20231003.tsv", "MMBench_DEV_CN.tsv"),
    "en-test": ("mmbench_test_en_20231003.tsv", "mmbench_test_20230712.tsv", "MMBench_TEST_EN.tsv"),
    "cn-test": ("mmbench_test_cn_20231003.tsv", "MMBench_TEST_CN.tsv"),
    "en-v11": ("MMBench_DEV_EN_V11.tsv",),
    "cn-v11": ("MMBench_DEV_CN_V11.tsv",),
    "en-test-v11": ("MMBench_TEST_EN_V11.tsv",),
    "cn-test-v11": ("MMBench_TEST_CN_V11.tsv",),
}
LETTERS = tuple("ABCD")
ROLL = 1_000_000
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
NOT_SUBMITTED = ("hint", "category", "source", "image", "comment", "l2-category")


class MMBench(Benchmark):
    title = "mmbench"
    variants: ClassVar[Mapping[str, str]] = {
        "en": "English, dev",
        "cn": "Chinese, dev",
        "en-test": "English, test: the submission only",
        "cn-test": "Chinese, test: the submission only",
        **{f"{name}-v11": f"{name} of version 1.1" for name in ("en", "cn", "en-test", "cn-test")},
    }
    max_new_tokens = 1024
    faults = (
        "an article is read as the letter A, and an option's text wherever it stands; strict: a letter or option that "
        "is stated beyond doubt"
    )
    source = (
        "github.com/open-compass/MMBench (the TSV), as LLaVA's docs/Evaluation.md says, or "
        "huggingface.co/datasets/lmms-lab/MMBench"
    )

    def questions(self, data: Path) -> list[Question]:
        need_openpyxl()  # now and not when all is answered and the submission is due
        places = [f"{folder}{name}" for name in FILES[self.variant] for folder in ("mmbench/", "mmbench_cn/", "")]
        language, split = self.variant[:2], "test" if "test" in self.variant else "dev"
        parquet = [] if "v11" in self.variant else find_parquet(data, ["MMBench", "mmbench"], split, language)
        if parquet and not any((data / place).is_file() for place in places):
            rows = read_hub(parquet, labelled=split == "dev")
        else:
            rows = read_official(self.locate(data, *places))
        for row in rows:
            if row.get("answer") not in (LETTERS if split == "dev" else (None, *LETTERS)):
                raise EvaluationError(f"{self.name}: index {row['index']} has the answer {row.get('answer')!r}")
        rolls = Counter(row["index"] % ROLL for row in rows)
        return [make_question(row, SUFFIXES[language], rolls[row["index"] % ROLL]) for row in rows]

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        read = stated_letter if strict else read_letter
        said = {question.id: read(text, question.options) for question, text in pairs}
        right = {question.id: said[question.id] == question.correct[0] for question, _ in pairs}
        groups = count_clusters([question for question, _ in pairs], right, lambda question: question.row["rolls"])
        return {
            id: Mark(float(right[id]), said[id], {"groups": group, "groups_right": group_right})
            for id, (group, group_right) in groups.items()
        }

    def figures(self, sums: Sums) -> Figures:
        circular = ratio(sums["groups_right"], sums["groups"])
        return {"accuracy": circular, "roll_accuracy": ratio(sums["credit"], sums["n"])}

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        """Write the table that the server takes: the TSV's columns but NOT_SUBMITTED, and `prediction` as the 7th."""
        texts = {answer.question_id: answer.text for answer in answers}
        columns = list(questions[0].row["columns"])
        columns.insert(6, "prediction")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.xlsx"
        write_xlsx(path, columns, [{**q.row["columns"], "prediction": texts[q.id]} for q in questions])
        return [path]

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        """Read also tables with the columns index and prediction."""
        if path.suffix != ".xlsx":
            return super().read_answers(path, questions)
        rows = read_xlsx(path, ["index", "prediction"])
        return [Answer(row["index"], str(row["prediction"])) for row in rows if row["prediction"] is not None]


def make_question(row: Mapping[str, Any], suffix: str, rolls: int) -> Question:
    """Make a question of a row: index, question, hint, A..D, answer, category, l2-category, and its picture."""
    options = []
    for letter in LETTERS:
        if is_none(row[letter]):
            break
        options.append(row[letter])
    hint = "" if is_none(row.get("hint")) else f"{row['hint']}\n"
    text = f"{hint}{row['question']}\n{option_lines(options)}{suffix}"
    return Question(
        id=row["index"],
        conversation=Conversation().ask(text, [row["picture"]]),
        correct=(row["answer"],) if row.get("answer") else (),
        kind=row["category"] or "",
        groups=(row["l2-category"],) if row.get("l2-category") else (),
        cluster=f"group {row['index'] % ROLL}",
        options=tuple(options),
        row={"rolls": rolls, "columns": row["columns"]},
    )


def read_letter(text: str, options: Sequence[str]) -> str | None:
    """Read the letter of an answer as VLMEvalKit does without a judge; "Z" is a refusal."""
    if any(refusal in text for refusal in REFUSALS):
        return "Z"
    letters = LETTERS[: len(options)]
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", text).split()
    found = [letter for letter in letters if letter in words]
    if len(found) == 1 and words.index(found[0]) >= len(words) - 4:
        return found[0]
    if not found and "Z" in words:
        return "Z"
    stated = re.search(r"answer\s+is\s+\**([ABCD])", text, re.IGNORECASE)
    if stated and stated[1].upper() in letters:
        return stated[1].upper()
    if len(text.lower()) > 2 * sum(map(len, options)):
        return None
    contained = [letter for letter, option in zip(letters, options, strict=True) if option.lower() in text.lower()]
    return contained[0] if len(contained) == 1 else None


def is_none(value: str | None) -> bool:
    return value is None or value.lower() in ("nan", "none")


def read_official(tsv: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_tsv(tsv, ["index", "question", "image", "category", *LETTERS])
    pictures = {row["index"]: row["image"] or "" for row in rows}
    uris: dict[str, str] = {}  # equal pictures are one string
    for row in rows:
        picture = pictures[row["index"]]
        picture = pictures.get(picture, picture) if len(picture) <= 64 else picture  # it may name the row that has it
        if not (row["index"] or "").isdigit() or not row["question"] or len(picture) <= 64:
            raise EvaluationError(f"{tsv}: index {row['index']} lacks its question or picture; download it anew")
        row["columns"] = {name: value for name, value in row.items() if name.lower() not in NOT_SUBMITTED}
        row["picture"] = uris.setdefault(picture, f"data:image/jpeg;base64,{picture}")
        row["index"] = row["columns"]["index"] = int(row["index"])
        del row["image"]
    return rows


def read_hub(paths: Sequence[Path], *, labelled: bool) -> list[dict[str, Any]]:
    """Read rows of lmms-lab/MMBench, where none is written as nan."""
    text = (str, type(None))
    submitted = ["index", "question", *LETTERS, *(["answer"] if labelled else []), "split"]
    fields = {**dict.fromkeys([*submitted, "hint", "category", "L2-category"], text), "index": int, "question": str}
    rows = read_parquet(paths, fields, images=["image"])
    for row in rows:
        for name in fields:
            row[name] = None if row[name] == "nan" else row[name]
        row["columns"] = {name: row[name] for name in submitted}
        row["l2-category"], row["picture"] = row["L2-category"], row["image"]
        if row["picture"] is None:
            raise EvaluationError(f"{paths[0].parent}: index {row['index']} has no picture; download it anew")
    return rows


if __name__ == "__main__":
    with report_mistakes():
        main(MMBench, llava_lite.open_model)
