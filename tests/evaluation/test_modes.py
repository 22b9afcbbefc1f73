"""Blind takes the pictures away, shuffled shows others: the words stay, and nothing is left to chance."""

import io
from pathlib import Path

import pytest
from PIL import Image
from pixel_world import COLORS, PixelModel, Pixels

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Question
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.modes import in_mode, read_modes
from llava_lite.evaluation.runner import run


def test_blind_takes_the_images_out_and_keeps_the_words(data: Path, tmp_path: Path) -> None:
    model = PixelModel()
    scores = run(Pixels(), model, data=data, out=tmp_path / "out", mode="blind")
    assert scores.figures["accuracy"] == 0.25  # it guesses red
    assert all(not conversation.images for batch in model.asked for conversation in batch)
    assert "Color 0?" in model.texts()
    assert set((tmp_path / "out").glob("answers*.jsonl")) == {tmp_path / "out" / "answers.blind.jsonl"}


def test_shuffled_gives_every_question_anothers_image_and_always_the_same(data: Path, tmp_path: Path) -> None:
    questions = Pixels().questions(data)
    shuffled = in_mode(questions, "shuffled")
    own = {question.conversation.images[0] for question in questions}
    for before, after in zip(questions, shuffled, strict=True):
        assert after.conversation.images[0] != before.conversation.images[0]
        assert after.conversation.images[0] in own
        assert after.conversation.messages[-1].text == before.conversation.messages[-1].text
    assert shuffled == in_mode(questions, "shuffled")
    assert run(Pixels(), PixelModel(), data=data, out=tmp_path / "out", mode="shuffled").figures["accuracy"] == 0.0


def test_shuffling_knows_pictures_without_a_path_by_their_pixels() -> None:
    sources = [png("red"), png("red"), png("blue")]
    questions = [Question(i, Conversation().ask("?", [source]), ("",)) for i, source in enumerate(sources)]
    shown = [question.conversation.images[0].source for question in in_mode(questions, "shuffled")]
    assert shown == [png("blue"), png("blue"), png("red")]


def test_modes_change_images_in_every_turn_and_nothing_else() -> None:
    a, b = Path("a.png"), Path("b.png")
    long = Conversation(system="Be brief.").ask("First?", [a, b]).answer("Yes.").ask("Second?", [a])
    questions = [Question(0, long, ("",)), Question(1, Conversation().ask("No image here."), ("",))]
    for mode, first, second in (("blind", [], []), ("shuffled", [b, a], [b])):
        changed, untouched = in_mode(questions, mode)
        turns = changed.conversation.messages
        assert changed.conversation.system == "Be brief."
        assert [turn.text for turn in turns] == ["First?", "Yes.", "Second?"]
        assert [image.source for image in turns[0].images] == first
        assert [image.source for image in turns[2].images] == second
        assert untouched == questions[1]


def test_shuffling_one_picture_is_refused() -> None:
    questions = [Question(i, Conversation().ask("?", [Path("same.png")]), ("",)) for i in range(3)]
    with pytest.raises(EvaluationError, match="no other to shuffle in"):
        in_mode(questions, "shuffled")


def test_an_unknown_mode_names_the_nearest(tmp_path: Path) -> None:
    assert read_modes(["blind, normal", "blind"]) == ["normal", "blind"]
    with pytest.raises(EvaluationError, match="did you mean 'blind'"):
        read_modes(["normal", "blnd"])


def png(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), COLORS[color]).save(buffer, "png")
    return buffer.getvalue()
