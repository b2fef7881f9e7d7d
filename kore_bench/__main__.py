"""``python -m kore_bench`` is ``kore-bench``."""

from kore_bench.cli import main

main()
