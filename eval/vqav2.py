"""VQAv2: open questions about COCO images, balanced so that a question alone does not give its answer away.

Paper:   Goyal et al., Making the V in VQA Matter, CVPR 2017, arXiv:1612.00837
Split:   test-dev (107,394 questions, the figure of LLaVA-1.5's table) and test (447,793), whose answers only the test
         server has (EvalAI, challenge 830); val (214,354), scored here
Files:   under --data or --data/vqav2:
         llava_vqav2_mscoco_test-dev2015.jsonl, llava_vqav2_mscoco_test2015.jsonl
                                 LLaVA's eval.zip; {"question_id", "image", "text"}; test-dev needs both
         v2_OpenEnded_mscoco_{test-dev2015,test2015,val2014}_questions.json, v2_mscoco_val2014_annotations.json
                                 visualqa.org; in place of the above, and for val
         test2015/, val2014/     COCO images
         or VQAv2/               lmms-lab/VQAv2 at the Hugging Face hub; testdev, test and validation in parquet
Metric:  VQA accuracy, over all and per answer type and question type: the mean of what an answer earns, 0.3 for one of
         ten people who said the same, 0.6 for two, 0.9 for three, 1 for more, both sides normalised
Quirks:  all official. Where the ten people agree to the letter nothing is normalised: "Yes" against ten "yes" earns
         nothing. What is submitted is normalised by LLaVA first ("Yes" becomes "yes"); `as_submitted` is what that
         earns, the figure to hold against one of the test server. It differs in possessives: "a man's hat" is
         submitted as "man 's hat", which no one of the people is taken to have said.
         A submission names all 447,793 questions of test, those of test-dev with their answers and the others with "".
         The prompt is the question and LLaVA's short-answer instruction, as LLaVA's files have it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, check_row, read_json, read_rows, write_whole
from llava_lite.evaluation.metrics import ratio
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.evaluation.vqa import agreement, normalise, normalise_evalai, people_said, vqa_compared
from llava_lite.recipes import report_mistakes

SUFFIX = "\nAnswer the question using a single word or phrase."
TABLES = ["VQAv2"]


@dataclass(frozen=True)
class Split:
    """What a split is called: in VQA's files, in COCO's images, in the parquet files."""

    coco: str
    images: str
    table: str

    @property
    def places(self) -> list[str]:
        """Where its questions may lie."""
        names = [f"llava_vqav2_mscoco_{self.coco}.jsonl", f"v2_OpenEnded_mscoco_{self.coco}_questions.json"]
        return [f"{folder}{name}" for name in names for folder in ("vqav2/", "")]

    @property
    def parquet(self) -> str:
        """Where its parquet files may lie, for the message about what is missing."""
        return f"VQAv2/data/{self.table}-*.parquet"


SPLITS = {
    "test-dev": Split("test-dev2015", "test2015", "testdev"),
    "test": Split("test2015", "test2015", "test"),
    "val": Split("val2014", "val2014", "validation"),
}


class Vqav2(Benchmark):
    title = "vqav2"
    variants: ClassVar[Mapping[str, str]] = {
        "test-dev": "107,394 questions, for the test server",
        "test": "all 447,793, for the test server",
        "val": "214,354 questions, scored here",
    }
    max_new_tokens = 128
    faults = (
        "where all ten people agree, nothing is normalised, so that Yes is not yes, and of many periods only the first "
        "32 go; strict: always normalised, all periods go that no digit follows"
    )
    source = (
        "LLaVA's eval.zip (github.com/haotian-liu/LLaVA, docs/Evaluation.md), visualqa.org/download.html, COCO images, "
        "or lmms-lab/VQAv2 at the Hugging Face hub as the folder VQAv2"
    )
    _submitted: Sequence[QuestionId] = ()  # read with the questions of test-dev: all that its submission names

    def questions(self, data: Path) -> list[Question]:
        split = SPLITS[self.variant]
        self._submitted = self._ids(data) if self.variant == "test-dev" else ()
        if in_tables(data, split):
            return from_tables(find_parquet(data, TABLES, split.table), scored=self.variant == "val")
        path = self.locate(data, *split.places, split.parquet)
        people = self._people(path.parent) if self.variant == "val" else {}
        places = [folder / split.images for folder in (data / "vqav2", data, data / "coco")]
        images = next((place for place in places if place.is_dir()), places[0])
        questions = []
        for id, image, text in asked(path, split):
            conversation = Conversation().ask(text, [images / image])
            if self.variant == "val" and id not in people:
                raise EvaluationError(f"{path}: question {id} has no annotation; are both files complete?")
            questions.append(Question(id, conversation, **people.get(id, {"correct": ()})))
        return questions

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: judge(text, question.correct, strict) for question, text in pairs}

    def figures(self, sums: Sums) -> Figures:
        return {"accuracy": ratio(sums["credit"], sums["n"]), "as_submitted": ratio(sums["as_submitted"], sums["n"])}

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        if self.variant == "val":
            return []
        said = {answer.question_id: normalise_evalai(answer.text) for answer in answers}
        ids = self._submitted or [question.id for question in questions]
        path = folder / f"vqav2_{SPLITS[self.variant].coco}.json"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps([{"question_id": id, "answer": said.get(id, "")} for id in ids]))
        return [path]

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        """Read answers, a submission among them: its "" for what is not of test-dev is no answer."""
        padding = set(self._submitted).difference(question.id for question in questions)
        given = super().read_answers(path, questions)
        return [answer for answer in given if answer.text or answer.question_id not in padding]

    def _ids(self, data: Path) -> list[QuestionId]:
        """All that a submission names, which is more than test-dev asks."""
        split = SPLITS["test"]
        if in_tables(data, split):
            rows = read_parquet(find_parquet(data, TABLES, split.table), {"question_id": int})
            return [row["question_id"] for row in rows]
        return [id for id, _, _ in asked(self.locate(data, *split.places, split.parquet), split)]

    def _people(self, folder: Path) -> dict[QuestionId, dict[str, Any]]:
        """Read what people answered to each question, and of what types it is."""
        path = self.locate(folder, "v2_mscoco_val2014_annotations.json")
        fields = {"question_id": int, "answers": list, "answer_type": str, "question_type": str}
        rows = [check_row(row, fields, str(path)) for row in listed(path, "annotations")]
        return {row["question_id"]: annotation(row) for row in rows}


def judge(text: str, answers: Sequence[str], strict: bool) -> Mark:
    """Mark an answer by those of ten people."""
    earned = agreement(*vqa_compared(text, answers, strict=strict))
    as_submitted = agreement(*vqa_compared(normalise_evalai(text), answers, strict=strict))
    return Mark(earned, normalise(text) or None, {"as_submitted": as_submitted})


def annotation(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Question that come from its annotation."""
    answers = people_said(row["answers"], f"question {row['question_id']}")
    return {"correct": answers, "kind": row["answer_type"], "groups": (row["question_type"],)}


