"""What the benchmarks of captions share: marks, figures, COCO's files of captions, and what its servers take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from llava_lite.evaluation.benchmark import Answer, Mark, Question, QuestionId
from llava_lite.evaluation.caption_metrics import bleu, bleu_counts, cider, rouge_l
from llava_lite.evaluation.files import EvaluationError, check_row, read_object, write_whole
from llava_lite.evaluation.meteor import meteor, meteor_counts
from llava_lite.evaluation.metrics import ratio
from llava_lite.evaluation.ptb import tokenize

HIGHEST_CIDER = 10


def mark_captions(pairs: Sequence[tuple[Question, str]], *, with_meteor: bool) -> dict[QuestionId, Mark]:
    """Mark captions against what people wrote. Credit is CIDEr-D, as a share of the most there can be.

    Raises EvaluationError where METEOR is asked for and its program is not there.
    """
    references = _tokenize_groups([question.correct for question, _ in pairs])
    said = tokenize([text for _, text in pairs])
    nearness = cider(said, references)
    more = meteor_counts(said, references) if with_meteor else [{}] * len(said)
    marks = {}
    for (question, _), own, there, score, counts in zip(pairs, said, references, nearness, more, strict=True):
        shares = {"cider": score, "rouge_l": rouge_l(own, there), **bleu_counts(own, there), **counts}
        marks[question.id] = Mark(score / HIGHEST_CIDER, own or None, shares)
    return marks


def caption_figures(sums: Mapping[str, float]) -> dict[str, float]:
    """Make the figures of captions: CIDEr-D first, METEOR where it was counted."""
    own = {"meteor": meteor(sums)} if "meteor_chunks" in sums else {}
    means = {name: ratio(sums[name], sums["n"]) for name in ("cider", "rouge_l")}
    return {"cider": means["cider"], **bleu(sums), **own, "rouge_l": means["rouge_l"]}


def read_captions(path: Path) -> list[dict[str, Any]]:
    """Read a file in COCO's format: its images, in their order, each with its "captions", if it has any.

    {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}; a test split has no annotations.
    Raises EvaluationError for anything else.
    """
    content = read_object(path)
    images: dict[QuestionId, dict[str, Any]] = {}
    for number, image in enumerate(_rows(content, "images", path), start=1):
        check_row(image, {"id": int}, f"{path}, image {number}")
        if image["id"] in images:
            raise EvaluationError(f"{path}, image {number}: {image['id']} is there twice; download it anew")
        images[image["id"]] = {**image, "captions": []}
    annotations = _rows(content, "annotations", path) if "annotations" in content else []
    for number, row in enumerate(annotations, start=1):
        where = f"{path}, annotation {number}"
        check_row(row, {"image_id": int, "caption": str}, where)
        if row["image_id"] not in images:
            raise EvaluationError(f"{where}: there is no image {row['image_id']}; is the file complete?")
        images[row["image_id"]]["captions"].append(row["caption"])
    return list(images.values())


def write_captions(path: Path, answers: Sequence[Answer]) -> Path:
    """Write captions as COCO's scorer and its servers take them: [{"image_id": 1, "caption": "..."}]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"image_id": answer.question_id, "caption": answer.text} for answer in answers]
    write_whole(path, json.dumps(rows))
    return path


def _rows(content: Mapping[str, Any], name: str, path: Path) -> list[Any]:
    if not isinstance(content.get(name), list):
        raise EvaluationError(f"{path}: no list of {name}; is this the right file?")
    return content[name]


def _tokenize_groups(groups: Sequence[Sequence[str]]) -> list[list[str]]:
    """Cut the captions of all images at once, as the official scorer does."""
    tokens = tokenize([caption for group in groups for caption in group])
    ends = list(accumulate(map(len, groups)))
    return [tokens[end - len(group) : end] for group, end in zip(groups, ends, strict=True)]
