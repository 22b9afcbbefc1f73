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
OPPOSITE = {"to the right of": "to the left of", "to the left of": "to the right of", "below": "above", "above": "below"}
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
    """Say everything in one phrase: `at the top left a red circle and at the bottom left a blue square`.

    The place comes first: what follows it can then be learnt as an answer to it.
    """
    phrases = [f"at the {thing.place} a {thing.name}" for thing in scene]
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


def describe(scene: Scene) -> str:
    """Say everything in whole sentences, one a thing."""
    return " ".join(f"{fact[0].upper()}{fact[1:]}." for fact in facts(scene))


def facts(scene: Scene) -> list[str]:
    """List what a full description states, in the words of `describe`."""
    return [f"at the {thing.place} is a {thing.name}" for thing in scene]


def ask_color(scene: Scene, generator: Random) -> Question | None:
    thing = generator.choice(scene)
    if _is_only(scene, shape=thing.shape) and generator.random() < 0.5:
        return f"What color is the {thing.shape}?", thing.color
    return f"What color is the object at the {thing.place}?", thing.color


def ask_shape(scene: Scene, generator: Random) -> Question | None:
    thing = generator.choice(scene)
    if _is_only(scene, color=thing.color) and generator.random() < 0.5:
        return f"What shape is the {thing.color} object?", thing.shape
    return f"What shape is the object at the {thing.place}?", thing.shape


def ask_where(scene: Scene, generator: Random) -> Question | None:
    thing = generator.choice(scene)
    return f"Where is the {thing.name}?", thing.place


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
    """Ask whether one thing lies on a side of another; half of the answers are yes."""
    pairs = [(a, b, words) for a, b in product(scene, scene) for words in _directions(a, b)]
    if not pairs:
        return None
    first, second, words = generator.choice(pairs)
    if generator.random() < 0.5:
        return f"Is the {first.name} {words} the {second.name}?", "yes"
    return f"Is the {first.name} {OPPOSITE[words]} the {second.name}?", "no"


def ask_compare(scene: Scene, generator: Random) -> Question | None:
    """Compare two things by height, or two colors or shapes by number."""
    if len(scene) < 2:
        return None
    return generator.choice((_compare_numbers, _compare_numbers, _compare_height))(scene, generator)


def _compare_numbers(scene: Scene, generator: Random) -> Question | None:
    """Compare two numbers that differ; half of the answers are yes."""
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


def _compare_height(scene: Scene, generator: Random) -> Question | None:
    axis = generator.choice((0, 1))
    word = {0: {"top": "higher", "bottom": "lower"}, 1: {"left": "further left", "right": "further right"}}[axis]
    first, second = generator.sample(scene, 2)
    sides = first.place.split()[axis], second.place.split()[axis]
    if sides[0] == sides[1]:
        return None
    side, relation = generator.choice(list(word.items()))
    answer = first if sides[0] == side else second
    return f"Which is {relation}, the {first.name} or the {second.name}?", answer.name


def _directions(first: Thing, second: Thing) -> list[str]:
    """How the first thing lies to the second."""
    (top, left), (other_top, other_left) = first.place.split(), second.place.split()
    across = [f"to the {left} of"] if left != other_left else []
    return across + (["above" if top == "top" else "below"] if top != other_top else [])


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
