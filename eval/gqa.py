"""GQA: compositional questions about scenes, generated from what is known to be in them.

Paper:   Hudson and Manning, GQA: A New Dataset for Real-World Visual Reasoning, CVPR 2019, arXiv:1902.09506
Split:   testdev_balanced, 12,578 questions on 398 images
Files:   under --data or --data/gqa or --data/gqa/data:
         testdev_balanced_questions.json   gqadataset.org (questions1.2.zip)
         images/                           gqadataset.org
         or GQA/testdev_balanced_{instructions,images}/   lmms-lab/GQA at the Hugging Face hub, in parquet
Metric:  accuracy, an answer being right when it equals the correct one to the letter; over all, over binary questions
         (all but those of structural type "query") and over the open ones, per structural and semantic type, per number
         of reasoning steps and of words. `distribution` (lower is better) compares whole sets of answers with the
         correct ones, chi-square within groups of questions: no other figure, and it has no interval.
Quirks:  all official. LLaVA takes trailing periods off an answer and writes it in lower case, nothing else: "a dog" is
         not "dog". Questions that are not balanced count for nothing (testdev_balanced has none). Distribution is
         divided by 100, and an answer that is never correct in its group adds nothing of its own to it.
         The official script prints validity and plausibility as 0, for want of a file that there is not for testdev;
         they and consistency and grounding, which need other files, are left out here.
         The prompt is the question and LLaVA's short-answer instruction, as in llava_gqa_testdev_balanced.jsonl of its
         eval.zip, which is not needed.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Figures, Mark, Question, QuestionId, Scores, Sums, join
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, check_row, read_object, write_whole
from llava_lite.evaluation.metrics import ratio
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

SUFFIX = "\nAnswer the question using a single word or phrase."
NAME = "testdev_balanced"
FIELDS: dict[str, type] = {
    "imageId": str, "question": str, "answer": str, "isBalanced": bool, "types": dict, "semantic": list, "groups": dict
}  # fmt: skip
TYPES: dict[str, type] = {"structural": str, "semantic": str}
STEP: dict[str, type] = {"operation": str, "argument": str}
NO_STEPS = ("exist", "query: name", "choose name")  # operations that only ask for the answer


class Gqa(Benchmark):
    title = "gqa"
    max_new_tokens = 128
    source = "gqadataset.org/download, or lmms-lab/GQA at the Hugging Face hub as the folder GQA"

    def questions(self, data: Path) -> list[Question]:
        places = [f"{folder}{NAME}_questions.json" for folder in ("gqa/data/", "gqa/data/questions1.2/", "gqa/", "")]
        tables = find_parquet(data, ["GQA"], "testdev", f"{NAME}_instructions")
        if tables and not any((data / place).is_file() for place in places):
            return self._from_tables(tables, data)
        path = self.locate(data, *places, f"GQA/{NAME}_instructions/testdev-*.parquet")
        folders = [data / place for place in ("gqa/data/images", "gqa/images", "images")]
        images = next((folder for folder in folders if folder.is_dir()), folders[0])
        rows = read_object(path)
        for id, row in rows.items():
            check_row(row, FIELDS, f"{path}, question {id}")
        return [ask(id, row, images / f"{row['imageId']}.jpg") for id, row in rows.items()]

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: judge(text, question) for question, text in pairs}

    def overall(self, kinds: Mapping[str, Figures], sums: Sums) -> Figures:
        binary = ratio(sums["credit"] - sums["open_credit"], sums["n"] - sums["open"])
        return {**self.figures(sums), "binary": binary, "open": ratio(sums["open_credit"], sums["open"])}

    def score(self, questions: Sequence[Question], answers: Sequence[Answer], *, strict: bool = False) -> Scores:
        """Score the answers, and compare them as a whole with the correct ones. Raises as `join` does."""
        scores = super().score(questions, answers, strict=strict)
        pairs = [(question, text) for question, text in join(questions, answers) if question.correct]
        distance = distribution(pairs)
        return replace(scores, figures={**scores.figures, "distribution": distance}) if pairs else scores

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        """Write what GQA's own script reads, `eval.py --tier testdev_balanced`."""
        rows = [{"questionId": answer.question_id, "prediction": plain(answer.text)} for answer in answers]
        path = folder / f"{NAME}_predictions.json"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(rows))
        return [path]

    def _from_tables(self, paths: Sequence[Path], data: Path) -> list[Question]:
        pictures = find_parquet(data, ["GQA"], "testdev", f"{NAME}_images")
        if not pictures:
            raise EvaluationError(
                f"{self.name}: {paths[0].parent} has no {NAME}_images beside it; get it from {self.source}"
            )
        images = {row["id"]: row["image"] for row in read_parquet(pictures, {"id": str}, images=["image"])}
        rows = read_parquet(paths, {"id": str, **FIELDS})
        missing = sorted({row["imageId"] for row in rows} - images.keys())
        if missing:
            raise EvaluationError(
                f"{pictures[0].parent}: {len(missing)} images are missing ({missing[0]}, ...); download it anew"
            )
        return [ask(row["id"], row, images[row["imageId"]]) for row in rows]


def ask(id: str, row: Mapping[str, Any], picture: object) -> Question:
    """Make a question, with the names under which the official script reports it."""
    where = f"question {id}"
    types, group = check_row(row["types"], TYPES, where), row["groups"].get("global")
    steps = [
        f"{step['operation']}: {step['argument']}" for step in (check_row(s, STEP, where) for s in row["semantic"])
    ]
    num_steps = sum(not any(name in step for name in NO_STEPS) for step in steps)
    num_words = len(row["question"].split())
    return Question(
        id=id,
        conversation=Conversation().ask(row["question"] + SUFFIX, [picture]),
        correct=(row["answer"],) if row["isBalanced"] else (),
        kind=types["structural"],
        groups=(f"semantic {types['semantic']}", f"steps {num_steps}", f"words {num_words}"),
        row={"group": None if group is None else str(group)},
    )


def judge(text: str, question: Question) -> Mark:
    said = plain(text)
    earned = float(said == question.correct[0])
    is_open = question.kind == "query"
    return Mark(earned, said or None, {"open": float(is_open), "open_credit": earned if is_open else 0.0})


def plain(text: str) -> str:
    """Rewrite an answer as LLaVA does for the official script."""
    return text.rstrip(".").lower()


def distribution(pairs: Iterable[tuple[Question, str]]) -> float:
    """Return the distance of the answers from the correct ones, group by group and answer by answer: 0 where each
    correct answer is given as often as it is correct, to whatever questions of its group."""
    correct: dict[str, Counter[str]] = {}
    given: dict[str, Counter[str]] = {}
    for question, text in pairs:
        group = question.row["group"]
        if group is not None:
            correct.setdefault(group, Counter())[question.correct[0]] += 1
            given.setdefault(group, Counter())[plain(text)] += 1
    weighted, total = 0.0, 0
    for group, due in correct.items():
        chi_square = sum((given[group][answer] - count) ** 2 / count for answer, count in due.items())
        weighted += chi_square * due.total()
        total += due.total()
    return ratio(weighted, total) / 100


if __name__ == "__main__":
    with report_mistakes():
        main(Gqa, llava_lite.open_model)
