"""kore-bench: a benchmark of knowledge injection into large multimodal models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore_bench.errors import UserError

if TYPE_CHECKING:
    from kore_bench.api import Run, load, run

__all__ = ["Run", "UserError", "__version__", "load", "run"]
__version__ = "0.1.0"

# methods/, tasks/ and reports/ are installed inside this package; in a checkout they lie beside it.
_checkout = Path(__file__).resolve().parents[1]
if (_checkout / "pyproject.toml").is_file() and (_checkout / "methods").is_dir():
    __path__.append(str(_checkout))


def __getattr__(name: str) -> Any:
    """Import the Python side when it is first asked for: `import kore_bench` stays light."""
    if name not in {"Run", "load", "run"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kore_bench import api

    return getattr(api, name)
