"""Have answers reviewed by a judge, which is any ChatModel: its words go into reviews.jsonl as they come.

What it says that cannot be read is asked for again, as its benchmark says; what it says to the end stays, readable or
not. A question that it cannot be asked (a refusal, a broken response) is written down with the reason and is due again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.answers import answers_path, read_answers
from llava_lite.evaluation.benchmark import Benchmark, Question, join
from llava_lite.evaluation.files import EvaluationError, open_for_more, write_whole
from llava_lite.evaluation.judging import Judging, request_key
from llava_lite.evaluation.modes import MODES, Mode
from llava_lite.evaluation.origin import hash_model
from llava_lite.evaluation.progress import progress
from llava_lite.evaluation.reviews import (
    Row,
    as_line,
    check_answers,
    hash_answer,
    read_reviews,
    requests_path,
    reviews_path,
)
from llava_lite.generation.chat_model import ChatModel, GenerationError, Sampling

Pair = tuple[Question, str]


def review(
    benchmark: Benchmark,
    questions: Sequence[Question],
    judge: ChatModel | None,
    *,
    data: Path | None,
    out: Path,
    batch_size: int,
) -> None:
    """Have the answers in `out`, of every mode, reviewed, or write the requests down where there is no judge.

    Does nothing for a benchmark that needs no judge. Raises EvaluationError where `out` holds reviews of other answers,
    of another judge or of other words, and GenerationError where the judge answers nothing at all.
    """
    judging = benchmark.judging(data)
    if judging is None:
        return
    for mode in MODES:
        if not answers_path(out, mode).exists():
            continue
        path, answers = reviews_path(out, mode), read_answers(answers_path(out, mode))
        if path.exists():
            open_for_more(path).close()  # cuts off a line torn by a kill
        check_answers(path, read_reviews(path), answers)
        pairs = [(q, text) for q, text in join(questions, answers) if q.correct and judging.needed(q, text)]
        if judge is None:
            write_requests(judging, pairs, out, mode)
        else:
            requests_path(out, mode).unlink(missing_ok=True)
            ask(judging, pairs, judge, path, batch_size, told=f"{benchmark.name} {mode}, judged")


def write_requests(judging: Judging, pairs: Sequence[Pair], out: Path, mode: Mode) -> None:
    """Write the requests for the reviews that are not there yet, as a batch in OpenAI's format (vLLM takes it, too).

    Reads back as reviews what such a batch gives; there is no file where nothing is to be asked.
    """
    there = {id for id, row in read_reviews(reviews_path(out, mode)).items() if row.get("content") is not None}
    lines = [as_line(_batch_request(judging, q, text)) for q, text in pairs if q.id not in there]
    if lines:
        write_whole(requests_path(out, mode), "".join(lines))
    else:
        requests_path(out, mode).unlink(missing_ok=True)


def ask(judging: Judging, pairs: Sequence[Pair], judge: ChatModel, path: Path, batch_size: int, *, told: str) -> None:
    """Ask for the reviews that are not yet in the file. Raises as `review` does."""
    judge_sha256 = hash_model(judge.name)
    wanted = {q.id: _row(judging, judge, judge_sha256, q, text) for q, text in pairs}
    with open_for_more(path) as file, progress() as bar:
        there = {id: row for id, row in read_reviews(path).items() if row.get("content") is not None}
        for id in there.keys() & wanted.keys():
            _check(path, there[id], wanted[id])
        due = [(q, text) for q, text in pairs if q.id not in there]
        task = bar.add_task(told, total=len(pairs), completed=len(pairs) - len(due))
        for start in range(0, len(due), batch_size):
            batch = due[start : start + batch_size]
            for (question, _), outcome in zip(batch, reviewed(judging, judge, batch), strict=True):
                line = as_line(wanted[question.id] | outcome)
                file.write(line.encode("utf-8", errors="backslashreplace"))  # a lone surrogate as JSON escape
            file.flush()
            bar.advance(task, len(batch))


def reviewed(judging: Judging, judge: ChatModel, batch: Sequence[Pair]) -> list[dict[str, Any]]:
    """Ask about each answer until what the judge says can be read, `tries` times at most.

    Gives of each what a row needs: content, rejected (what it said before) and, where it said nothing, error. Raises
    GenerationError where it cannot be asked about any of several.
    """
    said: list[list[str | GenerationError]] = [[] for _ in batch]
    waiting = list(range(len(batch)))
    for attempt in range(judging.tries):
        requests = [judging.request(*batch[i], attempt) for i in waiting]
        for i, reply in zip(waiting, _replies(judge, requests, judging.sampling(attempt)), strict=True):
            said[i].append(reply)
        errors = [own[0] for own in said if isinstance(own[0], GenerationError)]
        if len(errors) == len(batch) > 1:
            raise errors[0]
        waiting = [i for i in waiting if not _readable(judging, said[i][-1])]
    return [_outcome(own) for own in said]


def _replies(judge: ChatModel, requests: Sequence[Conversation], sampling: Sampling) -> list[str | GenerationError]:
    """Ask all at once and, where that fails, each alone: one that cannot be answered spoils no other."""
    try:
        return list(judge.reply(requests, sampling)) if requests else []
    except GenerationError as error:
        if len(requests) == 1:
            return [error]
    return [reply for request in requests for reply in _replies(judge, [request], sampling)]


def _readable(judging: Judging, reply: str | GenerationError) -> bool:
    return isinstance(reply, str) and judging.readable(reply)


def _outcome(said: Sequence[str | GenerationError]) -> dict[str, Any]:
    *before, last = said
    rejected = [reply for reply in before if isinstance(reply, str)]
    if isinstance(last, GenerationError):
        return {"content": None, "rejected": rejected, "error": str(last)}
    return {"content": last, "rejected": rejected}


def _row(judging: Judging, judge: ChatModel, judge_sha256: str | None, question: Question, text: str) -> dict[str, Any]:
    """What is known of a review before it is asked for."""
    return {
        "question_id": question.id,
        "answer_sha256": hash_answer(text),
        "judge": judge.name,
        "judge_sha256": judge_sha256,
        "request": judging.as_json(question, text),
    }


def _check(path: Path, recorded: Row, wanted: Row) -> None:
    """Raise EvaluationError where a review is not of the judge or the request that are wanted."""
    mine, theirs = ({**row} for row in (recorded, wanted))
    if recorded.get("judge_sha256") is not None and recorded["judge_sha256"] == wanted["judge_sha256"]:
        mine["judge"] = theirs["judge"]  # two names of one folder
    different = [name for name in ("judge", "judge_sha256", "request") if mine.get(name) != theirs[name]]
    if different:
        what = "judge" if different[0].startswith("judge") else "prompt or sampling"
        raise EvaluationError(
            f"{path} holds reviews of another {what}; remove it to have the answers judged anew, or choose another "
            "output folder"
        )


def _batch_request(judging: Judging, question: Question, text: str) -> dict[str, Any]:
    request = judging.as_json(question, text)
    system = [] if request["system"] is None else [{"role": "system", "content": request["system"]}]
    return {
        "custom_id": f"{question.id}#{request_key(request)}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": judging.official,
            "messages": [*system, {"role": "user", "content": request["prompt"]}],
            "max_tokens": request["sampling"]["max_new_tokens"],
            "temperature": request["sampling"]["temperature"],
        },
    }
