"""The example scenes of the web page, as the demo world's renderer gives them. `python -m tests.serve.examples` writes
them anew: after a change of the renderer, which `test_examples.py` notices."""

import json
from pathlib import Path
from random import Random

from PIL import Image

from llava_lite.demo.scene import ASK, Scene, caption, draw_scene, paint
from llava_lite.demo.world import DETAILED_INSTRUCTIONS

WEB = Path(__file__).parents[2] / "llava_lite" / "serve" / "web"
SCENES = (
    (4, 4, ("relation", "describe")),
    (2, 2, ("where", "exist")),
    (5, 4, ("count", "shape")),
    (3, 3, ("color", "describe")),
    (6, 3, ("compare", "where")),
    (9, 4, ("exist", "relation")),
)
"""Of each scene: its seed, how many things it has, and the kinds of question asked."""


def write_examples(folder: Path) -> None:
    """Write examples.json, which the server sends as it is, and beside it a picture a scene."""
    (folder / "examples").mkdir(exist_ok=True)
    entries = []
    for seed, num_things, kinds in SCENES:
        image, entry = example(seed, num_things, kinds)
        image.save(folder / str(entry["image"]), optimize=True)
        entries.append(entry)
    (folder / "examples.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def example(seed: int, num_things: int, kinds: tuple[str, ...]) -> tuple[Image.Image, dict[str, object]]:
    """Draw a scene and ask about it. Its addresses are relative, so that the page may lie below a path."""
    generator = Random(seed)
    scene = draw_scene(generator, num_things)
    image = paint(scene, generator)
    questions = [question(kind, scene, generator) for kind in kinds]
    return image, {"image": f"examples/scene-{seed}.png", "description": caption(scene), "questions": questions}


def question(kind: str, scene: Scene, generator: Random) -> str:
    """Ask about a scene; not every kind finds something to ask at the first try."""
    if kind == "describe":
        return DETAILED_INSTRUCTIONS[0]
    while (asked := ASK[kind](scene, generator)) is None:
        pass
    return asked[0]


if __name__ == "__main__":
    write_examples(WEB)
