"""The door between people's words and pictures and the model's tensors. Training, chat and benchmarks all pass it.

Each stretch of text between two images is tokenised once, on its own, as the original does; a token is learnt if the
answer's span holds its last character. What spells a special token in people's own words stays text.
"""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AddedToken, PreTrainedTokenizerBase

from llava_lite.conversation.message import Conversation, Image
from llava_lite.conversation.template import IMAGE_MARK, ChatTemplate, Prompt, Span
from llava_lite.example import IGNORE, Example, join_index
from llava_lite.images.layout import Layout, Size, is_anyres, lay_out, most_tokens
from llava_lite.images.loading import image_size, load_image
from llava_lite.images.transform import ImageTransform
from llava_lite.token_counter import TokenCounter

_BYTE = re.compile("<0x[0-9A-F]{2}>")


class ProcessorError(ValueError):
    """A conversation, tokenizer and template that do not go together."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a prompt, as short as its tokens are, or one image.

    text:   what it says; "" where a token writes none of the text, such as sentencepiece's prefix space
    ids:    its tokens: mostly one; several where they share a character; all visual tokens of an image
    learnt: whether they are learnt
    image, layout: the image it is, and where its visual tokens come from; None for text
    """

    text: str
    ids: tuple[int, ...]
    learnt: bool
    image: Image | None = None
    layout: Layout | None = None


