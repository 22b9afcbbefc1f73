"""The ways to ask the same questions: as they are, blind (images taken out), and shuffled (another question's image).

What a model still gets right without its eyes, or with the wrong picture before them, it never saw.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Literal, get_args

from llava_lite.conversation.message import Conversation, Image, Message
from llava_lite.evaluation.benchmark import Question
from llava_lite.evaluation.files import EvaluationError
from llava_lite.images.loading import FileSlice, load_image

Mode = Literal["normal", "blind", "shuffled"]
MODES: tuple[Mode, ...] = get_args(Mode)


def read_modes(names: Sequence[str]) -> list[Mode]:
    """Check the names of modes and put them in order, each once; each name may hold several, joined by commas."""
    wanted = [name.strip() for name in ",".join(names).split(",")]
    for name in wanted:
        if name not in MODES:
            near = difflib.get_close_matches(name, MODES, n=1, cutoff=0.0)[0]
            raise EvaluationError(f"unknown mode {name!r}; did you mean {near!r}? There are {', '.join(MODES)}")
    return [mode for mode in MODES if mode in wanted]


def in_mode(questions: Sequence[Question], mode: Mode) -> list[Question]:
    """Rewrite the questions for a mode. Raises EvaluationError where shuffling finds no second image."""
    if mode == "normal":
        return list(questions)
    if mode == "blind":
        return [_with_images(question, lambda image: None) for question in questions]
    others = _another_for_each(questions)
    return [_with_images(question, lambda image: others[image_key(image)]) for question in questions]


def image_key(image: Image) -> str:
    """Name a picture: its path, its place in a file, or a hash of it where it has none."""
    source = image.source
    if isinstance(source, FileSlice):  # `read_parquet` makes equal ones the same
        return f"{source.path}:{source.offset}"
    if isinstance(source, Path) or (isinstance(source, str) and not source.startswith("data:")):
        return str(source)
    written = source.encode() if isinstance(source, str) else source
    return hashlib.sha256(written if isinstance(written, bytes) else load_image(source).tobytes()).hexdigest()


def _another_for_each(questions: Sequence[Question]) -> dict[str, Image]:
    """Deal every distinct image its successor on a shuffled ring: the same every time, and never itself."""
    pictures = {image_key(image): image for question in questions for image in question.conversation.images}
    if len(pictures) == 1:
        raise EvaluationError("all questions show one image, so there is no other to shuffle in; leave out this mode")
    ring = list(pictures)
    Random(0).shuffle(ring)  # neighbours in the file may be alike: frames of a clip, variants of a scene
    return {key: pictures[other] for key, other in zip(ring, ring[1:] + ring[:1], strict=True)}


def _with_images(question: Question, change: Callable[[Image], Image | None]) -> Question:
    """Replace each image of a question, or drop it where `change` gives None."""
    messages = []
    for message in question.conversation.messages:
        parts = [change(part) if isinstance(part, Image) else part for part in message.content]
        messages.append(Message(message.role, tuple(part for part in parts if part is not None)))
    return replace(question, conversation=Conversation(tuple(messages), question.conversation.system))
