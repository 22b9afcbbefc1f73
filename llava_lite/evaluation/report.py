"""The report of one run: its figures, and questions with their pictures, the answers given and the correct ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from llava_lite.evaluation.benchmark import Answer, Question, QuestionId, Scores
from llava_lite.evaluation.mistakes import most_frequent, telling
from llava_lite.evaluation.modes import Mode
from llava_lite.evaluation.page import Bars, Card, page, render_bars, render_cards, render_table
from llava_lite.evaluation.summary import Summary, headline

CARDS_A_KIND = 4
MAX_CARDS = 80
MAX_BARS = 40
OTHER_MODES: dict[Mode, str] = {"blind": "no image", "shuffled": "other image"}


def report(summary: Summary, questions: Sequence[Question], answers: Mapping[Mode, Sequence[Answer]]) -> str:
    """Write the page. The cards show the first mode's answers and, below them, what the other modes said."""
    origin = summary.origin
    intro = [
        f"Prompts {origin.prompts_sha256[:12]} · data {origin.data_sha256[:12]}"
        + (f" · model {origin.model_sha256[:12]}" if origin.model_sha256 else "")
        + f" · {', '.join(f'{name} {value}' for name, value in origin.decoding.items())}"
    ]
    intro += summary.notes
    mode, *others = summary.scores
    if not summary.figure:
        told = summary.unjudged or "The correct answers are not in these files: nothing is scored here."
        return page(f"{origin.benchmark} · {origin.model}", [render_table(summary.table())], intro=[*intro, told])
    scores = summary.scores[mode]
    texts = _texts(summary, answers)
    parts = [render_table(replace(summary.table(), title=f"{summary.figure} in each mode" if others else "Figures"))]
    parts += [render_table(table) for table in (summary.groups(mode), most_frequent(questions, scores)) if table]
    parts.append(render_bars(bars(summary)))
    if mistakes := telling(questions, scores, summary.scores.get("blind") if mode == "normal" else None):
        cards = [replace(card(m.question, scores, texts, mode), verdict=("wrong", m.why)) for m in mistakes]
        note = "Wrong answers: first those that were right without the image, then the unreadable, then the frequent."
        parts.append(render_cards("Telling mistakes", cards, note=note))
    cards = [card(question, scores, texts, mode) for question in sample(questions, scores)]
    note = f"Up to {CARDS_A_KIND} of each kind, half of them wrong where some are: not a fair sample."
    parts.append(render_cards("Questions and answers", cards, note=note))
    intro += [f"Strict scoring: {summary.faults}"] if summary.faults else []
    warning = f"Not a result. {summary.partial} answered." if summary.partial else ""
    return page(f"{origin.benchmark} · {origin.model}", parts, intro=intro, warning=warning)


def bars(summary: Summary) -> Bars:
    """Compare the headline figure of all questions and of each kind, mode by mode."""
    groups: dict[str, dict[str, float]] = {
        summary.whole: {m: headline(s.figures) for m, s in summary.scores.items() if s.figures}
    }
    for mode, scores in summary.scores.items():
        for kind, figures in list(scores.kinds.items())[:MAX_BARS]:
            groups.setdefault(kind, {})[mode] = headline(figures)
    return Bars(f"{summary.figure} by kind", groups)


def sample(questions: Sequence[Question], scores: Scores) -> list[Question]:
    """Choose CARDS_A_KIND answered questions of each kind: half wrong and half right ones while there are both.

    Of many kinds, the first MAX_CARDS / CARDS_A_KIND: a page is no database, `marks.jsonl` is.
    """
    chosen = []
    for kind in list(dict.fromkeys(question.kind for question in questions))[: MAX_CARDS // CARDS_A_KIND]:
        group = [q for q in questions if q.kind == kind and q.id in scores.marks]
        wrong = [q for q in group if scores.marks[q.id].credit < 1]
        right = [q for q in group if scores.marks[q.id].credit >= 1]
        num_wrong = min(len(wrong), max(CARDS_A_KIND // 2, CARDS_A_KIND - len(right)))
        chosen += _spread(wrong, num_wrong) + _spread(right, CARDS_A_KIND - num_wrong)
    return chosen


def card(question: Question, scores: Scores, texts: Mapping[Mode, Mapping[QuestionId, str]], mode: Mode) -> Card:
    """Show one question with the first of its images."""
    lines = [("answer", texts[mode][question.id]), ("correct", "\n".join(question.correct))]
    for other, given in texts.items():
        if other != mode and question.id in given:
            lines.append((OTHER_MODES[other], given[question.id]))
    credit = scores.marks[question.id].credit
    images = question.conversation.images
    return Card(
        image=images[0].source if images else None,
        kind=question.kind,
        question=question.conversation.messages[-1].text,
        verdict=("right", "right") if credit >= 1 else ("partly", f"{credit:.0%}") if credit else ("wrong", "wrong"),
        lines=lines,
    )


def _texts(summary: Summary, answers: Mapping[Mode, Sequence[Answer]]) -> dict[Mode, dict[QuestionId, str]]:
    """What the model said and, where there is one, what a judge said of it; reviews made elsewhere come alone."""
    texts = {mode: {answer.question_id: answer.text for answer in given} for mode, given in answers.items()}
    for mode, verdicts in summary.verdicts.items():
        own = texts.setdefault(mode, {})
        for id, review in verdicts.reviews.items():
            own[id] = f"{own[id]}\n\nThe judge: {review}" if id in own else f"The judge: {review}"
    return texts


def _spread(questions: Sequence[Question], count: int) -> list[Question]:
    """Choose up to `count`, evenly over all: neighbours in a file often share an image."""
    return list(questions[:: max(1, len(questions) // count)][:count]) if count else []
