"""The door: LLaVA's own ids and labels for each kind of Llama tokenizer, and words that never become markup."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImage
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llava_lite.conversation.families import TEMPLATES, find_template
from llava_lite.conversation.message import Conversation, Image, Message
from llava_lite.conversation.template import ChatTemplate
from llava_lite.example import IGNORE, Example
from llava_lite.images.layout import lay_out
from llava_lite.images.loading import ImageError
from llava_lite.images.transform import ImageTransform
from llava_lite.models.language_model import load_tokenizer
from llava_lite.processor import Processor, ProcessorError, prepare_tokenizer
from tests.conversation.test_template_properties import fitting
from tests.strategies import ANY, conversations

P = 16
RED, BLUE = (PilImage.new("RGB", (24, 16), color) for color in ("red", "blue"))

ONE_ROUND = {
    "text only": Conversation().ask("What is left of the cat?").answer("The blue dog."),
    "an image": Conversation().ask("What is it?", [RED]).answer("A red cat."),
    "two images": Conversation().ask("What differs?", [RED, BLUE]).answer("The color."),
    "an image between words": Conversation(
        (Message("user", ("Is ", Image(RED), " like ", Image(BLUE), "?")), Message("assistant", ("no",)))
    ),
    "unknown letters": Conversation().ask("Où est-il ?\n\n  是什么", [RED]).answer("\tvoilà\n🦙  "),
    "a system text": Conversation(system="Be brief.").ask("the red cat", [RED]).answer("yes"),
}
SEVERAL_ROUNDS = {
    "an image first": Conversation().ask("Q1", [RED]).answer("A1").ask("Q2").answer("A2").ask("Q3").answer("A3"),
    "an image later": Conversation().ask("the cat").answer("A1").ask("the dog?", [BLUE]).answer("A2"),
    "an image each": Conversation().ask("Q1", [RED]).answer("A1").ask("Q2", [BLUE, RED]).answer("A2"),
    "text only": Conversation().ask("Q1").answer("A1").ask("Q2").answer("A2"),
}
OPEN = {"open": Conversation().ask("Q1", [RED]).answer("A1").ask("the red dog?")}


@pytest.fixture(scope="module")
def transform(clip_dir: Path) -> ImageTransform:
    return ImageTransform.from_tower(clip_dir, "pad")


def open_processor(folder: Path, transform: ImageTransform | None) -> Processor:
    tokenizer = load_tokenizer(str(folder))
    bos = prepare_tokenizer(tokenizer, image=transform is not None)
    return Processor(tokenizer, find_template("vicuna_v1"), transform, P, bos)


@pytest.fixture(scope="module", params=["lm_dir", "vicuna_dir", "legacy_dir"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture(scope="module")
def processor(folder: Path, transform: ImageTransform) -> Processor:
    return open_processor(folder, transform)


def original_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """LLaVA's `tokenizer_image_token` (llava/mm_utils.py at c121f043), -200 for an image."""
    chunks = [tokenizer(chunk).input_ids for chunk in text.split("<image>")]
    ids = [tokenizer.bos_token_id]
    for i, chunk in enumerate(chunks):
        assert chunk[0] == tokenizer.bos_token_id
        ids += [-200] * (i > 0) + chunk[1:]
    return ids


