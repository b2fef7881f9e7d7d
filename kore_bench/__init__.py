"""kore-bench: a benchmark of knowledge injection into large multimodal models."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

# methods/, tasks/ and reports/ are installed inside this package; in a checkout they lie beside it.
_checkout = Path(__file__).resolve().parents[1]
if (_checkout / "pyproject.toml").is_file() and (_checkout / "methods").is_dir():
    __path__.append(str(_checkout))
