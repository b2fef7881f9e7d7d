"""What self-contained pages are made of: data that no markup can leave, and what a content-security policy calls a part."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html import escape
from typing import Any

_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def in_script(value: Any) -> str:
    """Return JSON that can stand in a ``<script>`` element: no ``<`` is left to end it or to begin a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def packed(value: Any) -> str:
    """Return JSON as base64 of gzip, without a time: equal values give equal texts."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def policy_hash(text: str) -> str:
    """Return what a content-security policy calls this inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def as_text(text: str) -> str:
    """Return text for markup: escaped, and marks that turn the direction of text shown."""
    return _BIDI.sub(lambda mark: f"[U+{ord(mark[0]):04X}]", escape(text))
