"""Starts the scoring process, run by its path: the interpreter that has VLMEvalKit need not have kore-bench."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def own_package() -> None:
    """Make ``kore_bench`` the package that this file is part of, whatever else the interpreter can import."""
    sys.path.pop(0)  # this folder, whose files would be taken for other packages
    spec = importlib.util.spec_from_file_location(
        PACKAGE.name, PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{PACKAGE} is no package")
    sys.modules[PACKAGE.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "__main__":
    own_package()
    from kore_bench.vlmevalkit.server import serve

    serve()
