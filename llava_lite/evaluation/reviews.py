"""Reviews on disk, one JSON line each, and what is marked of answers that a judge has reviewed.

A row says which answer was reviewed, by whom and what was asked, so that reviews of other answers, of another judge or
of other words are never taken for those wanted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava_lite.evaluation.answers import answers_path, check_origins, read_answers, read_origin
from llava_lite.evaluation.benchmark import Answer, Benchmark, Question, QuestionId, join
from llava_lite.evaluation.files import EvaluationError, read_rows, write_whole
from llava_lite.evaluation.judging import Judging, Reply, request_key
from llava_lite.evaluation.modes import MODES, Mode
from llava_lite.evaluation.origin import Origin

Row = Mapping[str, Any]
"""question_id, answer_sha256, judge, judge_sha256, request, rejected and content; where the judge could not be asked,
content is None and error says why. Reviews made elsewhere may know no more than question_id, judge and content."""


@dataclass(frozen=True)
class Verdicts:
    """What is marked of one mode's answers.

    texts:      of each answer its review, or itself where it needs none; none where nothing is judged
    reviews:    what the judges said
    judges:     their names
    retried:    questions about which the judge was asked again, for it had said nothing readable
    unreadable: questions of which it said nothing readable to the end
    missing:    questions whose answers need a review and have none
    """

    texts: list[Answer]
    reviews: Mapping[QuestionId, str]
    judges: tuple[str, ...]
    retried: list[QuestionId]
    unreadable: list[QuestionId]
    missing: list[QuestionId]

    @property
    def judged(self) -> bool:
        """Whether a scorer may mark the texts: not those that need no judge alone, which are no fair sample."""
        return bool(self.reviews) or not self.missing

    @property
    def readable(self) -> list[Answer]:
        """The texts without the reviews that cannot be read, which strict scoring leaves out."""
        return [text for text in self.texts if text.question_id not in self.unreadable]

    def note(self, mode: Mode) -> str:
        """Say in words what there is to say of the judge and its reviews."""
        if not self.judged:
            requests = requests_path(Path(), mode).name
            return f"not judged; give --judge, or have {requests} answered and give the replies as --answers"
        told = [f"{len(self.reviews)} reviews by {', '.join(self.judges)}"] if self.reviews else []
        if self.retried:
            told.append(f"{len(self.retried)} of them after others that could not be read")
        if self.unreadable:
            told.append(
                f"{len(self.unreadable)} of them cannot be read ({_some(self.unreadable)}), which official scoring "
                "counts all the same and strict scoring leaves out"
            )
        if self.missing:
            told.append(f"no review of {len(self.missing)} answers ({_some(self.missing)}); a further run asks again")
        return "; ".join(told)

    def as_dict(self) -> dict[str, Any]:
        """What scores.json says of them."""
        return {
            "judged": self.judged,
            "names": list(self.judges),
            "reviews": len(self.reviews),
            "retried": self.retried,
            "unreadable": self.unreadable,
            "missing": self.missing,
        }


def reviews_path(out: Path, mode: Mode) -> Path:
    return out / ("reviews.jsonl" if mode == "normal" else f"reviews.{mode}.jsonl")


def requests_path(out: Path, mode: Mode) -> Path:
    return out / ("review_requests.jsonl" if mode == "normal" else f"review_requests.{mode}.jsonl")


def read_reviews(path: Path) -> dict[QuestionId, Row]:
    """Read what stands in a file of reviews, of each question the last row; empty where there is no file."""
    if not path.exists():
        return {}
    return {row["question_id"]: row for row in read_rows(path, {"question_id": (int, str)})}


def read_verdicts(
    judging: Judging, questions: Sequence[Question], answers: Mapping[Mode, Sequence[Answer]], out: Path
) -> dict[Mode, Verdicts]:
    """Read what the reviews in `out` say of the answers there, of every mode that has either.

    Raises EvaluationError for reviews of other answers.
    """
    asked = {question.id: question for question in questions}
    verdicts: dict[Mode, Verdicts] = {}
    for mode in MODES:
        rows = read_reviews(reviews_path(out, mode))
        if mode in answers or rows:
            check_answers(reviews_path(out, mode), rows, answers.get(mode, []))
            verdicts[mode] = _verdicts(judging, asked, rows, answers.get(mode, []))
    return verdicts


def check_answers(path: Path, rows: Mapping[QuestionId, Row], answers: Sequence[Answer]) -> None:
    """Raise EvaluationError where a review is of another answer than is there."""
    given = {answer.question_id: hash_answer(answer.text) for answer in answers}
    for id, row in rows.items():
        if row.get("answer_sha256") != given.get(id):
            other = "another answer than is there" if id in given else "an answer that is not there"
            remedy = "remove the file to have the answers judged anew, or choose another output folder"
            raise EvaluationError(f"{path}: the review of question {id!r} is of {other}; {remedy}")


def hash_answer(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="backslashreplace")).hexdigest()


def as_line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def take_replies(
    benchmark: Benchmark,
    judging: Judging,
    questions: Sequence[Question],
    replies: Sequence[Reply],
    name: str,
    out: Path,
) -> Origin:
    """Write reviews made elsewhere, in a file of this name, into `out`, and return what they are reviews of.

    Where `out` holds answers, they must be replies to the requests about these. Raises EvaluationError where they are
    not, for two reviews of one question, and where `out` holds other reviews.
    """
    written = {str(question.id): question.id for question in questions}
    replies = [replace(reply, question_id=written.get(str(reply.question_id), reply.question_id)) for reply in replies]
    reviews = [Answer(reply.question_id, reply.content) for reply in replies]
    join(questions, reviews)
    origin = Origin.of_answers(benchmark, questions, name, reviews)
    rows = [{"question_id": r.question_id, "judge": r.judge or name, "content": r.content} for r in replies]
    if answers_path(out, "normal").exists():
        recorded = read_origin(answers_path(out, "normal"))
        origin = replace(origin, model=recorded.model, model_sha256=recorded.model_sha256, decoding=recorded.decoding)
        rows = [row | _replied_to(judging, questions, reply, out) for row, reply in zip(rows, replies, strict=True)]
    check_origins(out, origin)
    path, text = reviews_path(out, "normal"), "".join(map(as_line, rows))
    if path.exists() and path.read_bytes() != text.encode("utf-8", errors="backslashreplace"):
        raise EvaluationError(f"{path} holds other reviews; remove it, or choose another output folder")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    return origin


def _replied_to(judging: Judging, questions: Sequence[Question], reply: Reply, out: Path) -> dict[str, Any]:
    """Say which answer in `out` a reply reviews. Raises EvaluationError where it is no reply to the request of that."""
    for question, text in join(questions, read_answers(answers_path(out, "normal"))):
        if question.id == reply.question_id:
            request = judging.as_json(question, text)
            if reply.request == request_key(request):
                return {"answer_sha256": hash_answer(text), "request": request}
    raise EvaluationError(
        f"the review of question {reply.question_id!r} is no reply to a request about the answers in {out}, as "
        f"{requests_path(out, 'normal').name} there has them; choose another output folder"
    )


def _verdicts(
    judging: Judging, asked: Mapping[QuestionId, Question], rows: Mapping[QuestionId, Row], answers: Sequence[Answer]
) -> Verdicts:
    said = {id: row["content"] for id, row in rows.items() if isinstance(row.get("content"), str)}
    texts, missing = [], []
    for id, text in [(answer.question_id, answer.text) for answer in answers] or list(said.items()):
        question = asked.get(id)  # the scorer complains of answers to nothing
        if id in said:
            texts.append(Answer(id, said[id]))
        elif question is None or not question.correct or not judging.needed(question, text):
            texts.append(Answer(id, text))
        else:
            missing.append(id)
    verdicts = Verdicts(
        texts=texts,
        reviews=said,
        judges=tuple(dict.fromkeys(str(rows[id].get("judge", "")) for id in said)),
        retried=[id for id in said if rows[id].get("rejected")],
        unreadable=[id for id, content in said.items() if not judging.readable(content)],
        missing=missing,
    )
    return verdicts if verdicts.judged else replace(verdicts, texts=[])


def _some(ids: Sequence[QuestionId]) -> str:
    return f"questions {', '.join(map(str, ids[:5]))}{', ...' if len(ids) > 5 else ''}"
