"""Tests that every plug-in must pass, for their authors: ``pytest --pyargs kore_bench.conformance --method NAME``."""

from __future__ import annotations

from kore_bench.errors import UserError

try:
    import pytest
except ModuleNotFoundError:
    raise UserError("the conformance tests need pytest: pip install pytest") from None

pytest.register_assert_rewrite(
    *(f"{__name__}.test_{kind}" for kind in ("generators", "methods", "reports", "tasks")), f"{__name__}.prepared"
)
