"""VLMEvalKit in a process of its own: its import takes seconds, turns HTTPS checks off, and forks; we get plain values."""

from __future__ import annotations

from .client import (
    Install,
    Toolkit,
    ToolkitError,
    check_columns,
    content,
    data_root,
    file_of,
    find,
    locate,
    size_of,
    toolkit,
)
from .questions import Asked, Questions, read_questions, samples

__all__ = [
    "Asked", "Install", "Questions", "Toolkit", "ToolkitError", "check_columns", "content", "data_root", "file_of", "find",
    "locate", "read_questions", "samples", "size_of", "toolkit",
]  # fmt: skip
