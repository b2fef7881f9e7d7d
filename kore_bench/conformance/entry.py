"""Gives pytest the options of the conformance tests where those are asked for; in any other session it does nothing."""

from __future__ import annotations

import pytest


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Load the options before the command line is parsed, if it names the conformance tests."""
    if any(argument.startswith("kore_bench.conformance") for argument in args):
        early_config.pluginmanager.import_plugin("kore_bench.conformance.options")
