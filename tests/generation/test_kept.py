"""What a conversation's turns have computed serves the next turn, gives the same, and serves no other conversation."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from llava_lite.checkpoint.parts import Parts
from llava_lite.conversation.message import Conversation
from llava_lite.example import Example
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Sampling
from llava_lite.generation.decoding import Row
from llava_lite.generation.kept import fingerprint
from tests.conftest import assemble_lively

SHORT = Sampling(max_new_tokens=10)


@pytest.fixture(scope="module", params=["pad", "anyres", "anyres_max_2"])
def whole(request, clip_dir: Path, lm_dir: Path) -> Assistant:
    """An assistant that keeps nothing."""
    parts = Parts(str(clip_dir), str(lm_dir), image_mode=request.param)
    return Assistant(*assemble_lively(parts), keep_tokens=0)


@pytest.fixture
def assistant(whole: Assistant) -> Assistant:
    return Assistant(whole.model, whole.processor)


@pytest.fixture
def images(world: Path) -> list[Path]:
    return sorted((world / "images").glob("*.png"))[:2]


@contextmanager
def counted(assistant: Assistant) -> Iterator[dict[str, int]]:
    """Count the tiles that the tower sees, and the tokens that the language model reads."""
    seen = {"tiles": 0, "tokens": 0}

    def tower(module: object, args: tuple[torch.Tensor], output: object) -> None:
        seen["tiles"] += len(args[0])

    def words(module: object, args: object, kwargs: dict[str, torch.Tensor], output: object) -> None:
        seen["tokens"] += kwargs["inputs_embeds"].shape[1]

    hooks = [
        assistant.model.vision_tower.register_forward_hook(tower),
        assistant.model.language_model.register_forward_hook(words, with_kwargs=True),
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def answered(assistant: Assistant, conversation: Conversation) -> Row:
    decoder, row = assistant.decoder(keep=True), assistant.prepare(conversation, SHORT)
    decoder.join([row])
    while decoder.release():
        decoder.step()
    return row


def test_turns_reuse_what_was_computed_and_answer_as_if_they_did_not(
    whole: Assistant, assistant: Assistant, images: list[Path]
) -> None:
    talk = Conversation(system="Look well.").ask("What color is it?", images[:1])
    rows: list[tuple[Conversation, Row]] = []
    with counted(assistant) as seen:
        for question in ("And its shape?", "Is it red?", "Are you sure?", "Really?"):
            rows.append((talk, answered(assistant, talk)))
            talk = talk.answer(rows[-1][1].text).ask(question)
    for asked, row in rows:
        assert row.text == whole.reply([asked], SHORT)[0]
    last, prompt = rows[-1][1].finish, rows[-1][1].finish.num_prompt_tokens
    assert 0.7 * prompt < last.num_reused_tokens < prompt
    assert seen["tiles"] == len(whole.processor.encode(talk).pixel_values)  # once in four turns
    assert seen["tokens"] < prompt + 8 * SHORT.max_new_tokens  # an answer may be written with other tokens


def test_the_same_question_again_reads_one_token(whole: Assistant, assistant: Assistant, images: list[Path]) -> None:
    talk = Conversation().ask("What color is it?", images[:1])
    first, again = answered(assistant, talk), answered(assistant, talk)
    assert again.finish.num_reused_tokens == again.finish.num_prompt_tokens - 1
    assert again.ids == first.ids


def test_an_image_in_a_later_turn_is_seen(whole: Assistant, assistant: Assistant, images: list[Path]) -> None:
    talk = Conversation().ask("Hello.").answer("Hello.")
    assistant.reply([Conversation().ask("Hello.")], SHORT)
    for image in images:
        asked = talk.ask("What color is it?", [image])
        assert assistant.reply([asked], SHORT) == whole.reply([asked], SHORT)


def test_other_pixels_behind_the_same_words_are_read_anew(assistant: Assistant, images: list[Path]) -> None:
    answered(assistant, Conversation().ask("What color is it?", images[:1]))
    assert answered(assistant, Conversation().ask("What color is it?", images[1:])).num_reused_tokens == 0


def test_another_question_about_the_same_image_reuses_nothing(assistant: Assistant, images: list[Path]) -> None:
    answered(assistant, Conversation().ask("What color is it?", images[:1]))
    assert answered(assistant, Conversation().ask("Is it red?", images[:1])).num_reused_tokens == 0


def test_batches_keep_nothing(assistant: Assistant, images: list[Path]) -> None:
    talk = Conversation().ask("What color is it?", images[:1])
    assistant.reply([talk, talk], SHORT)
    assert answered(assistant, talk).num_reused_tokens == 0


def test_an_answer_that_is_left_early_is_kept(whole: Assistant, assistant: Assistant, images: list[Path]) -> None:
    talk = Conversation().ask("What color is it?", images[:1])
    stream = assistant.stream(talk, Sampling(max_new_tokens=200))
    said = next(stream)
    stream.close()
    following = talk.answer(said).ask("And?")
    row = answered(assistant, following)
    assert row.num_reused_tokens > 0 and row.text == whole.reply([following], SHORT)[0]


def test_no_more_tokens_are_kept_than_may_be(whole: Assistant, images: list[Path]) -> None:
    talks = [Conversation().ask(f"{word} ?", images[:1]) for word in ("red", "blue", "green")]
    room = 2 * (len(whole.processor.encode(talks[0]).input_ids) + SHORT.max_new_tokens)
    assistant = Assistant(whole.model, whole.processor, keep_tokens=room)
    for talk in talks:
        answered(assistant, talk)
    assert answered(assistant, talks[2]).num_reused_tokens > 0
    assert answered(assistant, talks[1]).num_reused_tokens > 0
    assert answered(assistant, talks[0]).num_reused_tokens == 0


def test_a_batch_sees_each_tile_once(assistant: Assistant, images: list[Path]) -> None:
    talks = [Conversation().ask(word, images[:1]) for word in ("red ?", "blue ?")]
    talks.append(Conversation().ask("green ?", images[1:]))
    with counted(assistant) as seen:
        replies = assistant.reply(talks, SHORT)
    assert seen["tiles"] == len(
        {tile.numpy().tobytes() for talk in talks for tile in assistant.processor.encode(talk).pixel_values}
    )
    assert replies == [assistant.reply([talk], SHORT)[0] for talk in talks]


def test_fingerprints_differ_with_the_patch_that_a_token_shows(whole: Assistant, images: list[Path]) -> None:
    def of(example: Example) -> np.ndarray:
        return fingerprint(
            example, image_token_id=whole.processor.image_token_id, num_patches=whole.processor.num_patches
        )

    one, two = (whole.processor.encode(Conversation().ask("What?", [image])) for image in images)
    places = (one.input_ids == whole.processor.image_token_id).numpy()
    newlines = int((one.patch_index.reshape(len(one.patch_index), -1)[:, 0] == -1).sum())
    assert len(set(of(one)[places])) >= places.sum() - max(newlines - 1, 0)
    assert (of(one)[places] != of(two)[places]).sum() >= places.sum() - newlines
    assert (of(one)[~places] == one.input_ids.numpy()[~places]).all()
