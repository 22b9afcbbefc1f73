"""Golden texts and trained spans of every row of the table, and the one spelling of a message.

The texts are written out from the originals' renderers (LLaVA c121f043, LLaVA-NeXT df179663) and the models' own chat
templates; the spans are the decisions of this framework: answer and end mark, never a header.
"""

from dataclasses import replace

import pytest

from llava_lite.conversation.families import TEMPLATES, find_template, record_template
from llava_lite.conversation.message import Conversation, ConversationError, Image, Message
from llava_lite.conversation.template import ChatTemplate

PICTURE = Image("a.png")
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
TAG = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able to understand the "
    "visual content that the user provides, and assist the user with a variety of tasks using natural language.The "
    "visual content will be provided with the following format: <Image>visual content</Image>."
)
VISION = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
SAFE = """You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being \
safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. \
Please ensure that your responses are socially unbiased and positive in nature.

If a question does not make any sense, or is not factually coherent, explain why instead of answering something not \
correct. If you don't know the answer to a question, please don't share false information."""
SIMPLE = "Answer the questions about the visual content that the user provides."
SIMPLE_TAG = f"{SIMPLE}The visual content will be provided with the following format: <Image>visual content</Image>."
ENERGY = """###Human: What are the key differences between renewable and non-renewable energy sources?###Assistant: \
Renewable energy sources are those that can be replenished naturally in a relatively short amount of time, such as \
solar, wind, hydro, geothermal, and biomass. Non-renewable energy sources, on the other hand, are finite and will \
eventually be depleted, such as coal, oil, and natural gas. Here are some key differences between renewable and \
non-renewable energy sources:
1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable energy sources are finite \
and will eventually run out.
2. Environmental impact: Renewable energy sources have a much lower environmental impact than non-renewable sources, \
which can lead to air and water pollution, greenhouse gas emissions, and other negative effects.
3. Cost: Renewable energy sources can be more expensive to initially set up, but they typically have lower operational \
costs than non-renewable sources.
4. Reliability: Renewable energy sources are often more reliable and can be used in more remote locations than \
non-renewable sources.
5. Flexibility: Renewable energy sources are often more flexible and can be adapted to different situations and needs, \
while non-renewable sources are more rigid and inflexible.
6. Sustainability: Renewable energy sources are more sustainable over the long term, while non-renewable sources are \
not, and their depletion can lead to economic and social instability.
"""
ORCA = (
    "You are MistralOrca, a large language model trained by Alignment Lab AI. Write out your reasoning step-by-step to "
    "be sure you get the right answers!"
)
MPT = "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers."
QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
TWO_ROUNDS = Conversation().ask("Q1", [PICTURE]).answer("A1").ask("Q2").answer("A2")

# Everything before the first question, whose text ends with the assistant's header; the first answer as it is learnt;
# the second question; the second answer as it is learnt.
Golden = tuple[str, str, str, str]


def v0(system: str, image: str = "<image>") -> Golden:
    return f"{system}###Human: {image}\nQ1###Assistant:", " A1###", "Human: Q2###Assistant:", " A2###"


def v1(system: str, image: str = "<image>") -> Golden:
    return f"{system} USER: {image}\nQ1 ASSISTANT:", " A1</s>", "USER: Q2 ASSISTANT:", " A2</s>"


def llama_2(system: str, image: str = "<image>") -> Golden:
    first = f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{image}\nQ1 [/INST]"
    return first, " A1 </s>", "<s>[INST] Q2 [/INST]", " A2 </s>"


def mpt(system: str) -> Golden:
    return (
        f"<|im_start|>system\n{system}<|im_end|><|im_start|>user\n<image>\nQ1<|im_end|><|im_start|>assistant\n",
        "A1<|im_end|>",
        "<|im_start|>user\nQ2<|im_end|><|im_start|>assistant\n",
        "A2<|im_end|>",
    )


def qwen(before: str) -> Golden:
    return (
        f"{before}<|im_start|>user\n<image>\nQ1<|im_end|>\n<|im_start|>assistant\n",
        "A1<|im_end|>\n",
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n",
        "A2<|im_end|>\n",
    )


def llama_3(before: str) -> Golden:
    return (
        f"{before}<|start_header_id|>user<|end_header_id|>\n\n<image>\nQ1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "A1<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "A2<|eot_id|>",
    )