def original_labels(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """LLaVA's `preprocess_v1` (llava/train/train.py at c121f043), without its correction for Llama's vocabulary."""
    ids = original_ids(tokenizer, text)
    labels, place = [IGNORE] * len(ids), 1
    for words in text.split("</s>")[:-1]:
        question = words.split(" ASSISTANT: ")[0] + " ASSISTANT: "
        start = place + len(original_ids(tokenizer, question)) - 2
        place += len(original_ids(tokenizer, words))
        labels[start:place] = ids[start:place]
    return labels


def folded(example: Example, processor: Processor) -> tuple[list[int], list[int]]:
    """Ids and labels with the visual tokens of an image folded into one -200."""
    ids, labels = [], []
    seen = 0
    for token, label in zip(example.input_ids.tolist(), example.labels.tolist(), strict=True):
        if token == processor.image_token_id:
            seen += 1
            if seen % P != 1:
                continue
            token = -200
        ids.append(token)
        labels.append(label)
    assert seen == len(example.patch_index) == P * len(example.pixel_values)
    return ids, labels


def learnt_texts(example: Example, processor: Processor) -> list[str]:
    """The text of each run of learnt tokens, decoded behind BOS so that a leading space stays."""
    bos = processor.tokenizer.convert_tokens_to_ids("<s>")
    texts: list[list[int]] = []
    labels = example.labels.tolist()
    for before, label in zip([IGNORE, *labels], labels, strict=False):
        if label != IGNORE:
            if before == IGNORE:
                texts.append([bos])
            texts[-1].append(label)
    return [processor.tokenizer.decode(ids).removeprefix("<s>") for ids in texts]


@pytest.mark.parametrize("conversation", [*ONE_ROUND.values(), *SEVERAL_ROUNDS.values(), *OPEN.values()])
def test_ids_are_the_originals_chunks(processor: Processor, folder: Path, conversation: Conversation) -> None:
    text = processor.template.render(conversation).text
    untouched = load_tokenizer(str(folder))
    assert folded(processor.encode(conversation), processor)[0] == original_ids(untouched, text)


@pytest.mark.parametrize("conversation", ONE_ROUND.values(), ids=ONE_ROUND)
def test_labels_of_one_round_are_the_originals(processor: Processor, folder: Path, conversation: Conversation) -> None:
    text = processor.template.render(conversation).text
    assert folded(processor.encode(conversation), processor)[1] == original_labels(load_tokenizer(str(folder)), text)


@pytest.mark.parametrize("conversation", SEVERAL_ROUNDS.values(), ids=SEVERAL_ROUNDS)
def test_labels_of_several_rounds_are_the_originals_where_it_counts_right(
    legacy_dir: Path, transform: ImageTransform, conversation: Conversation
) -> None:
    processor = open_processor(legacy_dir, transform)
    text = processor.template.render(conversation).text
    assert folded(processor.encode(conversation), processor)[1] == original_labels(
        load_tokenizer(str(legacy_dir)), text
    )


@pytest.mark.parametrize("conversation", SEVERAL_ROUNDS.values(), ids=SEVERAL_ROUNDS)
def test_exactly_the_answers_and_their_ends_are_learnt(processor: Processor, conversation: Conversation) -> None:
    answers = [f" {m.text}</s>" for m in conversation.messages if m.role == "assistant"]
    assert learnt_texts(processor.encode(conversation), processor) == answers


@pytest.mark.parametrize("name", [name for name in TEMPLATES if TEMPLATES[name].user_text])
def test_every_row_learns_exactly_its_answers_and_their_ends(row_processor: Processor, name: str) -> None:
    processor = row_processor.with_template(find_template(name))
    before, after = processor.template.answer.split("{}")
    if processor.tokenizer.decode(processor.tokenizer("<s>a", add_special_tokens=False).input_ids) == "<s> a":
        after = after.replace(">\n", "> \n")  # a legacy tokenizer puts its space after every special token
    example = processor.encode(SEVERAL_ROUNDS["an image each"])
    assert learnt_texts(example, processor) == [f"{before}A1{after}", f"{before}A2{after}"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_row_ends_an_option_with_its_last_word(row_processor: Processor, name: str) -> None:
    processor = row_processor.with_template(find_template(name))
    asked, options = Conversation().ask("Which of them?", [RED]), ["A", "A dog", "12"]
    for option, example in zip(options, processor.encode_options(asked, options), strict=True):
        whole = processor.encode(asked.answer(option))
        size = len(example.input_ids)
        assert torch.equal(example.input_ids, whole.input_ids[:size])
        assert torch.equal(example.labels, whole.labels[:size])
        assert torch.equal(example.pixel_values, whole.pixel_values)
        assert processor.read(example.input_ids[example.labels != IGNORE]).strip() == option
        assert size < len(whole.input_ids)


def test_an_open_prompt_ends_with_the_assistants_header(processor: Processor) -> None:
    example = processor.encode(OPEN["open"])
    assert processor.tokenizer.decode(example.input_ids).endswith("USER: the red dog? ASSISTANT:")


def test_plain_masks_bos_and_image_and_learns_the_caption_with_its_newline(processor: Processor) -> None:
    plain = processor.with_template(find_template("plain"))
    example = plain.encode(Conversation().ask("Describe it.", [RED]).answer("the red cat"))
    bos, image = processor.tokenizer.bos_token_id, processor.image_token_id
    assert example.input_ids[: 1 + P].tolist() == [bos] + [image] * P
    assert example.labels[: 1 + P].tolist() == [IGNORE] * (1 + P)
    assert torch.equal(example.labels[1 + P :], example.input_ids[1 + P :])
    assert processor.tokenizer.decode(example.input_ids[1 + P :]) == "the red cat\n"


def test_images_keep_their_order(processor: Processor) -> None:
    example = processor.encode(SEVERAL_ROUNDS["an image each"])
    assert processor.transform is not None
    tiles = [processor.transform(image) for image in (RED, BLUE, RED)]
    assert torch.equal(example.pixel_values, torch.cat(tiles))
    assert example.patch_index.tolist() == list(range(3 * P))


@pytest.mark.parametrize("conversation", [*ONE_ROUND.values(), *SEVERAL_ROUNDS.values(), *OPEN.values()])
def test_length_is_what_encode_gives(processor: Processor, conversation: Conversation) -> None:
    example = processor.encode(conversation)
    assert processor.length(conversation) == (len(example.input_ids), int((example.labels[1:] != IGNORE).sum()))
    assert processor.num_tokens(conversation) == len(example.input_ids)


PICTURES = {"a.png": RED, "b.png": PilImage.new("RGB", (70, 40), "green")}


def seeing(conversation: Conversation) -> Conversation:
    """The drawn conversation with pictures in place of their names."""
    messages = (
        Message(m.role, tuple(Image(PICTURES[str(p.source)]) if isinstance(p, Image) else p for p in m.content))
        for m in conversation.messages
    )
    return replace(conversation, messages=tuple(messages))


@ANY
@given(
    row=st.sampled_from(list(TEMPLATES.values())),
    drawn=conversations(images=True),
    mode=st.sampled_from(["pad", "anyres", "anyres_max_1"]),
    max_length=st.one_of(st.none(), st.integers(0, 150)),
)
def test_pieces_are_what_encode_gives_and_what_the_template_wrote(
    row_processor: Processor, row: ChatTemplate, drawn: Conversation, mode: str, max_length: int | None
) -> None:
    conversation = seeing(fitting(row, drawn))
    processor = row_processor.with_template(row).with_image_mode(mode)
    pieces, example = processor.pieces(conversation, max_length), processor.encode(conversation, max_length)
    ids = [token for piece in pieces for token in piece.ids]
    assert ids == example.input_ids.tolist()
    learnt = [piece.learnt for piece in pieces for _ in piece.ids]
    assert learnt == (example.labels != IGNORE).tolist()

    written = "<s>" * processor.writes_bos + row.render(conversation).text
    text = "".join(piece.text for piece in pieces)
    assert text == written if max_length is None else written.startswith(text)
    shown = [piece for piece in pieces if piece.image]
    assert [piece.image for piece in shown] == list(conversation.images[: len(shown)])
    assert all(piece.text == "<image>" and len(piece.layout.index) == len(piece.ids) for piece in shown)
    assert sum(piece.layout.num_tiles for piece in shown) >= len(example.pixel_values)


def test_a_character_of_several_tokens_is_one_piece(row_processor: Processor) -> None:
    pieces = row_processor.pieces(Conversation().ask("a🦙b").answer("é"))
    several = {piece.text: (len(piece.ids), piece.learnt) for piece in pieces if len(piece.ids) > 1}
    assert several["🦙"] == (4, False) and several["é"] == (2, True)


def picture(width: int, height: int) -> PilImage.Image:
    return PilImage.linear_gradient("L").resize((width, height)).convert("RGB")


@pytest.mark.parametrize("mode", ["pad", "crop", "resize", "anyres", "anyres_max_2", "anyres_max_9"])
@pytest.mark.parametrize(
    "size", [(1, 1), (32, 32), (24, 16), (50, 90), (64, 48), (150, 100), (100, 2000), (3000, 1000)]
)
def test_length_is_what_encode_gives_in_every_mode(processor: Processor, mode: str, size: tuple[int, int]) -> None:
    processor = processor.with_image_mode(mode)
    conversation = Conversation().ask("What is it?", [picture(*size)]).answer("A red cat.")
    example = processor.encode(conversation)
    assert processor.length(conversation) == (len(example.input_ids), int((example.labels[1:] != IGNORE).sum()))
    assert processor.num_tokens(conversation) == len(example.input_ids)
    num_places = int((example.input_ids == processor.image_token_id).sum())
    assert num_places == len(example.patch_index) == (len(lay_out(size, mode, tile_size=32, num_patches=P).index))
    assert int(example.patch_index.max()) < len(example.pixel_values) * P
    assert (example.patch_weight is None) == (example.patch_index.ndim == 1)


ODD = {
    "palette.png": lambda: picture(90, 50).quantize(8),
    "alpha.png": lambda: picture(90, 50).convert("RGBA"),
    "cmyk.tiff": lambda: picture(90, 50).convert("CMYK"),
    "bit.png": lambda: picture(90, 50).convert("1"),
    "16 bit.png": lambda: picture(90, 50).convert("L").convert("I;16"),
    "gif.gif": lambda: picture(90, 50),
}


@pytest.mark.parametrize("name", [*ODD, "turned.jpg", "turned.tiff"])
def test_length_is_what_encode_gives_for_odd_files(processor: Processor, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    exif = PilImage.Exif()
    exif[0x0112] = 6
    ODD.get(name, lambda: picture(90, 50))().save(path, **({"exif": exif} if name.startswith("turned") else {}))
    processor = processor.with_image_mode("anyres")
    conversation = Conversation().ask("What is it?", [path]).answer("A red cat.")
    num_tokens = len(processor.encode(conversation).input_ids)
    assert processor.length(conversation)[0] == processor.num_tokens(conversation) == num_tokens


def test_length_opens_a_picture_only_where_its_size_counts_and_then_its_header(
    processor: Processor, tmp_path: Path
) -> None:
    one = Conversation().ask("What is it?", [tmp_path / "gone.png"]).answer("A red cat.")
    two = Conversation().ask("What?", [tmp_path / "gone.png", tmp_path / "gone.png"]).answer("A red cat.")
    for mode in ("pad", "crop", "resize"):
        processor.with_image_mode(mode).length(one)
    anyres = processor.with_image_mode("anyres")
    anyres.length(two)
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read"):
        anyres.length(one)
    picture(64, 48).save(tmp_path / "gone.png")
    length = anyres.length(one)
    data = (tmp_path / "gone.png").read_bytes()
    (tmp_path / "gone.png").write_bytes(data[:60])  # the header, and hardly a pixel
    assert anyres.length(one) == length


@pytest.mark.parametrize("mode", ["anyres", "anyres_max_9"])
def test_each_of_several_anyres_images_is_a_padded_tile_and_a_newline(processor: Processor, mode: str) -> None:
    example = processor.with_image_mode(mode).encode(SEVERAL_ROUNDS["an image each"])
    assert torch.equal(example.pixel_values, processor.encode(SEVERAL_ROUNDS["an image each"]).pixel_values)
    tiles = [[*range(i * P, (i + 1) * P), -1] for i in range(3)]
    assert example.patch_index.reshape(3, P + 1).tolist() == tiles and example.patch_weight is None


@pytest.mark.parametrize("mode", ["anyres", "anyres_max_1"])
def test_what_is_cut_at_the_end_leaves_an_anyres_image_whole_or_out(processor: Processor, mode: str) -> None:
    processor = processor.with_image_mode(mode)
    conversation = Conversation().ask("What is it?", [picture(64, 48)]).answer("A red cat.").ask("And?").answer("No.")
    whole = processor.encode(conversation)
    places = (whole.input_ids == processor.image_token_id).nonzero().flatten().tolist()
    assert processor.bound(conversation) >= len(whole.input_ids)
    for end in (len(whole.input_ids) - 1, places[-1] + 2, places[-1] + 1):
        cut = processor.encode(conversation, end)
        assert torch.equal(cut.input_ids, whole.input_ids[:end]) and processor.length(conversation, end)[0] == end
        assert torch.equal(cut.patch_index, whole.patch_index) and torch.equal(cut.pixel_values, whole.pixel_values)
        assert (cut.patch_weight is None) == (mode == "anyres")
        assert cut.patch_weight is None or torch.equal(cut.patch_weight, whole.patch_weight)
    for end in (places[-1], places[5], places[0]):
        cut = processor.encode(conversation, end)
        assert torch.equal(cut.input_ids, whole.input_ids[: places[0]])
        assert len(cut.patch_index) == len(cut.pixel_values) == 0


def test_an_anyres_conversation_without_images_is_text(processor: Processor) -> None:
    example = processor.with_image_mode("anyres").encode(SEVERAL_ROUNDS["text only"])
    assert example.patch_index.tolist() == [] and len(example.pixel_values) == 0
    assert torch.equal(example.input_ids, processor.encode(SEVERAL_ROUNDS["text only"]).input_ids)


def test_anyres_refuses_patches_that_form_no_square(processor: Processor) -> None:
    with pytest.raises(ProcessorError, match="image mode anyres lays patches in a square, but a tile has 15"):
        replace(processor, num_patches=15).with_image_mode("anyres")


SPELLED = ["<image>", "</s>", "<s>", "<unk>", "</s><s>", "<image></s><image>"]
NEUTRAL = "\u2028"
"""A word that every tokenizer here writes as three bytes of its own."""
TALKS = {
    "question": lambda word: (
        Conversation().ask(f"the cat {word} the dog", [RED]).answer("yes").ask("and?").answer("no")
    ),
    "answer": lambda word: Conversation().ask("the cat", [RED]).answer(f"the {word}\nred dog").ask("and?").answer("no"),
    "end of an answer": lambda word: Conversation().ask("the cat").answer(f"the dog{word}").ask("and?").answer("no"),
    "start of a question": lambda word: Conversation().ask(f"{word}the cat").answer("no"),
    "system": lambda word: Conversation(system=f"the {word} cat").ask("the dog", [RED]).answer("no"),
}


@pytest.mark.parametrize("place", TALKS)
@pytest.mark.parametrize("word", SPELLED)
def test_a_spelled_special_token_is_text_and_changes_no_neighbour(processor: Processor, word: str, place: str) -> None:
    ids, labels = folded(processor.encode(TALKS[place](word)), processor)
    other, other_labels = folded(processor.encode(TALKS[place](NEUTRAL)), processor)
    neutral = processor.tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in NEUTRAL.encode()])
    start = next(i for i in range(len(other)) if other[i : i + 3] == neutral)
    end = len(ids) - (len(other) - start - 3)
    assert ids[:start] == other[:start] and ids[end:] == other[start + 3 :]
    assert labels[:start] == other_labels[:start] and labels[end:] == other_labels[start + 3 :]
    assert not set(ids[start:end]) & set(processor.tokenizer.get_added_vocab().values())
    assert processor.tokenizer.decode(ids[start:end]) == word
    assert labels[start:end] == (ids[start:end] if "answer" in place else [IGNORE] * (end - start))


def test_encoding_sets_nothing_on_the_tokenizer_which_other_threads_read(processor: Processor) -> None:
    backend = processor.tokenizer.backend_tokenizer
    talk = TALKS["question"]("</s>")
    whole = processor.encode(talk).input_ids.tolist()
    backend.enable_truncation(3)
    try:
        assert replace(processor).encode(talk).input_ids.tolist() == whole
        assert backend.truncation["max_length"] == 3 and not backend.encode_special_tokens
    finally:
        backend.no_truncation()


def test_a_processor_that_was_pickled_for_a_worker_encodes_the_same(processor: Processor) -> None:
    talk = TALKS["question"]("</s>")
    ids = processor.encode(talk).input_ids.tolist()
    assert pickle.loads(pickle.dumps(processor)).encode(talk).input_ids.tolist() == ids


@pytest.mark.parametrize("word", SPELLED)
def test_words_come_back_as_they_were_written(processor: Processor, word: str) -> None:
    conversation = Conversation().ask(f"{word} what{word}is  it?\n{word}").answer(f"it{word} \n{word}\n\nred {word}")
    text = processor.template.render(conversation).text
    assert processor.tokenizer.decode(processor.encode(conversation).input_ids) == f"<s> {text}"


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 3 and Qwen have: bytes, no prefix space, no BOS, and line breaks that join."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["a\n\n\nb\n\nc yes yes"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def test_a_line_break_after_a_spelled_token_survives_a_tokenizer_that_joins_line_breaks(
    byte_level: PreTrainedTokenizerFast, transform: ImageTransform
) -> None:
    assert len(byte_level("\n\n").input_ids) == 1
    bos = prepare_tokenizer(byte_level, image=True)
    template = ChatTemplate(name="t", user="Q: {} A: ", answer="{}<|end|>")
    processor = Processor(byte_level, template, transform, P, bos)
    example = processor.encode(Conversation().ask("a<image>\n\nb<|end|>c").answer("<|end|>\n<|end|> x"))
    assert byte_level.decode(example.input_ids) == "Q: a<image>\n\nb<|end|>c A: <|end|>\n<|end|> x<|end|>"
    assert byte_level.decode(example.labels[example.labels != IGNORE]) == "<|end|>\n<|end|> x<|end|>"
    assert example.input_ids.tolist().count(byte_level.eos_token_id) == 1


