"""AI2D: multiple-choice questions about the diagrams of grade-school science books.

Paper:   Kembhavi et al., A Diagram Is Worth A Dozen Images, ECCV 2016, arXiv:1603.07396
Split:   test, 3,088 questions. In the pictures of the first variant, `mask`, the labels that are asked for are covered
         by letters, to which options refer; in those of `no_mask` labels can be read, which makes several points
Files:   under --data: a folder ai2d/ with the parquet files of lmms-lab/ai2d; for `no_mask` a folder ai2d-no-mask/ with
         those of lmms-lab/ai2d-no-mask or Efficient-Large-Model/ai2d-no-mask
Metric:  accuracy
Quirks:  there is no official scorer for answers in words; this is lmms-eval's, whose figures are compared: "B." at the
         beginning is B, whatever follows; any other answer has to be the letter and nothing else, but for case and
         punctuation marks: so "(B)" is right, but "B) a leaf", "a leaf" and "The answer is B" are wrong.
         The prompt is lmms-eval's. Questions are numbered as they stand in the files.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase, punctuation
from typing import ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.choices import option_lines, stated_letter
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

SUFFIX = "\nAnswer with the option's letter from the given choices directly."
FOLDERS = {"mask": "ai2d", "no_mask": "ai2d-no-mask"}
FIELDS: dict[str, type | tuple[type, ...]] = {"question": str, "options": list, "answer": (str, int)}


class Ai2d(Benchmark):
    title = "ai2d"
    variants: ClassVar[Mapping[str, str]] = {
        "mask": "labels that are asked for are covered by letters",
        "no_mask": "all labels can be read",
    }
    max_new_tokens = 16
    source = "the datasets lmms-lab/ai2d and lmms-lab/ai2d-no-mask at the Hugging Face hub"
    faults = (
        'of sentences only "B. ..." is read; '
        'strict: "B) ...", "The answer is B" and the text of an option count as well'
    )

    def questions(self, data: Path) -> list[Question]:
        folder = FOLDERS[self.variant]
        # not in `data` itself, where the files of the other variant may lie: they have the same names
        here = data if data.name == folder else data / folder
        paths = find_parquet(here, [], "test") or [self.locate(data, f"{folder}/data/test-*.parquet")]
        questions = []
        for number, row in enumerate(read_parquet(paths, FIELDS, images=["image"])):
            options = tuple(row["options"])
            if str(row["answer"]) not in map(str, range(len(options))):
                raise EvaluationError(
                    f"{paths[0]}: row {number}: answer {row['answer']!r} is no place among its options"
                )
            conversation = Conversation().ask(f"{row['question']}\n{option_lines(options)}{SUFFIX}", [row["image"]])
            correct = ascii_uppercase[int(row["answer"])]
            questions.append(Question(number, conversation, (correct,), options=options))
        return questions

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        marks = {}
        for question, text in pairs:
            letter = bare_letter(text, len(question.options))
            if strict:
                letter = stated_letter(text, question.options) or letter
            marks[question.id] = Mark(float(letter in question.correct), letter)
        return marks


def bare_letter(text: str, count: int) -> str | None:
    """The letter before a period at the beginning, else the whole answer; one of the first `count` letters."""
    first = re.match(r"\s*([A-Z])\.", text)
    said = first[1] if first else text
    said = said.upper().translate(str.maketrans("", "", punctuation))
    return said if len(said) == 1 and said in ascii_uppercase[:count] else None


if __name__ == "__main__":
    with report_mistakes():
        main(Ai2d, llava_lite.open_model)
