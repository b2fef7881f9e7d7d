"""How long `kore-bench --help` takes, beside a bare import of what draws it: ``python benchmarks/cli_help.py``.

Both are fresh processes, run in turns, so that what else the machine does falls on both; the medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import typer, rich": ["-c", "import typer, rich"],
    "kore-bench --help": ["-m", "kore_bench", "--help"],
    "kore-bench run --help": ["-m", "kore_bench", "run", "--help"],
}


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the wall seconds of every command in each of ``rounds``, after one round that warms the file cache."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if number:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def main() -> None:
    """Measure and print medians, and their ratio to the bare import."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    medians = {name: statistics.median(values) for name, values in measure(parser.parse_args().rounds).items()}
    bare = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{name:24} {1000 * median:6.0f} ms  {median / bare:.2f}x")


if __name__ == "__main__":
    main()
