"""All that is built in passes the tests that authors of plug-ins run; what breaks its promises does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kore_bench.conformance.options import (  # noqa: F401
    knowledge,
    mini_knowledge,
    pytest_generate_tests,
    registry,
    run_folder,
)
from kore_bench.conformance.test_generators import *
from kore_bench.conformance.test_methods import *
from kore_bench.conformance.test_reports import *
from kore_bench.conformance.test_tasks import *

BAD = '''
import random
from dataclasses import dataclass
from kore_bench.component import Component, Method
from kore_bench.generators import Generator
from kore_bench.measures import bootstrap
from kore_bench.report import Report
from kore_bench.task import Card, Task

@dataclass(frozen=True, kw_only=True)
class Bad(Component):
    """Starts where chance wants."""

    name = "bad"
    def data(self, examples, run): return random.sample(examples, len(examples))
    def penalty(self, model, batch, outputs, run): return outputs.loss.detach()

@dataclass(frozen=True, kw_only=True)
class Deaf(Task):
    card = Card(name="bad", title="t", source="s", metric="bad", licence="l", citation="c")
    def questions(self, knowledge): return knowledge.questions
    def correct(self, question, prediction): return 1.0
    def score(self, questions, predictions, *, seen_skills=frozenset()):
        return {"bad": bootstrap([1.0] * len(questions), [question.id for question in questions])}

class Loud(Generator):
    name = "bad"
    def check(self, item): ...
    def dialogue(self, item, rng, limit): return []
    def summary(self, item, rng): return item.text
    def quadruplets(self, item, rng, limit): return []

def build(run, folder):
    file = folder / "page.html"
    rows = [row for record in run.records() for row in run.predictions(record, "adaptation")]
    file.write_text(str(random.random()) + "".join(row["prediction"] for row in rows))
    return [file]

METHOD = Method(name="bad", summary="s", source="none", components=(Bad(),))
TASK = Deaf()
GENERATOR = Loud()
REPORT = Report(name="bad", title="t", kind="page", build=build)
'''


def conformance(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--pyargs", "kore_bench.conformance", "--tb=line", "-rf", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_a_plugin_that_breaks_its_promises_fails(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    names = [f"--{kind}=bad" for kind in ("method", "task", "generator", "report")]
    found = conformance(tmp_path, "--plugin=bad.py", *names)
    assert found.returncode == 1, found.stdout + found.stderr
    failed = set(re.findall(r"^FAILED \S+::(\w+)\[.*?bad.*?\]", found.stdout, flags=re.MULTILINE))
    assert failed == {
        "test_generator_describes_itself",
        "test_generator_keeps_its_limits",
        "test_generator_refuses_what_it_cannot_write_about",
        "test_method_keeps_the_contract",
        "test_method_starts_equal_seeds_at_the_same_place",
        "test_report_escapes_what_models_say",
        "test_report_writes_equal_bytes_below_its_folder",
        "test_task_refuses_answers_that_do_not_fit",
        "test_task_scores_answers",
    }
    for reason in ("the penalty of bad has no gradient", "gold answers are no better than none", "gave other bytes"):
        assert reason in found.stdout


def test_names_are_checked_before_any_test(tmp_path: Path) -> None:
    found = conformance(tmp_path, "--method", "lor")
    assert found.returncode == 4
    assert "ERROR: unknown method 'lor': did you mean 'lora'?" in found.stderr


def test_other_sessions_of_pytest_have_none_of_the_options(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--method=lora"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "unrecognized arguments: --method" in found.stderr


def test_pytest_is_asked_for_where_it_is_not_installed() -> None:
    code = "import sys; sys.modules['pytest'] = None; import kore_bench.conformance"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UserError: the conformance tests need pytest: pip install pytest" in found.stderr
