"""Tests of the rank correlation with the paper: known orders, formulas by hand, what cannot be measured, the table."""

from __future__ import annotations

import csv
import importlib
import math
from pathlib import Path
from typing import Any

import pytest

from kore_bench.agreement import agreement
from kore_bench.reports import agreement_table
from kore_bench.reports.summary import summarise

records: Any = importlib.import_module("report_records")

METHODS = ("full", "lora", "replay", "ewc", "kore-augmentation", "kore")


def test_the_same_order_is_one_and_the_reverse_minus_one_whatever_the_scale() -> None:
    ours = [1.0, 2.0, 3.0, 10.0, 11.0]
    same, reverse = agreement(ours, [math.exp(value) for value in ours]), agreement(ours, [-value for value in ours])
    assert same
    assert reverse
    assert (same.spearman.value, same.kendall.value) == pytest.approx((1, 1))
    assert (reverse.spearman.value, reverse.kendall.value) == pytest.approx((-1, -1))
    assert same.spearman.interval is reverse.kendall.interval is None


def test_coefficients_and_intervals_by_hand() -> None:
    """Ranks 1 2 3 4 5 6 against 2 1 4 3 6 5: sum d^2 = 6, 3 of 15 pairs are turned round."""
    found = agreement([1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5])
    assert found
    rho, tau = 1 - 6 * 6 / (6 * 35), (12 - 3) / 15
    assert found.n == 6
    assert found.spearman.value == pytest.approx(rho)
    assert found.kendall.value == pytest.approx(tau)
    half = 1.959964 * math.sqrt((1 + rho**2 / 2) / 3)
    assert found.spearman.interval == pytest.approx(
        (math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)), abs=1e-6
    )
    half = 1.959964 * math.sqrt(0.437 / 2)
    assert found.kendall.interval == pytest.approx(
        (math.tanh(math.atanh(tau) - half), math.tanh(math.atanh(tau) + half)), abs=1e-6
    )


def test_too_few_rows_and_constant_figures_have_no_agreement() -> None:
    assert agreement([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert agreement([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    with pytest.raises(ValueError, match="5 figures cannot be paired with 4"):
        agreement([1, 2, 3, 4, 5], [1, 2, 3, 4])


def test_table_pairs_the_mini_rows_with_the_papers(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=(*METHODS, "kore-null", "frozen-random"), failed="ewc")
    agreement_table.REPORT.build(run, tmp_path)
    with (tmp_path / "tables" / "agreement.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {*METHODS, "kore-null"} - {"ewc"}
    assert {row["paper's model"] for row in rows} == {"llava-7b"}
    [summary] = summarise(run)
    lora = {row["measure"]: row for row in rows if row["method"] == "lora"}
    assert float(lora["K.R"]["paper"]) == 33.47
    assert float(lora["K.A"]["paper"]) == pytest.approx((15.23 + 18.31) / 2)
    own = next(row for row in summary.rows if row.method == "lora")
    assert float(lora["K.A"]["ours"]) == pytest.approx(own.scores["K.A"].value)
    ours, theirs = ([float(row[side]) for row in rows if row["measure"] == "K.R"] for side in ("ours", "paper"))
    found = agreement(ours, theirs)
    assert found
    shown = (tmp_path / "tables" / "agreement.md").read_text(encoding="utf-8")
    assert f"| K.R | 6 | {found.spearman.value:.2f} (" in shown


def test_table_says_why_there_is_no_agreement_and_is_absent_without_shared_rows(tmp_path: Path) -> None:
    few = records.write_run(tmp_path / "few", methods=("full", "lora"))
    [table] = agreement_table.tables(summarise(few)[0])
    assert table.rows[0][2].note == "not available: fewer than 5 rows"
    none = records.write_run(tmp_path / "none", methods=("frozen-random",))
    assert agreement_table.REPORT.build(none, tmp_path) == []
    assert agreement_table.REPORT.frame
    assert agreement_table.REPORT.frame(none, True).empty
