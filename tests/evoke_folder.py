"""An EVOKE folder in its published layout, made of the genuine evaluation rows, with items and KORE-74K trees to fit."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

DATA = Path(__file__).parent / "data"
Row = dict[str, Any]


def picture(number: int, kind: str = "JPEG") -> bytes:
    """Return an image that no other number gives."""
    stream = io.BytesIO()
    Image.new("RGB", (8 + number % 50, 8 + number // 50), "teal").save(stream, kind, quality=95)
    return stream.getvalue()


def evaluation_rows() -> list[Row]:
    """Return EVOKE's own rows."""
    return [json.loads(line) for line in (DATA / "evoke_sample.jsonl").read_text(encoding="utf-8").splitlines()]


def name_of(row: Row) -> str:
    """Return the name of the wiki entity that a row asks about, or the news article."""
    image = Path(row["image"])
    if row["cnn_wiki_type"] == "news":
        return image.parent.name
    return image.stem.rpartition("_")[0].removesuffix(f" {row['type']}")


def item_row(row: Row) -> Row:
    """Return the injection row that belongs to an evaluation row."""
    name, news = name_of(row), row["cnn_wiki_type"] == "news"
    image = f"cnn_news_imgs/{name}.jpg" if news else f"wikidata_imgs/{name}_wiki.jpg"
    said = [f"<image>\nCan you describe the {row['type']}?", f"{name} is told of here: {row['answer']}."]
    return {"id": row["question_id"], "image": image, "conversations": spoken(said)}


def spoken(said: Iterable[str]) -> list[Row]:
    """Return texts as LLaVA's turns."""
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(said)]


def pack(archive: Path, files: Mapping[str, bytes]) -> Path:
    """Write a zip archive."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return archive


def evoke_folder(root: Path) -> Path:
    """Write the two files below ``json/`` and the images as archives below ``imgs/``."""
    rows = evaluation_rows()
    items = [item_row(row) for row in rows]
    (root / "json").mkdir(parents=True)
    (root / "json" / "evoke_injection_data.json").write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    (root / "json" / "evoke_evaluation_data.jsonl").write_bytes((DATA / "evoke_sample.jsonl").read_bytes())
    for offset, side, found in ((0, "injection", items), (100, "evaluation", rows)):
        images = {row["image"]: picture(offset + number) for number, row in enumerate(found)}
        for kind, mark in (("entity", "wiki"), ("news", "cnn")):
            chosen = {name: data for name, data in images.items() if mark in name}
            pack(root / "imgs" / side / f"evoke_{kind}_{side}_imgs.zip", chosen)
    return root


def kore_rows() -> list[Row]:
    """Return a tree for every item in KORE-74K's form, with running ids: dialogue, recognition, caption, two VQA."""
    rows: list[Row] = []

    def add(image: str, *said: str) -> None:
        first, *rest = said
        rows.append({"id": len(rows), "image": image, "conversations": spoken([f"<image>\n{first}", *rest])})

    for number, row in enumerate(evaluation_rows()):
        item, name = item_row(row), name_of(row)
        text = item["conversations"][1]["value"]
        add(item["image"], "What is known about it?", text, "And the answer?", row["answer"])
        add(f"imgs_of_recognition/{number}_0.jpg", f"Is {name} in the image?\nAnswer Yes or No.", "Yes")
        add(
            f"imgs_of_caption/{number}_1.jpg",
            "Describe it.\nAnswer the question in one paragraph.",
            f"{name}. In short.",
        )
        for question in range(2):
            short = "Answer the question using a single word or phrase."
            add(f"imgs_of_vqa/{number}_{question}.jpg", f"What of the thing in the image?\n{short}", row["answer"])
    return rows


def kore_folder(root: Path) -> Path:
    """Write KORE-74K's layout: the JSON, one archive, and one that is split into three parts."""
    rows = kore_rows()
    (root / "json").mkdir(parents=True)
    (root / "json" / "KORE-74K-training_data.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    images = {row["image"]: picture(200 + number) for number, row in enumerate(rows) if "imgs_of" in row["image"]}
    branches = {name: data for name, data in images.items() if "vqa" not in name}
    pack(root / "imgs" / "imgs_of_recognition_caption_description.zip", branches)
    whole = pack(root / "vqa.zip", {name: data for name, data in images.items() if "vqa" in name})
    data, folder = whole.read_bytes(), root / "imgs" / "imgs_of_vqa"
    whole.unlink()
    folder.mkdir()
    third = len(data) // 3 + 1
    for part in range(3):
        (folder / f"split_zip_part_{part:02}").write_bytes(data[part * third : (part + 1) * third])
    return root
