"""The chat model class that lmms-eval makes of `--model llava_lite --model_args pretrained=FOLDER`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.protocol import ChatMessages
from tqdm import tqdm

from llava_lite.checkpoint.proof import DTYPES
from llava_lite.conversation.message import Conversation
from llava_lite.generation.assistant import load
from llava_lite.lmms_eval_plugin.request import (
    Request,
    RequestError,
    answer,
    naming,
    read_conversation,
    read_sampling,
)

if TYPE_CHECKING:
    import torch


class LlavaLite(lmms):
    """Whatever `llava_lite.load` opens, as a chat model of lmms-eval; each process has its own.

    pretrained: a checkpoint folder or hub id
    batch_size: documents answered together
    device:     by default the process's own GPU, else the CPU
    dtype:      float32, bfloat16 or float16; by default bfloat16 on a GPU, float32 on a CPU
    template:   see `llava_lite.load`
    blind:      leave all images out, to see what is answered without them
    """

    is_simple = False  # lmms-eval's word for: asked by chat messages

    def __init__(
        self,
        pretrained: str,
        *,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str | None = None,
        template: str | None = None,
        blind: bool = False,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise RequestError(f"batch_size {batch_size!r}: give a number, from 1 on")
        if dtype is not None and dtype not in DTYPES:
            raise RequestError(f"no dtype {dtype!r}; there are: {', '.join(DTYPES)}")
        self.batch_size = int(batch_size)
        self.blind = blind
        self.assistant = load(
            pretrained, device=device, dtype=None if dtype is None else DTYPES[dtype], template=template
        )

    @property
    def device(self) -> torch.device:
        """Where lmms-eval gathers what several processes have."""
        return self.assistant.model.device

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer requests, in their order. Raises RequestError for the first that cannot be answered."""
        times: Counter[str] = Counter()
        asked = []
        for request in requests:
            context, doc_to_messages, gen_kwargs, doc_id, task, split = request.args
            where = f"{task}, document {doc_id}"
            with naming(task):
                sampling = read_sampling(gen_kwargs, repetition=times[where])
            times[where] += 1
            asked.append(
                Request(where, len(context), sampling, partial(self._read, doc_to_messages, doc_id, task, split))
            )
        with tqdm(total=len(asked), desc="Model Responding", disable=self.rank != 0) as bar:
            return answer(self.assistant, asked, batch_size=self.batch_size, done=bar.update)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Raise: lmms-eval asks chat models for answers alone."""
        raise NotImplementedError("llava_lite: lmms-eval ranks given answers with simple models alone")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Raise: tasks that ask again are not answered."""
        raise NotImplementedError("llava_lite: tasks of several rounds are not answered; leave them out")

    def _read(self, doc_to_messages: Callable[[Any], Any], doc_id: int, task: str, split: str) -> Conversation:
        messages = ChatMessages(messages=doc_to_messages(self.task_dict[task][split][doc_id]))
        return read_conversation(messages.to_hf_messages(), blind=self.blind)
