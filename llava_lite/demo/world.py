"""Writes the demo world to disk: images, the training files of every stage, and held-out benchmarks.

Everything follows from the seed. Held-out scenes never occur in training, neither in images nor in text.

    images/            train_00000.png ..., test_00000.png ...
    contrastive.json   stage zero: [{"id", "image", "captions": [every true short caption]}]
    dialogues.json     language model: LLaVA JSON without images, the scene written out in the question
    captions.json      align: LLaVA JSON, a brief instruction and a caption
    instructions.json  finetune: LLaVA JSON of three kinds (conversation, detailed description, complex reasoning)
    test_captions.json, shapes.jsonl, pope/    held out
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random

from llava_lite.demo.scene import (
    ASK,
    NAMES,
    Question,
    Scene,
    absent_names,
    caption,
    describe,
    draw_scene,
    exist_question,
    facts,
    near_misses,
    paint,
)

BRIEF_INSTRUCTIONS = (
    "Describe the image concisely.",
    "Provide a brief description of the given image.",
    "Offer a succinct explanation of the picture presented.",
    "Summarize the visual content of the image.",
    "Give a short and clear explanation of the subsequent image.",
    "Share a concise interpretation of the image provided.",
    "Present a compact description of the photo's key features.",
    "Relay a brief, clear account of the picture shown.",
    "Render a clear and concise summary of the photo.",
    "Write a terse but informative summary of the picture.",
    "Create a compact narrative representing the image presented.",
)
"""LLaVA's brief instructions, word for word."""

DETAILED_INSTRUCTIONS = (
    "Describe the following image in detail.",
    "Provide a detailed description of the given image.",
    "Give an elaborate explanation of the image you see.",
    "Share a comprehensive rundown of the presented image.",
    "Offer a thorough analysis of the image.",
    "Explain the various aspects of the image before you.",
    "Clarify the contents of the displayed image with great detail.",
    "Characterize the image using a well-detailed description.",
    "Break down the elements of the image in a detailed manner.",
    "Walk through the important details of the image.",
    "Portray the image with a rich, descriptive narrative.",
    "Narrate the contents of the image with precision.",
    "Analyze the image in a comprehensive and detailed manner.",
    "Illustrate the image through a descriptive explanation.",
    "Examine the image closely and share its details.",
    "Write an exhaustive depiction of the given image.",
)
"""LLaVA's detailed instructions, word for word."""

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
CONVERSATION_KINDS = ("color", "shape", "where", "where", "count", "count", "exist", "exist", "exist", "exist")
REASONING_KINDS = ("relation", "compare", "compare", "count", "where")
POPE_CATEGORIES = ("adversarial", "popular", "random")

PLAIN_DIALOGUES: tuple[tuple[Question, ...], ...] = (
    (("Hello.", "Hello! Ask me about an image."), ("What can you do?", "I answer questions about colored shapes.")),
    (("What is the opposite of left?", "right"), ("What is the opposite of top?", "bottom")),
    (("What is the opposite of right?", "left"), ("What is the opposite of bottom?", "top")),
    (("Which number comes after one?", "two"), ("Which number comes after two?", "three")),
    (("Which number comes after three?", "four"), ("Which number comes after zero?", "one")),
    (("Which shape has three corners?", "triangle"), ("Which shape has four equal sides?", "square")),
    (("Which shape has no corners?", "circle"), ("Which shape has two bars?", "cross")),
)
"""Conversations without any scene."""


