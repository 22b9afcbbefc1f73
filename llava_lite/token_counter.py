"""How many tokens a text has, told without tokenising it whole: word by word, and each word once.

This is exact for the tokenizers of Llama, Vicuna, Mistral and their like, none of whose pieces reaches over a space
from one word into the next. Texts of other tokenizers are counted by tokenising them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from tokenizers import Tokenizer

_SPACE = "\u2581"  # how sentencepiece writes a space
_WORD = re.compile(" *[^ ]+| +")
_MOST_WORDS = 2**17
_BEFORE = "\n"  # stands in front of a space that is not to be taken for the start of a text


class TokenCounter:
    """Counts tokens as `tokenizer.encode(text, add_special_tokens=False)` gives them.

    tokenizer: its settings are taken as they are at the time of each call
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._by_words = _keeps_words_apart(tokenizer)
        special = [re.escape(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
        self._special_then_space = re.compile("|".join(f"{token} " for token in special) or "(?!)")
        before = self._tokenise(_BEFORE)
        self._start = _Known(self._tokenise)
        self._after_space = _Known(lambda word: self._tokenise(f"{_BEFORE} {word}") - before)

    def __reduce__(self) -> tuple[type[TokenCounter], tuple[Tokenizer]]:
        return TokenCounter, (self._tokenizer,)  # what it has counted stays behind

    def count(self, text: str) -> int:
        """Return how many tokens a text has."""
        if not text or not self._by_words or _SPACE in text or self._special_then_space.search(text):
            return self._tokenise(text)
        first, *words = text.split(" ")
        if not (first and all(words)):  # a run of spaces belongs to the word behind it
            first, *words = _WORD.findall(text)
            words = [word[1:] for word in words]
        return self._start[first] + sum(map(self._after_space.__getitem__, words))

    def _tokenise(self, text: str) -> int:
        return len(self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])


class _Known(dict[str, int]):
    """What has been counted."""

    def __init__(self, count: Callable[[str], int]) -> None:
        super().__init__()
        self._count = count

    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST_WORDS:  # more, where threads add at the same time
            self.clear()
        self[word] = number = self._count(word)
        return number


def _keeps_words_apart(tokenizer: Tokenizer) -> bool:
    """Whether a text's tokens are its words' tokens: nothing changes or joins characters over a space between words."""
    spec = json.loads(tokenizer.to_str())
    model, before = spec["model"], spec["pre_tokenizer"]
    normalizer = spec["normalizer"] or {"type": "Sequence", "normalizers": []}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    return (
        model["type"] == "BPE"
        and not any(model.get(part) for part in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        and _SPACE in model["vocab"]
        and not any(piece.lstrip(_SPACE).count(_SPACE) for piece in model["vocab"])
        and (before is None or (before["type"] == "Metaspace" and before["replacement"] == _SPACE))
        and all(part == replace or part["type"] == "Prepend" for part in normalizer.get("normalizers", [normalizer]))
        and not any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in spec["added_tokens"])
        and not any(" " in token["content"] or _SPACE in token["content"] for token in spec["added_tokens"])
    )
