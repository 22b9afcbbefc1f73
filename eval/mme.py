"""MME: fourteen tasks of yes/no questions, two to an image, one of each answer.

Paper:   Fu et al., MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models, arXiv:2306.13394
Split:   2,374 questions on 1,187 images
Files:   under --data, --data/MME or --data/mme:
         llava_mme.jsonl                      LLaVA's eval.zip: the prompts; made from the questions where it is missing
         MME_Benchmark_release_version/       the release, asked for at github.com/BradyFU/Awesome-Multimodal-Large-
                                              Language-Models: TASK/{images,questions_answers_YN}/ or TASK/, in a folder
                                              MME_Benchmark/ or not
         or, to score without images, a whole folder of TASK.txt files such as its eval_tool/Your_Results/
         or --data/MME/data/test-*.parquet of lmms-lab/MME
Metric:  of each task 100 * the share of right answers + 100 * the share of images with both answers right ("acc+");
         perception is the sum of ten tasks (at most 2,000) and the headline, cognition the sum of four (at most 800)
Quirks:  all official. An answer is "yes" or "no" by its first four characters in lower case, yes before no: "know",
         "not" and "nope" are "no", and what has neither there is wrong.
         The official script takes two consecutive lines for an image; here questions belong to their image, in any
         order. An image of which only one question is answered is counted as not right.
         LLaVA asks with its short-answer instruction instead of "Please answer yes or no.", which some questions have
         after two spaces. Its files give both questions of an image one id: answers are told apart by their prompt.
         In the result folder a line break or tab of an answer is a space, for there they end fields.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.choices import says_yes
from llava_lite.evaluation.clusters import count_clusters
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, read_rows, write_whole
from llava_lite.evaluation.metrics import ratio
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

SUFFIX = "\nAnswer the question using a single word or phrase."
INSTRUCTION = "Please answer yes or no."
PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
TASKS = PERCEPTION + COGNITION
NUM_QUESTIONS = 2374
FOLDERS = ("MME", "mme", ".")
RELEASES = ("MME_Benchmark_release_version/MME_Benchmark", "MME_Benchmark_release_version", ".")
RESULTS = ("eval_tool/Your_Results", "Your_Results", ".")


class Row(NamedTuple):
    """A question as the release has it. name: its image's file name; image: the picture, or where it should lie."""

    task: str
    name: str
    question: str
    answer: str
    image: object


