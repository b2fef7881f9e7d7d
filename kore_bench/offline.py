"""Keeps this process, and those that it starts, from downloading anything (``--offline``)."""

from __future__ import annotations

import os
import sys

VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def go_offline() -> None:
    """Forbid Hugging Face's libraries to download, from now to the end of the process; what is in caches stays usable."""
    os.environ |= dict.fromkeys(VARIABLES, "1")
    for module in ("huggingface_hub.constants", "datasets.config"):
        if module in sys.modules:  # it has read the variables already
            vars(sys.modules[module])["HF_HUB_OFFLINE"] = True
