"""The card's front matter: what the Hub files a model under, and the scores it lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from huggingface_hub import EvalResult, ModelCardData, try_to_load_from_cache

from llava_lite.card.parts import Contents, Kind
from llava_lite.card.results import Result
from llava_lite.card.stages import CardError, Stage

_LIBRARIES: dict[Kind, str] = {"native": "transformers", "text": "transformers", "adapter": "peft"}
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def metadata(
    contents: Contents,
    stages: Sequence[Stage],
    results: Sequence[Result],
    *,
    name: str,
    license: str | None,
    base_models: Sequence[str],
) -> ModelCardData:
    """Put together what huggingface_hub writes and reads.

    base_models: hub ids in place of those that the stages are known to have started from.
    Raises CardError for a license or an id that cannot be one.
    """
    if license is not None and not _LICENSE.fullmatch(license):
        raise CardError(f"--license {license!r}: the Hub knows licenses by ids such as apache-2.0, llama2 or other")
    for base_model in base_models:
        try:
            try_to_load_from_cache(base_model, "config.json")  # which checks the form of an id
        except ValueError:
            raise CardError(f"--base-model {base_model!r}: is no hub id, such as lmsys/vicuna-7b-v1.5") from None
    bases = list(base_models) or _unique(start.name for stage in stages for start in stage.starts if start.hub)
    sources = [source for stage in stages if stage.lineage for source in stage.lineage["sources"]]
    datasets = _unique(source["path"] for source in sources if source.get("hub"))
    task = "image-text-to-text" if contents.sees else "text-generation"
    scores = [score for result in results for score in _eval_results(result, task)]
    data = ModelCardData(
        license=license,
        library_name=_LIBRARIES.get(contents.kind, "llava_lite"),
        pipeline_tag=task,
        base_model=bases or None,
        datasets=datasets or None,
        tags=["llava", "llava-lite"] if contents.sees else ["llava-lite"],
        model_name=name if scores else None,
        eval_results=scores or None,
    )
    if bases:  # of two the Hub would take the model for a merge
        data["base_model_relation"] = "adapter" if contents.kind in ("adapter", "projector") else "finetune"
    return data


def _eval_results(result: Result, task: str) -> list[EvalResult]:
    """List the figures over all questions, asked as they are; of a run that is not complete none."""
    normal = result.modes.get("normal")
    if normal is None or not normal.complete:
        return []
    return [
        EvalResult(
            task_type=task,
            dataset_type=result.benchmark,
            dataset_name=result.benchmark,
            metric_type=figure,
            metric_value=value,
        )
        for figure, value in normal.figures.items()
    ]


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
