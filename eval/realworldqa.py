"""RealWorldQA: questions about photographs, many from cars, on where things are and what they are doing.

Paper:   none; xAI released it with Grok-1.5 Vision in April 2024
Split:   test, all 765 questions: with options (kind `letter`) or with a word or number for an answer (`open`)
Files:   under --data: a folder RealWorldQA/ or RealworldQA/ with the parquet files of lmms-lab/RealWorldQA or
         xai-org/RealworldQA
Metric:  accuracy
Quirks:  xAI published no scorer; this is lmms-eval's, whose figures are compared. Where a letter is due, letters are
         looked for in nine ways, and the most trusted wins: at the beginning, at the end, behind phrases such as
         "answer is", in brackets, before a period, a colon, a bracket or a space, and at last anywhere; of several the
         last, so that "The answer is A, not B" is B, and "DOGS" is D. Other answers have to be the correct one but for
         case and final periods.
         The prompt is the question, which says itself how to answer. Questions are numbered as they stand in the files.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.choices import stated_letter
from llava_lite.evaluation.command import main
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

FOLDERS = ("RealWorldQA", "RealworldQA", "realworldqa")
FIELDS = {"question": str, "answer": str}
LETTERS = "ABCD"
PHRASES = (
    "the answer is", "answer is", "the correct answer is", "correct answer is", "the best answer is", "best answer is",
    "the correct option is", "correct option is", "the best option is", "best option is", "the choice is", "choice is",
    "the correct choice is", "correct choice is", "i choose", "i select", "i pick", "my answer is", "my choice is",
    "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは",
)  # fmt: skip
FORMS = {"({})": 6, "{}.": 5, "{}:": 4, "{})": 3, "{} ": 2}
"""How a letter may stand in a text, and how far it is trusted there: at the beginning it is 10, at the end 9."""


class RealWorldQa(Benchmark):
    title = "realworldqa"
    max_new_tokens = 16
    source = "the dataset lmms-lab/RealWorldQA, or xai-org/RealworldQA, at the Hugging Face hub"
    faults = (
        "letters are found within words and in what is denied; strict: a letter counts where it stands for an option, "
        "and so does the text of one"
    )

    def questions(self, data: Path) -> list[Question]:
        paths = find_parquet(data, FOLDERS, "test") or [self.locate(data, f"{FOLDERS[0]}/data/test-*.parquet")]
        questions = []
        for number, row in enumerate(read_parquet(paths, FIELDS, images=["image"])):
            text, answer = row["question"].strip(), row["answer"].strip()
            letter = answer.upper() in tuple(LETTERS)
            correct, kind = (answer.upper(), "letter") if letter else (answer, "open")
            options = tuple(re.findall(r"^[A-D]\. (.*?)\s*$", text, re.M)) if letter else ()
            conversation = Conversation().ask(text, [row["image"]])
            questions.append(Question(number, conversation, (correct,), kind, options=options))
        return questions

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        marks = {}
        for question, text in pairs:
            if question.kind == "open":
                said = text.lower().strip().rstrip(".") or None
                marks[question.id] = Mark(float(said == question.correct[0].lower()), said)
            else:
                letter = trusted_letter(text)
                if strict:  # LETTERS for a bare letter in small, which leaves no doubt either
                    letter = stated_letter(text, question.options) or stated_letter(text, LETTERS)
                marks[question.id] = Mark(float(letter in question.correct), letter)
        return marks


def trusted_letter(text: str) -> str | None:
    """The letter that stands where it is most trusted; of several the last. None where there is none at all."""
    text = text.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    places = list(found_letters(text))
    if not places:
        places = [(0, text.rfind(letter), letter) for letter in LETTERS if letter in text]
    return max(places)[2] if places else None


def found_letters(text: str) -> Iterator[tuple[int, int, str]]:
    """Find letters as (trust, place, letter)."""
    padded, bare = f" {text} ", text.strip()
    for letter in LETTERS:
        for form, trust in FORMS.items():
            if form.format(letter) in padded:
                yield trust, padded.rfind(form.format(letter)), letter
        for phrase in PHRASES:
            start = padded.lower().find(phrase)
            if start >= 0 and (place := padded.find(letter, start + len(phrase))) >= 0:
                yield 7, place, letter
        if bare.startswith(letter) and not bare[1:2].isalpha():
            yield 10, 0, letter
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            yield 9, len(padded), letter


if __name__ == "__main__":
    with report_mistakes():
        main(RealWorldQa, llava_lite.open_model)
