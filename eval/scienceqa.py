"""ScienceQA: multiple-choice questions from schoolbooks, half of them with a picture.

Paper:   Lu et al., Learn to Explain: Multimodal Reasoning via Thought Chains for Science Question Answering,
         NeurIPS 2022, arXiv:2209.09513
Split:   test, 4,241 questions, 2,017 of them with an image; the variant `img` asks only these
Files:   under --data or --data/scienceqa:
         llava_test_CQM-A.json               LLaVA's eval.zip: the questions with their hints and options
         problems.json, pid_splits.json      github.com/lupantech/ScienceQA: the answers, and what is in the test split
         images/test/                        its images
         or --data/ScienceQA/ScienceQA-FULL/test-*.parquet of lmms-lab/ScienceQA (ScienceQA-IMG/ for `img`)
Metric:  accuracy over the questions with an image, which LLaVA-1.5's table shows, and over all. Groups are the columns
         of ScienceQA's own table: subject (NAT, SOC, LAN), context (TXT, IMG, NO) and grade (G1-6, G7-12).
Quirks:  all official. An answer is a letter alone, or begins with "X. ", or says exactly once "The answer is X" with
         some character after the X; nothing else is read, not even "(B)". A letter beyond the options is wrong.
         The prompt says nothing about the image, and a text-only question is asked without one.
         The official script counts unanswered questions as wrong and as having no image; here they leave the run
         partial. Parquet rows have no ids: they are named by their number, so answers are good for that file only.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.choices import option_lines, stated_letter
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, check_row, read_json, read_list, read_object
from llava_lite.evaluation.metrics import ratio
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

SUFFIX = "\nAnswer with the option's letter from the given choices directly."
LETTERS = tuple("ABCDE")
OFFICIAL = ("scienceqa/llava_test_CQM-A.json", "llava_test_CQM-A.json")
SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
PROBLEM = {"choices": list, "answer": int, "hint": str, "subject": str, "grade": str}


class ScienceQA(Benchmark):
    title = "scienceqa"
    variants: ClassVar[Mapping[str, str]] = {"full": "all questions", "img": "those with an image"}
    max_new_tokens = 1024
    faults = "only three ways to write a letter are official; strict: every way that leaves no doubt"
    source = (
        "LLaVA's eval.zip (github.com/haotian-liu/LLaVA, docs/Evaluation.md) and github.com/lupantech/ScienceQA, or "
        "huggingface.co/datasets/lmms-lab/ScienceQA"
    )

    def questions(self, data: Path) -> list[Question]:
        config = f"ScienceQA-{self.variant.upper()}"
        parquet = find_parquet(data, ["ScienceQA", "scienceqa"], "test", config)
        if parquet and not any((data / place).is_file() for place in OFFICIAL):
            questions = read_hub(parquet)
        else:
            questions = self._read_official(self.locate(data, *OFFICIAL, f"ScienceQA/{config}/test-*.parquet"))
        return [question for question in questions if self.variant == "full" or question.kind == "image"]

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        marks = {}
        for question, text in pairs:
            letter = stated_letter(text, question.options) if strict else read_letter(text)
            marks[question.id] = Mark(float(letter == question.correct[0]), letter)
        return marks

    def overall(self, kinds: Mapping[str, Figures], sums: Sums) -> Figures:
        with_image = kinds["image"]["accuracy"] if "image" in kinds else 0.0
        return {"image_accuracy": with_image, "accuracy": ratio(sums["credit"], sums["n"])}

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        """Read also the two files that LLaVA's scorer writes: the results, and the outputs by correctness."""
        content = read_json(path) if path.suffix == ".json" else None
        if isinstance(content, dict) and "outputs" in content:
            said = check_row(content, {"outputs": dict}, str(path))["outputs"]
            return [Answer(id, check_row(said, {id: str}, str(path))[id]) for id in said]
        if isinstance(content, dict) and {"correct", "incorrect"} <= content.keys():
            check_row(content, {"correct": list, "incorrect": list}, str(path))
            fields = {"question_id": str, "pred": str}
            rows = [check_row(row, fields, str(path)) for row in [*content["correct"], *content["incorrect"]]]
            return [Answer(row["question_id"], row["pred"]) for row in rows]
        return super().read_answers(path, questions)

    def _read_official(self, path: Path) -> list[Question]:
        problems = read_object(self.locate(path.parent, "problems.json"))
        splits = self.locate(path.parent, "pid_splits.json")
        rows = read_list(path, {"id": str, "conversations": list, "image": (str, type(None))})
        asked = {row["id"]: row for row in rows}
        if len(asked) < len(rows):
            raise EvaluationError(f"{path}: {len(rows) - len(asked)} questions have an id of another; download it anew")
        places = [path.parent / place for place in ("images/test", "test", "images")]
        images = next((place for place in places if place.is_dir()), places[0])
        questions = []
        for id in map(str, check_row(read_object(splits), {"test": list}, str(splits))["test"]):
            if id not in asked or id not in problems:
                lacking = path if id not in asked else path.parent / "problems.json"
                raise EvaluationError(f"{lacking}: question {id} of the test split is not there; download it anew")
            image = images / asked[id]["image"] if asked[id].get("image") else None
            turn = check_row(next(iter(asked[id]["conversations"]), None), {"value": str}, f"{path}, question {id}")
            text = turn["value"].replace("<image>", "").strip()
            questions.append(make_question(id, text, problems[id], image))
        return questions


def read_hub(parquet: Sequence[Path]) -> list[Question]:
    questions = []
    for number, row in enumerate(read_parquet(parquet, {"question": str, **PROBLEM}, images=["image"])):
        hint = f"Context: {row['hint']}\n" if row["hint"] else ""
        text = f"{hint}{row['question']}\n{option_lines(row['choices'])}"
        questions.append(make_question(f"row {number}", text, row, row["image"]))
    return questions


def make_question(id: str, text: str, problem: Mapping[str, Any], image: object) -> Question:
    """Make a question of a row of problems.json, or of one that has the same fields."""
    check_row(problem, PROBLEM, f"question {id}")
    grade = problem["grade"].removeprefix("grade")
    if not grade.isdecimal() or not 0 <= problem["answer"] < len(problem["choices"]) <= len(ascii_uppercase):
        raise EvaluationError(f"question {id}: of {problem['grade']!r}, or its answer is no place among its options")
    has_hint, has_image = bool(problem["hint"]), image is not None
    contexts = {"TXT": has_hint, "IMG": has_image, "NO": not has_hint and not has_image}
    return Question(
        id=id,
        conversation=Conversation().ask(text + SUFFIX, [image] if has_image else []),
        correct=(ascii_uppercase[problem["answer"]],),
        kind="image" if has_image else "text",
        groups=(
            SUBJECTS.get(problem["subject"], problem["subject"]),
            *(name for name, applies in contexts.items() if applies),
            "G1-6" if int(grade) <= 6 else "G7-12",
        ),
        options=tuple(problem["choices"]),
    )


def read_letter(text: str) -> str | None:
    """Read the letter of an answer as the official script does."""
    if text in LETTERS:
        return text
    if text[1:3] == ". " and text[0] in LETTERS:
        return text[0]
    stated = re.findall(r"The answer is ([A-Z]).", text)
    return stated[0] if len(stated) == 1 else None


if __name__ == "__main__":
    with report_mistakes():
        main(ScienceQA, llava_lite.open_model)