@dataclass(frozen=True)
class Processor:
    """Encode conversations, decode answers.

    tokenizer: a fast tokenizer with an image token (see `prepare_tokenizer`)
    transform: pictures -> tiles; None for a model without a vision tower
    num_patches: projected patches of one tile, P'
    bos:       whether the tokenizer puts its BOS token in front of a text; a template may say otherwise (`writes_bos`)
    max_positions: the longest document, in tokens, that the language model takes; None: not known
    image_token: the token that holds a visual token's place
    whole:     whether sentencepiece puts its space before the first word of a prompt alone, as transformers' processors
               have it; else before each stretch between images, as LLaVA
    """

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    transform: ImageTransform | None
    num_patches: int
    bos: bool
    max_positions: int | None = None
    image_token: str = IMAGE_MARK
    whole: bool = False

    def __post_init__(self) -> None:
        tokens = self.tokenizer.get_added_vocab()
        if self.transform and self.image_token not in tokens:
            raise ProcessorError(
                f"the tokenizer has no {self.image_token} token; pass it through prepare_tokenizer first"
            )
        if self.transform and is_anyres(self.transform.mode) and math.isqrt(self.num_patches) ** 2 != self.num_patches:
            raise ProcessorError(
                f"image mode {self.transform.mode} lays patches in a square, but a tile has {self.num_patches}; "
                "choose another mode or projector"
            )
        end = self.template.end.strip()
        if end.startswith("<") and end not in tokens:
            raise ProcessorError(
                f"template {self.template.name!r} ends an answer with {end!r}, which is not a token of this tokenizer; "
                "choose the template this language model was trained with"
            )

    def __getstate__(self) -> dict[str, object]:
        """Leave out the engine that is made again: pickled, it would forget that special tokens are text to it."""
        return {name: value for name, value in vars(self).items() if name != "_literal"}

    @property
    def image_token_id(self) -> int:
        """The id that holds a visual token's place; -1 for a model without a vision tower."""
        return int(self.tokenizer.get_added_vocab()[self.image_token]) if self.transform else -1

    @property
    def writes_bos(self) -> bool:
        """Whether a prompt begins with the tokenizer's BOS token."""
        return self.bos if self.template.bos is None else self.template.bos

    @property
    def end_token_id(self) -> int | None:
        """The id of the special token in the template's end mark; None where there is none."""
        return self.tokenizer.get_added_vocab().get(self.template.end.strip())

    @property
    def end_text(self) -> str:
        """The text that ends an answer where no special token does ("###", a newline); else "". Spaces end nothing."""
        return self.template.end if self.end_token_id is None and self.template.end.strip(" ") else ""

    @cached_property
    def word_tokens(self) -> frozenset[int]:
        """The ids of tokens that say the same whatever stands beside them: none for a single byte, such as
        sentencepiece's <0x0A>, of which several in a row are read together, and no special ones, which say nothing.
        """
        words = {number for token, number in self.tokenizer.get_vocab().items() if not _BYTE.fullmatch(token)}
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(words - {number for number, token in added if token.special})

    def with_template(self, template: ChatTemplate) -> Processor:
        return replace(self, template=template)

    def with_image_mode(self, mode: str) -> Processor:
        """Return the same processor for another of `layout.ImageMode`; see `checkpoint.parts.fit_newline`."""
        return replace(self, transform=self.transform.with_mode(mode)) if self.transform else self

    def encode(self, conversation: Conversation, max_length: int | None = None) -> Example:
        """Turn a conversation into tensors; one that ends with a question is ready to be answered.

        max_length: cut off what comes after so many tokens; an image that would be cut is left out whole.
        Raises ConversationError, ImageError or ProcessorError.
        """
        prompt = self._render(conversation)
        alone = len(prompt.images) == 1
        layouts, tiles = [], []
        for _, image in prompt.images:
            assert self.transform is not None
            picture = load_image(image.source)
            layouts.append(self._lay_out(picture.size if alone else None))
            tiles.append(self.transform(picture, alone=alone))
        ids, labels, _ = self._tokens(prompt, [len(layout.index) for layout in layouts])
        side = self.transform.size if self.transform else 0
        index = [torch.from_numpy(layout.index) for layout in layouts]
        weights = [torch.from_numpy(layout.weight) for layout in layouts if layout.weight is not None]
        example = Example(
            input_ids=torch.from_numpy(ids),
            labels=torch.from_numpy(labels),
            pixel_values=torch.cat(tiles) if tiles else torch.zeros(0, 3, side, side),
            patch_index=join_index(index, [layout.num_tiles * self.num_patches for layout in layouts]),
            patch_weight=weights[0] if weights else None,  # only a picture alone has weights
        )
        return self._cut(example, self._end(ids, max_length))

    def encode_options(self, conversation: Conversation, options: Sequence[str]) -> list[Example]:
        """Turn a question with each of several answers to it into tensors that end with the answer's last word, where
        more may follow: without the end mark. They share the images, which are opened once. Raises as `encode` does.
        """
        shown, examples = self.encode(conversation), []
        for option in options:
            prompt = self._render(conversation.answer(option))
            ids, labels, spans = self._tokens(prompt, [len(layout.index) for layout in self._layouts(prompt)])
            end = int((spans[:, 0] < prompt.content[-1][1]).sum())
            known = {"input_ids": torch.from_numpy(ids[:end]), "labels": torch.from_numpy(labels[:end])}
            examples.append(replace(shown, **known))
        return examples

    def pieces(self, conversation: Conversation, max_length: int | None = None) -> list[Piece]:
        """Cut a conversation's prompt up where its tokens do, for people to look at.

        The ids joined are the input_ids that `encode` gives, learnt where its labels are; the texts joined are the
        prompt behind its BOS token. Opens no image but for its header, as `length`. Raises as `encode` does.
        """
        prompt = self._render(conversation)
        layouts = self._layouts(prompt)
        tokens = self._tokens(prompt, [len(layout.index) for layout in layouts])
        end = self._end(tokens[0], max_length)
        ids, labels, spans = (values.tolist() for values in tokens)
        firsts, texts, shown = list[int](), list[str](), 0
        for place, (start, stop) in enumerate(spans[:end]):
            if stop > shown or start == stop:  # else it is one more token of the same character or image
                firsts.append(place)
                texts.append(prompt.text[shown:stop])
                shown = max(shown, stop)
        if self.writes_bos and texts:
            texts[0] = str(self.tokenizer.bos_token)
        images = ((image, layout) for (_, image), layout in zip(prompt.images, layouts, strict=True))
        image_token_id, pieces = self.image_token_id, []
        for text, first, after in zip(texts, firsts, [*firsts, end][1:], strict=True):
            image, layout = next(images) if ids[first] == image_token_id else (None, None)
            pieces.append(Piece(text, tuple(ids[first:after]), labels[first] != IGNORE, image, layout))
        return pieces

    def length(self, conversation: Conversation, max_length: int | None = None) -> tuple[int, int]:
        """Return how many tokens and how many learnt tokens a conversation has.

        Opens no image, except where the image mode cuts it by its size: then its header. Raises as `encode` does.
        """
        prompt = self._render(conversation)
        ids, labels, _ = self._tokens(prompt, [len(layout.index) for layout in self._layouts(prompt)])
        end = self._end(ids, max_length)
        return end, int((labels[1:end] != IGNORE).sum())

    def num_tokens(self, conversation: Conversation) -> int:
        """Return how many tokens a conversation has: `length`, in a fraction of the time. Raises as `encode` does."""
        prompt = self._render(conversation)
        marks = [mark for mark, _ in prompt.images]
        starts, ends = [0, *(end for _, end in marks)], [*(start for start, _ in marks), len(prompt.text)]
        if self.whole or any(self._spelled(prompt, start, end) for start, end in zip(starts, ends, strict=True)):
            return self.length(conversation)[0]
        num_text = sum(self._counter.count(prompt.text[start:end]) for start, end in zip(starts, ends, strict=True))
        num_visual = sum(len(layout.index) for layout in self._layouts(prompt))
        return self.writes_bos + num_text + num_visual

    def bound(self, conversation: Conversation) -> int:
        """Return a number of tokens that a conversation cannot exceed, without writing or tokenising it.

        A token holds at least one byte, so ASCII text has no more tokens than characters, and each of its pieces, which
        end at images and special tokens, a prefix more. Other text, and what spells a special token, is tokenised.
        Opens no image. Raises ConversationError or ProcessorError.
        """
        texts, num_images = [self.template.check(conversation)], 0
        for message in conversation.messages:
            for part in message.content:
                if isinstance(part, str):
                    texts.append(part)
                else:
                    num_images += 1
        text = "".join(texts)
        if not text.isascii() or self._special.search(text):
            return self.num_tokens(conversation)
        num_messages = len(conversation.messages)
        num_visual = most_tokens(self.transform.mode, self.num_patches) if self.transform else 0
        num_prefixes = 4 * (1 + num_images + num_messages)
        num_characters = len(text) + self.template.most_markup(num_messages, num_images)
        return num_prefixes + num_characters + num_images * num_visual

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides what tokens a conversation becomes."""
        parts = (self._plain.to_str(), self.template, self.num_patches, self.bos)
        mode = (self.transform.mode, self.transform.size) if self.transform else None
        return hashlib.sha256(repr((parts, mode, self.image_token, self.whole)).encode()).hexdigest()

    def decode(self, ids: Sequence[int] | torch.Tensor) -> str:
        """Return the text of generated ids up to the end mark, special tokens and surrounding white space left out."""
        text = self.read(ids)
        return (text.partition(self.end_text)[0] if self.end_text else text).strip()

    def read(self, ids: Sequence[int] | torch.Tensor) -> str:
        """Return the text of ids, special tokens left out."""
        return str(self.tokenizer.decode(list(map(int, ids)), skip_special_tokens=True))

    def _render(self, conversation: Conversation) -> Prompt:
        prompt = self.template.render(conversation)
        try:
            prompt.text.encode()
        except UnicodeEncodeError as error:
            before = prompt.text[max(0, error.start - 20) : error.start]
            raise ProcessorError(f"half a character (a lone surrogate) after {before!r}; remove it") from None
        if prompt.images and self.transform is None:
            raise ProcessorError("the conversation shows an image, but this model has no vision tower")
        return prompt

    def _layouts(self, prompt: Prompt) -> list[Layout]:
        """Lay out a prompt's images without decoding any; headers are read where the image mode goes by the size."""
        by_size = self.transform is not None and is_anyres(self.transform.mode) and len(prompt.images) == 1
        return [self._lay_out(image_size(image.source) if by_size else None) for _, image in prompt.images]

    def _lay_out(self, size: Size | None) -> Layout:
        assert self.transform is not None
        return lay_out(size, self.transform.mode, tile_size=self.transform.size, num_patches=self.num_patches)

    def _end(self, ids: np.ndarray, max_length: int | None) -> int:
        """Return where to cut to get at most max_length tokens: there, or in front of the images it would fall into."""
        if max_length is None or len(ids) <= max_length:
            return len(ids)
        end = max_length
        while end and ids[end] == ids[end - 1] == self.image_token_id:
            end -= 1
        return end

    def _cut(self, example: Example, end: int) -> Example:
        """Keep the first `end` tokens, and the tiles whose patches stand among them."""
        if end == len(example.input_ids):
            return example
        num_visual = int((example.input_ids[:end] == self.image_token_id).sum())
        index = example.patch_index[:num_visual]
        num_tiles = int(index.max()) // self.num_patches + 1 if num_visual else 0
        return Example(
            input_ids=example.input_ids[:end],
            labels=example.labels[:end],
            pixel_values=example.pixel_values[:num_tiles],
            patch_index=index,
            patch_weight=None if example.patch_weight is None else example.patch_weight[:num_visual],
        )

    def _tokens(self, prompt: Prompt, visual_tokens: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokenise a prompt whose images take that many visual tokens each.

        Returns ids [T], labels [T] and spans of the text [T, 2], all int64.
        """
        bos = [[int(self.tokenizer.bos_token_id), 0, 0]] if self.writes_bos else []
        parts = [np.array(bos, dtype=np.int64).reshape(-1, 3)]
        start = 0
        for ((mark, end), _), count in zip(prompt.images, visual_tokens, strict=True):
            parts += [*self._chunk(prompt, start, mark), np.tile([self.image_token_id, mark, end], (count, 1))]
            start = end
        parts += self._chunk(prompt, start, len(prompt.text))
        ids, starts, ends = np.ascontiguousarray(np.concatenate(parts).T)
        learnt = np.zeros(len(prompt.text) + 1, dtype=bool)
        for start, end in prompt.answers:
            learnt[start:end] = True
        labels = np.where(learnt[np.maximum(ends - 1, starts)], ids, IGNORE)
        return ids, labels, np.stack([starts, ends], axis=1)

    def _chunk(self, prompt: Prompt, start: int, end: int) -> list[np.ndarray]:
        """Tokenise a stretch of text between images; what spells a special token in people's words is cut out."""
        parts: list[np.ndarray] = []
        inside = self.whole and (start > 0 or bool(self.template.bos))
        for begin, after in self._spelled(prompt, start, end):
            parts.append(self._piece(prompt.text, start, begin, inside=inside))
            parts.append(self._piece(prompt.text, begin, after, inside=inside or begin > start, literal=True))
            inside, start = True, after
        return [*parts, self._piece(prompt.text, start, end, inside=inside)]

    def _spelled(self, prompt: Prompt, start: int, end: int) -> list[Span]:
        """Find what spells a special token in people's words."""
        starts = [begin for begin, _ in prompt.content]
        found = []
        for match in self._special.finditer(prompt.text, start, end):
            begin, after = match.span()
            last = bisect_left(starts, after) - 1  # of the words that begin before its end, those that end last
            if last >= 0 and begin < prompt.content[last][1]:
                found.append((begin, after))
        return found

    def _piece(self, text: str, start: int, end: int, *, inside: bool, literal: bool = False) -> np.ndarray:
        """Tokenise text[start:end]: int64 [n, 3], of each token its id, and where its text starts and ends.

        Inside a chunk, a newline in front keeps sentencepiece's prefix space away. A tokenizer that would join this
        newline with what follows has no such space, and gets none in front.
        """
        if start == end:
            return np.zeros((0, 3), dtype=np.int64)
        lead = "\n" if inside else ""
        engine = self._literal if literal else self._plain
        encoding = engine.encode(lead + text[start:end], add_special_tokens=False)
        offsets = np.fromiter(chain.from_iterable(encoding.offsets), dtype=np.int64).reshape(-1, 2)
        if ((offsets[:, 0] < len(lead)) & (offsets[:, 1] > len(lead)) & inside).any():
            return self._piece(text, start, end, inside=False, literal=literal)
        tokens = np.column_stack([np.array(encoding.ids, dtype=np.int64), offsets + (start - len(lead))])
        return tokens[np.maximum(offsets[:, 1] - 1, offsets[:, 0]) >= len(lead)]

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer's own engine, cutting nothing off."""
        return _engine(self.tokenizer, literal=False)

    @cached_property
    def _literal(self) -> Tokenizer:
        """The same, for which what spells a special token is text."""
        return _engine(self.tokenizer, literal=True)

    @cached_property
    def _counter(self) -> TokenCounter:
        return TokenCounter(self._plain)

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """What spells a special token; the longest first."""
        words = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, words)) or r"(?!)")


def _engine(tokenizer: PreTrainedTokenizerBase, *, literal: bool) -> Tokenizer:
    """Copy a tokenizer's engine and set it once: threads share it, so nothing may be set between two of its texts."""
    engine = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    engine.encode_special_tokens = literal
    engine.no_truncation()
    engine.no_padding()
    return engine


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, *, image: bool) -> bool:
    """Give a language model's tokenizer what LLaVA needs: a padding token, and an `<image>` token if it shall see.

    Returns whether the tokenizer itself puts BOS in front of a text (asked before anything is changed).
    """
    if not tokenizer.is_fast:
        raise ProcessorError(f"{tokenizer.name_or_path}: the tokenizer gives no offsets; use a fast tokenizer")
    bos = bool(tokenizer.bos_token_id is not None and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id])
    if image and IMAGE_MARK not in tokenizer.get_added_vocab():
        tokenizer.add_tokens([AddedToken(IMAGE_MARK, special=True, normalized=False)])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return bos
