"""The Python API: load a checkpoint, ask it about images, one question or many, at once or as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from llava_lite import distributed
from llava_lite.checkpoint.folder import load as load_checkpoint
from llava_lite.checkpoint.transformers_format import generation_config
from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.generation.chat_model import Sampling
from llava_lite.generation.streaming import Cancelled, Ended, TextQueue, stream
from llava_lite.models.llava import Llava
from llava_lite.processor import Example, Processor, join_patches


def load(path: str | Path, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Assistant:
    """Open a checkpoint folder and return an assistant ready to be asked.

    device, dtype: where and in what it computes; by default a GPU in bf16 if there is one, else the CPU in fp32.
    Raises CheckpointError for a folder that is not a whole checkpoint.
    """
    model, processor = load_checkpoint(path, dtype=dtype or distributed.dtype())
    return Assistant(model.to(device or distributed.device()), processor, name=str(path))


class Assistant:
    """A model and its processor as a ChatModel.

    in_step: all processes of a run ask theirs at the same time, and each goes on until all have their answers: for
    weights that are shared out, of which every step of any process needs a part from all
    """

    def __init__(self, model: Llava, processor: Processor, *, name: str = "llava_lite", in_step: bool = False) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.in_step = in_step

    def ask(self, text: str, images: Iterable[object] = (), *, sampling: Sampling = Sampling()) -> str:
        """Ask one question about any number of images (paths, bytes or PIL images) and return the answer."""
        return self.reply([Conversation().ask(text, images)], sampling)[0]

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()) -> list[str]:
        """Answer conversations in one batch, padded on the left; the same as one at a time."""
        if not conversations:
            return []
        ids = self._generate([self._encode(c) for c in conversations], sampling)
        return [self.processor.decode(row) for row in ids]

    def stream(self, conversation: Conversation, sampling: Sampling = Sampling()) -> Iterator[str]:
        """Answer one conversation piece by piece; the pieces joined are what `reply` gives. Stop reading to stop it."""
        example = self._encode(conversation)
        texts, cancelled = TextQueue(self.processor.decode, self.processor.end_text), Cancelled()
        return stream(
            texts, cancelled, lambda: self._generate([example], sampling, streamer=texts, cancelled=cancelled)
        )

    def _encode(self, conversation: Conversation) -> Example:
        if not conversation.awaits_answer:
            raise ConversationError("the conversation ends with an answer; ask something first")
        return self.processor.encode(conversation)

    def _generate(
        self,
        examples: Sequence[Example],
        sampling: Sampling,
        *,
        streamer: BaseStreamer | None = None,
        cancelled: Cancelled | None = None,
    ) -> torch.Tensor:
        width = max(len(example.input_ids) for example in examples)
        input_ids = torch.full((len(examples), width), self.processor.tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, example in enumerate(examples):
            input_ids[row, width - len(example.input_ids) :] = example.input_ids
            attention_mask[row, width - len(example.input_ids) :] = 1
        patch_index, patch_weight = join_patches(examples, self.processor.num_patches)
        stop: list[StoppingCriteria] = [cancelled] if cancelled else []
        if self.processor.end_text:
            stop.append(Ended(self.processor.before_end))
        device = self.model.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(sampling.seed)
            return self.model.generate(
                input_ids=input_ids.to(device),
                attention_mask=attention_mask.to(device),
                pixel_values=self._tiles(examples).to(device),
                patch_index=patch_index.to(device),
                patch_weight=None if patch_weight is None else patch_weight.to(device),
                config=self._generation_config(sampling),
                streamer=streamer,
                stop=StoppingCriteriaList(stop),
                in_step=self.in_step,
            )

    def _tiles(self, examples: Sequence[Example]) -> torch.Tensor:
        """Join the tiles; processes in step all run the tower, and one without an image runs it on a blank tile."""
        tiles = torch.cat([example.pixel_values for example in examples])
        return tiles.new_zeros(1, *tiles.shape[1:]) if self.in_step and not len(tiles) else tiles

    def _generation_config(self, sampling: Sampling) -> GenerationConfig:
        config = generation_config(self.model.language_model, self.processor)
        config.stop_strings = None  # `Ended` sees to it
        config.max_new_tokens = sampling.max_new_tokens
        if sampling.temperature > 0:
            config.do_sample, config.temperature, config.top_p = True, sampling.temperature, sampling.top_p
            config.top_k = 0
        return config
