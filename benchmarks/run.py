"""The main job: wall time, where it goes, and peak memory of `kore-bench run` on the mini model."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from kore_bench.results import RunFolder


def resident(process: int) -> int:
    """Return the resident memory of a process and its children in bytes (Linux)."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return pages * 4096 + sum(resident(int(child)) for child in children)


def main() -> None:
    """Run it in a fresh folder and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "kore_bench", "run", "--seeds", str(arguments.seeds), "--runs", folder]
        job = subprocess.Popen(command)
        peak = 0

        def watch() -> None:
            nonlocal peak
            while job.poll() is None:
                peak = max(peak, resident(job.pid))
                time.sleep(0.5)

        watcher = threading.Thread(target=watch)
        watcher.start()
        job.wait()
        watcher.join()
        wall = time.perf_counter() - begin
        phases: Counter[str] = Counter()
        for record in RunFolder(Path(folder) / "mini-llava").records():
            phases.update(record.cost.seconds)
        print(f"wall {wall:.0f} s, peak resident memory of all processes {peak / 2**30:.2f} GiB")
        for name, seconds in phases.most_common():
            print(f"  {name:9} {seconds:7.1f} s over all cells")


if __name__ == "__main__":
    main()
