"""Bad files of other kinds: configurations, plans, tuned rates, plug-ins, model folders, runs; hostile names and texts."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

from bad_cases import Build, Case, items, write_data

from kore_bench.results import FORMAT


def file(name: str, content: str | bytes) -> Build:
    """Return what writes one file."""

    def write(folder: Path) -> None:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


class Evil:
    """What makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def pickled(mark: Path) -> bytes:
    """Return a pickle that makes the folder ``mark`` when it is loaded."""
    return pickle.dumps(Evil(mark))


def model(config: str | None = None, *, weights: str = "", code: bool = False) -> Build:
    """Return what writes a model folder; weights are a live pickle."""

    def write(folder: Path) -> None:
        (folder / "model").mkdir()
        if config is not None:
            (folder / "model" / "config.json").write_text(config)
        if weights:
            (folder / "model" / weights).write_bytes(pickled(folder / "model" / "done"))
        if code:
            (folder / "model" / "evil.py").write_text("import os\nos.mkdir('done')\n")

    return write


def run(plan: str | None, record: str | None = None) -> Build:
    """Return what writes a run folder of one cell."""

    def write(folder: Path) -> None:
        (folder / "r" / "cells" / "c").mkdir(parents=True)
        if plan is not None:
            (folder / "r" / "plan.yaml").write_text(plan)
        if record is not None:
            (folder / "r" / "cells" / "c" / "record.json").write_text(record)

    return write


def named(name: str) -> Build:
    """Return what writes data whose first image has another name, which no file has."""
    rows = items()
    rows[0]["image"] = name
    return lambda root: write_data(root, injection=rows)


