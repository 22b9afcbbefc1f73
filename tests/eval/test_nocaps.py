"""nocaps: the official file and lmms-lab's, figures by domain, and what is submitted."""

import json
from pathlib import Path
from typing import Any

import pytest

from llava_lite.evaluation.benchmark import Answer, Question
from llava_lite.evaluation.files import EvaluationError
from tests.eval.benchmark_files import asked, evaluate_by_command, load, png, shade, write_json, write_parquet
from tests.evaluation.caption_cases import CASES, IMAGES

DOMAINS = ["near-domain"] * 4 + ["in-domain"] * 3 + ["out-domain"] * 3


def official(**changes: Any) -> dict[str, Any]:
    images = [
        {"id": i, "file_name": f"{i:016x}.jpg", "open_images_id": f"{i:016x}", "domain": domain, **changes}
        for i, domain in enumerate(DOMAINS)
    ]
    annotations = [{"image_id": i, "caption": c} for i, image in enumerate(IMAGES) for c in image["references"]]
    return {"images": images, "annotations": annotations}


def write_official(data: Path) -> Path:
    write_json(data / "nocaps" / "nocaps_val_4500_captions.json", official())
    return data


def write_hub(data: Path) -> None:
    rows = [
        {"image_id": i, "annotations_captions": image["references"], "image": png(i)} for i, image in enumerate(IMAGES)
    ]
    write_parquet(data / "NoCaps" / "data" / "validation-00000-of-00002.parquet", rows)


def answers(questions: list[Question]) -> list[Answer]:
    return [Answer(question.id, image["said"]) for question, image in zip(questions, IMAGES, strict=True)]


def test_one_sentence_is_asked_for_as_in_llavas_training_data(tmp_path: Path) -> None:
    nocaps = load("nocaps")
    questions = nocaps.questions(write_official(tmp_path))
    assert {asked(q) for q in questions} == {("Provide a one-sentence caption for the provided image.", 1)}
    assert nocaps.max_new_tokens == 64
    assert questions[2].conversation.images[0].source == tmp_path / "nocaps" / "val" / "0000000000000002.jpg"


def test_figures_are_the_official_scorers_and_the_domains_means_of_their_images(tmp_path: Path) -> None:
    nocaps = load("nocaps")
    questions = nocaps.questions(write_official(tmp_path))
    scores = nocaps.score(questions, answers(questions))
    expected = {name: value for name, value in CASES["figures"].items() if name != "meteor"}
    assert dict(scores.figures) == pytest.approx(expected, abs=1e-12)
    assert {kind: figures["n"] for kind, figures in scores.kinds.items()} == {
        "near-domain": 4,
        "in-domain": 3,
        "out-domain": 3,
    }
    for kind, figures in scores.kinds.items():
        own = [image["cider"] for image, domain in zip(IMAGES, DOMAINS, strict=True) if domain == kind]
        assert figures["cider"] == pytest.approx(sum(own) / len(own), abs=1e-12)


def test_parquet_files_take_domains_from_the_official_file(tmp_path: Path) -> None:
    nocaps = load("nocaps")
    write_hub(tmp_path)
    questions = nocaps.questions(tmp_path)
    assert {question.kind for question in questions} == {""}
    assert not nocaps.score(questions, answers(questions)).kinds
    questions = nocaps.questions(write_official(tmp_path))
    assert [question.kind for question in questions] == DOMAINS
    assert shade(questions[3].conversation.images[0].source) == 3
    (tmp_path / "nocaps" / "val").mkdir()  # the pictures themselves
    assert nocaps.questions(tmp_path)[3].conversation.images[0].source.parent == tmp_path / "nocaps" / "val"


def test_captions_made_elsewhere_are_scored_and_written_for_the_server(tmp_path: Path) -> None:
    write_official(tmp_path)
    rows = [{"image_id": i, "caption": image["said"]} for i, image in enumerate(IMAGES)]
    write_json(tmp_path / "theirs.json", rows)
    out = tmp_path / "out"
    shown = evaluate_by_command("nocaps", "--answers", tmp_path / "theirs.json", "--data", tmp_path, "--out", out)
    assert "out-domain" in shown and "1.383" in shown
    assert json.loads((out / "submission" / "nocaps_val_llava-lite_results.json").read_text()) == rows


def test_the_test_split_is_not_scored(tmp_path: Path) -> None:
    nocaps = load("nocaps", "test")
    write_json(tmp_path / "nocaps_test_image_info.json", {"images": official()["images"][:2]})
    questions = nocaps.questions(tmp_path)
    assert [question.correct for question in questions] == [(), ()]
    assert not nocaps.score(questions, [Answer(0, "A dog.")]).figures


def test_broken_files_are_named(tmp_path: Path) -> None:
    write_json(tmp_path / "nocaps_val_4500_captions.json", official(file_name=None))
    with pytest.raises(EvaluationError, match=r"nocaps_val_4500_captions.json, image 1: needs 'file_name'"):
        load("nocaps").questions(tmp_path)
    content = official()
    write_json(tmp_path / "nocaps_val_4500_captions.json", {**content, "annotations": content["annotations"][3:]})
    with pytest.raises(EvaluationError, match="nocaps: image 0 has no captions"):
        load("nocaps").questions(tmp_path)
