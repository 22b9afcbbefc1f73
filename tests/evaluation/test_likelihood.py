"""Letters chosen by their likelihood: where options are offered, by who can tell, and never mixed with others."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pixel_world import COLORS, PixelModel, Pixels, read_scores

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.answers import read_answers
from llava_lite.evaluation.benchmark import Question
from llava_lite.evaluation.command import Request, evaluate
from llava_lite.evaluation.files import EvaluationError
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Choice, GenerationError
from llava_lite.generation.opening import open_model
from llava_lite.images.loading import load_image
from tests.conftest import assemble_lively
from tests.generation.endpoint import Endpoint

PIXELS = list(COLORS.values())


class Lettered(Pixels):
    """The short questions offer colors; so many that A is the second and the answers are B, C, ..."""

    title = "lettered"

    def questions(self, data: Path) -> list[Question]:
        questions = []
        for question in super().questions(data):
            if question.kind == "short":
                letter = "BCDE"[list(COLORS).index(question.correct[0])]
                question = replace(question, options=("black", *COLORS), correct=(letter,))
            questions.append(question)
        return questions


@dataclass
class Choosy(PixelModel):
    """A PixelModel that holds its color's letter the likeliest."""

    def score_options(self, batches: Iterable[Sequence[Choice]]) -> Iterator[list[list[float]]]:
        for batch in batches:
            self.asked.append([conversation for conversation, _ in batch])
            assert all("".join(options) == "ABCDE" for _, options in batch)
            yield [
                [-1.0 - abs(i - 1 - self._place(conversation)) for i in range(len(options))]
                for conversation, options in batch
            ]

    def _place(self, conversation: Conversation) -> int:
        (image,) = conversation.images
        return PIXELS.index(load_image(image.source).getpixel((0, 0)))


def choose(data: Path, out: Path, *, by_likelihood: bool = True) -> Choosy:
    model = Choosy()
    request = Request(model="m", data=data, out=out, batch_size=4, by_likelihood=by_likelihood)
    evaluate([Lettered()], request, lambda name: model)
    return model


def test_the_likeliest_letter_answers_what_offers_options_and_words_the_rest(data: Path, tmp_path: Path) -> None:
    model = choose(data, tmp_path)
    assert read_scores(tmp_path)["modes"]["normal"]["figures"] == {"accuracy": 1.0}
    answers = [answer.text for answer in read_answers(tmp_path / "answers.jsonl")]
    assert set(answers[:10]) == {"B", "D"} and set(answers[10:]) == {"green", "white"}
    assert [len(batch) for batch in model.asked] == [4, 4, 2, 4, 4, 2] and len(set(model.texts())) == 20


def test_answers_chosen_so_are_not_mixed_with_generated_ones(data: Path, tmp_path: Path) -> None:
    choose(data, tmp_path)
    assert read_scores(tmp_path)["decoding"]["choices"] == "likelihood"
    assert not choose(data, tmp_path).asked
    with pytest.raises(EvaluationError, match="answers of another decoding"):
        choose(data, tmp_path, by_likelihood=False)


def test_who_has_no_options_or_likelihoods_says_so_before_anything_is_asked(data: Path, tmp_path: Path) -> None:
    asking = Request(model="m", data=data, out=tmp_path / "out", by_likelihood=True)
    with pytest.raises(EvaluationError, match="pixels: no question of it offers options"):
        evaluate([Lettered(), Pixels()], asking, lambda name: 1 / 0)
    with Endpoint() as endpoint, pytest.raises(GenerationError, match="does not tell how likely"):
        evaluate([Lettered()], replace(asking, model=endpoint.url), open_model)
    assert not endpoint.requests and not (tmp_path / "out").exists()
    with pytest.raises(EvaluationError, match="--choices are for asking a model"):
        Request(answers=tmp_path, data=data, by_likelihood=True)


def test_a_real_model_chooses_what_it_holds_likeliest_one_at_a_time(parts, world: Path, tmp_path: Path) -> None:
    class Scenes(Pixels):
        def questions(self, data: Path) -> list[Question]:
            images = sorted((data / "images").glob("*.png"))
            return [
                Question(i, Conversation().ask(f"Which is it? {word}", [image]), ("A",), options=("a", "b", "c"))
                for i, (image, word) in enumerate(zip(images, ["red", "two of them", "a circle ?"] * 3, strict=False))
            ]

    assistant = Assistant(*assemble_lively(parts))
    request = Request(model="m", data=world, out=tmp_path, batch_size=4, by_likelihood=True)
    evaluate([Scenes()], request, lambda name: assistant)
    said = {answer.question_id: answer.text for answer in read_answers(tmp_path / "answers.jsonl")}
    for question in Scenes().questions(world):
        scores = assistant.score([question.conversation.answer(letter) for letter in "ABC"])
        totals = [sum(score.log_probs[:-1]) for score in scores]
        assert said[question.id] == "ABC"[totals.index(max(totals))]
    assert len(said) == 9
