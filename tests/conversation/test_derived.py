"""A tokenizer's own template becomes fixed strings exactly, or is refused with what differs."""

from dataclasses import replace
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from llava_lite.conversation.derived import derive_template
from llava_lite.conversation.families import find_template
from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.conversation.template import ChatTemplate

TURNS = "{% for m in messages %}"
END = "{% endfor %}"


def derive(jinja: str) -> ChatTemplate:
    def render(messages: list[dict[str, str]], ask: bool) -> str:
        texts, _ = render_jinja_template(
            [messages], chat_template=jinja, add_generation_prompt=ask, bos_token="<s>", eos_token="</s>"
        )
        return str(texts[0])

    return derive_template("tokenizer", render, "<s>")


def test_a_default_system_text_is_found() -> None:
    jinja = (
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
        f"{{% endif %}}{TURNS}{{{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}}}{END}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    assert derive(jinja) == replace(find_template("qwen_1_5"), name="tokenizer", bos=False)


def test_trimmed_turns_and_a_written_bos_are_found() -> None:
    jinja = (
        f"{{{{ bos_token }}}}{TURNS}{{{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}}}"
        f"{{{{ m.content | trim }}}}<|eot_id|>{END}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    )
    assert derive(jinja) == replace(find_template("llama_3"), name="tokenizer", bos=True)


def test_a_refused_system_role_is_no_place() -> None:
    jinja = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ bos_token }}"
        f"{TURNS}{{{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}}}"
        f"{{{{ m.content | trim }}}}{{{{ '<end_of_turn>\n' }}}}{END}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    )
    assert derive(jinja) == replace(find_template("gemma"), name="tokenizer", bos=True)


@pytest.mark.parametrize("own", ["", "You see."])
def test_a_system_text_inside_the_first_turn_and_a_mark_between_rounds_are_found(own: str) -> None:
    jinja = (
        f"{{% set s = messages[0].content if messages[0].role == 'system' else '{own}' %}}"
        f"{{% for m in messages if m.role != 'system' %}}{{% if m.role == 'user' %}}"
        "{{ bos_token }}[INST] {% if loop.first and s %}{{ '<<SYS>>\n' + s + '\n<</SYS>>\n\n' }}{% endif %}"
        f"{{{{ m.content }}}} [/INST]{{% else %}} {{{{ m.content }}}} {{{{ eos_token }}}}{{% endif %}}{END}"
    )
    assert derive(jinja) == replace(find_template("llama_2"), name="tokenizer", system_text=own, bos=True)


def test_what_stands_there_without_a_system_text_is_an_opening() -> None:
    jinja = (
        "[{{ messages[0].content if messages[0].role == 'system' }}]"
        f"{{% for m in messages if m.role != 'system' %}}{{{{ m.role[0] }}}}({{{{ m.content }}}}){END}"
        "{% if add_generation_prompt %}a({% endif %}"
    )
    assert derive(jinja) == ChatTemplate(
        name="tokenizer", user="u({})a(", answer="{})", system="[{}]", opening="[]", bos=False
    )


def test_a_system_text_in_no_fixed_place_gets_none() -> None:
    """Mistral's later templates put it into the last user turn."""
    jinja = (
        "{% set s = messages[0].content + ' ' if messages[0].role == 'system' else '' %}"
        "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}"
        "[INST] {{ s if loop.last }}{{ m.content }} [/INST]{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
    )
    template = derive(jinja)
    assert template == replace(find_template("mistral_instruct"), name="tokenizer", bos=False)
    with pytest.raises(ConversationError, match="'tokenizer' has no place for a system text"):
        template.render(Conversation(system="S").ask("Q"))


