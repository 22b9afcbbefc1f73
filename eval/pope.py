"""POPE: does the model see objects that are not there? Yes/no questions on COCO images.

Paper:   Li et al., Evaluating Object Hallucination in Large Vision-Language Models, EMNLP 2023, arXiv:2305.10355
Split:   8,910 questions on 500 images of COCO val2014, in three categories by how the absent objects were chosen
         (random 2,910, popular 3,000, adversarial 3,000)
Files:   under --data or --data/pope:
         llava_pope_test.jsonl                    LLaVA's eval.zip; {"question_id", "image", "text", "category"}
         coco/coco_pope_{random,popular,adversarial}.json    github.com/AoiDragon/POPE (commit e3e39262), with "label"
         val2014/ or images/                      COCO val2014 images
         or --data/POPE/ of lmms-lab/POPE: data/test-*.parquet, or Full/{random,popular,adversarial}-*.parquet, which
         have 3,000 questions in each category
Metric:  F1 with "yes" as the positive, per category; the headline is the mean of the three, as in LLaVA-1.5's table.
         The other figures over all are means of the categories as well.
Quirks:  all official. An answer is cut at its first period; it is "no" when one of its words, split on single spaces,
         is exactly No, no or not, and "yes" otherwise: so "NO", "nope" and an empty answer are "yes".
         The official script pairs answers and labels by their order, because label files number their questions anew;
         here they are joined by category, image and question, which gives the same figures in any order.
         The prompt is the question with LLaVA's short-answer instruction, as it stands in LLaVA's file.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.choices import says_yes
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, read_rows
from llava_lite.evaluation.metrics import Confusion, decision, mean
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

SUFFIX = "\nAnswer the question using a single word or phrase."
OFFICIAL = ("pope/llava_pope_test.jsonl", "llava_pope_test.jsonl")
CATEGORIES = ("random", "popular", "adversarial")
FIGURES = ("f1", "accuracy", "precision", "recall", "yes_ratio")


class Pope(Benchmark):
    title = "pope"
    max_new_tokens = 128
    faults = (
        "what is neither a yes nor a no is official a yes; strict: wrong, and yes, no and not count in any spelling"
    )
    source = (
        "LLaVA's eval.zip (github.com/haotian-liu/LLaVA, docs/Evaluation.md), github.com/AoiDragon/POPE, COCO val2014; "
        "or all of it from huggingface.co/datasets/lmms-lab/POPE"
    )

    def questions(self, data: Path) -> list[Question]:
        parquet = find_parquet(data, ["POPE", "pope"], "test") or [
            path for category in CATEGORIES for path in find_parquet(data, ["POPE", "pope"], category, "Full")
        ]
        if parquet and not any((data / place).is_file() for place in OFFICIAL):
            questions = read_hub(parquet)
        else:
            questions = self._read_official(data, self.locate(data, *OFFICIAL, "POPE/data/test-*.parquet"))
        missing = set(CATEGORIES).symmetric_difference(question.kind for question in questions)
        if missing:
            raise EvaluationError(f"{data}: missing or unknown categories: {', '.join(sorted(missing))}; download anew")
        return questions

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: judge(text, question.correct == ("yes",), strict) for question, text in pairs}

    def figures(self, sums: Sums) -> Figures:
        return Confusion.of(sums).figures()

    def overall(self, kinds: Mapping[str, Figures], sums: Sums) -> Figures:
        return {figure: mean([figures[figure] for figures in kinds.values()]) for figure in FIGURES}

    def _read_official(self, data: Path, path: Path) -> list[Question]:
        rows = read_rows(path, {"question_id": (int, str), "image": str, "text": str, "category": str})
        labels = {category: self._labels(path.parent, category) for category in {row["category"] for row in rows}}
        times = Counter(row["question_id"] for row in rows)
        places = [data / place for place in ("pope/val2014", "val2014", "pope/images", "images")]
        images = next((place for place in places if place.is_dir()), places[-1])
        questions = []
        for row in rows:
            number, category, name = row["question_id"], row["category"], row["image"]
            label = labels[category].get((name, asked(row["text"])))
            if label is None:
                raise EvaluationError(f"{path}: question {number} ({category}) has no label; are both files complete?")
            id = number if times[number] == 1 else f"{category}/{number}"  # some files count anew in every category
            questions.append(Question(id, Conversation().ask(row["text"], [images / name]), (label,), category))
        return questions

    def _labels(self, folder: Path, category: str) -> dict[tuple[str, str], str]:
        """Read (image, question) -> "yes" or "no" of one category."""
        path = self.locate(folder, f"coco/coco_pope_{category}.json")
        labels: dict[tuple[str, str], str] = {}
        for row in read_rows(path, {"image": str, "text": str, "label": str}):
            key = row["image"], asked(row["text"])
            if row["label"] not in ("yes", "no") or labels.get(key, row["label"]) != row["label"]:
                raise EvaluationError(f"{path}: {key} needs one label, yes or no; it has {row['label']!r}")
            labels[key] = row["label"]
        return labels


def read_hub(parquet: Sequence[Path]) -> list[Question]:
    fields = {"question_id": (int, str), "question": str, "answer": str, "category": str}
    questions = []
    for row in read_parquet(parquet, fields, images=["image"]):
        id, label = f"{row['category']}/{row['question_id']}", row["answer"].lower()
        if label not in ("yes", "no"):
            raise EvaluationError(f"{parquet[0].parent}: question {id} needs an answer, yes or no; it has {label!r}")
        conversation = Conversation().ask(row["question"] + SUFFIX, [row["image"]])
        questions.append(Question(id, conversation, (label,), row["category"]))
    return questions


def judge(text: str, yes_is_correct: bool, strict: bool) -> Mark:
    """Mark an answer. What is neither yes nor no counts as the wrong one of them."""
    said_yes = says_yes(text) if strict else means_yes(text)
    if said_yes is None:
        return Mark(0.0, None, decision(not yes_is_correct, yes_is_correct))
    return Mark(float(said_yes == yes_is_correct), "yes" if said_yes else "no", decision(said_yes, yes_is_correct))


def means_yes(text: str) -> bool:
    """Decide what an answer means, as the official script does."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"}.intersection(words)


def asked(text: str) -> str:
    """The question without LLaVA's instruction, which stands in the line below."""
    return text.split("\n")[0]


if __name__ == "__main__":
    with report_mistakes():
        main(Pope, llava_lite.open_model)
