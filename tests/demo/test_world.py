"""The demo world: what its files hold, and that nothing in them can be guessed or leaks."""

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from llava_lite.demo.scene import ASK, PLACES, SHAPES, Thing, caption, describe, draw_scene, facts, near_misses, paint
from llava_lite.demo.world import SHORT_ANSWER, score_description, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, seed=3, num_scenes=60, num_test_scenes=30, questions_per_kind=5, pope_scenes=10)
    return folder


def read_json(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_same_seed_writes_same_bytes(tmp_path: Path) -> None:
    sizes = {"num_scenes": 12, "num_test_scenes": 8, "questions_per_kind": 2, "pope_scenes": 3}
    write_world(tmp_path / "one", seed=5, **sizes)
    write_world(tmp_path / "two", seed=5, **sizes)
    write_world(tmp_path / "other", seed=6, **sizes)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 20 + 6 + 4
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    captions = Path("captions.json")
    assert (tmp_path / "one" / captions).read_bytes() != (tmp_path / "other" / captions).read_bytes()


def test_every_image_is_there_and_square(world: Path) -> None:
    names = {
        row["image"]
        for file in ("contrastive", "captions", "instructions")
        for row in read_json(world / f"{file}.json")
    }
    names |= {row["image"] for row in read_lines(world / "shapes.jsonl")}
    assert all(Image.open(world / "images" / name).size == (64, 64) for name in names)


@pytest.mark.parametrize("file", ["captions.json", "instructions.json", "dialogues.json", "test_captions.json"])
def test_records_are_llava_json(world: Path, file: str) -> None:
    records = read_json(world / file)
    assert len({record["id"] for record in records}) == len(records)
    for record in records:
        values = [turn["value"] for turn in record["conversations"]]
        assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"] * (len(values) // 2)
        has_image = "image" in record
        assert has_image == (file != "dialogues.json")
        assert values[0].startswith("<image>\n") + values[0].endswith("\n<image>") == has_image
        assert "<image>" not in "".join(values[1:])
        assert all(value.strip() for value in values)


def test_instructions_are_of_llavas_three_kinds(world: Path) -> None:
    kinds = Counter(record["id"].rsplit("-", 1)[1] for record in read_json(world / "instructions.json"))
    assert set(kinds) == {"conversation", "reasoning", "detail"}
    turns = [len(record["conversations"]) // 2 for record in read_json(world / "instructions.json")]
    assert max(turns) >= 4


def test_training_shows_both_image_orders_and_the_short_answer_suffix(world: Path) -> None:
    turns = [record["conversations"] for record in read_json(world / "instructions.json")]
    assert {record[0]["value"].startswith("<image>") for record in turns} == {True, False}
    short = {
        record[i + 1]["value"]
        for record in turns
        for i in range(0, len(record), 2)
        if SHORT_ANSWER in record[i]["value"]
    }
    assert {"yes", "no"} <= short and not any(" " in answer for answer in short)


def test_held_out_scenes_do_not_occur_in_training(world: Path) -> None:
    train = {record["conversations"][1]["value"] for record in read_json(world / "captions.json")}
    test = {record["conversations"][1]["value"] for record in read_json(world / "test_captions.json")}
    assert len(test) > 20 and not train & test
    asked = {row["image"] for row in read_lines(world / "shapes.jsonl")}
    asked |= {row["image"] for row in read_lines(world / "pope" / "llava_pope_test.jsonl")}
    assert not asked & {record["image"] for record in read_json(world / "contrastive.json")}


def test_contrastive_captions_name_every_thing(world: Path) -> None:
    captions = {record["image"]: record["conversations"][1]["value"] for record in read_json(world / "captions.json")}
    for record in read_json(world / "contrastive.json"):
        assert len(record["captions"]) == 2 * captions[record["image"]].count(" at the ")
        assert all(name in captions[record["image"]] for name in record["captions"])


def test_shapes_asks_every_kind_alike(world: Path) -> None:
    rows = read_lines(world / "shapes.jsonl")
    assert Counter(row["kind"] for row in rows) == dict.fromkeys([*ASK, "describe"], 5)
    assert [row["question_id"] for row in rows] == list(range(len(rows)))
    assert all(("facts" in row) == (row["kind"] == "describe") for row in rows)


def test_pope_is_balanced_and_labels_follow_questions(world: Path) -> None:
    captions = {
        record["image"]: record["conversations"][1]["value"] for record in read_json(world / "test_captions.json")
    }
    questions = read_lines(world / "pope" / "llava_pope_test.jsonl")
    for category in ("adversarial", "popular", "random"):
        labels = read_lines(world / "pope" / "coco" / f"coco_pope_{category}.json")
        asked = [question for question in questions if question["category"] == category]
        assert [(row["image"], row["text"] + SHORT_ANSWER) for row in labels] == [
            (q["image"], q["text"]) for q in asked
        ]
        assert Counter(row["label"] for row in labels) == {"yes": 20, "no": 20}
        for row in labels:
            name = row["text"].removeprefix("Is there a ").removesuffix(" in the image?")
            assert (f"a {name} at " in captions[row["image"]]) == (row["label"] == "yes")


SCENE = (Thing("red", "circle", PLACES[0]), Thing("blue", "circle", PLACES[1]), Thing("blue", "square", PLACES[2]))


def answers(kind: str) -> dict[str, str]:
    generator = Random(0)
    return dict(asked for _ in range(300) if (asked := ASK[kind](SCENE, generator)) is not None)


@pytest.mark.parametrize(
    ("kind", "question", "answer"),
    [
        ("color", "What color is the object at the top left?", "The object at the top left is red."),
        ("color", "What color is the square?", "The square is blue."),
        ("shape", "What shape is the red object?", "The red object is a circle."),
        ("where", "Where is the blue square?", "The blue square is at the bottom left."),
        ("count", "How many blue objects are there?", "two"),
        ("count", "How many crosses are there?", "zero"),
        ("exist", "Is there a red square in the image?", "no"),
        ("exist", "Is there a blue square in the image?", "yes"),
        (
            "relation",
            "What is to the right of the red circle?",
            "The red circle is at the top left, and at the top right is a blue circle.",
        ),
        (
            "relation",
            "What is below the blue circle?",
            "The blue circle is at the top right, and at the bottom right is nothing.",
        ),
        ("compare", "Are there more circles than squares?", "yes"),
        ("compare", "Are there more red objects than blue objects?", "no"),
    ],
)
def test_questions_have_true_answers(kind: str, question: str, answer: str) -> None:
    assert answers(kind)[question] == answer


def test_ambiguous_questions_are_not_asked() -> None:
    assert "What color is the circle?" not in answers("color")
    assert "What shape is the blue object?" not in answers("shape")


def test_near_misses_mix_what_is_there() -> None:
    assert near_misses(SCENE) == ["red square"]


def test_captions_and_descriptions_say_everything() -> None:
    assert (
        caption(SCENE)
        == "a red circle at the top left, a blue circle at the top right and a blue square at the bottom left"
    )
    assert describe(SCENE[:1]) == "At the top left is a red circle."


def test_description_score_counts_facts_and_punishes_guessing() -> None:
    assert score_description(describe(SCENE), facts(SCENE)) == 1
    assert score_description(describe(SCENE[:2]), facts(SCENE)) == pytest.approx(2 / 3)
    assert score_description(describe(SCENE) + " At the bottom right is a white cross.", facts(SCENE)) == 3 / 4
    assert score_description("", facts(SCENE)) == 0


def test_things_in_a_scene_are_told_apart_by_name() -> None:
    generator = Random(1)
    scenes = [draw_scene(generator, 4) for _ in range(200)]
    assert all(len({thing.name for thing in scene}) == len({thing.place for thing in scene}) == 4 for scene in scenes)


@pytest.mark.parametrize("shape", SHAPES)
def test_things_are_painted_in_their_cell_and_color(shape: str) -> None:
    image = paint((Thing("red", shape, "bottom left"),), Random(0))
    pixels = [(x, y) for x in range(64) for y in range(64) if image.getpixel((x, y))[0] > 150]
    assert len(pixels) > 100
    assert all(x < 32 <= y for x, y in pixels)