class Mme(Benchmark):
    title = "mme"
    max_new_tokens = 128
    faults = (
        "the first four characters decide, so that 'know' is a no and 'The answer is yes' is nothing; strict: yes, no "
        "or not as a word anywhere, and wrong where there are both or neither"
    )
    source = (
        "LLaVA's eval.zip (github.com/haotian-liu/LLaVA, docs/Evaluation.md) and the release of MME "
        "(github.com/BradyFU/Awesome-Multimodal-Large-Language-Models), or huggingface.co/datasets/lmms-lab/MME"
    )

    def questions(self, data: Path) -> list[Question]:
        rows = read_release(data) or read_results_as_data(data) or read_hub(data)
        if not rows:
            self.locate(data, "MME/MME_Benchmark_release_version/existence/*.txt", "MME/data/test-*.parquet")
        check_whole(rows)
        prompts = read_prompts(data)
        questions = []
        for row in sorted(rows, key=lambda row: (TASKS.index(row.task), row.name)):  # the two of an image together
            id = make_id(row.task, row.name, row.question)
            if prompts and id not in prompts:
                raise EvaluationError(f"llava_mme.jsonl does not ask {id!r}; is it made for this release?")
            text = prompts.get(id, plain(row.question) + SUFFIX)
            known = {"image": row.name, "question": row.question}
            image = image_id(row.task, row.name)
            conversation = Conversation().ask(text, [row.image])
            questions.append(Question(id, conversation, (row.answer,), row.task, cluster=image, row=known))
        return questions

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        said = {question.id: read_strictly(text) if strict else read_answer(text) for question, text in pairs}
        right = {question.id: said[question.id] == question.correct[0] for question, _ in pairs}
        images = count_clusters([question for question, _ in pairs], right, lambda question: 2)
        marks = {}
        for question, _ in pairs:
            image, both_right = images[question.id]
            counts = {"images": image, "both_right": both_right, "cognition": float(question.kind in COGNITION)}
            marks[question.id] = Mark(float(right[question.id]), said[question.id], counts)
        return marks

    def figures(self, sums: Sums) -> Figures:
        """Make a task's figures; its score is named after the sum that it belongs to."""
        accuracy, accuracy_plus = ratio(sums["credit"], sums["n"]), ratio(sums["both_right"], sums["images"])
        score = 100 * accuracy + 100 * accuracy_plus
        name = "cognition" if sums["cognition"] else "perception"
        return {name: score, "accuracy": accuracy, "accuracy_plus": accuracy_plus}

    def overall(self, kinds: Mapping[str, Figures], sums: Sums) -> Figures:
        return {
            name: sum((kinds[task][name] for task in tasks if task in kinds), 0.0)
            for name, tasks in (("perception", PERCEPTION), ("cognition", COGNITION))
        }

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        """Write the result folder that eval_tool's calculation.py scores."""
        texts = {answer.question_id: re.sub(r"[\t\r\n]", " ", answer.text) for answer in answers}
        tasks: dict[str, list[str]] = {}
        for question in questions:
            fields = (question.row["image"], question.row["question"], question.correct[0].capitalize())
            tasks.setdefault(question.kind, []).append("\t".join((*fields, texts[question.id])) + "\n")
        folder.mkdir(parents=True, exist_ok=True)
        for task, lines in tasks.items():
            write_whole(folder / f"{task}.txt", "".join(lines))
        return [folder / f"{task}.txt" for task in tasks]

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        """Read also result folders, and LLaVA's answers, whose ids are those of images."""
        correct = {question.id: question.correct[0] for question in questions}
        if path.is_dir():
            return list(read_results(path, correct))
        answers = super().read_answers(path, questions)
        if path.suffix != ".jsonl" or all(answer.question_id in correct for answer in answers):
            return answers
        rows = read_rows(path, {"question_id": str, "prompt": str})
        names = [
            id if (id := row["question_id"]) in correct else make_id(id.split("/")[0], id, row["prompt"])
            for row in rows
        ]
        return [Answer(name, answer.text) for name, answer in zip(names, answers, strict=True)]


def read_answer(text: str) -> str | None:
    """Read "yes" or "no" as the official script does."""
    start = text.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None


def read_strictly(text: str) -> str | None:
    yes = says_yes(text)
    return None if yes is None else "yes" if yes else "no"


def plain(question: str) -> str:
    """The question without the instruction after it, LLaVA's or MME's own."""
    return question.replace(SUFFIX.strip(), "").replace(INSTRUCTION, "").strip()


def image_id(task: str, name: str) -> str:
    """Name an image by its file, which is a .jpg, a .png or, in LLaVA's result folders, the .txt beside it."""
    return f"{task}/{name.split('/')[-1].split('.')[0]}"


def make_id(task: str, name: str, question: str) -> str:
    return f"{image_id(task, name)}: {plain(question)}"


def read_release(data: Path) -> list[Row]:
    for folder in (data / place / release for place in FOLDERS for release in RELEASES):
        if (folder / TASKS[0]).is_dir():
            return [row for task in TASKS for row in read_task(folder / task)]
    return []


def read_task(folder: Path) -> Iterator[Row]:
    """Read a task of the release: a text file beside each image, or both in folders of their own."""
    split = (folder / "questions_answers_YN").is_dir()
    texts, images = (folder / "questions_answers_YN", folder / "images") if split else (folder, folder)
    pictures = {path.name.split(".")[0]: path for path in images.glob("*") if path.suffix != ".txt"}
    for path in sorted(texts.glob("*.txt")):
        image = pictures.get(path.stem, images / f"{path.stem}.jpg")
        for where, line in read_lines(path):
            question, *answer = line.strip().split("\t")
            yield Row(folder.name, image.name, question, read_correct(answer[-1:], where), image)


