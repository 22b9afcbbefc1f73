"""Text while it is being generated: no broken characters, and the pieces joined are the whole answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Transcript:
    """Turns the tokens of one answer into text, which it hands out as soon as it can no longer change.

    decode: ids -> text; ends: texts that end the answer and are not part of it. White space around it is left out.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], ends: Sequence[str] = ()) -> None:
        self.decode = decode
        self.ends = tuple(end for end in ends if end)
        self.text = ""
        self.ended = False

    def read(self, ids: Sequence[int], *, last: bool = False) -> str:
        """Take all tokens so far, and return what is new of the text. last: no more will come."""
        said = self.decode(ids)
        cuts = [place for end in self.ends if (place := said.find(end)) >= 0]
        self.ended = bool(cuts)
        if cuts:
            text = said[: min(cuts)].strip()
        elif last:
            text = said.strip()
        elif said.endswith("\N{REPLACEMENT CHARACTER}"):  # the bytes of one character may come in several tokens
            return ""
        else:
            text = self._settled(said).strip()
        if len(text) <= len(self.text) or not text.startswith(self.text):
            return ""
        piece = text[len(self.text) :]
        self.text = text
        return piece

    def _settled(self, text: str) -> str:
        """Leave out at the end what the next tokens may complete to one of `ends`."""
        lengths = (length for end in self.ends for length in range(len(end) - 1, 0, -1) if text.endswith(end[:length]))
        return text[: len(text) - max(lengths, default=0)]