def write_world(
    folder: Path,
    *,
    seed: int = 0,
    num_scenes: int = 6000,
    num_test_scenes: int = 240,
    questions_per_kind: int = 50,
    pope_scenes: int = 24,
) -> None:
    """Write the whole world under `folder`: `num_scenes` to learn from, `num_test_scenes` to be tested on."""
    generator = Random(seed)
    test = _draw_scenes(generator, num_test_scenes, sizes=(2, 3, 4), taken=set())
    train = _draw_scenes(generator, num_scenes, sizes=(1, 2, 3, 4), taken=set(test))
    train_names = _paint_all(folder / "images", "train", train, generator)
    test_names = _paint_all(folder / "images", "test", test, generator)

    pairs = list(zip(train_names, train, strict=True))
    _write_json(folder / "contrastive.json", [_contrastive(name, scene) for name, scene in pairs])
    _write_json(folder / "captions.json", [_captioned(name, scene, generator) for name, scene in pairs])
    _write_json(folder / "instructions.json", list(_instructions(pairs, generator)))
    _write_json(folder / "dialogues.json", list(_dialogues(train, generator)))

    held_out = list(zip(test_names, test, strict=True))
    _write_json(folder / "test_captions.json", [_captioned(name, scene, generator) for name, scene in held_out])
    _write_lines(folder / "shapes.jsonl", _shapes(held_out, questions_per_kind, generator))
    names = Counter(thing.name for scene in train for thing in scene)
    _write_pope(folder / "pope", held_out[:pope_scenes], names, generator)


def score_description(answer: str, expected: list[str]) -> float:
    """Score a description by the facts it states: true facts over the larger of facts and sentences, in [0, 1].

    A fact is stated where the answer contains its words. Dividing by the number of sentences makes listing everything
    that could be true worthless.
    """
    text = answer.lower()
    sentences = [sentence for sentence in text.split(".") if sentence.strip()]
    return sum(fact.lower() in text for fact in expected) / max(len(expected), len(sentences), 1)


def _draw_scenes(generator: Random, count: int, *, sizes: tuple[int, ...], taken: set[Scene]) -> list[Scene]:
    """Draw scenes that are not in `taken`; where one thing is allowed, a third of them hold one (see contrastive)."""
    scenes: list[Scene] = []
    while len(scenes) < count:
        alone = sizes[0] == 1 and generator.random() < 1 / 3
        scene = draw_scene(generator, 1 if alone else generator.choice(sizes[-3:]))
        if scene not in taken:
            scenes.append(scene)
    return scenes


def _paint_all(folder: Path, prefix: str, scenes: list[Scene], generator: Random) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{prefix}_{index:05d}.png" for index in range(len(scenes))]
    for name, scene in zip(names, scenes, strict=True):
        paint(scene, generator).save(folder / name, compress_level=1)
    return names


def _contrastive(image: str, scene: Scene) -> dict:
    """Each thing without its place and with it: the first teaches what things are, the second where."""
    placed = [f"a {thing.name} at the {thing.place}" for thing in scene]
    return {"id": Path(image).stem, "image": image, "captions": [f"a {thing.name}" for thing in scene] + placed}


def _captioned(image: str, scene: Scene, generator: Random) -> dict:
    turns = [(generator.choice(BRIEF_INSTRUCTIONS), caption(scene))]
    return _record(f"{Path(image).stem}-caption", turns, image, generator)


def _instructions(pairs: list[tuple[str, Scene]], generator: Random) -> Iterable[dict]:
    for image, scene in pairs:
        if len(scene) == 1:  # painted for stage zero; nothing to relate or to compare
            continue
        name = Path(image).stem
        yield _record(f"{name}-conversation", _ask_each(CONVERSATION_KINDS, scene, generator), image, generator)
        yield _record(f"{name}-reasoning", _ask_each(REASONING_KINDS, scene, generator), image, generator)
        if generator.random() < 1 / 2:
            turns = [(generator.choice(DETAILED_INSTRUCTIONS), describe(scene))]
        else:
            turns = [(generator.choice(BRIEF_INSTRUCTIONS), caption(scene))]
        yield _record(f"{name}-detail", turns, image, generator)


def _dialogues(scenes: list[Scene], generator: Random) -> Iterable[dict]:
    """The questions of the instructions with the scene as text before them; one in fifty is plain conversation."""
    for index, scene in enumerate(scene for scene in scenes if len(scene) > 1):
        if generator.random() < 1 / 50:
            turns = list(generator.choice(PLAIN_DIALOGUES))
        else:
            kind = generator.random()
            if kind < 0.2:
                turns = [(generator.choice(BRIEF_INSTRUCTIONS), caption(scene))]
            elif kind < 0.4:
                turns = [(generator.choice(DETAILED_INSTRUCTIONS), describe(scene))]
            else:
                turns = _ask_each(generator.choice((CONVERSATION_KINDS, REASONING_KINDS)), scene, generator)
            shuffled = tuple(generator.sample(scene, len(scene)))
            turns[0] = (f"{caption(shuffled)}\n{turns[0][0]}", turns[0][1])
        yield _record(f"dialogue_{index:05d}", turns, None, generator)