def test_a_token_on_the_border_belongs_to_the_span_of_its_last_character(
    byte_level: PreTrainedTokenizerFast, transform: ImageTransform
) -> None:
    bos = prepare_tokenizer(byte_level, image=True)
    template = ChatTemplate(name="t", user="Q: {} A: ", answer="{}<|end|>")
    assert len(byte_level(" yes").input_ids) == 1
    example = Processor(byte_level, template, transform, P, bos).encode(Conversation().ask("a").answer("yes"))
    assert byte_level.decode(example.labels[example.labels != IGNORE]) == " yes<|end|>"


def test_preparing_adds_an_image_token_and_a_pad_token_and_says_whether_bos_comes_first(
    folder: Path, byte_level: PreTrainedTokenizerFast
) -> None:
    tokenizer = load_tokenizer(str(folder))
    size = len(tokenizer)
    assert prepare_tokenizer(tokenizer, image=True) is True
    assert tokenizer.convert_tokens_to_ids("<image>") == size and len(tokenizer) == size + 1
    assert tokenizer.pad_token == "<unk>"
    assert prepare_tokenizer(tokenizer, image=True) is True and len(tokenizer) == size + 1
    assert prepare_tokenizer(byte_level, image=False) is False and byte_level.pad_token == "<|end|>"


