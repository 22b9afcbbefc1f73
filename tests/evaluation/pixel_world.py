"""A world of plain-coloured pictures, a benchmark on it, and a model that answers from the first pixel it sees.

Run as a script it evaluates that model, slowly enough to be killed: `python pixel_world.py DATA OUT LOG`.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.command import Request, evaluate
from llava_lite.evaluation.files import read_rows
from llava_lite.generation.chat_model import ChatModel, Sampling
from llava_lite.images.loading import load_image
from llava_lite.recipes import report_mistakes

PIXEL_WORLD = Path(__file__)
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
GREEDY = Sampling()
NAMES = {pixel: name for name, pixel in COLORS.items()}


def write_world(folder: Path, *, num_rounds: int = 5) -> Path:
    """One picture a colour, asked about `num_rounds` times in two kinds of question."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(num_rounds * len(COLORS)):
        color = list(COLORS)[number % len(COLORS)]
        kind = ("short", "long")[number % 2]
        text = f"What color is it, asked for the time number {number}?" if kind == "long" else f"Color {number}?"
        lines.append(f'{{"id": {number}, "color": "{color}", "kind": "{kind}", "text": "{text}"}}\n')
        Image.new("RGB", (8, 8), COLORS[color]).save(folder / "images" / f"{color}.png")
    (folder / "pixels.jsonl").write_text("".join(lines))
    return folder


class Pixels(Benchmark):
    title = "pixels"
    max_new_tokens = 8
    source = "the shop around the corner"

    def questions(self, data: Path) -> list[Question]:
        rows = read_rows(self.locate(data, "pixels.jsonl"), {"id": int, "color": str, "kind": str, "text": str})
        return [
            Question(
                id=row["id"],
                conversation=Conversation().ask(row["text"], [data / "images" / f"{row['color']}.png"]),
                correct=(row["color"],),
                kind=row["kind"],
            )
            for row in rows
        ]

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: Mark(float(text == question.correct[0]), text) for question, text in pairs}


@dataclass
class PixelModel(ChatModel):
    """Names the color of the first pixel; "red" in the dark. `asked` keeps every conversation, in batches."""

    name: str = "pixel-model"
    asked: list[list[Conversation]] = field(default_factory=list)
    log: Path | None = None
    seconds: float = 0.0

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = GREEDY) -> list[str]:
        self.asked.append(list(conversations))
        if self.log:
            with self.log.open("a") as file:
                file.writelines(f"{conversation.messages[-1].text}\n" for conversation in conversations)
        time.sleep(self.seconds)
        return [self._answer(conversation) for conversation in conversations]

    def stream(self, conversation: Conversation, sampling: Sampling = GREEDY) -> Iterator[str]:
        yield self._answer(conversation)

    def texts(self) -> list[str]:
        """The questions asked so far."""
        return [conversation.messages[-1].text for batch in self.asked for conversation in batch]

    def _answer(self, conversation: Conversation) -> str:
        images = conversation.images
        return NAMES[load_image(images[0].source).getpixel((0, 0))] if images else "red"


def read_scores(out: Path) -> dict:
    return json.loads((out / "scores.json").read_text())


def read_lines(path: Path) -> list[bytes]:
    """The whole lines of a file that may be growing."""
    return path.read_bytes().split(b"\n")[:-1]


if __name__ == "__main__":
    data, out, log = map(Path, sys.argv[1:])
    with report_mistakes():
        request = Request(model="pixel-model", data=data, out=out, batch_size=2)
        evaluate([Pixels()], request, lambda name: PixelModel(name, log=log, seconds=0.1))