def asked(path: Path, split: Split) -> Iterator[tuple[QuestionId, str, str]]:
    """Read (id, name of the image, prompt) from LLaVA's file or from the official one."""
    if path.suffix == ".jsonl":
        for row in read_rows(path, {"question_id": int, "image": str, "text": str}):
            yield row["question_id"], row["image"], row["text"]
        return
    for row in listed(path, "questions"):
        check_row(row, {"question_id": int, "image_id": int, "question": str}, str(path))
        yield row["question_id"], f"COCO_{split.images}_{row['image_id']:012}.jpg", row["question"] + SUFFIX


def listed(path: Path, name: str) -> list[Any]:
    return check_row(read_json(path), {name: list}, str(path))[name]


def in_tables(data: Path, split: Split) -> bool:
    """Whether the split lies there in parquet files, and not in others."""
    return bool(find_parquet(data, TABLES, split.table)) and not any((data / p).is_file() for p in split.places)


def from_tables(paths: Sequence[Path], *, scored: bool) -> list[Question]:
    fields: dict[str, type] = {"question_id": int, "question": str}
    if scored:
        fields |= {"answers": list, "answer_type": str, "question_type": str}
    questions = []
    for row in read_parquet(paths, fields, images=["image"]):
        conversation = Conversation().ask(row["question"] + SUFFIX, [row["image"]])
        about = annotation(row) if scored else {"correct": ()}
        questions.append(Question(row["question_id"], conversation, **about))
    return questions


if __name__ == "__main__":
    with report_mistakes():
        main(Vqav2, llava_lite.open_model)
