"""How near to the ideal does `kore-bench augment` come behind a slow endpoint, and does its memory grow with the items?

A loopback endpoint in a process of its own answers each request after ``--latency`` seconds with what the template
generator writes. An item takes four requests, one after the other (questions, answers, summary, quadruplets), so that
``--in-flight`` items at once ideally take items x 4 x latency / in-flight seconds, rounded up to whole rounds. Seconds
are from the first item to the last, as the command prints them. Memory is the peak resident set of the command's
process; the items themselves, which the command holds, are measured apart by reading the same folder alone.

    python benchmarks/augment.py                                        # 1,000 items, 200 ms, 64 in flight
    python benchmarks/augment.py --items 1000,20000 --latency 0        # memory
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CALLS = 4
"""Requests about one item."""
SHARE = 0.85
"""The share of the ideal throughput that must be reached."""

_TESTS = Path(__file__).resolve().parent.parent / "tests"
_READ = "import sys; from kore_bench.formats import read_knowledge; read_knowledge(sys.argv[1])"
_IMPORT = "import kore_bench.augment.session, kore_bench.generators.openai, openai"


class Ran(NamedTuple):
    """A finished process: what it printed, its peak resident set in bytes, and the CPU seconds that it took."""

    output: str
    peak: int
    cpu: float


def ran(*command: str, cache: Path) -> Ran:
    """Run a Python process to its end; raises RuntimeError where it fails."""
    environment = {**os.environ, "KORE_BENCH_CACHE": str(cache)}
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {output}")
    return Ran(output, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024), used.ru_utime + used.ru_stime)


def measure(root: Path, items: int, latency: float, in_flight: int) -> str:
    """Augment ``items`` items, and return a line of the table."""
    folder = importlib.import_module("augment_folder").knowledge_folder(root / "data", items)
    cache = root / "cache"
    server = subprocess.Popen(
        [sys.executable, str(_TESTS / "llm_server.py"), "--items", str(folder), "--latency", str(latency)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        made = ran(
            "-m", "kore_bench", "augment", str(folder), "--out", str(root / "out"), "--generator", "openai",
            "--llm", "scripted", "--base-url", url, "--in-flight", str(in_flight), cache=cache,
        )  # fmt: skip
    finally:
        server.terminate()
        server.wait()
    bare, read = ran("-c", _IMPORT, cache=cache), ran("-c", _READ, str(folder), cache=cache)
    found = re.search(r"in ([\d.]+) s", made.output)
    assert found, made.output
    seconds, ideal = float(found[1]), math.ceil(items / in_flight) * CALLS * latency
    share = f"{ideal / seconds:.0%}" if ideal else "-"
    return (
        f"| {items:,} | {latency * 1000:g} | {in_flight} | {ideal:.1f} | {seconds:.1f} | {share} | {made.cpu:.1f} "
        f"| {made.peak / 2**20:.0f} | {bare.peak / 2**20:.0f} | {read.peak / 2**20:.0f} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table with a row for each number of items."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="1000", help="numbers of items, with commas")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds to an answer")
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(_TESTS))
    print(
        f"at least {SHARE:.0%} of the ideal throughput must be reached\n\n"
        "| items | latency, ms | in flight | ideal, s | took, s | of the ideal | CPU, s | peak, MiB | imports alone, MiB "
        "| reading alone, MiB |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for items in map(int, options.items.split(",")):
        with tempfile.TemporaryDirectory() as root:
            print(measure(Path(root), items, options.latency, options.in_flight), flush=True)


if __name__ == "__main__":
    main()