LLAVA = json.dumps({"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]})
REMOTE = json.dumps(
    {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil"}}
)
PLAN = f"format: {FORMAT}\ncells: [c]\n"
METHOD = "from kore_bench.component import Component, Method\n"

_CASES: dict[str, tuple[Build, str, str]] = {
    "config: not YAML": (file("c.yaml", "methods: [lora"), "run --config c.yaml --dry-run", "c.yaml, line 1: this is no YAML: expected ',' or ']', but got '<stream end>'"),
    "config: a list": (file("c.yaml", "- lora\n"), "run --config c.yaml --dry-run", "c.yaml, line 1: a config has an option on each line"),
    "config: empty": (file("c.yaml", "[]"), "run --config c.yaml --dry-run", "c.yaml, line 1: a config has an option on each line, such as 'seeds: 3'"),
    "config: an unknown option": (file("c.yaml", "methodz: lora\n"), "run --config c.yaml --dry-run", "c.yaml, line 1: run has no option 'methodz': did you mean 'methods'?"),
    "config: an option twice": (file("c.yaml", "seeds: 1\nseeds: 2\n"), "run --config c.yaml --dry-run", "c.yaml, line 2: 'seeds' is given on line 1 already: keep one"),
    "config: a wrong type": (file("c.yaml", "seeds: two\n"), "run --config c.yaml --dry-run", "c.yaml, line 1: seeds: two: Input should be a valid integer, unable to parse string as an integer"),
    "config: a mapping for a number": (file("c.yaml", "seeds: {a: 1}\n"), "run --config c.yaml --dry-run", "c.yaml, line 1: seeds takes one value"),
    "config: an object of Python": (file("c.yaml", "methods: !!python/object/apply:os.mkdir [done]\n"), "run --config c.yaml --dry-run", "unknown method 'done'"),
    "config: aliases without end": (file("c.yaml", "a: &a [*a]\n"), "run --config c.yaml --dry-run", "c.yaml, line 1: a: what stands on line 1 is nested too deeply: give texts and numbers"),
    "config: a bomb of aliases": (
        file("c.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\nmethods: *c\n"),
        "run --config c.yaml --dry-run", "c.yaml, line 1: run has no option 'a'",
    ),
    "config: not UTF-8": (file("c.yaml", b"methods: \xff\n"), "run --config c.yaml --dry-run", "--config c.yaml is not UTF-8 text"),
    "config: a folder": (lambda root: (root / "c.yaml").mkdir(), "run --config c.yaml --dry-run", "--config c.yaml cannot be read: Is a directory"),
    "config: names itself": (file("c.yaml", "config: c.yaml\n"), "run --config c.yaml --dry-run", "c.yaml, line 1: --config is for the command line alone"),
    "config: nested too deeply": (file("c.yaml", "[" * 5000), "run --config c.yaml --dry-run", "c.yaml is nested too deeply"),
    "plan: extends itself": (file("p.yaml", "extends: p.yaml\n"), "run --plan p.yaml --dry-run", "plan p.yaml extends itself, by way of p.yaml"),
    "plan: extends nothing known": (file("p.yaml", "extends: paper/none\n"), "run --plan p.yaml --dry-run", "unknown plan 'paper/none': did you mean 'paper/table5'?"),
    "plan: models is a text": (file("p.yaml", "models: mini\n"), "run --plan p.yaml --dry-run", "p.yaml, line 1: models has a name of models, such as mini-*, and below it their options"),
    "plan: a summary that is a list": (file("p.yaml", "summary: [a]\n"), "run --plan p.yaml --dry-run", "p.yaml, line 1: summary takes one text"),
    "tuning: not JSON": (file("t.json", "{"), "run --tuning t.json --dry-run", "--tuning t.json is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    "tuning: not UTF-8": (file("t.json", b"\xff"), "run --tuning t.json --dry-run", "--tuning t.json is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    "tuning: an object": (file("t.json", "{}"), "run --tuning t.json --dry-run", "--tuning t.json is no tuning file: every entry needs budget, chosen, method, model, trials"),
    "tuning: a rate that is a text": (
        file("t.json", json.dumps([{"method": "lora", "model": "mini-llava", "budget": "150 steps", "trials": [], "chosen": {"learning_rate": "fast", "settings": {}}}])),
        "run --methods lora --tuning t.json --dry-run", "the chosen learning_rate of lora is 'fast', no rate above 0",
    ),
    "tuning: nested too deeply": (file("t.json", "[" * 100_000), "run --tuning t.json --dry-run", "--tuning t.json is not JSON: maximum recursion depth"),
    "plugin: a syntax error": (file("p.py", "def ("), "run --plugin p.py --dry-run", "--plugin p.py cannot be imported: SyntaxError: invalid syntax (p.py, line 1)"),
    "plugin: fails": (file("p.py", "1 / 0"), "run --plugin p.py --dry-run", "ZeroDivisionError: division by zero"),
    "plugin: ends the program": (file("p.py", "raise SystemExit(0)"), "run --plugin p.py --dry-run", "cannot be imported: SystemExit: 0"),
    "plugin: defines nothing": (file("p.py", "x = 1"), "run --plugin p.py --dry-run", "--plugin p.py defines nothing: there is no Method or Task or TaskFamily or TaskSet or Report or AnalysisReport"),
    "plugin: no Python": (file("p.txt", "x = 1"), "run --plugin p.txt --dry-run", "--plugin p.txt: this is no Python file"),
    "plugin: a folder": (lambda root: (root / "p").mkdir(), "run --plugin p --dry-run", "--plugin p: there is no such file"),
    "plugin: not UTF-8": (file("p.py", b"x = '\xff'"), "run --plugin p.py --dry-run", "--plugin p.py cannot be imported: SyntaxError"),
    "plugin: a name that is taken": (
        file("p.py", METHOD + "METHOD = Method(name='lora', summary='s', source='x', components=(Component(),))\n"),
        "run --plugin p.py --dry-run", "defines 'lora' again",
    ),
    "plugin: imports what is not there": (file("p.py", "import no_such_module"), "run --plugin p.py --dry-run", "ModuleNotFoundError: No module named 'no_such_module'"),
    "model: an empty folder": (model(), "run --model ./model --dry-run", "model model cannot be read from ./model: Unrecognized model in ./model. Should have a `model_type` key in its"),
    "model: a configuration that is no JSON": (model("{"), "run --model ./model --dry-run", "model model cannot be read from ./model: It looks like the config file at './model/config.json' is not a valid"),
    "model: an unknown type": (model('{"model_type": "nothing"}'), "run --model ./model --dry-run", "model model cannot be read from ./model: The checkpoint you are trying to load has model type `nothing` but Tr"),
    "model: a list": (model("[]"), "run --model ./model --dry-run", "model model cannot be read from ./model: Unrecognized model in ./model. Should have a `model_type` key in its"),
    "model: only pickled weights": (model(LLAVA, weights="pytorch_model.bin"), "run --model ./model --methods lora", "pytorch_model.bin is a pickle, which is never loaded"),
    "model: a pickle called safetensors": (model(LLAVA, weights="model.safetensors"), "run --model ./model --methods lora", "model.safetensors is no whole safetensors file"),
    "model: code of its own": (model(REMOTE, code=True), "run --model ./model --dry-run", "model model cannot be read from ./model: it needs Python code of its own, which is not run: use a model whose"),
    "model: of text alone": (model('{"model_type": "llama"}'), "run --model ./model --dry-run", "model model: ./model is of type 'llama', which is no image-text-to-text model of transformers"),
    "run: no plan": (run(None), "report r", "r is not a run folder: it has no plan.yaml"),
    "run: a plan that is no YAML": (run("a: ["), "report r", "r/plan.yaml cannot be read: while parsing a flow node"),
    "run: a plan of Python": (run("cells: !!python/object/apply:os.mkdir [done]\n"), "report r", "r/plan.yaml cannot be read: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/app"),
    "run: a plan of another version": (run("format: 99\ncells: [c]\n"), "report r", "r/plan.yaml has format 99, and this version of kore-bench reads format 1: use the version that made the run"),
    "run: cells that are numbers": (run(f"format: {FORMAT}\ncells: [1]\n"), "report r", "r/plan.yaml is not a plan of this version: it lists no cells"),
    "run: a plan of bytes": (run("\x00\x01"), "verify r", "r/plan.yaml cannot be read: unacceptable character #x0000: special characters are not allowed in \"<unicode str"),
    "run: no record": (run(PLAN), "report r", "r has no records yet: no cell of its plan has run"),
    "run: a record of another version": (run(PLAN, '{"format": 99}'), "report r", "r/cells/c/record.json was written by another version of kore-bench (record format 99; this one reads 1): use t"),
    "run: a broken record": (run(PLAN, "{"), "table r", "r has no records yet: no cell of its plan has run"),
    "run: a record nested too deeply": (run(PLAN, "[" * 100_000), "table r", "r has no records yet"),
    "run: an unknown cell": (run(PLAN, "{"), "export r nobody --out x", "r has no trained cell 'nobody': none are available"),
    "name: of an image, with colours of a terminal": (named("\x1b[31mred.png"), "run --data data --dry-run", "data/evoke_injection_data.json, line 1, field 'image': no file '\\x1b[31mred.png' in 'data'"),
    "name: of an image, in other scripts": (named("图片.png"), "run --data data --dry-run", "data/evoke_injection_data.json, line 1, field 'image': no file '图片.png' in 'data'; did you mean '2.png'?"),
    "name: of an image, from right to left": (named("\u202egnp.exe"), "run --data data --dry-run", "data/evoke_injection_data.json, line 1, field 'image': no file '\\u202egnp.exe' in 'data'"),
    "name: of a folder, with markup": (lambda root: None, "run --data '[red]x[/red]' --dry-run", "no knowledge folder '[red]x[/red]'"),
    "name: of a method, with markup": (lambda root: None, "run --methods '[bold]kore' --dry-run", "unknown method '[bold]kore': did you mean 'kore'?"),
    "name: of a method, with colours of a terminal": (lambda root: None, "run --methods '\x1b[31mkore' --dry-run", "unknown method '\\x1b[31mkore': did you mean 'kore'?"),
    "name: of a method, very long": (lambda root: None, "run --methods " + "k" * 10_000 + " --dry-run", "unknown method 'kkkk"),
    "name: of a method, in another script": (lambda root: None, "run --methods 鲸 --dry-run", "unknown method '鲸'"),
}  # fmt: skip

CASES = [Case(name=name, command=command, says=says, build=build) for name, (build, command, says) in _CASES.items()]
