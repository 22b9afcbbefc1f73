"""HallusionBench: yes/no questions about figures and about edited figures. Does the model see, or guess?

Paper:   Guan et al., HallusionBench: An Advanced Diagnostic Suite for Entangled Language Hallucination and Visual
         Illusion in Large Vision-Language Models, CVPR 2024, arXiv:2310.14566
Split:   1,129 questions in sets about variants of one figure. VD (visual dependent) cannot be answered without the
         figure; VS (visual supplement) can, and some of these 178 are asked without it
Files:   under --data or --data/HallusionBench:
         HallusionBench.json    github.com/tianyi-lab/HallusionBench
         hallusion_bench/       hallusion_bench.zip of the same: VD/illusion/0_0.png, ...
         or data/image-*.parquet and data/non_image-*.parquet of hf lmms-lab/HallusionBench
         utils.py               the repository's; what its evaluate_by_chatgpt says is what the judge is asked
Judge:   says correct, incorrect or unclear of the answer, beside a reference answer in words; published figures are
         GPT-4's. The variant `rules` needs none: it reads yes or no, as the public leaderboards (VLMEvalKit) do.
Metric:  aAcc: the share of questions answered right. fAcc: of figures all of whose questions are. qAcc: of questions
         that are answered right about every figure of their set; easy and hard are its parts about figures as found and
         about edited ones. `rules` leads with the leaderboards' mean of aAcc, fAcc and qAcc.
         LLaVA-1.5-13B by the judge: aAcc 46.94, fAcc 24.86, qAcc 10.55.
Quirks:  official. A review that says "incorrect" anywhere is that, else "correct", and anything else is unclear: wrong,
         but right where a VS question is asked without its figure, which is no figure for fAcc either.
         `rules` asks only what has a figure and knows no unclear; an answer is yes or no where it holds just one of the
         two words, in any case. Most marks become a space, or nothing where there is a space beside one of them, but
         * and : stay, so that "**Yes**" and "Yes: ..." are neither, and wrong.
         The official results (a list with "model_prediction" and "gpt4v_output_gpt_check", or a folder with the two
         files hallusion_output_{vd,vs}_model.json) are read as --answers. The model is asked the bare question.
"""

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, Fields, read_json, read_list
from llava_lite.evaluation.judging import Judging, Reply
from llava_lite.evaluation.metrics import mean, ratio
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.generation.chat_model import Sampling
from llava_lite.recipes import report_mistakes

PLACES = ("HallusionBench/HallusionBench.json", "HallusionBench.json")
NAMES = ("category", "subcategory", "set_id", "figure_id", "question_id")
FIELDS: Fields = {
    **{name: str for name in NAMES[:2]}, **{name: (str, int) for name in (*NAMES[2:], "visual_input", "gt_answer")},
    "question": str, "gt_answer_details": str,
}  # fmt: skip
WORDS = {"0": "incorrect", "1": "correct", "2": "unclear"}
COUNTS = ("figures", "figures_right", "pairs", "pairs_right", "easy", "easy_right", "hard", "hard_right")
MARKS = ';/[]"{}()=+\\_-><@`,?!'


