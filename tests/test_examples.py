"""The examples: they run as they stand, and the notebook is stored with the outputs of a clean run."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import kore_bench

records: Any = importlib.import_module("report_records")

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder where `kore_bench.run` writes the records of a run at once; return the folder."""
    monkeypatch.chdir(tmp_path)

    def run(methods: str, *, name: str, **options: Any) -> kore_bench.Run:
        records.write_run(Path("runs", name), methods=tuple(methods.split(",")))
        return kore_bench.load(Path("runs", name))

    monkeypatch.setattr(kore_bench, "run", run)
    return tmp_path


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_the_notebook_runs_from_top_to_bottom(written: Path) -> None:
    scope: dict[str, Any] = {}
    for cell in code_cells():
        body = ast.parse(source(cell)).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), NOTEBOOK.name, "exec"), scope)  # noqa: S102
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), scope)
            assert shown is not None, source(cell)
            assert not getattr(shown, "empty", False), source(cell)
    assert (written / "runs" / "quickstart" / "report.html").exists()


def test_the_notebook_is_stored_as_it_ran() -> None:
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        kinds = [output["output_type"] for output in cell["outputs"]]
        assert "error" not in kinds
        assert not [output for output in cell["outputs"] if output.get("name") == "stderr"], source(cell)
        expression = isinstance(ast.parse(source(cell)).body[-1], ast.Expr)
        assert ("execute_result" in kinds) == expression, source(cell)
    [figure] = [cell for cell in cells if ".figure(" in source(cell)]
    assert "image/png" in figure["outputs"][-1]["data"]
    [run] = [cell for cell in cells if "kore_bench.run(" in source(cell) and source(cell).endswith("\nrun")]
    assert "5 of 5 cells done" in "".join(run["outputs"][-1]["data"]["text/html"])
    assert not re.search(r"/(tmp|home|root|work|Users)/", NOTEBOOK.read_text(encoding="utf-8"))


def test_the_sweep_writes_its_table_and_figure(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (EXAMPLES / "rank_sweep.py").read_text(encoding="utf-8")
    exec(compile(code, "rank_sweep.py", "exec"), {"__name__": "__main__"})  # noqa: S102
    assert "old-facts" in capsys.readouterr().out
    assert (written / "rank_sweep.png").stat().st_size > 1000
    assert len((written / "rank_sweep.csv").read_text().splitlines()) == 1 + 4 * 3


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(small_world: Path, tmp_path: Path) -> None:
    """With real cells, of a few steps on a small world."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient and ipykernel execute the notebook")
    pytest.importorskip("ipykernel", reason="nbclient and ipykernel execute the notebook")
    notebook = pytest.importorskip("nbformat").read(NOTEBOOK, as_version=4)
    [settings] = [cell for cell in notebook.cells if 'data, settings = "mini", {}' in cell.source]
    small = f'data, settings = {str(small_world)!r}, {{"train.steps": 2, "train.batch_size": 4, "old.samples": 16}}'
    settings.source = re.sub(r'data, settings = "mini", \{\}.*', small, settings.source)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert repr(kore_bench.load(tmp_path / "runs" / "quickstart")).endswith(": 5 of 5 cells done>")
    [figure] = [cell for cell in notebook.cells if ".figure(" in cell.source]
    assert "image/png" in figure.outputs[-1].data
