"""Text while it is being generated: no broken characters, and the pieces joined are the whole answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence


class Transcript:
    """Turns the tokens of one answer into text, which it hands out as soon as it can no longer change.

    decode: ids -> text
    ends:   texts that end the answer and are not part of it; white space around it is left out, too
    words:  tokens whose text what follows cannot change (see `Processor.word_tokens`); None: all
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        ends: Sequence[str] = (),
        words: Collection[int] | None = None,
    ) -> None:
        self.decode = decode
        self.ends = tuple(end for end in ends if end)
        self.words = words
        self.text = ""
        self.ended = False

    def read(self, ids: Sequence[int], *, last: bool = False) -> str:
        """Take all tokens so far, and return what is new of the text. last: no more will come."""
        said = self.decode(ids)
        cuts = [place for end in self.ends if (place := said.find(end)) >= 0]
        self.ended = bool(cuts)
        if cuts:
            text = said[: min(cuts)]
        elif last:
            text = said
        else:
            text = self._settled(said, ids)
        piece = text.strip()[len(self.text) :]
        self.text += piece
        return piece

    def _settled(self, said: str, ids: Sequence[int]) -> str:
        """Leave out at the end what the next tokens may change, or complete to one of `ends`."""
        known = len(ids)
        while known and self.words is not None and ids[known - 1] not in self.words:
            known -= 1
        text = said if known == len(ids) else self.decode(ids[:known])
        if text.endswith("\N{REPLACEMENT CHARACTER}"):  # the bytes of one character may come in several tokens
            return ""
        lengths = (length for end in self.ends for length in range(len(end) - 1, 0, -1) if text.endswith(end[:length]))
        return text[: len(text) - max(lengths, default=0)]