class HallusionBench(Benchmark):
    title = "hallusionbench"
    variants: ClassVar[Mapping[str, str]] = {
        "judge": "the official way: a judge says whether an answer is correct",
        "rules": "the leaderboards' way: yes or no, of the questions with a figure",
    }
    max_new_tokens = 512
    faults = (
        "a review that is neither correct, incorrect nor unclear is official unclear; strict: left out. `rules` miss a "
        "yes or no between marks such as *; strict: found"
    )
    source = "github.com/tianyi-lab/HallusionBench, or hf lmms-lab/HallusionBench"

    def questions(self, data: Path) -> list[Question]:
        tables = find_parquet(data, ["HallusionBench"], "image")
        if tables and not any((data / place).is_file() for place in PLACES):
            rows = read_parquet(tables, FIELDS, images=["image"])
            if self.variant == "judge":
                bare = find_parquet(data, ["HallusionBench"], "non_image")
                if not bare:
                    raise EvaluationError(
                        f"{self.name}: {tables[0].parent}/non_image-*.parquet is missing; get it, too"
                    )
                rows += [{**row, "image": None} for row in read_parquet(bare, FIELDS)]
        else:
            path = self.locate(data, *PLACES)
            rows = [{**row, "image": picture(row, path.parent)} for row in read_list(path, FIELDS)]
        return [made(row, self.variant) for row in rows if self.variant == "judge" or row["image"] is not None]

    def judging(self, data: Path | None = None) -> Judging | None:
        return Correctness(self, data) if self.variant == "judge" else None

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        found: dict[QuestionId, tuple[bool, str | None]] = {}
        for question, text in pairs:
            if self.variant == "judge":
                verdict = read_verdict(text)
                unsure = verdict == "unclear" and without_figure(question)
                found[question.id] = (verdict == "correct" or unsure, verdict if readable(text) else None)
            else:
                said = yes_or_no(text, strict=strict)
                found[question.id] = (said == question.correct[0], said)
        asked = [question for question, _ in pairs]
        shown = {q.id for q in asked if self.variant == "rules" or not without_figure(q)}
        counts = counted(asked, shown, {id: right for id, (right, _) in found.items()})
        return {id: Mark(float(right), parsed, counts[id]) for id, (right, parsed) in found.items()}

    def figures(self, sums: Sums) -> Figures:
        accuracies = {
            "aAcc": ratio(sums["credit"], sums["n"]),
            "fAcc": ratio(sums["figures_right"], sums["figures"]),
            "qAcc": ratio(sums["pairs_right"], sums["pairs"]),
        }
        shares = {name: ratio(sums[f"{name}_right"], sums[name]) for name in ("easy", "hard")}
        if self.variant == "judge":
            return accuracies | shares
        return {"mean": mean(list(accuracies.values())), **accuracies, **shares}

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        rows = official_results(path, "model_prediction")
        return [Answer(id, text) for id, text in rows] if rows else super().read_answers(path, questions)


@dataclass(frozen=True)
class Correctness(Judging):
    """The judge holds the answer against a reference in words."""

    benchmark: HallusionBench
    data: Path | None
    official: ClassVar[str] = "gpt-4"
    tries: ClassVar[int] = 3

    def request(self, question: Question, answer: str, attempt: int) -> Conversation:
        (reference,) = question.correct
        fields = {"question": question.row["question"], "gt_answer_details": reference, "output_entry": answer}
        return Conversation().ask("".join(fields[words] if is_field else words for words, is_field in self.words))

    @cached_property
    def words(self) -> list[tuple[str, bool]]:
        """What the official script asks, which is not ours to copy: texts, and names of fields between them."""
        if self.data is None:
            raise EvaluationError(f"{self.benchmark.name}: a judge is asked with a file of the data; give --data")
        path = self.benchmark.locate(self.data, "HallusionBench/utils.py", "utils.py")
        words = read_words(path)
        if [name for name, is_field in words if is_field] != ["question", "gt_answer_details", "output_entry"]:
            raise EvaluationError(
                f"{path}: evaluate_by_chatgpt asks in another way than known; is this the right file?"
            )
        return words

    def sampling(self, attempt: int) -> Sampling:
        return Sampling(max_new_tokens=1024, temperature=1.0, seed=attempt)  # official: the endpoint's own, which is 1

    def readable(self, review: str) -> bool:
        return readable(review)

    def read_replies(self, path: Path) -> list[Reply]:
        codes = official_results(path, "gpt4v_output_gpt_check")
        return [Reply(id, WORDS.get(code, code)) for id, code in codes] or super().read_replies(path)


def made(row: Mapping[str, Any], variant: str) -> Question:
    """Make a question of what a file says of it."""
    kept = {name: str(row[name]) for name in (*NAMES, "visual_input")}
    correct = row["gt_answer_details"] if variant == "judge" else {"1": "yes", "0": "no"}.get(str(row["gt_answer"]), "")
    return Question(
        id=name_of(row),
        conversation=Conversation().ask(row["question"], [] if row["image"] is None else [row["image"]]),
        correct=(correct,),
        kind=kept["category"],
        groups=(f"{kept['category']}_{kept['subcategory']}",),
        cluster="_".join(kept[name] for name in NAMES[:3]),
        row={**kept, "question": row["question"]},
    )


