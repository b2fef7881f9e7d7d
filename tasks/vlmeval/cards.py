"""The twelve retention benchmarks of KORE (arXiv 2510.19316, section 5.1) as VLMEvalKit has them: one strict card each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from kore_bench.task import Card

_URL = "https://opencompass.openxlab.space/utils"
OPEN = 2048  # tokens of an open answer, VLMEvalKit's own bound for LLaVA-1.5 and Qwen2.5-VL
CLOSED = 128  # of a yes or no, a letter, a word


@dataclass(frozen=True, kw_only=True)
class Headline:
    """Where the headline figure stands in VLMEvalKit's result: of the row that ``row`` picks, the mean of ``columns``.

    ``how`` = ``sum`` adds them up instead; ``scale`` makes a percentage of it.
    """

    columns: tuple[str, ...]
    row: Mapping[str, str] = field(default_factory=dict)
    how: Literal["mean", "sum"] = "mean"
    scale: float = 1.0

    def read(self, result: Sequence[Mapping[str, Any]]) -> float | None:
        """Return the figure of a result, in percent; None where it has no such row, or no number there."""
        rows = [row for row in result if all(str(row.get(key)) == value for key, value in self.row.items())]
        if len(rows) != 1 or any(not isinstance(rows[0].get(name), int | float) for name in self.columns):
            return None
        values = [float(rows[0][name]) for name in self.columns]
        return self.scale * (sum(values) if self.how == "sum" else fmean(values))


@dataclass(frozen=True, kw_only=True)
class Benchmark(Card):
    """A card with all that differs between VLMEvalKit's data sets.

    ``dataset`` is its name there, ``md5`` that of the file as published. ``columns`` must stand in its file beside index and question. A limit draws whole
    ``groups`` (`kore_bench.vlmevalkit.sampling.group_of`) over all values of the column ``stratum``, of the rows that
    ``counted`` picks: those that the headline figure counts. ``parts`` are further figures by name; ``formula`` says how
    the headline figure comes of single answers (`intervals.FORMULAS`).
    """

    dataset: str
    headline: Headline
    md5: str = "unknown"
    columns: tuple[str, ...] = ("image", "answer")
    groups: Literal["row", "image", "figure", "circle"] = "row"
    stratum: str = "none"
    counted: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Headline] = field(default_factory=dict)
    formula: Literal["mean", "pairs", "f1", "sets"] = "mean"
    max_new_tokens: int = CLOSED


_CHOICE = ("image", "A", "B", "answer")
_OVERALL = {"split": "Overall"}


def _part(column: str) -> Headline:
    return Headline(columns=(column,), row=_OVERALL)


BENCHMARKS = (
    Benchmark(
        name="mme", title="MME: perception and cognition, yes or no", dimension="COM", metric="MME", dataset="MME", md5="b36b43c3f09801f5d368627fb92187c3",
        source=f"{_URL}/VLMEval/MME.tsv", licence="academic research only", citation="Fu et al., arXiv 2306.13394",
        columns=("image", "answer", "category", "image_path"), groups="image", formula="pairs", stratum="category",
        headline=Headline(columns=("perception", "reasoning"), how="sum", scale=100 / 2800),
    ),
    Benchmark(
        name="mmbench", title="MMBench, English development set, in circles", dimension="COM", metric="MMBench",
        dataset="MMBench_DEV_EN", md5="b6caf1133a01c6bb705cf753bb527ed8", source=f"{_URL}/benchmarks/MMBench/MMBench_DEV_EN.tsv", licence="Apache-2.0",
        citation="Liu et al., arXiv 2307.06281", columns=(*_CHOICE, "split"), groups="circle",
        headline=Headline(columns=("Overall",), row={"split": "dev"}, scale=100),
    ),
    Benchmark(
        name="seedbench2-plus", title="SEED-Bench-2-Plus: charts, maps and webs", dimension="OCR",
        metric="SEEDBench2-Plus", dataset="SEEDBench2_Plus", md5="e32d3216dc4f452b0fe497a52015d1fd",
        source=f"{_URL}/benchmarks/SEEDBench/SEEDBench2_Plus.tsv", licence="CC BY-NC 4.0",
        citation="Li et al., arXiv 2404.16790", columns=_CHOICE,
        headline=Headline(columns=("Overall",), row={"split": "none"}, scale=100),
    ),
    Benchmark(
        name="ocrvqa", title="OCR-VQA, core of the test set", dimension="OCR", metric="OCRVQA",
        dataset="OCRVQA_TESTCORE", md5="c5239fe77db8bdc1f2ad8e55e0d1fe97", source=f"{_URL}/VLMEval/OCRVQA_TESTCORE.tsv", licence="not stated by its authors",
        citation="Mishra et al., ICDAR 2019", headline=Headline(columns=("Overall",)),
    ),
    Benchmark(
        name="scienceqa", title="ScienceQA, test questions with a picture", dimension="M-DIS", metric="ScienceQA",
        dataset="ScienceQA_TEST", md5="e42e9e00f9c59a80d8a5db35bc32b71f", source=f"{_URL}/benchmarks/ScienceQA/ScienceQA_TEST.tsv", licence="CC BY-NC-SA 4.0",
        citation="Lu et al., arXiv 2209.09513", columns=_CHOICE,
        headline=Headline(columns=("Overall",), row={"split": "none"}, scale=100),
    ),
    Benchmark(
        name="mmmu", title="MMMU, validation set", dimension="M-DIS", metric="MMMU", dataset="MMMU_DEV_VAL", md5="585e8ad75e73f75dcad265dfd0417d64",
        source=f"{_URL}/VLMEval/MMMU_DEV_VAL.tsv", licence="Apache-2.0", citation="Yue et al., arXiv 2311.16502",
        columns=(*_CHOICE, "split"), counted={"split": "validation"},
        headline=Headline(columns=("Overall",), row={"split": "validation"}, scale=100),
    ),
    Benchmark(
        name="mia-bench", title="MIA-Bench: layered instructions", dimension="INS", metric="MIA-Bench",
        dataset="MIA-Bench", md5="0b9de595f4dd40af18a69b94d89aba82", source=f"{_URL}/VLMEval/Mia-Bench.tsv", licence="Apple's own, of ml-mia-bench",
        citation="Qian et al., arXiv 2407.01509", judge=True, max_new_tokens=OPEN,
        columns=("image", "components", "component_weight", "component_type", "num_of_component"),
        headline=Headline(columns=("total_score",), scale=100),
    ),
    Benchmark(
        name="mmdu", title="MMDU: dialogues over many pictures", dimension="M-IDU", metric="MMDU", dataset="MMDU", md5="848b635a88a078f49aebcc6e39792061",
        source=f"{_URL}/VLMEval/MMDU.tsv", licence="CC BY-NC 4.0", citation="Liu et al., arXiv 2406.11833",
        judge=True, max_new_tokens=OPEN, headline=Headline(columns=("Overall Score",), row={"set": "all"}),
    ),
    Benchmark(
        name="mathvista", title="MathVista, testmini", dimension="MAT", metric="MathVista", dataset="MathVista_MINI", md5="f199b98e178e5a2a20e7048f5dcb0464",
        source=f"{_URL}/VLMEval/MathVista_MINI.tsv", licence="CC BY-SA 4.0", citation="Lu et al., arXiv 2310.02255",
        judge=True, max_new_tokens=OPEN,
        columns=("image", "answer", "question_type", "answer_type", "answer_option", "choices", "task", "skills"),
        headline=Headline(columns=("acc",), row={"Task&Skill": "Overall"}),
    ),
    Benchmark(
        name="mathvision", title="MATH-Vision", dimension="MAT", metric="MathVision", dataset="MathVision", md5="93f6de14f7916e598aa1b7165589831e",
        source=f"{_URL}/VLMEval/MathVision.tsv", licence="MIT", citation="Wang et al., arXiv 2402.14804",
        judge=True, max_new_tokens=OPEN, columns=("image", "answer", "choices", "category"),
        headline=Headline(columns=("acc",), row={"Subject": "Overall"}),
    ),
    Benchmark(
        name="pope", title="POPE: is an object there?", dimension="HAL", metric="POPE", dataset="POPE", md5="c12f5acb142f2ef1f85a26ba2fbe41d5",
        source=f"{_URL}/VLMEval/POPE.tsv", licence="MIT", citation="Li et al., arXiv 2305.10355",
        columns=("image", "answer", "category"), stratum="category",
        headline=Headline(columns=("Overall",), row=_OVERALL),
        parts={name: _part(name) for name in ("acc", "precision", "recall")}, formula="f1",
    ),
    Benchmark(
        name="hallusionbench", title="HallusionBench", dimension="HAL", metric="HallusionBench",
        dataset="HallusionBench", md5="0c23ac0dc9ef46832d7a24504f2a0c7c", source=f"{_URL}/VLMEval/HallusionBench.tsv", licence="BSD-3-Clause",
        citation="Guan et al., arXiv 2310.14566", columns=("image", "answer", "l2-category"), groups="figure",
        headline=Headline(columns=("aAcc", "fAcc", "qAcc"), row=_OVERALL),
        parts={name: _part(name) for name in ("aAcc", "fAcc", "qAcc")}, formula="sets",
    ),
)  # fmt: skip
"""In the paper's order. HallusionBench is the mean of its three accuracies, as leaderboards give it."""