def _ask_each(kinds: tuple[str, ...], scene: Scene, generator: Random) -> list[Question]:
    """Ask one question of each kind, in random order, none twice."""
    questions: dict[str, str] = {}
    for kind in generator.sample(kinds, len(kinds)):
        asked = _try_to_ask(kind, scene, generator)
        if asked is not None:
            questions[asked[0]] = asked[1]
    return [
        (text + SHORT_ANSWER if " " not in answer and generator.random() < 1 / 3 else text, answer)
        for text, answer in questions.items()
    ]


def _try_to_ask(kind: str, scene: Scene, generator: Random) -> Question | None:
    return next((asked for _ in range(8) if (asked := ASK[kind](scene, generator)) is not None), None)


def _record(name: str, turns: list[Question], image: str | None, generator: Random) -> dict:
    """A LLaVA record; the image stands before the first question, or in one of four records after it."""
    conversations = []
    for question, answer in turns:
        conversations += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    if image is None:
        return {"id": name, "conversations": conversations}
    first = conversations[0]
    first["value"] = f"{first['value']}\n<image>" if generator.random() < 1 / 4 else f"<image>\n{first['value']}"
    return {"id": name, "image": image, "conversations": conversations}


def _shapes(pairs: list[tuple[str, Scene]], questions_per_kind: int, generator: Random) -> Iterable[dict]:
    """Open questions, kind by kind: `answer` is exact; kind `describe` has `facts` (see `score_description`)."""
    number = 0
    for kind in (*ASK, "describe"):
        asked: set[tuple[str, str]] = set()
        while len(asked) < questions_per_kind:
            image, scene = generator.choice(pairs)
            question = ASK[kind](scene, generator) if kind in ASK else None
            if kind == "describe":
                question = generator.choice(DETAILED_INSTRUCTIONS), describe(scene)
            if question is None or (image, question[0]) in asked:
                continue
            asked.add((image, question[0]))
            row = {"question_id": number, "image": image, "text": question[0], "answer": question[1], "kind": kind}
            yield row | ({"facts": facts(scene)} if kind == "describe" else {})
            number += 1


def _write_pope(folder: Path, pairs: list[tuple[str, Scene]], names: Counter[str], generator: Random) -> None:
    """Two things that are there and two that are not, for every image and category; labels in the same order."""
    frequent = [name for name, _ in names.most_common(len(NAMES) // 3)]
    questions: list[dict] = []
    for category in POPE_CATEGORIES:
        labels: list[dict] = []
        for image, scene in pairs:
            absent = absent_names(scene)
            near = near_misses(scene)
            preferred = {"adversarial": near, "popular": [n for n in absent if n in frequent], "random": absent}[
                category
            ]
            noes = generator.sample(preferred, min(2, len(preferred))) + generator.sample(absent, 4)
            chosen = [(thing.name, "yes") for thing in generator.sample(scene, 2)]
            chosen += [(name, "no") for name in list(dict.fromkeys(noes))[:2]]
            for name, label in generator.sample(chosen, len(chosen)):
                number, text = len(labels) + 1, exist_question(name)
                labels.append({"question_id": number, "image": image, "text": text, "label": label})
                asked = {"question_id": len(questions), "image": image, "text": text + SHORT_ANSWER}
                questions.append(asked | {"category": category})
        _write_lines(folder / "coco" / f"coco_pope_{category}.json", labels)
    _write_lines(folder / "llava_pope_test.jsonl", questions)


def _write_json(path: Path, records: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, indent=1), encoding="utf-8")


def _write_lines(path: Path, records: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
