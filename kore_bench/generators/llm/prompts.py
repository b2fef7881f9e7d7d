"""The prompts in kore_bench/generators/prompts/: their texts, versions and temperatures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

import yaml

FOLDER = Path(__file__).parent.parent / "prompts"
Message = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a language model is told (``system``) and given (``user``), with ``$name`` where something is filled in.

    ``version`` changes whenever anything of the prompt does: it stands in the provenance of every sample.
    """

    name: str
    version: str
    temperature: float
    system: str
    user: str

    def messages(self, **filled: str | int) -> list[Message]:
        """Return the messages of a request; raises KeyError where something that they name is not given."""
        texts = {"system": self.system, "user": self.user}
        return [{"role": role, "content": Template(text).substitute(filled).strip()} for role, text in texts.items()]


@cache
def prompt(name: str) -> Prompt:
    """Return the prompt called ``name``."""
    fields = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return Prompt(name=name, **fields)
