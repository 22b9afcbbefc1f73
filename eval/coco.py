"""COCO Captions: one sentence about a photograph, beside those that five people wrote.

Paper:   Chen et al., Microsoft COCO Captions: Data Collection and Evaluation Server, 2015, arXiv:1504.00325
Split:   Karpathy's test split, 5,000 images of val2014, on which papers report (Karpathy & Fei-Fei, CVPR 2015);
         variants val2014 (40,504 images), val2017 (5,000), and test2014 (40,775) and test2017 (40,670), which a server
         scores; with `-meteor`, METEOR is counted, too
Files:   under --data or --data/coco:
         dataset_coco.json                        Karpathy's, {"images": [{"cocoid", "split", "sentences", ...}]}
         or coco_karpathy_test_gt.json            his test split in COCO's format
         annotations/captions_{val2014,val2017}.json, image_info_{test2014,test2017}.json        COCO's
         {val,test}{2014,2017}/ or images/        the images
         or, but for Karpathy's split, folders COCO-Caption/ and COCO-Caption2017/ with the parquet files of lmms-lab's
         datasets of these names, {"question_id": the image's file, "answer": captions, "image"}
Metric:  CIDEr-D, which ends at 10; BLEU-1 to 4, ROUGE-L and METEOR beside it, which end at 1. Tables in papers have
         them times 100. METEOR takes Java and the extra `meteor`; SPICE is not computed.
Quirks:  the figures are pycocoevalcap's, over the same tokens (Penn Treebank, lower case, without punctuation), which
         are cut here without Java. Brackets count as tokens, `-lrb-`. How much an n-gram weighs in CIDEr depends on how
         few of the images it is said of: figures of a part of a split, or of another split, do not compare. An
         incomplete run is scored over the images that have a caption.
         The question is that of LLaVA-1.5's training data (its share of TextCaps), which lmms-eval asks here, too; the
         length of answers is lmms-eval's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.captions import caption_figures, mark_captions, read_captions, write_captions
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, check_row, read_object
from llava_lite.evaluation.meteor import check_meteor
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

PROMPT = "Provide a one-sentence caption for the provided image."
FOLDERS = ("coco/annotations", "annotations", "coco", ".")
FILES = {
    "karpathy": ("dataset_coco.json", "coco_karpathy_test_gt.json"),
    "val2014": ("captions_val2014.json",),
    "val2017": ("captions_val2017.json",),
    "test2014": ("image_info_test2014.json",),
    "test2017": ("image_info_test2017.json",),
}
HUB = {
    "val2014": "COCO-Caption",
    "test2014": "COCO-Caption",
    "val2017": "COCO-Caption2017",
    "test2017": "COCO-Caption2017",
}


class Coco(Benchmark):
    title = "coco"
    variants: ClassVar[Mapping[str, str]] = {
        "karpathy": "5,000 images, on which papers report",
        "karpathy-meteor": "with METEOR, which takes Java",
        "val2014": "40,504 images",
        "val2014-meteor": "with METEOR",
        "val2017": "5,000 images",
        "val2017-meteor": "with METEOR",
        "test2014": "for the server to score",
        "test2017": "for the server to score",
    }
    max_new_tokens = 64
    source = (
        "cocodataset.org (annotations, images) and cs.stanford.edu/people/karpathy/deepimagesent (dataset_coco.json), "
        "or the datasets lmms-lab/COCO-Caption and lmms-lab/COCO-Caption2017 at the Hugging Face hub"
    )

    @property
    def split(self) -> str:
        return self.variant.removesuffix("-meteor")

    @property
    def with_meteor(self) -> bool:
        return self.variant.endswith("-meteor")

    def questions(self, data: Path) -> list[Question]:
        rows = self._official(data) or self._parquet(data)
        if self.with_meteor:
            check_meteor()  # and not after a model has answered for hours
        return [self._question(row) for row in rows]

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return mark_captions(pairs, with_meteor=self.with_meteor)

    def figures(self, sums: Sums) -> Figures:
        return caption_figures(sums)

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        return [write_captions(folder / f"captions_{self.split}_llava-lite_results.json", answers)]

    def _question(self, row: Mapping[str, Any]) -> Question:
        captions = tuple(row["captions"])
        if not captions and not self.split.startswith("test"):
            raise EvaluationError(f"{self.name}: image {row['id']} has no captions; is this the right split?")
        return Question(row["id"], Conversation().ask(PROMPT, [row["image"]]), captions, cluster=str(row["id"]))

    def _official(self, data: Path) -> list[dict[str, Any]]:
        """Read the files of COCO or Karpathy; no rows where there are none."""
        places = [data / folder / name for folder in FOLDERS for name in FILES[self.split]]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            return []
        rows = read_karpathy(path) if path.name == "dataset_coco.json" else read_captions(path)
        images = "val2014" if self.split == "karpathy" else self.split
        folders = [data / "coco" / images, data / images, data / "coco" / "images", data / "images"]
        folder = next((place for place in folders if place.is_dir()), folders[0])
        return [{**row, "image": folder / row.get("file_name", f"COCO_{images}_{row['id']:012}.jpg")} for row in rows]

    def _parquet(self, data: Path) -> list[dict[str, Any]]:
        wanted = [f"coco/annotations/{name}" for name in FILES[self.split]]
        if self.split not in HUB:
            self.locate(data, *wanted)
        folder, part = HUB[self.split], self.split[:-4]
        paths = find_parquet(data / folder, [], part) or [self.locate(data, *wanted, f"{folder}/data/{part}-*.parquet")]
        rows = read_parquet(paths, {"question_id": str, "answer": (list, type(None))}, images=["image"])
        for row in rows:
            number = row["question_id"].split("_")[-1].split(".")[0]
            if not number.isdigit():
                raise EvaluationError(f"{paths[0]}: question_id {row['question_id']!r} is not the name of an image")
            row |= {"id": int(number), "captions": row["answer"] or []}
        return rows


def read_karpathy(path: Path) -> list[dict[str, Any]]:
    """Read the test split of dataset_coco.json."""
    images = read_object(path).get("images")
    if not isinstance(images, list):
        raise EvaluationError(f"{path}: no list of images; is this the right file?")
    rows = []
    for number, image in enumerate(images, start=1):
        where = f"{path}, image {number}"
        check_row(image, {"split": str, "cocoid": int, "filename": str, "sentences": list}, where)
        if image["split"] == "test":
            captions = [check_row(sentence, {"raw": str}, where)["raw"] for sentence in image["sentences"]]
            rows.append({"id": image["cocoid"], "file_name": image["filename"], "captions": captions})
    return rows


if __name__ == "__main__":
    with report_mistakes():
        main(Coco, llava_lite.open_model)
