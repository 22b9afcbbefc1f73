"""The pixel world with a judge: it is asked whether an answer is right, and says yes or no.

Run as a script it evaluates and judges, slowly enough to be killed: `python judged_world.py DATA OUT LOG`.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixel_world import GREEDY, PixelModel, Pixels

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Mark, Question, QuestionId
from llava_lite.evaluation.judging import Judging
from llava_lite.evaluation.runner import run
from llava_lite.generation.chat_model import GenerationError, Sampling

JUDGED_WORLD = Path(__file__)


class Opinion(Judging):
    """Needs no judge where the answer is white."""

    official = "oracle-1"
    tries = 3

    def __init__(self, words: str) -> None:
        self.words = words

    def needed(self, question: Question, answer: str) -> bool:
        return answer != "white"

    def request(self, question: Question, answer: str, attempt: int) -> Conversation:
        asked = f"{self.words} {question.id}: {question.correct[0]} or {answer}?{' Just yes or no!' if attempt else ''}"
        return Conversation(system="You know colors.").ask(asked)

    def sampling(self, attempt: int) -> Sampling:
        return Sampling(max_new_tokens=4, temperature=0.5 * attempt, seed=attempt)

    def readable(self, review: str) -> bool:
        return review.strip() in ("yes", "no")


class Opinions(Pixels):
    title = "opinions"
    faults = "what the judge mumbles is official a no; strict: left out"
    words = "Judge number"

    def judging(self, data: Path | None = None) -> Judging:
        return Opinion(self.words)

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        said = {question.id: text.strip() for question, text in pairs}
        return {id: Mark(float(text in ("yes", "white")), None if text == "hm" else text) for id, text in said.items()}


@dataclass
class Judge:
    """A judge that says what it is told to: of the question's number and how often it was asked about it."""

    say: Callable[[int, int], str] = lambda number, time: "yes"
    name: str = "oracle"
    asked: list[tuple[int, Sampling]] = field(default_factory=list)
    log: Path | None = None
    seconds: float = 0.0

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = GREEDY) -> list[str]:
        answers = [self._answer(conversation, sampling) for conversation in conversations]
        time.sleep(self.seconds)
        return answers

    def stream(self, conversation: Conversation, sampling: Sampling = GREEDY) -> Iterator[str]:
        yield self._answer(conversation, sampling)

    def _answer(self, conversation: Conversation, sampling: Sampling) -> str:
        number = number_of(conversation.messages[-1].text)
        self.asked.append((number, sampling))
        if self.log:
            with self.log.open("a") as file:
                file.write(f"{number}\n")
        said = self.say(number, [asked for asked, _ in self.asked].count(number))
        if said == "refused":
            raise GenerationError("conversations[0]: refuses to answer")
        return said


def number_of(asked: str) -> int:
    """The question that a judge is asked about."""
    return int(asked.partition(":")[0].split()[-1])


if __name__ == "__main__":
    data, out, log = map(Path, sys.argv[1:])
    run(Opinions(), PixelModel(), data=data, out=out, batch_size=2, judge=Judge(log=log, seconds=0.1))
