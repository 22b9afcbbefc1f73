"""COCO Captions: the official files and lmms-lab's, the official figures, and what is submitted."""

import json
from pathlib import Path
from typing import Any

import pytest

from llava_lite.evaluation.benchmark import Answer, Question
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.intervals import intervals, marked
from tests.eval.benchmark_files import (
    asked,
    evaluate_by_command,
    load,
    mark_of,
    png,
    shade,
    write_json,
    write_parquet,
    write_png,
)
from tests.evaluation.caption_cases import CASES, IMAGES

PROMPT = "Provide a one-sentence caption for the provided image."


def file_name(number: int) -> str:
    return f"COCO_val2014_{number:012}.jpg"


def in_coco_format(*, named: bool = True) -> dict[str, Any]:
    """The recorded images, numbered from 11, in the order of annotations that COCO does not sort."""
    images = [{"id": 11 + i, **({"file_name": file_name(11 + i)} if named else {})} for i in range(len(IMAGES))]
    rows = [(11 + i, caption) for i, image in enumerate(IMAGES) for caption in image["references"]]
    annotations = [{"id": 900 - i, "image_id": image, "caption": caption} for i, (image, caption) in enumerate(rows)]
    return {"images": images, "annotations": annotations}


def as_karpathy_has_it() -> dict[str, Any]:
    rows = [
        {
            "filepath": "val2014",
            "filename": file_name(11 + i),
            "cocoid": 11 + i,
            "split": "test",
            "sentences": [{"raw": caption, "tokens": []} for caption in image["references"]],
        }
        for i, image in enumerate(IMAGES)
    ]
    return {"dataset": "coco", "images": [{**rows[0], "cocoid": 5, "split": "restval"}, *rows]}


def write_official(data: Path) -> Path:
    write_json(data / "coco" / "dataset_coco.json", as_karpathy_has_it())
    return data


def answers(questions: list[Question]) -> list[Answer]:
    return [Answer(question.id, image["said"]) for question, image in zip(questions, IMAGES, strict=True)]


def test_one_sentence_is_asked_for_as_in_llavas_training_data(tmp_path: Path) -> None:
    coco = load("coco")
    questions = coco.questions(write_official(tmp_path))
    assert {asked(question) for question in questions} == {(PROMPT, 1)}
    assert coco.max_new_tokens == 64
    assert [question.id for question in questions] == list(range(11, 21))
    assert questions[0].correct == tuple(IMAGES[0]["references"])
    assert questions[0].conversation.images[0].source == tmp_path / "coco" / "val2014" / file_name(11)


def test_figures_are_the_official_scorers(tmp_path: Path) -> None:
    coco = load("coco")
    questions = coco.questions(write_official(tmp_path))
    scores = coco.score(questions, answers(questions))
    official = {name: value for name, value in CASES["figures"].items() if name != "meteor"}
    assert dict(scores.figures) == pytest.approx(official, abs=1e-12)
    assert next(iter(scores.figures)) == "cider" and not scores.kinds
    assert [mark.credit * 10 for mark in scores.marks.values()] == pytest.approx([i["cider"] for i in IMAGES])
    assert scores.marks[11].parsed == "a dog runs across a green field"
    assert scores.unparsed == [14]  # the empty caption


def test_figures_have_intervals(tmp_path: Path) -> None:
    coco = load("coco")
    questions = coco.questions(write_official(tmp_path))
    scores = coco.score(questions, answers(questions))
    found = intervals(coco, marked(questions, scores.marks), draws=50)
    assert set(found) == set(scores.figures)
    for name, (low, high) in found.items():
        assert low < scores.figures[name] < high


def test_an_incomplete_run_is_scored_over_its_images_alone(tmp_path: Path) -> None:
    coco = load("coco")
    questions = coco.questions(write_official(tmp_path))
    part = coco.score(questions, answers(questions)[:3])
    assert (part.n, part.total, part.complete) == (3, 10, False)
    assert part.figures == coco.score(questions[:3], answers(questions)[:3]).figures
    assert part.marks[11].counts["cider"] != pytest.approx(IMAGES[0]["cider"])  # other weights


@pytest.mark.parametrize(
    ("variant", "place"),
    [
        ("karpathy", "coco/coco_karpathy_test_gt.json"),
        ("karpathy", "coco_karpathy_test_gt.json"),
        ("val2014", "coco/annotations/captions_val2014.json"),
        ("val2014", "annotations/captions_val2014.json"),
        ("val2017", "captions_val2017.json"),
    ],
)
def test_cocos_files_are_found_where_people_have_them(tmp_path: Path, variant: str, place: str) -> None:
    coco = load("coco", variant)
    write_json(tmp_path / place, in_coco_format(named="gt" not in place))
    (tmp_path / "images").mkdir()
    questions = coco.questions(tmp_path)
    assert [question.correct for question in questions] == [tuple(image["references"]) for image in IMAGES]
    assert questions[0].conversation.images[0].source == tmp_path / "images" / file_name(11)