def test_a_template_whose_end_is_no_token_is_refused(processor: Processor) -> None:
    chatml = ChatTemplate(name="chatml", user="{}", answer="{}<|im_end|>\n")
    with pytest.raises(ProcessorError, match=r"'chatml' ends an answer with '<\|im_end\|>'.*choose the template"):
        processor.with_template(chatml)


def test_a_tokenizer_without_an_image_token_is_refused(folder: Path, processor: Processor) -> None:
    with pytest.raises(ProcessorError, match="no <image> token; pass it through prepare_tokenizer"):
        replace(processor, tokenizer=load_tokenizer(str(folder)))


def test_a_model_without_a_tower_refuses_an_image_and_knows_no_image_token(folder: Path) -> None:
    processor = open_processor(folder, None)
    assert processor.image_token_id == -1
    assert processor.encode(ONE_ROUND["text only"]).pixel_values.shape == (0, 3, 0, 0)
    with pytest.raises(ProcessorError, match="no vision tower"):
        processor.encode(ONE_ROUND["an image"])


def test_half_a_character_is_refused_with_its_place(processor: Processor) -> None:
    with pytest.raises(ProcessorError, match=r"lone surrogate.*after 'USER: the cat '"):
        processor.length(Conversation(system="").ask("the cat \ud83e").answer("yes"))


