"""Writes the files that a new plug-in begins with (`kore-bench new`): they work and pass their tests as they are."""

from __future__ import annotations

import importlib.util
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from kore_bench.errors import UserError
from kore_bench.registry import Registry

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Written:
    """The files of a new method, and the commands that run it and test it, in the folder that it was written to."""

    method: Path
    test: Path
    page: Path
    run: str
    check: str


def new_method(name: str, folder: Path) -> Written:
    """Write a method, its test and its page into ``folder``; in a checkout of kore-bench each goes where its kind lies.

    Raises UserError for a name that is no method's, or taken, and where one of the files is there already; then
    nothing is written.
    """
    stem = name.replace("-", "_")
    checkout = (folder / "methods" / "__init__.py").is_file() and (folder / "kore_bench" / "component.py").is_file()
    method, test, page = (
        (f"methods/{stem}.py", f"tests/test_{stem}.py", f"docs/methods/{name}.md")
        if checkout
        else (f"{stem}.py", f"test_{stem}.py", f"{name}.md")
    )
    _check(name, stem, folder, (method, test, page))
    plugin = "" if checkout else f"--plugin {method} "
    words = {
        "name": name,
        "title": name.replace("-", " ").capitalize(),
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "file": f"{stem}.py",
        "run": f"kore-bench run {plugin}--methods lora,{name} --set train.steps=20",
        "registry": "Registry()" if checkout else f'Registry((Path(__file__).parent / "{method}",))',
    }
    for file, template in ((method, "method.py.txt"), (test, "test_method.py.txt"), (page, "method.md.txt")):
        text = Template((_HERE / template).read_text(encoding="utf-8")).substitute(words)
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with (folder / file).open("x", encoding="utf-8") as stream:
            stream.write(text)
    return Written(folder / method, folder / test, folder / page, words["run"], f"pytest {test}")


def _check(name: str, stem: str, folder: Path, files: tuple[str, ...]) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(f"{name!r} is no name for a method: use lower case, digits and hyphens, such as norm-penalty")
    if name in Registry().all("methods"):
        raise UserError(f"there is a method {name!r} already (kore-bench list methods): choose another name")
    if keyword.iskeyword(stem) or importlib.util.find_spec(stem):
        raise UserError(f"{name!r} is the name of a Python module already: choose another, such as my-{name}")
    if not folder.is_dir():
        raise UserError(f"--folder {folder}: there is no such folder")
    for file in files:
        if (folder / file).exists():
            raise UserError(f"{folder / file} is there already: choose another name, or remove it")
