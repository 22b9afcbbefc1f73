"""The chat as a person meets it: in a terminal, and through a pipe."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import llava_lite
from llava_lite.chat.screen import printable
from llava_lite.conversation.message import Conversation
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Sampling
from tests.chat.pseudo_terminal import PseudoTerminal

pytestmark = pytest.mark.slow  # each starts a process that loads a model
SHORT = Sampling(max_new_tokens=10)


@pytest.fixture(scope="module")
def assistant(llava_dir: Path) -> Assistant:
    return llava_lite.load(llava_dir)


@pytest.fixture
def images(world: Path) -> list[Path]:
    return sorted((world / "images").glob("*.png"))[:2]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path), "TERM": "xterm-256color", "COLORTERM": "truecolor", "TMUX": ""}


def said(path: Path) -> list[str]:
    """The texts of a saved chat."""
    (record,) = json.loads(path.read_text())
    contents = [message["content"] for message in record["messages"]]
    return [content if isinstance(content, str) else content[-1]["text"] for content in contents]


def test_a_dialogue_with_images_answers_as_the_assistant_does_and_is_saved(
    llava_dir: Path, assistant: Assistant, images: list[Path], environ: dict[str, str], tmp_path: Path
) -> None:
    first = Conversation().ask("Compare them.", images)
    second = first.answer(assistant.reply([first], SHORT)[0]).ask("And this?", images[:1])
    answers = [assistant.reply([conversation], SHORT)[0] for conversation in (first, second)]
    alone = assistant.reply([Conversation(system="Be brief.").ask("/Hello.\nYou.")], SHORT)[0]
    saved = tmp_path / "chat.json"
    with PseudoTerminal("chat", str(llava_dir), "--max-new-tokens", "10", environ=environ) as terminal:
        assert str(llava_dir) in terminal.wait_for(">>> ")
        terminal.type(f"/image {images[0]} '{images[1]}'\n")
        shown = terminal.wait_for("[2 images] >>> ")
        assert "▀" * 28 in shown and f"{images[0]}, 64 x 64" in shown
        assert terminal.say("Compare them.") == f"{printable(answers[0])}\n"
        assert "error: nix.png: cannot be read" in terminal.say("/image nix.png")
        terminal.say(f"/image {images[0]}")
        assert terminal.say("And this?") == f"{printable(answers[1])}\n"
        assert terminal.say(f"/save {saved}") == f"saved {saved}\n"
        assert said(saved) == ["Compare them.", answers[0], "And this?", answers[1]]
        terminal.say("/system Be brief.")
        assert terminal.say("/reset") == "a new dialogue, with the same system text\n"
        for line in ('"""', "/Hello.", "You."):
            terminal.type(f"{line}\n")
            terminal.wait_for("... ")
        assert terminal.say('"""') == f"{printable(alone)}\n"
        terminal.type("\x04")
        assert terminal.leave() == 0


def test_an_answer_can_be_stopped_and_is_kept_as_far_as_it_came(
    llava_dir: Path, assistant: Assistant, environ: dict[str, str], tmp_path: Path
) -> None:
    saved = tmp_path / "chat.json"
    with PseudoTerminal("chat", str(llava_dir), "--max-new-tokens", "1500", "--verbose", environ=environ) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("Hello.\n")
        answer = assistant.stream(Conversation().ask("Hello."), Sampling(max_new_tokens=1500))
        beginning = next(answer) + next(answer)  # two tokens have a rate
        terminal.wait_for(f"Hello.\r\n{printable(beginning)}")
        terminal.type("\x03")
        assert "tokens/s" in terminal.wait_for("stopped; what was said is kept")
        terminal.wait_for(">>> ")
        terminal.say("/set max_new_tokens 3")
        terminal.say("And now?")
        terminal.say(f"/save {saved}")
        question, kept, _, answer = said(saved)
        whole = ""
        for piece in assistant.stream(Conversation().ask("Hello."), Sampling(max_new_tokens=1500)):
            whole += piece
            if len(whole) >= len(kept):
                break
        assert whole == kept
        dialogue = Conversation().ask(question).answer(kept).ask("And now?")
        assert [answer] == assistant.reply([dialogue], Sampling(max_new_tokens=3))
        terminal.type("\x04")
        assert terminal.leave() == 0


def test_ctrl_c_at_the_prompt_drops_the_line_and_twice_leaves(llava_dir: Path, environ: dict[str, str]) -> None:
    with PseudoTerminal("chat", str(llava_dir), "--max-new-tokens", "3", environ=environ) as terminal:
        terminal.wait_for(">>> ")
        terminal.say("Hello.")
        terminal.type("half a li")
        terminal.wait_for("half a li")
        terminal.interrupt("Ctrl-C again or Ctrl-D leaves")
        terminal.wait_for(">>> ")
        assert terminal.say("/undo") == "took back the last question and its answer\n"
        terminal.interrupt("leaves")
        terminal.wait_for(">>> ")
        terminal.interrupt("\n")
        assert terminal.leave() == 0


def test_lines_of_earlier_chats_come_back_and_names_are_completed(
    llava_dir: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    history = tmp_path / "llava_lite" / "chat_history"
    history.parent.mkdir()
    history.write_text("/set temperature 7\n")
    with PseudoTerminal("chat", str(llava_dir), environ={**environ, "NO_COLOR": "1"}) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("\x1b[A\n")
        assert "temperature 7.0\n" in terminal.wait_for(">>> ")
        terminal.type("/se\t")
        terminal.type("top_k\t3\n")
        assert "\ntop_k 3\n" in terminal.wait_for(">>> ")
        terminal.type("\x1b[200~/set seed\n5\x1b[201~\n")  # pasted: a newline in it ends nothing
        assert "seed 5\n" in terminal.wait_for(">>> ")
        terminal.type("/quit\n")
        assert terminal.leave() == 0
    assert history.read_text().splitlines()[:2] == ["/set temperature 7", "/set top_k 3"]


def test_through_a_pipe_only_answers_are_printed_and_a_failure_is_the_exit_code(
    llava_dir: Path, assistant: Assistant, images: list[Path], environ: dict[str, str]
) -> None:
    command = [sys.executable, "-c", "from llava_lite.cli import main; main()", "chat", str(llava_dir)]
    lines = f"Hello.\n\n/image gone.png\n/image {images[0]}\nWhat is it?\n/reset\n"
    ran = subprocess.run([*command, "--max-new-tokens", "10"], input=lines, capture_output=True, text=True)
    first = Conversation().ask("Hello.")
    second = first.answer(assistant.reply([first], SHORT)[0]).ask("What is it?", images[:1])
    assert ran.stdout == "".join(f"{assistant.reply([asked], SHORT)[0]}\n" for asked in (first, second))
    assert "error: gone.png: cannot be read" in ran.stderr and ran.returncode == 1


def test_a_chat_that_outgrows_the_context_loses_its_oldest_turns_where_asked_and_says_so(
    llava_dir: Path, assistant: Assistant
) -> None:
    words = "word "
    while assistant.processor.num_tokens(Conversation().ask(words)) < assistant.processor.max_positions / 3:
        words += words  # up to two thirds of the context
    command = [sys.executable, "-c", "from llava_lite.cli import main; main()", "chat", str(llava_dir)]
    command += ["--max-new-tokens", "4"]
    lines = f"{words}\n" * 4
    for option, code, told in (([], 1, "tokens, but the model's context is"), (["--drop-oldest"], 0, "were left out")):
        ran = subprocess.run([*command, *option], input=lines, capture_output=True, text=True)
        assert ran.returncode == code and told in ran.stderr
