"""SEED-Bench: what is seen in pictures and clips, twelve types of multiple-choice questions.

Paper:   Li et al., SEED-Bench: Benchmarking Multimodal LLMs with Generative Comprehension, arXiv:2307.16125
Split:   19,242 questions: 14,233 on images (types 1 to 9), 5,009 on videos (types 10 to 12)
         lmms-lab's dataset has only about 18,000 of them: its figure over all is not the published one's
Files:   under --data, --data/seed_bench or --data/seedbench:
         llava-seed-bench.jsonl               LLaVA's eval.zip: the prompts
         SEED-Bench.json                      huggingface.co/datasets/AILab-CVC/SEED-Bench: answers and types
         SEED-Bench-image/                    its images
         SEED-Bench-video-image/              of each clip the frame in its middle, by LLaVA's extract_video_frames.py
         or --data/SEED-Bench/data/test-*.parquet of lmms-lab/SEED-Bench
Metric:  accuracy over all questions, as in LLaVA-1.5's table, by kind (image, video) and, as groups, by type
Quirks:  all official, which is LLaVA's way: an answer is right when it equals the letter, so that "A." is wrong.
         SEED-Bench's own way ranks the texts of the options by their likelihood.
         A video is its middle frame; of the frames in a parquet row, too, only the middle one is shown (of eight the
         fifth), where lmms-eval shows all.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.choices import option_lines, stated_letter
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, check_row, read_json, read_rows, write_whole
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

SUFFIX = "\nAnswer with the option's letter from the given choices directly."
LETTERS = tuple("ABCD")
PROMPT_FIELDS = {"question_id": (int, str), "image": str, "text": str}
OFFICIAL = tuple(f"{folder}llava-seed-bench.jsonl" for folder in ("seed_bench/", "seedbench/", ""))
TYPES = (
    "Scene Understanding", "Instance Identity", "Instance Attributes", "Instance Location", "Instances Counting",
    "Spatial Relation", "Instance Interaction", "Visual Reasoning", "Text Understanding",
    "Action Recognition", "Action Prediction", "Procedure Understanding",
)  # fmt: skip
CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
FIELDS: dict[str, type | tuple[type, ...]] = {
    "question_id": (int, str), "question_type_id": int, "data_type": str, "answer": str,
    **dict.fromkeys(CHOICES, (str, int, float)),
}  # fmt: skip


class SeedBench(Benchmark):
    title = "seedbench"
    max_new_tokens = 128
    faults = "only the letter alone is official; strict: every way to state a letter that leaves no doubt"
    source = (
        "LLaVA's eval.zip (github.com/haotian-liu/LLaVA, docs/Evaluation.md) and "
        "huggingface.co/datasets/AILab-CVC/SEED-Bench, or huggingface.co/datasets/lmms-lab/SEED-Bench"
    )

    def questions(self, data: Path) -> list[Question]:
        parquet = find_parquet(data, ["SEED-Bench", "seed_bench", "seedbench"], "test")
        if parquet and not any((data / place).is_file() for place in OFFICIAL):
            return read_hub(parquet)
        return self._read_official(self.locate(data, *OFFICIAL, "SEED-Bench/data/test-*.parquet"))

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        marks = {}
        for question, text in pairs:
            letter = stated_letter(text, question.options) if strict else text if text in LETTERS else None
            marks[question.id] = Mark(float(letter == question.correct[0]), letter)
        return marks

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        """Write what the leaderboard takes, as LLaVA writes it."""
        texts = {answer.question_id: answer.text for answer in answers}
        rows = [{"question_id": q.row["question_id"], "prediction": texts[q.id]} for q in questions]
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "seedbench.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        return [folder / "seedbench.jsonl"]

    def _read_official(self, path: Path) -> list[Question]:
        prompts = read_rows(path, PROMPT_FIELDS)
        asked = {str(row["question_id"]): row for row in prompts}
        if len(asked) < len(prompts):
            raise EvaluationError(f"{path}: {len(prompts) - len(asked)} questions have an id of another; download anew")
        annotations = self.locate(path.parent, "SEED-Bench.json")
        questions = []
        for row in check_row(read_json(annotations), {"questions": list}, str(annotations))["questions"]:
            prompt = asked.pop(str(check_row(row, FIELDS, str(annotations))["question_id"]), None)
            if prompt is None:
                raise EvaluationError(f"{path}: question {row['question_id']} of {annotations.name} is not asked there")
            questions.append(make_question(prompt["question_id"], row, prompt["text"], path.parent / prompt["image"]))
        if asked:
            raise EvaluationError(f"{annotations}: lacks question {next(iter(asked))} of {path.name}; download it anew")
        return questions


def read_hub(parquet: Sequence[Path]) -> list[Question]:
    questions = []
    for row in read_parquet(parquet, {**FIELDS, "question": str, **dict.fromkeys(CHOICES, str)}, images=["image"]):
        if not row["image"]:
            raise EvaluationError(f"{parquet[0].parent}: question {row['question_id']} has no image; download it anew")
        text = f"{row['question']}\n{option_lines([row[choice] for choice in CHOICES])}{SUFFIX}"
        questions.append(make_question(row["question_id"], row, text, row["image"][len(row["image"]) // 2]))
    return questions


def make_question(id: QuestionId, row: Mapping[str, Any], text: str, image: object) -> Question:
    """Make a question of a row of SEED-Bench.json or one with the same fields."""
    where = f"question {row['question_id']}"
    if row["answer"] not in LETTERS or not 0 < row["question_type_id"] <= len(TYPES):
        raise EvaluationError(f"{where}: answer {row['answer']!r}, type {row['question_type_id']}; download it anew")
    return Question(
        id=id,
        conversation=Conversation().ask(text, [image]),
        correct=(row["answer"],),
        kind=row["data_type"],
        groups=(TYPES[row["question_type_id"] - 1],),
        options=tuple(str(row[choice]) for choice in CHOICES),
        row={"question_id": row["question_id"]},
    )


if __name__ == "__main__":
    with report_mistakes():
        main(SeedBench, llava_lite.open_model)
