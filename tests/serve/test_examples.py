"""The example scenes that travel with the server are what the demo world's renderer gives."""

import json

from PIL import Image

from tests.serve.examples import FOLDER, SCENES, example


def test_the_example_scenes_are_the_demo_worlds() -> None:
    entries = []
    for scene in SCENES:
        name, image, entry = example(*scene)
        with Image.open(FOLDER / name) as written:
            assert (written.mode, written.tobytes()) == ("RGB", image.tobytes()), "python -m tests.serve.examples"
        entries.append(entry)
    assert json.loads((FOLDER / "examples.json").read_text(encoding="utf-8")) == entries


def test_there_is_nothing_else_beside_them() -> None:
    names = {example(*scene)[0] for scene in SCENES} | {"examples.json"}
    assert {path.name for path in FOLDER.iterdir()} == names
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 20_000