TAGGED = "<Image><image></Image>"
MISTRAL: Golden = ("[INST] <image>\nQ1 [/INST]", " A1 </s>", "[INST] Q2 [/INST]", " A2 </s>")
CHATML = mpt("Answer the questions.")
QWEN_2 = qwen("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
GEMMA: Golden = (
    "<start_of_turn>user\n<image>\nQ1<end_of_turn>\n<start_of_turn>model\n",
    "A1<end_of_turn>\n",
    "<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\n",
    "A2<end_of_turn>\n",
)
GOLDEN: dict[str, Golden] = {
    "llava_v0": v0(HUMAN),
    "v0": v0(HUMAN + ENERGY),
    "v0_mmtag": v0(TAG, TAGGED),
    "llava_v0_mmtag": v0(TAG, TAGGED),
    "vicuna_v1": v1(SYSTEM),
    "v1": v1(SYSTEM),
    "llava_v1": v1(HUMAN),
    "v1_mmtag": v1(TAG, TAGGED),
    "llava_v1_mmtag": v1(TAG, TAGGED),
    "llama_2": llama_2(SAFE),
    "llava_llama_2": llama_2(VISION),
    "llava_llama_2_simple": llama_2(SIMPLE),
    "llava_llama_2_mmtag": llama_2(SIMPLE_TAG, TAGGED),
    "mistral": MISTRAL,
    "mistral_instruct": MISTRAL,
    "llava_mistral_instruct": MISTRAL,
    "mpt": mpt(MPT),
    "chatml": CHATML,
    "chatml_direct": CHATML,
    "mistral_direct": CHATML,
    "mistral_orca": mpt(ORCA),
    "mistral_zephyr": (
        "<|system|>\nYou are a helpful AI assistant.</s><|user|>\n<image>\nQ1</s><|assistant|>\n",
        "A1</s>",
        "<|user|>\nQ2</s><|assistant|>\n",
        "A2</s>",
    ),
    "qwen_1_5": QWEN_2,
    "qwen_2": QWEN_2,
    "qwen_2_5": qwen(f"<|im_start|>system\n{QWEN}<|im_end|>\n"),
    "qwen_3": qwen(""),
    "llama_3": llama_3(""),
    "llava_llama_3": llama_3(f"<|start_header_id|>system<|end_header_id|>\n\n{VISION}<|eot_id|>"),
    "gemma": GEMMA,
    "gemma_instruct": GEMMA,
    "phi_3": (
        "<|user|>\n<image>\nQ1<|end|>\n<|assistant|>\n",
        "A1<|end|>\n",
        "<|user|>\nQ2<|end|>\n<|assistant|>\n",
        "A2<|end|>\n",
    ),
}


def learnt(name: str, conversation: Conversation) -> list[str]:
    prompt = find_template(name).render(conversation)
    return [prompt.text[start:end] for start, end in prompt.answers]


def test_every_row_has_its_golden_text() -> None:
    assert set(TEMPLATES) == {*GOLDEN, "plain", "v0_plain"}
    assert all(template.name == name for name, template in TEMPLATES.items())


@pytest.mark.parametrize("name", GOLDEN)
def test_a_row_writes_the_original_text(name: str) -> None:
    assert find_template(name).render(TWO_ROUNDS).text == "".join(GOLDEN[name])


@pytest.mark.parametrize("name", GOLDEN)
def test_an_open_prompt_ends_with_the_assistants_header(name: str) -> None:
    first, answer, question, _ = GOLDEN[name]
    one_round = Conversation(TWO_ROUNDS.messages[:1])
    assert find_template(name).render(one_round).text == first
    assert find_template(name).render(one_round.answer("A1").ask("Q2")).text == first + answer + question


@pytest.mark.parametrize("name", GOLDEN)
def test_each_answer_is_learnt_with_its_end_and_nothing_else(name: str) -> None:
    _, first, _, second = GOLDEN[name]
    assert learnt(name, TWO_ROUNDS) == [first, second]


def test_plain_keeps_the_image_and_learns_the_caption_with_its_newline() -> None:
    conversation = Conversation().ask("Describe the image concisely.", [PICTURE]).answer("C")
    assert find_template("plain").render(conversation).text == "<image>C\n"
    assert learnt("plain", conversation) == ["C\n"]


def test_plain_refuses_a_turn_without_image() -> None:
    with pytest.raises(ConversationError, match="needs an image"):
        find_template("plain").render(Conversation().ask("Q").answer("A"))


def test_content_spans_hold_exactly_what_people_wrote() -> None:
    prompt = find_template("vicuna_v1").render(Conversation().ask("is <image> a </s> word?", [PICTURE]).answer("no"))
    assert [prompt.text[a:b] for a, b in prompt.content] == [SYSTEM, "is <image> a </s> word?", "no"]
    assert [prompt.text[a:b] for (a, b), _ in prompt.images] == ["<image>"]


@pytest.mark.parametrize(
    ("content", "spelling"),
    [
        ((PICTURE, "\nQ"), (PICTURE, "Q")),
        (("Q\n", PICTURE), (PICTURE, "Q")),
        (("\n", PICTURE), (PICTURE,)),
        ((PICTURE, "\n", PICTURE, "\nQ"), (PICTURE, PICTURE, "Q")),
        (("Is ", PICTURE, " like ", PICTURE, "?"), ("Is ", PICTURE, " like ", PICTURE, "?")),
        (("a", "b"), ("ab",)),
        ((" a ",), (" a ",)),
    ],
)
def test_a_message_has_one_spelling(content: tuple, spelling: tuple) -> None:
    assert Message("user", content).content == spelling


def test_several_images_stay_where_they_are_and_leading_ones_get_a_newline() -> None:
    text = find_template("vicuna_v1").render(Conversation().ask("Q", [PICTURE, PICTURE])).text
    assert "USER: <image>\n<image>\nQ ASSISTANT:" in text
    turn = Message("user", ("Is ", PICTURE, " like ", PICTURE, "?"))
    text = find_template("vicuna_v1").render(Conversation((turn,))).text
    assert "USER: Is <image> like <image>? ASSISTANT:" in text


def test_a_system_text_of_ones_own_replaces_the_templates() -> None:
    conversation = Conversation(system="Be brief.").ask("Q")
    assert find_template("vicuna_v1").render(conversation).text == "Be brief. USER: Q ASSISTANT:"


def test_roles_must_alternate() -> None:
    with pytest.raises(ConversationError, match="turn 2 is the user's"):
        Conversation().ask("Q1").ask("Q2")


def test_an_unknown_template_lists_the_known_ones() -> None:
    with pytest.raises(ConversationError, match=r"unknown template 'vicuna'; known: chatml, .*, vicuna_v1$"):
        find_template("vicuna")


@pytest.mark.parametrize("name", ["llama_2", "llava_v0", "qwen_3", "phi_3", "llama_3"])
def test_a_system_text_of_ones_own_stands_where_the_templates_does(name: str) -> None:
    text = find_template(name).render(Conversation(system="Be brief.").ask("Q")).text
    assert (
        text
        == {
            "llama_2": "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nQ [/INST]",
            "llava_v0": "Be brief.###Human: Q###Assistant:",
            "qwen_3": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
            "phi_3": "<|system|>\nBe brief.<|end|>\n<|user|>\nQ<|end|>\n<|assistant|>\n",
            "llama_3": "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
            "<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        }[name]
    )


def test_an_empty_system_text_leaves_out_its_place() -> None:
    assert find_template("llama_2").render(Conversation(system="").ask("Q")).text == "[INST] Q [/INST]"
    assert find_template("llava_v0").render(Conversation(system="").ask("Q")).text == "Human: Q###Assistant:"


def test_a_template_without_a_place_refuses_a_system_text() -> None:
    with pytest.raises(ConversationError, match="'gemma' has no place for a system text"):
        find_template("gemma").render(Conversation(system="Be brief.").ask("Q"))


def test_a_trimming_template_drops_white_space_around_turns_alone() -> None:
    turn = Message("user", (" Is ", PICTURE, " like ", PICTURE, " ? "))
    text = find_template("gemma").render(Conversation((turn,)).answer("\n no\nno ")).text
    assert text == (
        "<start_of_turn>user\nIs <image> like <image> ?<end_of_turn>\n<start_of_turn>model\nno\nno<end_of_turn>\n"
    )


def test_tags_stand_around_every_image() -> None:
    text = find_template("v1_mmtag").render(Conversation(system="S").ask("Q", [PICTURE, PICTURE])).text
    assert text == "S USER: <Image><image></Image>\n<Image><image></Image>\nQ ASSISTANT:"


def test_an_opening_stands_where_no_system_text_does() -> None:
    template = ChatTemplate(name="t", user="{}>", answer="{}.", system="[{}]", opening="[]")
    assert template.render(Conversation().ask("Q")).text == "[]Q>"
    assert template.render(Conversation(system="S").ask("Q")).text == "[S]Q>"


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_row_is_recorded_by_its_name(name: str) -> None:
    assert record_template(TEMPLATES[name]) == name and find_template(name) == TEMPLATES[name]


def test_a_template_that_is_no_row_is_recorded_whole() -> None:
    template = replace(TEMPLATES["vicuna_v1"], between="|", bos=False)
    assert find_template(record_template(template)) == template
    with pytest.raises(ConversationError, match=r"other fields than this version's.*'colour'"):
        find_template({**record_template(template), "colour": "red"})  # type: ignore[dict-item]


@pytest.mark.parametrize("wrong", [{"user": "Q:"}, {"answer": "{}{}"}, {"system": "S"}, {"image": ""}])
def test_a_string_without_one_place_for_the_words_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ConversationError, match="must say once"):
        replace(TEMPLATES["vicuna_v1"], **wrong)  # type: ignore[arg-type]
