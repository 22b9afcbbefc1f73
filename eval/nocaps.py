"""nocaps: one sentence about a photograph of things that COCO's captions do not name, novel object captioning at scale.

Paper:   Agrawal et al., nocaps: novel object captioning at scale, ICCV 2019, arXiv:1812.08658
Split:   validation, 4,500 images of Open Images with ten captions each: 648 in-domain, whose objects COCO has, 914
         out-of-domain, 2,938 near-domain with some of both; variants `val-meteor`, METEOR counted, too, and `test`,
         10,600, which the server scores
Files:   under --data or --data/nocaps:
         nocaps_val_4500_captions.json, nocaps_test_image_info.json    nocaps.org
         val/ and test/, or images/                                    the images
         or a folder NoCaps/ with the parquet files of lmms-lab/NoCaps, which do not tell domains: they are taken from
         nocaps_val_4500_captions.json where it is there, too
Metric:  CIDEr-D, which ends at 10; BLEU-1 to 4, ROUGE-L and METEOR beside it, which end at 1; by domain. Tables in
         papers have them times 100. METEOR takes Java and the extra `meteor`; SPICE is not computed.
Quirks:  as of coco. How much an n-gram weighs in CIDEr is told from all images of the split, in each domain, too. The
         code of the server that scores is not public, but in published tables the CIDEr over all is the domains' mean
         weighted by images, as it is here; weights told from a domain's own images would give other figures.
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
from llava_lite.evaluation.files import EvaluationError, check_row
from llava_lite.evaluation.meteor import check_meteor
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

PROMPT = "Provide a one-sentence caption for the provided image."
FOLDERS = ("nocaps/annotations", "nocaps", "annotations", ".")
FILES = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}
HUB = {"val": "validation", "test": "test"}


class Nocaps(Benchmark):
    title = "nocaps"
    variants: ClassVar[Mapping[str, str]] = {
        "val": "validation, scored here",
        "val-meteor": "with METEOR, which takes Java",
        "test": "for the server to score",
    }
    max_new_tokens = 64
    source = "nocaps.org (captions and images), or the dataset lmms-lab/NoCaps at the Hugging Face hub"

    @property
    def split(self) -> str:
        return self.variant.removesuffix("-meteor")

    @property
    def with_meteor(self) -> bool:
        return self.variant.endswith("-meteor")

    def questions(self, data: Path) -> list[Question]:
        rows = self._rows(data)
        if self.with_meteor:
            check_meteor()  # and not after a model has answered for hours
        return [self._question(row) for row in rows]

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return mark_captions(pairs, with_meteor=self.with_meteor)

    def figures(self, sums: Sums) -> Figures:
        return caption_figures(sums)

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        return [write_captions(folder / f"nocaps_{self.split}_llava-lite_results.json", answers)]

    def _rows(self, data: Path) -> list[dict[str, Any]]:
        official, parquet = self._official(data), find_parquet(data / "NoCaps", [], HUB[self.split])
        if official and (not parquet or official[0]["image"].parent.is_dir()):
            return official
        if not parquet:
            self.locate(data, f"nocaps/{FILES[self.split]}", f"NoCaps/data/{HUB[self.split]}-*.parquet")
        domains = {row["id"]: row.get("domain", "") for row in official}
        return [{**row, "domain": domains.get(row["id"], "")} for row in read_hub(parquet)]

    def _question(self, row: Mapping[str, Any]) -> Question:
        captions = tuple(row["captions"])
        if not captions and self.split == "val":
            raise EvaluationError(f"{self.name}: image {row['id']} has no captions; is this the right split?")
        conversation = Conversation().ask(PROMPT, [row["image"]])
        return Question(row["id"], conversation, captions, kind=row.get("domain", ""), cluster=str(row["id"]))

    def _official(self, data: Path) -> list[dict[str, Any]]:
        """Read the file of nocaps.org; no rows where there is none."""
        places = [data / folder / FILES[self.split] for folder in FOLDERS]
        path = next((place for place in places if place.is_file()), None)
        folders = [data / "nocaps" / self.split, data / self.split, data / "nocaps" / "images", data / "images"]
        folder = next((place for place in folders if place.is_dir()), folders[0])
        rows = read_captions(path) if path else []
        for number, row in enumerate(rows, start=1):
            row["image"] = folder / check_row(row, {"file_name": str}, f"{path}, image {number}")["file_name"]
        return rows


def read_hub(parquet: Sequence[Path]) -> list[dict[str, Any]]:
    fields: dict[str, Any] = {"image_id": int, "annotations_captions": (list, type(None))}
    rows = read_parquet(parquet, fields, images=["image"])
    return [
        {"id": row["image_id"], "captions": row["annotations_captions"] or [], "image": row["image"]} for row in rows
    ]


if __name__ == "__main__":
    with report_mistakes():
        main(Nocaps, llava_lite.open_model)