PLAIN = "{{ m.role + ': ' + m.content + '<|end|>\n' }}"
ASK = "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
REFUSED = {
    "thoughts written into the last answer alone": (
        f"{TURNS}{{{{ m.role + ': ' + ('<think>\n\n</think>\n\n' if m.role == 'assistant' and loop.last else '') }}}}"
        f"{{{{ m.content + '<|end|>\n' }}}}{END}{ASK}",
        r"it writes '.*<think>.* where fixed strings give '.*A cat",
    ),
    "thoughts cut out of answers": (
        f"{TURNS}{{{{ m.role + ': ' + m.content.split('</think>')[-1] + '<|end|>\n' }}}}{END}{ASK}",
        r"it writes '.*: \\n\\nyes<.* where fixed strings give '.*<think>",
    ),
    "words rewritten": (f"{TURNS}{PLAIN.replace('m.content', 'm.content | upper')}{END}{ASK}", "PROBE1Q"),
    "turns dropped": ("{{ messages[-1].role + ': ' + messages[-1].content + '<|end|>\n' }}" + ASK, "every turn once"),
    "words escaped": (f"{TURNS}{PLAIN.replace('m.content', 'm.content | escape')}{END}{ASK}", "&amp;"),
    "an end of text after the last answer": (f"{TURNS}{PLAIN}{END}{ASK}{{% if not ask %}}<eos>{{% endif %}}", "<eos>"),
    "a header after the last answer": (f"{TURNS}{PLAIN}{END}assistant: ", "it writes"),
    "answers that nothing closes": (f"{TURNS}{{{{ m.role + ': ' + m.content }}}}{END}{ASK}", "nothing closes"),
    "a failing template": ("{{ raise_exception('what a day') }}", r"it fails \(what a day\)"),
    "its own braces": (
        f"{TURNS}{PLAIN.replace(': ', ': {} ')}{END}{ASK.replace(': ', ': {} ')}",
        r"it writes \{\} itself",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_fixed_strings_cannot_write_is_refused_with_what_differs(case: str) -> None:
    jinja, what = REFUSED[case]
    with pytest.raises(ConversationError, match=rf"{what}.*; choose one of the table: chatml, .*vicuna_v1$"):
        derive(jinja)


def derive_with_images(jinja: str, token: str = "<image>") -> ChatTemplate:
    def render(messages: list[dict[str, Any]], ask: bool) -> str:
        texts, _ = render_jinja_template([messages], chat_template=jinja, add_generation_prompt=ask)
        return str(texts[0])

    return derive_template("processor", render, None, image_token=token)


WORDS = "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}"
TALK = "{% for m in messages %}{{ m.role + ': ' }}IMAGES" + WORDS + "{{ '<|end|>\n' }}{% endfor %}" + ASK


def images(text: str) -> str:
    return TALK.replace("IMAGES", f"{{% for p in m.content if p.type == 'image' %}}{{{{ '{text}' }}}}{{% endfor %}}")


@pytest.mark.parametrize(
    ("written", "image"),
    [
        ("<image>\\n", "{}"),
        ("<Image><image></Image>\\n", "<Image>{}</Image>"),
        ("<image> \\n", "{} "),
        ("<image>\\n\\n", "{}\n"),
    ],
)
def test_what_stands_around_an_image_is_found(written: str, image: str) -> None:
    template = derive_with_images(images(written))
    assert template.image == image and template.user == "user: {}<|end|>\nassistant: "


def test_an_image_token_of_another_name_is_found() -> None:
    assert derive_with_images(images("[<|pic|>]\\n"), "<|pic|>").image == "[{}]"


@pytest.mark.parametrize(
    ("jinja", "what"),
    [
        (images("<image>"), "where a turn's image comes first, then a newline"),
        (TALK.replace("IMAGES", "") + "{{ '<image>\n' }}", "every turn once"),
        (images("<image>\\n").replace("type == 'image'", "type == 'image' and loop.first"), "it writes"),
        (images(""), "every turn once"),
    ],
)
def test_images_that_our_templates_do_not_write_are_refused(jinja: str, what: str) -> None:
    with pytest.raises(ConversationError, match=what):
        derive_with_images(jinja)
