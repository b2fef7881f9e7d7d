"""The one exception that means "the user can mend this"; it imports nothing heavy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class UserError(Exception):
    """A mistake in what the user asked for or supplied.

    The message is one sentence that names the place (option, file and line) and, where there is one, the nearest
    valid choice. The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code: ClassVar[int] = 2


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return a hint such as ``did you mean 'lora'? (available: ewc, lora)`` for an unknown ``name``."""
    known = sorted(choices)
    spelled = {choice.lower(): choice for choice in known}
    close = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.5)
    available = f"available: {', '.join(known)}" if known else "none are available"
    return f"did you mean {spelled[close[0]]!r}? ({available})" if close else available