def read_results_as_data(data: Path) -> list[Row]:
    """Read questions from a folder of results, made or yet to make; what comes after the correct answer is not read."""
    for folder in (data / place / results for place in FOLDERS for results in RESULTS):
        if (folder / f"{TASKS[0]}.txt").is_file():
            rows = []
            for task, where, fields in read_fields(folder):
                image = folder / "images" / fields[0]
                rows.append(Row(task, fields[0], fields[1], read_correct(fields[2:3], where), image))
            if len(rows) != NUM_QUESTIONS:
                raise EvaluationError(
                    f"{folder}: {len(rows)} of {NUM_QUESTIONS} questions; give a whole folder as data"
                )
            return rows
    return []


def read_hub(data: Path) -> list[Row]:
    fields = {"question_id": str, "question": str, "answer": str, "category": str}
    paths = find_parquet(data, ["MME", "mme"], "test")
    rows = []
    for row in read_parquet(paths, fields, images=["image"]) if paths else []:
        answer = read_correct([row["answer"]], f"{paths[0].parent}, {row['question_id']}")
        name = row["question_id"].split("/")[-1]
        rows.append(Row(row["category"], name, row["question"], answer, row["image"]))
    return rows


def check_whole(rows: Sequence[Row]) -> None:
    """Raise EvaluationError where a task has no questions, or an image not two: no sum of such tasks is MME's."""
    tasks = {row.task for row in rows}
    if tasks != set(TASKS):
        raise EvaluationError(
            f"MME: tasks missing or unknown: {', '.join(sorted(tasks ^ set(TASKS)))}; download it anew"
        )
    for image, number in Counter(image_id(row.task, row.name) for row in rows).items():
        if number != 2:
            raise EvaluationError(f"MME: image {image} has {number} questions instead of two; download it anew")


def read_prompts(data: Path) -> dict[str, str]:
    """Read LLaVA's prompts by the ids of their questions; none where there is no such file."""
    for path in (data / place / "llava_mme.jsonl" for place in FOLDERS):
        if path.is_file():
            rows = read_rows(path, {"question_id": str, "text": str})
            return {
                make_id(row["question_id"].split("/")[0], row["question_id"], row["text"]): row["text"] for row in rows
            }
    return {}


def read_results(folder: Path, correct: Mapping[QuestionId, str]) -> Iterator[Answer]:
    """Read the answers in a result folder, whose correct answers must be ours."""
    for task, where, fields in read_fields(folder):
        if len(fields) != 4:
            raise EvaluationError(f"{where}: needs image, question, correct answer and answer, with tabs between them")
        id = make_id(task, fields[0], fields[1])
        if correct.get(id, fields[2].lower()) != fields[2].lower():
            raise EvaluationError(f"{where}: the correct answer is {correct[id]}; is it of this release?")
        yield Answer(id, fields[3])


def read_fields(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Read a folder of results as (task, where it stands, what stands between its tabs)."""
    paths = [(task, folder / f"{task}.txt") for task in TASKS if (folder / f"{task}.txt").is_file()]
    if not paths:
        raise EvaluationError(f"{folder}: no {TASKS[0]}.txt or other results of a task; is this the right folder?")
    for task, path in paths:
        for where, line in read_lines(path):
            fields = line.split("\t")
            if len(fields) < 3:
                raise EvaluationError(f"{where}: needs image, question and correct answer, with tabs between them")
            yield task, where, fields


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Read the lines of a text file that are not empty, each with where it stands."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path}: not UTF-8 ({error}); download it anew") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}, line {number}", line


def read_correct(fields: Sequence[str], where: str) -> str:
    answer = fields[0].strip().lower() if fields else ""
    if answer not in ("yes", "no"):
        raise EvaluationError(f"{where}: {answer!r} is not a correct answer, Yes or No; download it anew")
    return answer


if __name__ == "__main__":
    with report_mistakes():
        main(Mme, llava_lite.open_model)
