"""A generator that asks an OpenAI-compatible endpoint: OpenAI's own, or a vLLM, Ollama or llama.cpp server."""

from __future__ import annotations

from kore_bench.errors import UserError
from kore_bench.generators import GeneratorSettings

from .llm.asking import Completion, Request
from .llm.client import Client
from .llm.writer import LanguageModelGenerator


class OpenAIGenerator(LanguageModelGenerator):
    """Asks the language model ``--llm NAME`` behind an OpenAI-compatible endpoint (``--base-url URL``).

    The key is read from OPENAI_API_KEY; an endpoint of one's own may need none. Without ``--base-url`` it is OpenAI's.
    """

    name = "openai"

    def __init__(self, settings: GeneratorSettings | None = None) -> None:
        super().__init__(settings)
        self.client = Client(self.settings, lambda: self.account.count("retries"))

    def check_settings(self) -> None:
        """Refuse an address that is none, a missing key or package, and an endpoint elsewhere under ``--offline``."""
        endpoint = self.client.endpoint
        endpoint.check(f"--llm {self.model}", "augment")
        if self.settings.offline and not endpoint.local:
            raise UserError(
                f"--offline forbids the language model at {endpoint.base}: only one on this machine can write"
            )

    def preflight(self) -> None:
        """Raise UserError where the endpoint is down or none, refuses the key, or does not know the model."""
        self.client.preflight()

    def complete(self, request: Request) -> Completion:
        """Return what the endpoint's model writes."""
        return self.client.complete(request)


GENERATOR = OpenAIGenerator()
