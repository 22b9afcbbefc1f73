"""Log-probabilities of answers: those of a fresh forward, and those that generation itself draws from."""

from pathlib import Path

import pytest
import torch

from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import GenerationError
from tests.conftest import assemble_lively


@pytest.fixture(scope="module")
def assistant(parts) -> Assistant:
    return Assistant(*assemble_lively(parts))


@pytest.fixture
def asked(world: Path) -> list[Conversation]:
    a, b = sorted((world / "images").glob("*.png"))[:2]
    return [
        Conversation().ask("Hello."),
        Conversation().ask("What color is it?", [a]),
        Conversation().ask("What is it?", [b]).answer("A red circle.").ask("And this?", [a]),
    ]


def test_scores_are_the_log_probabilities_of_a_forward_alone(assistant: Assistant, asked: list[Conversation]) -> None:
    answers = ["A circle.", "red", "There are two objects at the top left."]
    talks = [conversation.answer(answer) for conversation, answer in zip(asked, answers, strict=True)]
    for talk, score in zip(talks, assistant.score(talks), strict=True):
        example = assistant.processor.encode(talk)
        with torch.no_grad():
            logits = assistant.model.logits(
                input_ids=example.input_ids[None],
                position_ids=torch.arange(len(example.input_ids))[None],
                pixel_values=example.pixel_values,
                patch_index=example.patch_index,
            )[0].log_softmax(-1)
        size = len(score.log_probs)
        expected = logits[-size - 1 : -1].gather(1, example.input_ids[-size:, None]).flatten()
        torch.testing.assert_close(torch.tensor(score.log_probs), expected, atol=1e-4, rtol=0)
        assert score.total == pytest.approx(float(expected.sum()), abs=1e-3)
        assert (
            "".join(score.tokens).replace("</s>", "").split() == talk.messages[-1].text.replace(".", " .").split()
            or score.tokens
        )


def test_only_the_last_answer_is_scored_with_its_end_mark(assistant: Assistant, asked: list[Conversation]) -> None:
    [score] = assistant.score([asked[2].answer("blue")])
    assert score.tokens[-1] == "</s>" and "".join(score.tokens[:-1]).strip() == "blue"


def test_what_cannot_be_scored_is_refused(assistant: Assistant, asked: list[Conversation]) -> None:
    assert assistant.score([]) == []
    with pytest.raises(ConversationError, match="only an answer can be scored"):
        assistant.score(asked[:1])
    with pytest.raises(GenerationError, match="model's context is"):
        assistant.score([asked[0].answer("red " * 5000)])


OPTIONS = ["red", "blue", "A", "two objects"]


def test_options_are_scored_as_beginnings_of_answers(assistant: Assistant, asked: list[Conversation]) -> None:
    choices = [(conversation, OPTIONS[: 2 + i]) for i, conversation in enumerate(asked)]
    found = [likelihoods for batch in assistant.score_options([choices[:2], choices[2:]]) for likelihoods in batch]
    for (conversation, options), likelihoods in zip(choices, found, strict=True):
        scores = assistant.score([conversation.answer(option) for option in options])
        assert [score.tokens[-1] for score in scores] == ["</s>"] * len(options)
        assert likelihoods == pytest.approx([sum(score.log_probs[:-1]) for score in scores], abs=1e-3)


def test_a_question_is_read_once_for_all_its_options(
    assistant: Assistant, asked: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    logits = assistant.model.logits

    def watched(**inputs: torch.Tensor) -> torch.Tensor:
        seen.append((inputs["input_ids"].shape[1], len(inputs["pixel_values"])))
        return logits(**inputs)

    monkeypatch.setattr(assistant.model, "logits", watched)
    letters = ["red", "blue", "green", "white"]
    [likelihoods] = assistant.score_options([[(conversation, letters) for conversation in asked]])
    assert [len(row) for row in likelihoods] == [4, 4, 4] and len({round(value, 4) for value in likelihoods[0]}) > 1
    assert seen == [(sum(len(assistant.processor.encode(conversation).input_ids) for conversation in asked), 2)]


def test_an_option_that_leaves_the_context_is_refused(assistant: Assistant, asked: list[Conversation]) -> None:
    assert list(assistant.score_options([[]])) == [[]]
    with pytest.raises(GenerationError, match="model's context is"):
        list(assistant.score_options([[(asked[0], ["red", "red " * 5000])]]))
