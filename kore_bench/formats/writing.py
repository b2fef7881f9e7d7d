"""Where a data set is written: a new folder of JSON files and of copies of the images that they name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kore_bench.errors import UserError
from kore_bench.examples import name_of

IMAGE_FOLDER = "images"
PATH_FIELDS = ("image", "images", "retrieved")


def require_new(folder: Path) -> None:
    """Raise UserError where something stands at ``folder`` already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not an empty folder: name another one")


class Target:
    """A new folder that a data set is written to; images are copied into it under the names they had."""

    def __init__(self, folder: Path, sources: Sequence[Path]) -> None:
        require_new(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.sources = folder, tuple(sources)
        self.names: dict[Path, str] = {}
        self.taken: set[str] = set()

    def image(self, image: Path) -> str:
        """Return the name of an image in the new folder, to which it is copied when it is first asked for."""
        if image not in self.names:
            old = name_of(image, self.sources)
            name = old if old.startswith(f"{IMAGE_FOLDER}/") else f"{IMAGE_FOLDER}/{old}"
            if name in self.taken:  # two folders of images, one name
                name = f"{IMAGE_FOLDER}/{len(self.taken)}-{image.name}"
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, self.folder / name)
            self.names[image] = name
            self.taken.add(name)
        return self.names[image]

    def named(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row with the names that the images of its path fields have in the new folder."""
        return {field: self._named(value) if field in PATH_FIELDS else value for field, value in row.items()}

    def _named(self, value: Any) -> Any:
        return [self.image(image) for image in value] if isinstance(value, list) else self.image(value)

    def array(self, name: str, rows: Iterable[dict[str, Any]]) -> Path:
        """Write a JSON array, a row a line."""
        with (self.folder / name).open("w", encoding="utf-8") as file:
            mark = "["
            for row in rows:
                file.write(f"{mark}\n{json.dumps(row, ensure_ascii=False)}")
                mark = ","
            file.write("\n]\n" if mark == "," else "[]\n")
        return self.folder / name

    def object(self, name: str, rows: Iterable[dict[str, Any]]) -> Path:
        """Write a JSON object: each row under its ``id``."""
        members = {row["id"]: {field: value for field, value in row.items() if field != "id"} for row in rows}
        (self.folder / name).write_text(json.dumps(members, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return self.folder / name

    def lines(self, name: str, rows: Iterable[dict[str, Any]]) -> Path:
        """Write a JSONL file."""
        with (self.folder / name).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return self.folder / name