@pytest.mark.parametrize("wrap", [list, torch.tensor])
def test_decoding_leaves_out_special_tokens_and_white_space_around(processor: Processor, wrap: type) -> None:
    ids = processor.tokenizer("the red cat\n", add_special_tokens=False).input_ids
    ids = [processor.tokenizer.bos_token_id, *ids, processor.tokenizer.eos_token_id, processor.image_token_id]
    assert processor.decode(wrap(ids)) == "the red cat"


def test_a_space_that_closes_answers_ends_none(processor: Processor) -> None:
    """The published templates of transformers' LLaVA-1.5 close an answer with a space; the model ends with EOS."""
    spaced = processor.with_template(replace(processor.template, answer=" {} "))
    assert spaced.end_text == "" and spaced.decode(processor.tokenizer.encode("the red cat")) == "the red cat"


@pytest.mark.parametrize("bos", [None, True])
def test_a_whole_prompt_is_tokenised_as_one_text(vicuna_dir: Path, transform: ImageTransform, bos: bool | None) -> None:
    """As transformers' processors do: sentencepiece's space stands before its first word alone, or not behind a BOS."""
    part_wise = open_processor(vicuna_dir, transform)
    whole = replace(part_wise, whole=True, template=replace(part_wise.template, bos=bos))
    asked = Conversation().ask("the red cat", [RED]).answer("a dog").ask("and?", [BLUE])
    text = whole.template.render(asked).text
    tokenizer = whole.tokenizer
    expected = tokenizer(f"<s>{text}" if bos else text, add_special_tokens=not bos).input_ids
    ids = whole.encode(asked).input_ids.tolist()
    image = whole.image_token_id
    assert [a for a, b in zip(ids, [None, *ids], strict=False) if (a, b) != (image, image)] == expected
    assert ids != part_wise.encode(asked).input_ids.tolist() and whole.fingerprint != part_wise.fingerprint
    assert whole.num_tokens(asked) == whole.length(asked)[0] == len(ids)
