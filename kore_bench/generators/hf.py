"""A generator that writes with a text model on this machine, through transformers."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cache
from pathlib import Path

from kore_bench.errors import UserError
from kore_bench.generators import GeneratorSettings

from .llm.asking import Completion, Request
from .llm.writer import LanguageModelGenerator


class HFGenerator(LanguageModelGenerator):
    """Writes with a local transformers text model, ``--llm`` a folder or hub id.

    The model needs a chat template and safetensors; code that comes with it is never run. It answers one request at a
    time.
    """

    name = "hf"

    def __init__(self, settings: GeneratorSettings | None = None) -> None:
        super().__init__(replace(settings or GeneratorSettings(), in_flight=1))
        self._one = threading.Lock()

    def check_settings(self) -> None:
        """Refuse an endpoint, and a folder without a model."""
        from .llm.local import check_folder

        if self.settings.base_url:
            raise UserError("--base-url is for the openai generator: hf reads the model of --llm itself")
        check_folder(self.model)

    def identity(self) -> str:
        """Return the model's name with what identifies its weights, so that other ones do not pass for it."""
        return _identity(self.model)

    def preflight(self) -> None:
        """Raise UserError where its tokenizer cannot be read or has no chat template."""
        from .llm.local import tokenizer_of

        tokenizer_of(self.model)

    def complete(self, request: Request) -> Completion:
        """Return what the model writes."""
        from .llm.local import load

        with self._one:
            return load(self.model).complete(request)


@cache
def _identity(name: str) -> str:
    """Return a folder's name and fingerprint, or a hub id and its commit."""
    from kore_bench.cache import fingerprint

    from .llm.local import commit

    folder = Path(name)
    return f"{folder.name} {fingerprint(folder)}" if folder.is_dir() else f"{name} {commit(name)}"


GENERATOR = HFGenerator()
