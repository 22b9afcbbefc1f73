"""DocVQA: questions about pages of scanned documents.

Paper:   Mathew et al., DocVQA: A Dataset for VQA on Document Images, WACV 2021, arXiv:2007.00398
Split:   validation, 5,349 questions, scored here; variant `test`, 5,188, which the server scores
Files:   under --data or --data/docvqa, of rrc.cvc.uab.es (challenge 17, task 1):
         spdocvqa_qas/val_v1.0_withQT.json, test_v1.0.json    {"data": [{"questionId", "question", "image", "answers"}]}
         spdocvqa_images/ (in older downloads documents/)     pages
         or a folder DocVQA/ with the parquet files of lmms-lab/DocVQA, in its DocVQA/
Metric:  ANLS, average normalised Levenshtein similarity; by type of question (tables, forms, handwriting, ...)
Quirks:  ANLS is that of the server's script: edits are counted without regard to case and white space, but over the
         length of the longer text as it was written, so that spaces around an answer soften its errors; below 0.5 it
         is 0, at 0.5 it stays 0.5, where the paper has 0. Other implementations give figures several points away.
         The prompt and the length of answers are lmms-eval's, for the benchmark names none.
         The test split's answers are not public: it is not scored, and submission/docvqa_test.json is for the server.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.anls import anls, anls_of_the_paper
from llava_lite.evaluation.benchmark import Answer, Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.metrics import ratio
from llava_lite.evaluation.rrc import read_number, read_split, write_submission
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

SUFFIX = "\nAnswer the question using a single word or phrase."
FILES = {"val": ("val_v1.0_withQT.json", "val_v1.0.json"), "test": ("test_v1.0.json",)}
FOLDERS = ("docvqa/spdocvqa_qas", "docvqa", "spdocvqa_qas", ".")
SPLITS = {"val": "validation", "test": "test"}
OPTIONAL = (list, type(None))


class DocVqa(Benchmark):
    title = "docvqa"
    variants: ClassVar[Mapping[str, str]] = {"val": "validation, scored here", "test": "for the server to score"}
    max_new_tokens = 32
    source = "rrc.cvc.uab.es (challenge 17, task 1), or the dataset lmms-lab/DocVQA at the Hugging Face hub"
    faults = "edits are counted over the length of texts as written, and 0.5 is kept; strict: as the paper defines ANLS"

    def questions(self, data: Path) -> list[Question]:
        return [self._question(row) for row in self._official(data) or self._parquet(data)]

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        similarity = anls_of_the_paper if strict else anls
        return {q.id: Mark(similarity(text, q.correct), text.strip() or None) for q, text in pairs}

    def figures(self, sums: Sums) -> Figures:
        return {"anls": ratio(sums["credit"], sums["n"])}

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        return [write_submission(folder / "docvqa_test.json", answers)] if self.variant == "test" else []

    def _question(self, row: Mapping[str, Any]) -> Question:
        conversation = Conversation().ask(row["question"] + SUFFIX, [row["image"]])
        answers = tuple(row.get("answers") or ()) if self.variant == "val" else ()
        if self.variant == "val" and not answers:
            raise EvaluationError(f"{self.name}: question {row['questionId']} has no answers; is this the right split?")
        return Question(read_number(row), conversation, answers, groups=tuple(row.get("question_types") or ()))

    def _official(self, data: Path) -> list[dict[str, Any]]:
        """Read the server's file; no rows where it is not there."""
        places = [data / folder / name for folder in FOLDERS for name in FILES[self.variant]]
        path = next((place for place in places if place.is_file()), None)
        fields: dict[str, Any] = {
            "questionId": (int, str),
            "question": str,
            "question_types": OPTIONAL,
            **({"answers": list} if self.variant == "val" else {}),
        }
        return read_split(path, fields, "image", ["documents", "spdocvqa_images"]) if path else []

    def _parquet(self, data: Path) -> list[dict[str, Any]]:
        split = SPLITS[self.variant]
        paths = find_parquet(data, ["DocVQA", "docvqa"], split, "DocVQA") or [
            self.locate(data, f"docvqa/spdocvqa_qas/{FILES[self.variant][0]}", f"DocVQA/DocVQA/{split}-*.parquet")
        ]
        fields: dict[str, Any] = {
            "questionId": (int, str),
            "question": str,
            "answers": OPTIONAL,
            "question_types": OPTIONAL,
        }
        return read_parquet(paths, fields, images=["image"])


if __name__ == "__main__":
    with report_mistakes():
        main(DocVqa, llava_lite.open_model)
