"""The example scenes that travel with the server are what the demo world's renderer gives."""

import json

from PIL import Image

from tests.serve.examples import SCENES, WEB, example


def test_the_example_scenes_are_the_demo_worlds() -> None:
    entries = json.loads((WEB / "examples.json").read_text(encoding="utf-8"))
    for scene, entry in zip(SCENES, entries, strict=True):
        image, drawn = example(*scene)
        with Image.open(WEB / entry["image"]) as written:
            assert (written.mode, written.tobytes()) == ("RGB", image.tobytes())
        assert entry == drawn


def test_nothing_else_is_beside_them_and_they_are_small() -> None:
    pictures = {path.relative_to(WEB).as_posix() for path in (WEB / "examples").iterdir()}
    assert pictures == {str(example(*scene)[1]["image"]) for scene in SCENES}
    assert sum((WEB / picture).stat().st_size for picture in pictures) < 10_000