def picture(row: Mapping[str, Any], folder: Path) -> Path | None:
    """The figure of a question of the official file; None where it has none."""
    if str(row["visual_input"]) == "0":
        return None
    return folder.joinpath(
        "hallusion_bench", row["category"], row["subcategory"], f"{row['set_id']}_{row['figure_id']}.png"
    )


def name_of(row: Mapping[str, Any]) -> str:
    return "_".join(str(row[name]) for name in NAMES)


def without_figure(question: Question) -> bool:
    return question.row["category"] == "VS" and question.row["figure_id"] == "0"


def counted(
    questions: Sequence[Question], shown: Collection[QuestionId], right: Mapping[QuestionId, bool]
) -> dict[QuestionId, dict[str, float]]:
    """Count what questions earn together, each group with its first question. shown: those that are about a figure."""
    groups: dict[tuple[str, ...], list[QuestionId]] = {}
    for question in questions:
        row = question.row
        if question.id in shown:
            groups.setdefault(("figures", question.cluster, row["figure_id"]), []).append(question.id)
        for name in ("pairs", "hard" if row["visual_input"] == "2" else "easy"):
            groups.setdefault((name, question.cluster, row["question_id"]), []).append(question.id)
    counts: dict[QuestionId, dict[str, float]] = {question.id: dict.fromkeys(COUNTS, 0) for question in questions}
    for (name, *_), ids in groups.items():
        counts[ids[0]][name] += 1
        counts[ids[0]][f"{name}_right"] += all(right[id] for id in ids)
    return counts


def read_verdict(review: str) -> str:
    """Read what a judge says of an answer, as the official script does."""
    said = review.lower()
    return next((word for word in ("incorrect", "correct") if word in said), "unclear")


def readable(review: str) -> bool:
    return any(word in review.lower() for word in ("correct", "unclear"))


def yes_or_no(text: str, *, strict: bool) -> str | None:
    """Read an answer by its words; None where it has both or neither of yes and no."""
    words = re.findall("[a-z]+", text.lower()) if strict else without_marks(text.lower()).split()
    said = {"yes", "no"}.intersection(words)
    return said.pop() if len(said) == 1 else None


def without_marks(text: str) -> str:
    """Take the marks out as VLMEvalKit does."""
    plain = text
    for mark in MARKS:
        glued = f"{mark} " not in text and f" {mark}" not in text and not re.search(r"\d,\d", text)
        plain = plain.replace(mark, " " if glued else "")
    return re.sub(r"(?<!\d)\.(?!\d)", "", plain, count=32)  # a flag of `re` is passed as the count


def official_results(path: Path, field: str) -> list[tuple[str, str]]:
    """Read a field of the official results, a list in a file or two of them in a folder; empty where none has it."""
    paths = sorted(path.glob("hallusion_output_v[ds]*.json")) if path.is_dir() else [path]
    found: list[tuple[str, str]] = []
    for part in paths:
        content = read_json(part) if part.suffix == ".json" and part.is_file() else None
        rows = [row for row in content if isinstance(row, dict)] if isinstance(content, list) else []
        found += [(name_of(row), str(row[field])) for row in rows if all(name in row for name in (*NAMES, field))]
    return found


def read_words(path: Path) -> list[tuple[str, bool]]:
    """Read what `evaluate_by_chatgpt` adds up as its `prompt`, without running it: texts, and fields of its sample."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise EvaluationError(f"{path}: not Python ({error}); download it anew") from None
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "evaluate_by_chatgpt"]
    added = [
        node for function in functions for node in ast.walk(function) if isinstance(node, (ast.Assign, ast.AugAssign))
    ]
    words = []
    for node in sorted(added, key=lambda node: node.lineno):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name) and target.id == "prompt":
            match node.value:
                case ast.Constant(value=str(text)):
                    words.append((text, False))
                case ast.Subscript(slice=ast.Constant(value=str(name))) | ast.Subscript(slice=ast.Name(id=name)):
                    words.append((name, True))
    return words


if __name__ == "__main__":
    with report_mistakes():
        main(HallusionBench, llava_lite.open_model)
