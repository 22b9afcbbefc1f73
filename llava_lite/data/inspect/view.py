"""What there is to show of a sample: its tokens, what is learnt of them, its pictures as the vision tower gets them.

All of it is read off the Example that training gets, and off the pieces that the same tokens make of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image as PilImage

from llava_lite.conversation.message import ConversationError, Image
from llava_lite.data.mixture import Mixture
from llava_lite.data.records import SampleError
from llava_lite.example import IGNORE, Example
from llava_lite.images.layout import NEWLINE, Layout
from llava_lite.images.loading import FileSlice, ImageError, load_image
from llava_lite.processor import Piece, Processor, ProcessorError

# Data comes from strangers: what would steer a terminal, turn the direction of writing or not be seen is spelled out.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")

_BECOMES = {"truncate": "its end is cut off", "skip": "it is left out"}  # by data.too_long
_NAMED = 8  # so many tokens of a stretch are named: all of an image have the same name


@dataclass(frozen=True)
class Picture:
    """An image of a sample.

    name:     what its file is called
    original: the picture as it was opened
    tiles:    uint8 [N, H, W, 3], what the vision tower gets; of a grid, the base view first
    used:     bool [N, P'], the patches that the language model gets something of
    layout:   where the visual tokens come from
    """

    name: str
    original: PilImage.Image
    tiles: np.ndarray
    used: np.ndarray
    layout: Layout

    @property
    def words(self) -> str:
        """What becomes of it, in a few words."""
        (width, height), grid = self.original.size, self.layout.grid
        num_tiles = f"{grid[0]}x{grid[1]} grid + base: {len(self.tiles)} tiles" if grid else "1 tile"
        return f"image {width}x{height} -> {num_tiles}, {len(self.layout.index):,} tokens"


@dataclass(frozen=True)
class Stretch:
    """What a token, or several that share a character, or an image stand for.

    text:  of the prompt, with what would not be seen spelled out
    names: the tokens as the vocabulary spells them
    kind:  unknown is text that the tokenizer has no token for
    cut:   whether it stands behind the longest length
    picture: of an image, unless it was cut
    """

    text: str
    ids: tuple[int, ...]
    names: tuple[str, ...]
    kind: Literal["text", "special", "unknown", "image"]
    learnt: bool
    cut: bool
    picture: Picture | None = None

    @property
    def words(self) -> str:
        """Of an image: what becomes of it."""
        return self.picture.words if self.picture else f"image, {len(self.ids):,} tokens"


@dataclass(frozen=True)
class View:
    """One sample as it is learnt from.

    limit:   the most tokens it may have
    counts:  its tokens: text, image, learnt and total
    remarks: what happened on reading it
    error:   why it cannot be used
    """

    id: str
    source: str
    limit: int | None
    counts: Mapping[str, int] = field(default_factory=dict)
    stretches: Sequence[Stretch] = ()
    remarks: Sequence[str] = ()
    error: str | None = None

    @property
    def pictures(self) -> list[Picture]:
        return [stretch.picture for stretch in self.stretches if stretch.picture]

    @property
    def words(self) -> str:
        """Its counts in a line; "" where it could not be encoded."""
        if not self.counts:
            return ""
        text, image, learnt, total = (self.counts[sort] for sort in ("text", "image", "learnt", "total"))
        share = "" if self.limit is None else f" of {self.limit:,} ({total / self.limit:.0%})"
        return f"{total:,} tokens{share}: {text:,} text, {image:,} image; {learnt:,} learnt"


class Viewer:
    """Shows the samples of a mixture as a processor encodes them.

    limit: the most tokens of a sample; what becomes of a longer one, `data.too_long` says
    """

    def __init__(self, mixture: Mixture, processor: Processor, *, limit: int | None) -> None:
        self.mixture = mixture
        self.processor = processor
        self.limit = limit
        self._special = frozenset(processor.tokenizer.get_added_vocab().values())

    def view(self, entry: int) -> View:
        """Read and encode one entry; what is wrong with it stands in the View."""
        try:
            return self._view(entry)
        except (SampleError, ConversationError, ImageError, ProcessorError) as error:
            reason = str(error).removeprefix(f"{self.mixture.name(entry)}: ")
            source = self.mixture.sources[self.mixture.source_of[entry]].name
            return View(visible(self.mixture.entry_id(entry)), visible(source), self.limit, error=visible(reason))

    def _view(self, entry: int) -> View:
        sample = self.mixture.sample(entry)
        policy = self.mixture.config.too_long
        example = self.processor.encode(sample.conversation, self.limit if policy == "truncate" else None)
        pieces = self.processor.pieces(sample.conversation)
        kept = self.processor.pieces(sample.conversation, self.limit)
        shown = kept if policy == "truncate" else pieces
        assert [token for piece in shown for token in piece.ids] == example.input_ids.tolist()

        pictures = self._pictures(shown, example)
        stretches = [
            self._stretch(piece, cut=number >= len(kept), picture=pictures.get(number))
            for number, piece in enumerate(pieces)
        ]
        image, total = len(example.patch_index), len(example.input_ids)
        learnt = int((example.labels[1:] != IGNORE).sum())
        remarks, error = [visible(note) for note in sample.notes], None
        length = sum(len(piece.ids) for piece in pieces)
        if self.limit is not None and length > self.limit:
            long = f"{length:,} tokens do not fit in {self.limit:,}"
            if policy == "error":
                error = f"{long}, which ends a run; {self._room()}shorten the record, or set data.too_long"
            else:
                remarks.append(f"{long}: {_BECOMES[policy]} (data.too_long={policy})")
        if not learnt:
            remarks.append("nothing of it is learnt: it is left out")
        return View(
            id=visible(sample.id),
            source=visible(sample.source),
            limit=self.limit,
            counts={"text": total - image, "image": image, "learnt": learnt, "total": total},
            stretches=stretches,
            remarks=remarks,
            error=error,
        )

    def _room(self) -> str:
        """What would make room for a longer sample, if anything does."""
        return "" if self.limit == self.processor.max_positions else "raise batch.tokens (or data.max_length), "

    def _stretch(self, piece: Piece, *, cut: bool, picture: Picture | None) -> Stretch:
        kind: Literal["text", "special", "unknown", "image"] = "text"
        tokenizer = self.processor.tokenizer
        if piece.image is not None:
            kind = "image"
        elif piece.ids[0] == tokenizer.unk_token_id and piece.text != tokenizer.unk_token:
            kind = "unknown"
        elif piece.ids[0] in self._special:
            kind = "special"
        names = tuple(map(str, tokenizer.convert_ids_to_tokens(list(piece.ids[:_NAMED]))))
        return Stretch(visible(piece.text), piece.ids, names, kind, piece.learnt, cut, picture)

    def _pictures(self, pieces: Sequence[Piece], example: Example) -> dict[int, Picture]:
        """Give each image among the pieces its share of an Example, by its place among them."""
        transform, num_patches = self.processor.transform, self.processor.num_patches
        pictures, tile, token = dict[int, Picture](), 0, 0
        for number, piece in enumerate(pieces):
            if piece.image is None or piece.layout is None or transform is None:
                continue
            tiles = example.pixel_values[tile : tile + piece.layout.num_tiles]
            rows = example.patch_index[token : token + len(piece.ids)]
            if example.patch_weight is not None:
                rows = rows[example.patch_weight[token : token + len(piece.ids)] > 0]
            used = np.zeros(len(tiles) * num_patches, dtype=bool)
            used[rows[rows != NEWLINE].numpy() - tile * num_patches] = True
            pictures[number] = Picture(
                name=visible(_name(piece.image)),
                original=load_image(piece.image.source),
                tiles=transform.restore(tiles),
                used=used.reshape(len(tiles), num_patches),
                layout=piece.layout,
            )
            tile, token = tile + len(tiles), token + len(piece.ids)
        return pictures


def visible(text: str) -> str:
    """Spell out control characters, turns of the direction of writing, half letters and what would not be seen."""
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _name(image: Image) -> str:
    source = image.source.path if isinstance(image.source, FileSlice) else image.source
    return source.name if isinstance(source, Path) else "an image of the record"
