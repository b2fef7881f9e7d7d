"""Spectra of the base model's inputs, block by block: each block is a file of its own in the cache.

A pass that was stopped goes on at the next block. Hidden states are not kept: they take as much room a block as the
samples do, and a forward pass through the finished blocks costs little beside a covariance and its eigenvectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from kore_bench.cache import cached_tensors, digest, file_digest
from kore_bench.distributed import rank, wait_for_all, world
from kore_bench.examples import Example
from kore_bench.grid import card_key, versions
from kore_bench.lmm import LMM
from kore_bench.registry import digest_files
from kore_bench.spectrum import Spectrum, pack, spectrum, unpack
from kore_bench.statistics import Counting, Inputs, Walk

KEPT_EIGENVECTORS = 512
"""Bottom eigenvectors kept of every covariance, so that a smaller rank needs no new pass."""

Cache = Callable[[Mapping[str, Any], Callable[[], dict[str, Tensor]]], dict[str, Tensor]]
"""Returns what stands under a key, computing it where nothing does; `kore_bench.cache.cached_tensors` is one."""
Progress = Callable[[int, int], None]
"""Called with the blocks that are done and their number."""

_SOURCES = ("anatomy.py", "chat.py", "lmm.py", "source.py", "spectra.py", "spectrum.py", "statistics.py")


def spectra(
    model: LMM, samples: Sequence[Example], counting: Counting, largest_rank: int = 0, progress: Progress | None = None
) -> dict[str, Spectrum]:
    """Return linear layer -> spectrum of its inputs on ``samples``, with bottom eigenvectors for any smaller rank.

    What was found before under the same base model, samples (by their content), counting and code is read from the
    cache, whatever the method, data, seed or rank that asked for it. The processes of a cell share the blocks.
    """
    keep = max(KEPT_EIGENVECTORS, largest_rank)
    key = {
        "statistic": "spectrum",
        "model": card_key(model.card),
        "max length": model.chat.max_length,
        "samples": samples_digest(samples),
        "counting": asdict(counting),
        "kept": keep,
        "source": digest_files([Path(__file__).with_name(name) for name in _SOURCES]),
        "versions": {name: version for name, version in versions().items() if name in ("torch", "transformers")},
    }

    def reduce(inputs: Inputs) -> dict[str, Tensor]:
        return pack({inputs.names[0]: spectrum(inputs, keep)})

    found = unpack(by_block(model, samples, reduce, counting, key, cached_tensors, progress))
    return {layer: found[layer] for layer in model.linears()}


def by_block(
    model: LMM,
    samples: Sequence[Example],
    reduce: Callable[[Inputs], dict[str, Tensor]],
    counting: Counting,
    key: Mapping[str, Any] | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Return the tensors that ``reduce`` makes of every distinct input, each block's under a key of its own.

    Tensors' names must differ between inputs. The processes of a cell share the blocks by way of the cache; without
    ``cache`` nothing is kept, and every process measures every block.
    """
    blocks = len(model.blocks())
    walk = Walk(model.model, model.blocks(), model.linears(), without_labels(model, samples), counting=counting)

    def measured(index: int) -> dict[str, Tensor]:
        return {name: value for found in walk.read(index, reduce).values() for name, value in found.items()}

    def block(index: int) -> dict[str, Tensor]:
        return cache({**(key or {}), "block": index}, lambda: measured(index)) if cache else measured(index)

    found: dict[int, dict[str, Tensor]] = {}
    for index in range(rank(), blocks, world()) if cache else range(blocks):
        found[index] = block(index)
        if progress:
            progress(index + 1, blocks)
    wait_for_all()
    return {name: value for index in range(blocks) for name, value in (found.get(index) or block(index)).items()}


def samples_digest(samples: Sequence[Example]) -> str:
    """Return the SHA-256 over samples in their order: ids, texts, and the bytes of their pictures."""
    return digest(
        [
            [
                sample.id,
                [[turn.question, turn.answer] for turn in sample.turns],
                [_content(path) for path in sample.images],
            ]
            for sample in samples
        ]
    )


def without_labels(model: LMM, samples: Sequence[Example]) -> Iterator[dict[str, Tensor]]:
    """Yield the model's inputs for ``samples``, batch by batch."""
    for batch in model.batches(samples):
        batch.pop("labels")
        yield batch


def _content(picture: Path) -> str:
    return file_digest(picture)
