"""Counts of tokens, against the tokenizer's own."""

import pickle
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from llava_lite import token_counter
from llava_lite.token_counter import TokenCounter
from tests.conftest import row_tokenizer

WORDS = ["the", "red", "cat", "USER:", "zebra", "\n", "\n\n", "\t", " ", "  ", "   ", "▁", "é", "👍", "</s>", "<|end|>"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map("".join) | st.text(max_size=20)


class Watched:
    """A tokenizer that remembers what it was asked to tokenise."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.tokenizer, name)

    def encode_batch_fast(self, texts: list[str], **settings: bool) -> list:
        self.asked += texts
        return self.tokenizer.encode_batch_fast(texts, **settings)


@pytest.fixture(scope="module")
def tokenizers(vicuna_dir: Path, legacy_dir: Path) -> dict[str, Tokenizer]:
    """Tokenizers of all kinds: the first two take words apart at spaces, each of the others in its way does not."""
    vicuna = row_tokenizer("vicuna", vicuna_dir).backend_tokenizer
    greedy = row_tokenizer("vicuna", vicuna_dir).backend_tokenizer
    greedy.add_special_tokens([AddedToken("<|eats|>", lstrip=True, rstrip=True, normalized=False)])
    phrase = row_tokenizer("vicuna", vicuna_dir).backend_tokenizer
    phrase.add_tokens([AddedToken("red cat", normalized=False)])
    return {
        "vicuna": vicuna,
        "legacy": row_tokenizer("legacy", legacy_dir).backend_tokenizer,
        "bytes": row_tokenizer("bytes", vicuna_dir).backend_tokenizer,
        "special that eats spaces": greedy,
        "token of two words": phrase,
        "pieces of two words": across_words(),
        "pieces of spaces": of_spaces(),
        "words that change together": changed(vicuna),
        "words that are cut together": cut(vicuna),
    }


def across_words() -> Tokenizer:
    """A tokenizer whose pieces reach over spaces."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(["the red cat", "a red cat"] * 9, trainer)
    return tokenizer


def of_spaces() -> Tokenizer:
    """A tokenizer with pieces for runs of spaces, as Llama's."""
    pieces = ["<unk>", "\n", "▁", "a", "b", "▁▁", "▁▁▁", "▁a"]
    merges = [("▁", "▁"), ("▁▁", "▁"), ("▁", "a")]
    model = models.BPE({piece: number for number, piece in enumerate(pieces)}, merges, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


def changed(tokenizer: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.normalizer = normalizers.Sequence([normalizers.Replace("d c", "x"), normalizers.Replace(" ", "▁")])
    copy.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    return copy


def cut(tokenizer: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.normalizer = normalizers.Replace(" ", "▁")
    copy.pre_tokenizer = pre_tokenizers.Split("d▁c", "isolated")
    return copy


KINDS = [
    *("vicuna", "legacy", "bytes", "special that eats spaces", "token of two words", "pieces of two words"),
    *("pieces of spaces", "words that change together", "words that are cut together"),
]


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@example("the red cat")
@example("b   aa  a")
@example("a▁ a")
@example("red cat")
@example("a</s> a b")
@example("red  <|end|>\n the")
def test_a_count_is_the_tokenizers_own(tokenizers: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = tokenizers[kind]
    text = text.replace("<|end|>", "<|eats|>") if "eats" in kind else text
    assert TokenCounter(tokenizer).count(text) == len(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("kind", ["vicuna", "legacy"])
def test_a_word_is_tokenised_once(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    watched = Watched(tokenizers[kind])
    counter = TokenCounter(watched)
    number = counter.count("the red cat  and the red dog")
    watched.asked.clear()
    assert counter.count("the red cat  and the red dog") == number
    assert watched.asked == []
    counter.count("the red zebra")
    assert watched.asked == ["\n zebra"]


def test_what_is_known_of_words_has_an_end(tokenizers: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_counter, "_MOST_WORDS", 2)
    watched = Watched(tokenizers["vicuna"])
    counter = TokenCounter(watched)
    watched.asked.clear()
    for word in ("one", "two", "three", "one"):
        assert counter.count(f"a {word}") == len(watched.encode(f"a {word}", add_special_tokens=False))
    assert watched.asked == ["a", "\n one", "\n two", "\n three", "\n one"]


def test_a_counter_goes_to_another_process(lm_dir: Path) -> None:
    """As workers need that are not forked, on a Mac."""
    counter = TokenCounter(Tokenizer.from_file(str(lm_dir / "tokenizer.json")))
    assert pickle.loads(pickle.dumps(counter)).count("the red circle") == counter.count("the red circle") > 0
