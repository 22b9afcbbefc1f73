"""Looking at the model while it learns: which step was the best, when to stop, what a killed run takes up again."""

import json
import logging
from pathlib import Path

import pytest

from llava_lite.training.loop import judge_first_loss
from llava_lite.training.resume import step_folders, write_step
from llava_lite.training.validation import Validation, ValidationConfig


def looked(folder: Path, figures: list[dict[str, float]], *, start: int = 0, **config: object) -> Validation:
    """Evaluate one step after another, from 0 or from the one after `start`, where the run goes on."""
    first = start + 1 if start else 0
    validation = Validation(ValidationConfig(every_steps=1, **config), folder, lambda step: figures[step - first])
    validation.begin(start or None)
    for step in range(first, first + len(figures)):
        assert validation.is_due(step, 99)
        validation.run(step)
    return validation


@pytest.mark.parametrize(
    ("best_by", "best"), [("held_out", 1), ("pope", 2)], ids=["the least loss", "a benchmark's first figure"]
)
def test_the_best_step_is_the_best_by_what_was_chosen(tmp_path: Path, best_by: str, best: int) -> None:
    figures = [
        {"held_out": 3.0, "pope.f1": 0.5, "pope.yes": 0.9},
        {"held_out": 1.0, "pope.f1": 0.4, "pope.yes": 0.8},
        {"held_out": 2.0, "pope.f1": 0.6, "pope.yes": 0.1},
        {"held_out": float("nan"), "pope.f1": float("nan"), "pope.yes": 1.0},
    ]
    validation = looked(tmp_path, figures, best_by=best_by)
    assert validation.best is not None and validation.best["step"] == best
    assert validation.best["figures"] == figures[best]


def test_a_run_settles_after_so_many_evaluations_without_a_better_one(tmp_path: Path) -> None:
    losses = [3.0, 1.0, 2.0, 1.0, 0.5, 0.6]
    settled = [
        looked(tmp_path, [{"held_out": loss} for loss in losses[:n]], patience=2).has_settled for n in range(1, 7)
    ]
    assert settled == [False, False, False, True, False, False]  # as good as the best is not better
    assert not looked(tmp_path, [{"held_out": 1.0}] * 9).has_settled


def test_what_was_found_after_the_step_a_run_goes_on_from_is_found_again(tmp_path: Path) -> None:
    looked(tmp_path, [{"held_out": loss} for loss in (3.0, 2.0, 1.0)])
    with (tmp_path / "evaluations.jsonl").open("a") as file:
        file.write('{"step": 3, "be')  # killed while it wrote
    again = looked(tmp_path, [{"held_out": 2.5}], start=1)
    assert again.best is not None and again.best["step"] == 1
    rows = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert [(row["step"], row["best"]) for row in rows] == [(0, True), (1, True), (2, False)]


def test_another_choice_of_the_best_is_judged_anew(tmp_path: Path) -> None:
    looked(tmp_path, [{"held_out": 1.0, "pope.f1": 0.1}, {"held_out": 2.0, "pope.f1": 0.2}])
    again = looked(tmp_path, [{"held_out": 3.0, "pope.f1": 0.15}], start=1, best_by="pope")
    assert again.best is not None and again.best["step"] == 1
    with pytest.raises(ValueError, match=r"no figure of evaluate\.best_by=mme, but of held_out, pope\.f1; set it back"):
        looked(tmp_path, [], start=1, best_by="mme")


def test_a_run_that_goes_on_without_evaluating_still_knows_its_best_step(tmp_path: Path) -> None:
    looked(tmp_path, [{"pope.f1": 0.1}, {"pope.f1": 0.3}, {"pope.f1": 0.2}], best_by="pope")
    validation = Validation(ValidationConfig(), tmp_path, lambda step: {})
    validation.begin(2)
    assert validation.best is not None and validation.best["step"] == 1
    assert not validation.is_due(4, 4)


def test_evaluations_come_before_the_first_step_every_so_many_and_at_the_end(tmp_path: Path) -> None:
    validation = Validation(ValidationConfig(every_steps=4), tmp_path, lambda step: {"held_out": 1.0})
    assert [step for step in range(11) if validation.is_due(step, 10)] == [0, 4, 8, 10]


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path: Path) -> None:
    for step in range(6):
        write_step(tmp_path, step, save=lambda folder: None, optimizer={}, run={}, keep=2, best=min(step, 1))
    assert [folder.name for folder in step_folders(tmp_path)] == ["step-1", "step-4", "step-5"]


@pytest.mark.parametrize(
    ("loss", "told"),
    [(12.0, "worse than guessing evenly"), (10.3, "right for new weights"), (0.001, "next to nothing"), (2.0, None)],
)
def test_an_absurd_first_loss_is_named(loss: float, told: str | None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="llava_lite"):
        judge_first_loss(loss, 10.37)
    assert (told in caplog.text) if told else not caplog.text
