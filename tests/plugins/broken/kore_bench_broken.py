"""A module that cannot be imported: what it needs is not there."""

from __future__ import annotations

import nowhere_to_be_found  # type: ignore[import-not-found]

METHOD = nowhere_to_be_found.method("ghost")
