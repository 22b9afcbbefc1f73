"""shapes: open questions about held-out scenes of the demo world.

Source:  the demo world itself (llava_lite/demo/world.py; no paper), all questions of `shapes.jsonl`
Files:   under --data, as `llava-lite demo` writes them: shapes.jsonl, images/
         a line is {"question_id", "image", "text", "answer", "kind"}; kind `describe` has "facts" as well
Metric:  accuracy, by kind (color, shape, where, count, exist, relation, compare, describe)
Quirks:  an answer is right when it equals the correct one but for case, white space around it and one final period.
         A description earns the facts it states, in their own words, over the larger number of facts and of its
         sentences: listing all that could be true is worth little.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, read_rows
from llava_lite.recipes import report_mistakes

FIELDS: dict[str, type | tuple[type, ...]] = {
    "question_id": (int, str), "image": str, "text": str, "answer": str, "kind": str
}  # fmt: skip


class Shapes(Benchmark):
    title = "shapes"
    max_new_tokens = 128
    source = "the demo world: `llava-lite demo` writes runs/demo/world"

    def questions(self, data: Path) -> list[Question]:
        path = self.locate(data, "shapes.jsonl")
        questions = []
        for row in read_rows(path, FIELDS):
            correct = (row["answer"],)
            if row["kind"] == "describe":
                if not row.get("facts"):
                    raise EvaluationError(f"{path}: question {row['question_id']} asks for a description without facts")
                correct = tuple(row["facts"])
            conversation = Conversation().ask(row["text"], [data / "images" / row["image"]])
            questions.append(Question(row["question_id"], conversation, correct, row["kind"]))
        return questions

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: Mark(earned(question, text), plain(text)) for question, text in pairs}


def earned(question: Question, text: str) -> float:
    """What an answer is worth, from 0 to 1."""
    if question.kind == "describe":
        return share_of_facts(text, question.correct)
    return float(plain(text) == plain(question.correct[0]))


def plain(text: str) -> str:
    """Strip what does not change an answer."""
    return text.strip().lower().removesuffix(".").strip()


def share_of_facts(text: str, facts: Sequence[str]) -> float:
    """True facts stated over the larger of the number of facts and the number of sentences."""
    said = text.lower()
    sentences = [sentence for sentence in said.split(".") if sentence.strip()]
    return sum(fact.lower() in said for fact in facts) / max(len(facts), len(sentences))


if __name__ == "__main__":
    with report_mistakes():
        main(Shapes, llava_lite.open_model)
