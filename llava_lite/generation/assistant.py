"""The Python API: load a checkpoint, ask it about images, one question or many, at once or as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch

from llava_lite import distributed
from llava_lite.checkpoint.folder import load as load_checkpoint
from llava_lite.checkpoint.transformers_format import generation_config
from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.example import Example
from llava_lite.generation.ahead import ahead
from llava_lite.generation.chat_model import Choice, Sampling, Score, TooLong
from llava_lite.generation.decoding import Decoder, Row
from llava_lite.generation.kept import Conversations, fingerprint
from llava_lite.generation.scoring import score_answers
from llava_lite.generation.streaming import Transcript
from llava_lite.models.adapter import Quantize
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor


def load(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    quantize: Quantize | None = None,
    template: str | None = None,
    vision_tower: str | None = None,
    language_model: str | None = None,
) -> Assistant:
    """Open a checkpoint folder and return an assistant ready to be asked.

    device, dtype: where and in what it computes; by default a GPU in bf16 if there is one, else the CPU in fp32.
    quantize: hold the language model's blocks in "4bit" or "8bit"; by default as the checkpoint says.
    template: the chat template by its name, where the checkpoint does not say it, or instead of what it says.
    vision_tower, language_model: where a part is that the checkpoint is without and does not find.
    Raises CheckpointError for a folder that is not a whole checkpoint.
    """
    model, processor = load_checkpoint(
        path,
        dtype=dtype or distributed.dtype(),
        quantize=quantize or "recorded",
        template=template,
        vision_tower=vision_tower,
        language_model=language_model,
    )
    return Assistant(model.to(device or distributed.device()), processor, name=str(path))


class Assistant:
    """A model and its processor as a ScoringModel, for one thread; `batching.Batcher` serves many.

    in_step: all processes of a run ask theirs at the same time, and each goes on until all have their answers: for
    weights that are shared out, of which every step of any process needs a part from all
    keep_tokens: of the last conversations, how many tokens are kept computed for their next turns
    drop_oldest: a conversation that is longer than the context loses its oldest rounds, instead of being refused
    """

    def __init__(
        self,
        model: Llava,
        processor: Processor,
        *,
        name: str = "llava_lite",
        in_step: bool = False,
        keep_tokens: int = 8192,
        drop_oldest: bool = False,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.in_step = in_step
        self.drop_oldest = drop_oldest
        self._conversations = Conversations(keep_tokens)

    def ask(self, text: str, images: Iterable[object] = (), *, sampling: Sampling = Sampling()) -> str:
        """Ask one question about any number of images (paths, bytes or PIL images) and return the answer."""
        return self.reply([Conversation().ask(text, images)], sampling)[0]

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()) -> list[str]:
        """Answer conversations in one batch; the same as one at a time.

        Raises ConversationError, ImageError or ProcessorError for what cannot be asked, GenerationError for one that
        is too long.
        """
        return self._answer([self.prepare(conversation, sampling) for conversation in conversations])

    def replies(
        self, batches: Iterable[Sequence[Conversation]], sampling: Sampling = Sampling()
    ) -> Iterator[list[str]]:
        """Answer batch after batch; the next one's images are opened while one is answered. Raises as `reply` does."""
        for rows in ahead(batches, lambda conversation: self.prepare(conversation, sampling)):
            yield self._answer(rows)

    def stream(self, conversation: Conversation, sampling: Sampling = Sampling()) -> Iterator[str]:
        """Answer one conversation piece by piece; the pieces joined are what `reply` gives. Stop reading to stop it."""
        row = self.prepare(conversation, sampling, watched=True)
        decoder = self.decoder(keep=True)
        decoder.join([row])
        while True:
            if row.piece:
                try:
                    yield row.piece
                except GeneratorExit:  # the reader has heard enough; what was computed serves the next turn
                    row.cancel()
            if not decoder.release():
                return
            decoder.step()

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        """Tell how likely each conversation's last answer is, given all before it; in one forward for all.

        Raises as `reply` does.
        """
        examples = [self._encode_answered(conversation) for conversation in conversations]
        return score_answers(self.model, self.processor, examples)

    def score_options(self, batches: Iterable[Sequence[Choice]]) -> Iterator[list[list[float]]]:
        """Tell how likely an answer begins with each option, in one forward for a batch, where each prompt is read once
        if its options are a token each. The next batch's images are opened meanwhile. Raises as `reply` does.
        """
        for groups in ahead(batches, self._encode_options):
            scores = iter(score_answers(self.model, self.processor, list(chain.from_iterable(groups))))
            yield [[next(scores).total for _ in group] for group in groups]

    def prepare(self, conversation: Conversation, sampling: Sampling, *, watched: bool = False) -> Row:
        """Open a conversation's images and write its prompt: a Row that a Decoder takes. For any thread.

        watched: whether its text is read along. Raises as `reply` does.
        """
        if not conversation.awaits_answer:
            raise ConversationError("the conversation ends with an answer; ask something first")
        conversation, num_dropped = self._fit(conversation, sampling)
        example = self.processor.encode(conversation)
        limit = sampling.max_new_tokens
        if self.processor.max_positions is not None:
            limit = min(limit, self.processor.max_positions - len(example.input_ids))
        return Row(
            example,
            fingerprint(example, image_token_id=self.processor.image_token_id, num_patches=self.processor.num_patches),
            sampling,
            Transcript(self.processor.read, (self.processor.end_text, *sampling.stop), self.processor.word_tokens),
            limit=limit,
            num_dropped_turns=num_dropped,
            watched=watched,
        )

    def decoder(self, *, keep: bool) -> Decoder:
        """Return a Decoder of this model. keep: whether it takes up earlier conversations and keeps its own."""
        config = generation_config(self.model.language_model, self.processor)
        return Decoder(
            self.model,
            ends=config.eos_token_id,
            never=config.suppress_tokens or (),
            num_patches=self.processor.num_patches,
            conversations=self._conversations if keep and not self.in_step else None,
            in_step=self.in_step,
        )

    def forget(self) -> None:
        """Give up what is kept of conversations for their next turns, and its memory."""
        self._conversations.clear()

    def _answer(self, rows: Sequence[Row]) -> list[str]:
        if not rows:
            return []
        decoder = self.decoder(keep=len(rows) == 1)
        decoder.join(rows)
        while decoder.release():
            decoder.step()
        return [row.text for row in rows]

    def _fit(self, conversation: Conversation, sampling: Sampling) -> tuple[Conversation, int]:
        """Return a conversation that leaves the context room for an answer, and how many turns it has lost for that.

        Where rounds are dropped, so many that the answer can be as long as asked for, or a quarter of the context.
        """
        most = self.processor.max_positions
        if most is None:
            return conversation, 0
        room = min(sampling.max_new_tokens, most // 4) if self.drop_oldest else 1
        shorter, num_tokens = conversation, self.processor.num_tokens(conversation)
        if self.drop_oldest and num_tokens > most - room:
            shorter, num_tokens = self._newest(conversation, most - room)
        num_dropped = len(conversation.messages) - len(shorter.messages)
        if num_tokens >= most:
            what = "the last turn" if num_dropped else "the conversation"
            raise TooLong(
                f"{what} has {num_tokens} tokens, but the model's context is {most}, the answer included; "
                "say less, show fewer images or start anew"
            )
        if num_dropped:
            distributed.logger.warning("the conversation is too long: its first %d turns were left out", num_dropped)
        return shorter, num_dropped

    def _newest(self, conversation: Conversation, most: int) -> tuple[Conversation, int]:
        """Return the last turn and what before it fits into `most` tokens with it, and how many tokens these are.

        Counted from the end, so that the work is bounded by what fits and not by what somebody sends.
        """
        last = len(conversation.messages) - 1
        kept = replace(conversation, messages=conversation.messages[last:])
        num_kept = self.processor.num_tokens(kept)
        for start in range(last - 2, -1, -2):
            longer = replace(conversation, messages=conversation.messages[start:])
            num_tokens = self.processor.num_tokens(longer)
            if num_tokens > most:
                break
            kept, num_kept = longer, num_tokens
        return kept, num_kept

    def _encode_answered(self, conversation: Conversation) -> Example:
        if not conversation.messages or conversation.awaits_answer:
            raise ConversationError("only an answer can be scored; end the conversation with one")
        return self._check_length(self.processor.encode(conversation))

    def _encode_options(self, choice: Choice) -> list[Example]:
        return [self._check_length(example) for example in self.processor.encode_options(*choice)]

    def _check_length(self, example: Example) -> Example:
        most = self.processor.max_positions
        if most is not None and len(example.input_ids) > most:
            raise TooLong(f"the conversation has {len(example.input_ids)} tokens, but the model's context is {most}")
        return example
