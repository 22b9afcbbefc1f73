"""ChartQA: questions about charts, many of which take arithmetic.

Paper:   Masry et al., ChartQA: A Benchmark for Question Answering about Charts, ACL 2022 Findings, arXiv:2203.10244
Split:   test: 1,250 questions written by people (kind `human`), 1,250 made from summaries (`augmented`)
Files:   under --data or --data/chartqa, of github.com/vis-nlp/ChartQA ("ChartQA Dataset"):
         test/test_human.json, test/test_augmented.json    [{"imgname", "query", "label"}]
         test/png/                                         charts
         or a folder ChartQA/ with the parquet files of lmms-lab/ChartQA
Metric:  relaxed accuracy: numbers may be off by 5%; both kinds, and all questions together, which weighs them alike.
Quirks:  relaxed correctness is that of pix2struct's code, which others took over: an answer is a number only where
         Python's float() reads it, less a percent sign; so "1,200" for 1200, "7" for 7%, "0.0" for 0, "$5" for 5 and
         "Yes." for Yes are wrong, "52.5%" is not within 5% of 50% for rounding, and any year passes for any other.
         Some count with prediction and target swapped (Qwen-VL), which gives other figures.
         The prompt and the length of answers are lmms-eval's, for the benchmark names none. Questions are numbered in
         each kind as they stand in the files: human/0.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, read_list
from llava_lite.evaluation.relaxed import careful_match, relaxed_match
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

SUFFIX = "\nAnswer the question with a single word."
KINDS = {"human": "human_test", "augmented": "augmented_test"}
PLACES = ("chartqa/test", "ChartQA/ChartQA Dataset/test", "ChartQA Dataset/test", "test")


class ChartQa(Benchmark):
    title = "chartqa"
    max_new_tokens = 16
    source = "github.com/vis-nlp/ChartQA, or the dataset lmms-lab/ChartQA at the Hugging Face hub"
    faults = (
        "numbers count only as Python writes them, 0 only as it is written, and any year is within 5% of any other; "
        "strict: however they are written, with their unit or without, and a year must be exact"
    )

    def questions(self, data: Path) -> list[Question]:
        rows = self._official(data) or self._parquet(data)
        numbers: Counter[str] = Counter()
        questions = []
        for kind, image, text, answer in rows:
            conversation = Conversation().ask(text + SUFFIX, [image])
            questions.append(Question(f"{kind}/{numbers[kind]}", conversation, (answer,), kind))
            numbers[kind] += 1
        return questions

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        right = careful_match if strict else relaxed_match
        return {q.id: Mark(float(right(text, q.correct[0])), text.strip() or None) for q, text in pairs}

    def _official(self, data: Path) -> list[tuple[str, Any, str, str]]:
        """Read the repository's files as (kind, image, question, answer); none where they are not there."""
        folder = next((data / place for place in PLACES if (data / place / "test_human.json").is_file()), None)
        if folder is None:
            return []
        rows = []
        for kind in KINDS:
            path = self.locate(folder, f"test_{kind}.json")
            for row in read_list(path, {"imgname": str, "query": str, "label": str}):
                rows.append((kind, folder / "png" / row["imgname"], row["query"], row["label"]))
        return rows

    def _parquet(self, data: Path) -> list[tuple[str, Any, str, str]]:
        paths = find_parquet(data, ["ChartQA", "chartqa"], "test") or [
            self.locate(data, "chartqa/test/test_human.json", "ChartQA/data/test-00000-of-00001.parquet")
        ]
        kinds = {written: kind for kind, written in KINDS.items()}
        rows = []
        for row in read_parquet(paths, {"type": str, "question": str, "answer": str}, images=["image"]):
            if row["type"] not in kinds:
                raise EvaluationError(f"{paths[0]}: type {row['type']!r} is none of {', '.join(kinds)}; see its source")
            rows.append((kinds[row["type"]], row["image"], row["question"], row["answer"]))
        return rows


if __name__ == "__main__":
    with report_mistakes():
        main(ChartQa, llava_lite.open_model)
