"""Scenes of coloured shapes: what is in them, how they look, and what can be asked about them.

A scene is up to four things on a 2x2 grid; no two things share both color and shape, so "the red circle" is one thing.
Every question has one short exact answer, and answers are drawn so that guessing a frequent one does not pay.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from random import Random

from PIL import Image, ImageDraw

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "yellow": (240, 220, 50),
    "purple": (150, 50, 180),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "cross")
PLACES = ("top left", "top right", "bottom left", "bottom right")
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
NUMBERS = ("zero", "one", "two", "three", "four")
DIRECTIONS = {"to the right of": (1, 0), "to the left of": (-1, 0), "below": (0, 1), "above": (0, -1)}
"""Words of a relation -> step on the grid (columns, rows)."""
NAMES = tuple(f"{color} {shape}" for color, shape in product(COLORS, SHAPES))
IMAGE_SIZE = 64


@dataclass(frozen=True)
class Thing:
    """One coloured shape in one cell of the grid."""

    color: str
    shape: str
    place: str

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


Scene = tuple[Thing, ...]
"""Things in reading order."""
Question = tuple[str, str]
"""A question and its exact answer."""


def draw_scene(generator: Random, num_things: int) -> Scene:
    """Draw a scene; half of them use few colors or few shapes, so that counts above one are common."""
    colors = generator.sample(list(COLORS), generator.choice((2, 3, len(COLORS), len(COLORS))))
    shapes = generator.sample(SHAPES, generator.choice((2, 3, len(SHAPES), len(SHAPES))))
    looks = generator.sample(list(product(colors, shapes)), num_things)
    places = sorted(generator.sample(range(len(PLACES)), num_things))
    return tuple(Thing(color, shape, PLACES[place]) for (color, shape), place in zip(looks, places, strict=True))


def paint(scene: Scene, generator: Random) -> Image.Image:
    """Paint a scene: RGB, `IMAGE_SIZE` square, sizes, positions and tints jittered, edges smoothed."""
    zoom = 4
    grey = generator.randint(30, 100)
    image = Image.new("RGB", (IMAGE_SIZE * zoom, IMAGE_SIZE * zoom), (grey, grey, grey))
    pen = ImageDraw.Draw(image)
    for thing in scene:
        cell = PLACES.index(thing.place)
        radius = generator.uniform(9.5, 12.5)
        x = (16 + 32 * (cell % 2) + generator.uniform(-3, 3)) * zoom
        y = (16 + 32 * (cell // 2) + generator.uniform(-3, 3)) * zoom
        tint = tuple(max(0, min(255, value + generator.randint(-12, 12))) for value in COLORS[thing.color])
        _paint_shape(pen, thing.shape, x, y, radius * zoom, tint)
    return image.reduce(zoom)


def _paint_shape(pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, tint: tuple) -> None:
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tint)
    elif shape == "square":
        side = radius * 0.88
        pen.rectangle((x - side, y - side, x + side, y + side), fill=tint)
    elif shape == "triangle":
        corners = [(x + radius * 1.15 * math.sin(turn), y - radius * 1.15 * math.cos(turn)) for turn in _THIRDS]
        pen.polygon(corners, fill=tint)
    else:
        bar = radius * 0.36
        pen.rectangle((x - radius, y - bar, x + radius, y + bar), fill=tint)
        pen.rectangle((x - bar, y - radius, x + bar, y + radius), fill=tint)


_THIRDS = (0.0, 2 * math.pi / 3, 4 * math.pi / 3)


def caption(scene: Scene) -> str:
    """Say everything in one phrase: `a red circle at the top left and a blue square at the bottom left`."""
    phrases = [f"a {thing.name} at the {thing.place}" for thing in scene]
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


def describe(scene: Scene) -> str:
    """Say everything in whole sentences, one a thing: `At the top left is a red circle.`"""
    return " ".join(f"{fact[0].upper()}{fact[1:]}." for fact in facts(scene))


def facts(scene: Scene) -> list[str]:
    """List what a full description states, in the words of `describe`."""
    return [f"at the {thing.place} is a {thing.name}" for thing in scene]


def ask_color(scene: Scene, generator: Random) -> Question | None:
    """Ask about a place or about the only thing of a shape.

    This answer and others repeat what was asked: the words to look up then stand beside the word looked up, which a
    small model learns long before it looks up anything farther away.
    """
    thing = generator.choice(scene)
    if _is_only(scene, shape=thing.shape) and generator.random() < 0.5:
        return f"What color is the {thing.shape}?", f"The {thing.shape} is {thing.color}."
    return f"What color is the object at the {thing.place}?", f"The object at the {thing.place} is {thing.color}."


def ask_shape(scene: Scene, generator: Random) -> Question | None:
    thing = generator.choice(scene)
    if _is_only(scene, color=thing.color) and generator.random() < 0.5:
        return f"What shape is the {thing.color} object?", f"The {thing.color} object is a {thing.shape}."
    return f"What shape is the object at the {thing.place}?", f"The object at the {thing.place} is a {thing.shape}."


def ask_where(scene: Scene, generator: Random) -> Question | None:
    thing = generator.choice(scene)
    return f"Where is the {thing.name}?", f"The {thing.name} is at the {thing.place}."


def ask_count(scene: Scene, generator: Random) -> Question | None:
    """Draw the answer first, then a question that has it."""
    counts = {f"How many {color} objects are there?": sum(t.color == color for t in scene) for color in COLORS}
    counts |= {f"How many {PLURALS[s]} are there?": sum(thing.shape == s for thing in scene) for s in SHAPES}
    counts |= {"How many objects are there?": len(scene)}
    answer = generator.choice(sorted(set(counts.values())))
    return generator.choice([text for text, count in counts.items() if count == answer]), NUMBERS[answer]


def ask_exist(scene: Scene, generator: Random) -> Question | None:
    """Half yes; half of the noes name a color and a shape that are both there, but not together."""
    if generator.random() < 0.5:
        return exist_question(generator.choice(scene).name), "yes"
    mixed = near_misses(scene)
    names = mixed if mixed and generator.random() < 0.5 else absent_names(scene)
    return exist_question(generator.choice(names)), "no"


def ask_relation(scene: Scene, generator: Random) -> Question | None:
    """Ask what lies next to a thing; the answer reasons over where that is. One in six finds nothing there."""
    questions: dict[bool, list[Question]] = {True: [], False: []}
    for thing, (words, step) in product(scene, DIRECTIONS.items()):
        cell = PLACES.index(thing.place)
        column, row = cell % 2 + step[0], cell // 2 + step[1]
        if 0 <= column < 2 and 0 <= row < 2:
            place = PLACES[2 * row + column]
            there = [f"a {other.name}" for other in scene if other.place == place]
            answer = f"The {thing.name} is at the {thing.place}, and at the {place} is {(there or ['nothing'])[0]}."
            questions[bool(there)].append((f"What is {words} the {thing.name}?", answer))
    chosen = questions[generator.random() > 1 / 6]
    return generator.choice(chosen) if chosen else None


def ask_compare(scene: Scene, generator: Random) -> Question | None:
    """Compare two colors or two shapes by number, which differ; half of the answers are yes."""
    words = {f"{color} objects": sum(thing.color == color for thing in scene) for color in COLORS}
    if generator.random() < 0.5:
        words = {PLURALS[shape]: sum(thing.shape == shape for thing in scene) for shape in SHAPES}
    pairs = [(a, b) for a, b in product(words, words) if words[a] > words[b]]
    if not pairs:
        return None
    more, fewer = generator.choice(pairs)
    if generator.random() < 0.5:
        return f"Are there more {more} than {fewer}?", "yes"
    return f"Are there more {fewer} than {more}?", "no"


def _is_only(scene: Scene, *, color: str | None = None, shape: str | None = None) -> bool:
    return sum(color in (None, thing.color) and shape in (None, thing.shape) for thing in scene) == 1


def exist_question(name: str) -> str:
    return f"Is there a {name} in the image?"


def absent_names(scene: Scene) -> list[str]:
    """List the things that are not in a scene."""
    return [name for name in NAMES if name not in {thing.name for thing in scene}]


def near_misses(scene: Scene) -> list[str]:
    """List absent things whose color and whose shape are both in a scene, on different things."""
    colors, shapes = {thing.color for thing in scene}, {thing.shape for thing in scene}
    return [name for name in absent_names(scene) if name.split()[0] in colors and name.split()[1] in shapes]


ASK: dict[str, Callable[[Scene, Random], Question | None]] = {
    "color": ask_color,
    "shape": ask_shape,
    "where": ask_where,
    "count": ask_count,
    "exist": ask_exist,
    "relation": ask_relation,
    "compare": ask_compare,
}
"""Kind of question -> how to ask one; None where a scene cannot answer one (draw again)."""
