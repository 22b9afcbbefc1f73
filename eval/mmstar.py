"""MMStar: 1,500 multiple-choice questions chosen because they cannot be answered without their picture.

Paper:   Chen et al., Are We on the Right Way for Evaluating Large Vision-Language Models?, NeurIPS 2024,
         arXiv:2403.20330
Split:   val, all 1,500 questions: 250 in each of 6 categories (kinds), which have 3 axes each (18 groups)
Files:   under --data or --data/MMStar: mmstar.parquet, of the dataset Lin-Chen/MMStar
         --answers also takes the official scripts' workbooks, with the columns index and prediction
Metric:  accuracy over all questions. The blind baseline (--mode normal,blind) gives the multi-modal gain of the paper
Quirks:  an answer is right when, in small letters, it begins with the correct letter, whatever follows ("a dog" is A,
         "because" is B, "Answer: C" is A), or with a bracket, "option " or "the answer is " and the letter.
         lmms-eval reports the mean of the 18 axes, which have different numbers of questions, and reads answers in
         another way: its figure is not this one.
         The prompt is lmms-eval's, which ends without a period.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.choices import stated_letter
from llava_lite.evaluation.command import main
from llava_lite.evaluation.spreadsheets import read_xlsx
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

SUFFIX = "\nAnswer with the option's letter from the given choices directly"
FIELDS = {"index": int, "question": str, "answer": str, "category": str, "l2_category": str}
LETTERS = "ABCD"
OPENINGS = ("", "(", "option ", "the answer is ")


class MmStar(Benchmark):
    title = "mmstar"
    max_new_tokens = 128
    source = "the dataset Lin-Chen/MMStar at the Hugging Face hub"
    faults = (
        'the first character decides, so that "a dog" is A, and "Answer: B" as well; '
        "strict: a letter counts where it stands for an option"
    )

    def questions(self, data: Path) -> list[Question]:
        paths = find_parquet(data, ["MMStar", "mmstar"], "mmstar") or find_parquet(data, ["MMStar", "mmstar"], "val")
        rows = read_parquet(paths or [self.locate(data, "MMStar/mmstar.parquet")], FIELDS, images=["image"])
        questions = []
        for row in rows:
            conversation = Conversation().ask(row["question"].strip() + SUFFIX, [row["image"]])
            answer, options = row["answer"].strip().upper(), read_options(row["question"])
            groups = (row["l2_category"],)
            questions.append(Question(row["index"], conversation, (answer,), row["category"], groups, options=options))
        return questions

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        marks = {}
        for question, text in pairs:
            letter = opening_letter(text)
            if strict:  # LETTERS for a bare letter in small, which leaves no doubt either
                letter = stated_letter(text, question.options) or stated_letter(text, LETTERS)
            marks[question.id] = Mark(float(letter in question.correct), letter)
        return marks

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        if path.suffix != ".xlsx":
            return super().read_answers(path, questions)
        rows = read_xlsx(path, ["index", "prediction"])
        return [Answer(row["index"], str(row["prediction"])) for row in rows if row["prediction"] is not None]


def opening_letter(text: str) -> str | None:
    """The letter with which an answer begins, bare or behind one of OPENINGS."""
    said = text.lower().strip().replace("\n", " ")
    for opening in OPENINGS:
        for letter in LETTERS:
            if said.startswith(opening + letter.lower()):
                return letter
    return None


def read_options(question: str) -> tuple[str, ...]:
    """The texts of A to D, which stand in the question as "Options: A: ..., B: ..."; none where they do otherwise."""
    found = re.search(r"\bOptions:\s*A:(.*?),\s*B:(.*?),\s*C:(.*?),\s*D:(.*)", question, re.S)
    return tuple(text.strip().rstrip(".") for text in found.groups()) if found else ()


if __name__ == "__main__":
    with report_mistakes():
        main(MmStar, llava_lite.open_model)
