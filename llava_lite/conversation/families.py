"""The table of chat templates. A row adds a family; which row a model was trained with is stored in its checkpoint.

The strings are LLaVA's (llava/conversation.py at c121f043) and LLaVA-NeXT's (df179663), and for llama_3, gemma, phi_3
and qwen_3 those of the models' own chat templates. Assistants' headers are never learnt, ends always are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from llava_lite.conversation.message import ConversationError
from llava_lite.conversation.template import ChatTemplate

_USER_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_HUMAN_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_VISION_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
_TAG_RULE = "The visual content will be provided with the following format: <Image>visual content</Image>."
_TAG_SYSTEM = (  # no space before the rule
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able to understand the "
    "visual content that the user provides, and assist the user with a variety of tasks using natural language."
    + _TAG_RULE
)
_SIMPLE_SYSTEM = "Answer the questions about the visual content that the user provides."
_LLAMA_2_SYSTEM = (  # two spaces after "safe."
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not correct. If you don't know the answer to a question, please don't share false information."
)
_ENERGY_QUESTION = "What are the key differences between renewable and non-renewable energy sources?"
_ENERGY_ANSWER = (
    "Renewable energy sources are those that can be replenished naturally in a relatively short amount of time, such "
    "as solar, wind, hydro, geothermal, and biomass. Non-renewable energy sources, on the other hand, are finite and "
    "will eventually be depleted, such as coal, oil, and natural gas. Here are some key differences between renewable "
    "and non-renewable energy sources:\n"
    "1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable energy sources are "
    "finite and will eventually run out.\n"
    "2. Environmental impact: Renewable energy sources have a much lower environmental impact than non-renewable "
    "sources, which can lead to air and water pollution, greenhouse gas emissions, and other negative effects.\n"
    "3. Cost: Renewable energy sources can be more expensive to initially set up, but they typically have lower "
    "operational costs than non-renewable sources.\n"
    "4. Reliability: Renewable energy sources are often more reliable and can be used in more remote locations than "
    "non-renewable sources.\n"
    "5. Flexibility: Renewable energy sources are often more flexible and can be adapted to different situations and "
    "needs, while non-renewable sources are more rigid and inflexible.\n"
    "6. Sustainability: Renewable energy sources are more sustainable over the long term, while non-renewable sources "
    "are not, and their depletion can lead to economic and social instability.\n"
)

# Vicuna v0: "###" is text, no token.
_V0 = ChatTemplate(
    name="llava_v0",
    user="Human: {}###Assistant:",
    answer=" {}###",
    system="{}###",
    system_text=_HUMAN_SYSTEM,
)
# Vicuna v1.1 as LLaVA trains it: one space after the system text, none after </s>.
_V1 = ChatTemplate(
    name="vicuna_v1",
    user="USER: {} ASSISTANT:",
    answer=" {}</s>",
    system="{} ",
    system_text=_USER_SYSTEM,
)
_LLAMA_2 = ChatTemplate(
    name="llama_2",
    user="[INST] {} [/INST]",
    answer=" {} </s>",
    system="<<SYS>>\n{}\n<</SYS>>\n\n",
    system_text=_LLAMA_2_SYSTEM,
    system_in_user=True,
    between="<s>",
)
# LLaVA's ChatML has no newline after <|im_end|>; Qwen's has.
_MPT = ChatTemplate(
    name="mpt",
    user="<|im_start|>user\n{}<|im_end|><|im_start|>assistant\n",
    answer="{}<|im_end|>",
    system="<|im_start|>system\n{}<|im_end|>",
    system_text=(
        "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers."
    ),
)
_QWEN = ChatTemplate(
    name="qwen_3",
    user="<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    answer="{}<|im_end|>\n",
    system="<|im_start|>system\n{}<|im_end|>\n",
)
_LLAMA_3 = ChatTemplate(
    name="llama_3",
    user="<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    answer="{}<|eot_id|>",
    system="<|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>",
    trim=True,
)
_TAGS = "<Image>{}</Image>"

_ROWS = (
    # LLaVA's stage one: the image, the caption and a newline; no end-of-sequence token.
    ChatTemplate(name="plain", user="{}", answer="{}\n", user_text=False),
    _V0,
    # Two messages of its own come first.
    replace(_V0, name="v0", system=f"{{}}###Human: {_ENERGY_QUESTION}###Assistant: {_ENERGY_ANSWER}###"),
    replace(_V0, name="v0_mmtag", system_text=_TAG_SYSTEM, image=_TAGS),
    _V1,
    replace(_V1, name="llava_v1", system_text=_HUMAN_SYSTEM),
    replace(_V1, name="v1_mmtag", system_text=_TAG_SYSTEM, image=_TAGS),
    _LLAMA_2,
    replace(_LLAMA_2, name="llava_llama_2", system_text=_VISION_SYSTEM),
    replace(_LLAMA_2, name="llava_llama_2_simple", system_text=_SIMPLE_SYSTEM),
    replace(_LLAMA_2, name="llava_llama_2_mmtag", system_text=_SIMPLE_SYSTEM + _TAG_RULE, image=_TAGS),
    ChatTemplate(name="mistral_instruct", user="[INST] {} [/INST]", answer=" {} </s>"),
    _MPT,
    replace(_MPT, name="chatml_direct", system_text="Answer the questions."),
    replace(
        _MPT,
        name="mistral_orca",
        system_text="You are MistralOrca, a large language model trained by Alignment Lab AI. "
        "Write out your reasoning step-by-step to be sure you get the right answers!",
    ),
    ChatTemplate(
        name="mistral_zephyr",
        user="<|user|>\n{}</s><|assistant|>\n",
        answer="{}</s>",
        system="<|system|>\n{}</s>",
        system_text="You are a helpful AI assistant.",
    ),
    replace(_QWEN, name="qwen_1_5", system_text="You are a helpful assistant."),
    replace(
        _QWEN,
        name="qwen_2_5",
        system_text="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    ),
    _QWEN,
    _LLAMA_3,
    replace(_LLAMA_3, name="llava_llama_3", system_text=_VISION_SYSTEM),
    ChatTemplate(
        name="gemma",
        user="<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
        answer="{}<end_of_turn>\n",
        trim=True,
    ),
    ChatTemplate(
        name="phi_3",
        user="<|user|>\n{}<|end|>\n<|assistant|>\n",
        answer="{}<|end|>\n",
        system="<|system|>\n{}<|end|>\n",
    ),
)
_ALIASES = {
    "v0_plain": "plain",
    "llava_v0_mmtag": "v0_mmtag",
    "v1": "vicuna_v1",
    "llava_v1_mmtag": "v1_mmtag",
    "mistral": "mistral_instruct",
    "llava_mistral_instruct": "mistral_instruct",
    "chatml": "chatml_direct",
    "mistral_direct": "chatml_direct",
    "qwen_2": "qwen_1_5",
    "gemma_instruct": "gemma",
}

TEMPLATES: dict[str, ChatTemplate] = {row.name: row for row in _ROWS}
TEMPLATES |= {alias: replace(TEMPLATES[name], name=alias) for alias, name in _ALIASES.items()}


def find_template(record: str | Mapping[str, object]) -> ChatTemplate:
    """Return the row of that exact name, or the template whose fields are given, as `record_template` writes them.

    Raises ConversationError, which lists the known names.
    """
    if not isinstance(record, str):
        try:
            return ChatTemplate(**record)  # type: ignore[arg-type]
        except TypeError as error:
            raise ConversationError(f"a chat template with other fields than this version's: {error}") from None
    if record not in TEMPLATES:
        raise ConversationError(f"unknown template {record!r}; known: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[record]


def record_template(template: ChatTemplate) -> str | dict[str, object]:
    """Return what a checkpoint stores: the name of a row; all fields of any other template."""
    return template.name if TEMPLATES.get(template.name) == template else asdict(template)