def test_a_test_split_has_no_captions_and_is_not_scored(tmp_path: Path) -> None:
    coco = load("coco", "test2014")
    images = [{"id": 3, "file_name": "COCO_test2014_000000000003.jpg"}]
    write_json(tmp_path / "coco" / "annotations" / "image_info_test2014.json", {"images": images})
    write_png(tmp_path / "test2014" / images[0]["file_name"], 7)
    (question,) = coco.questions(tmp_path)
    assert shade(question.conversation.images[0].source) == 7
    assert not coco.score([question], [Answer(3, "A dog.")]).figures


def test_lmms_labs_parquet_files_are_read(tmp_path: Path) -> None:
    rows = [
        {"question_id": file_name(11 + i), "answer": image["references"], "image": png(i)}
        for i, image in enumerate(IMAGES)
    ]
    write_parquet(tmp_path / "COCO-Caption" / "data" / "val-00000-of-00001.parquet", rows)
    coco = load("coco", "val2014")
    questions = coco.questions(tmp_path)
    assert [question.id for question in questions] == list(range(11, 21))
    assert shade(questions[4].conversation.images[0].source) == 4
    assert coco.score(questions, answers(questions)).figures["cider"] == pytest.approx(CASES["figures"]["cider"])
    with pytest.raises(EvaluationError, match=r"COCO-Caption2017/data/val-\*.parquet is missing"):
        load("coco", "val2017").questions(tmp_path)


def test_captions_made_elsewhere_are_scored_and_written_for_the_server(tmp_path: Path) -> None:
    write_official(tmp_path)
    rows = [{"image_id": 11 + i, "caption": image["said"]} for i, image in enumerate(IMAGES)]
    write_json(tmp_path / "theirs.json", rows[::-1])
    out = tmp_path / "out"
    shown = evaluate_by_command("coco", "--answers", tmp_path / "theirs.json", "--data", tmp_path, "--out", out)
    assert "1.383" in shown
    (written,) = (out / "submission").iterdir()
    assert written.name == "captions_karpathy_llava-lite_results.json"
    assert sorted(json.loads(written.read_text()), key=lambda row: row["image_id"]) == rows


def test_meteor_is_counted_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco = load("coco", "karpathy-meteor")
    assert coco.name == "coco-karpathy-meteor"
    write_official(tmp_path)
    with monkeypatch.context() as context:
        context.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(EvaluationError, match=r"pip install 'llava-lite\[meteor\]'"):  # before a model is asked
            coco.questions(tmp_path)
    questions = load("coco").questions(tmp_path)
    lines = [image["meteor_line"] for image in IMAGES]
    monkeypatch.setattr("llava_lite.evaluation.meteor._run", lambda asked: lines)
    assert dict(coco.score(questions, answers(questions)).figures) == pytest.approx(CASES["figures"], abs=1e-12)


def test_broken_files_are_named(tmp_path: Path) -> None:
    coco, place = load("coco", "val2014"), tmp_path / "coco" / "annotations" / "captions_val2014.json"
    good = in_coco_format()
    for content, complaint in [
        ({**good, "images": [*good["images"], {"id": 11}]}, "image 11: 11 is there twice"),
        ({**good, "annotations": [{"image_id": 99, "caption": "x"}]}, "annotation 1: there is no image 99"),
        ({**good, "annotations": good["annotations"][5:]}, "coco-val2014: image 11 has no captions"),
        ({**good, "annotations": [{"image_id": 11}]}, "annotation 1: needs 'caption'"),
        ({"annotations": []}, "no list of images"),
        ({**good, "annotations": {}}, "no list of annotations"),
    ]:
        write_json(place, content)
        with pytest.raises(EvaluationError, match=complaint):
            coco.questions(tmp_path)
    write_json(tmp_path / "dataset_coco.json", {"images": [{"split": "test"}]})
    with pytest.raises(EvaluationError, match=r"dataset_coco.json, image 1: needs 'cocoid'"):
        load("coco").questions(tmp_path)
    rows = [{"question_id": "a picture", "answer": ["x"], "image": png(1)}]
    write_parquet(tmp_path / "COCO-Caption2017" / "data" / "val-0.parquet", rows)
    with pytest.raises(EvaluationError, match="'a picture' is not the name of an image"):
        load("coco", "val2017").questions(tmp_path)


def test_a_caption_without_a_word_is_marked_as_unread(tmp_path: Path) -> None:
    coco = load("coco")
    question = coco.questions(write_official(tmp_path))[0]
    assert mark_of(coco, question, " ... ").parsed is None
