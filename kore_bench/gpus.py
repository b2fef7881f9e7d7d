"""What the GPUs can do that an estimate can be made for: the makers' figures for dense products, not measured here."""

from __future__ import annotations

from dataclasses import dataclass

from kore_bench.errors import UserError, nearest


@dataclass(frozen=True)
class Gpu:
    """One GPU: memory in GiB, dense bfloat16 and float64 products in TFLOP/s, memory bandwidth in TB/s."""

    name: str
    memory: float
    bfloat16: float
    float64: float
    bandwidth: float


GPUS = (
    Gpu("rtx-4090-24gb", 24, 165, 1.3, 1.01),
    Gpu("a100-40gb", 40, 312, 19.5, 1.56),
    Gpu("l40s-48gb", 48, 362, 1.4, 0.86),
    Gpu("a100-80gb", 80, 312, 19.5, 2.04),
    Gpu("h100-80gb", 80, 989, 67, 3.35),
    Gpu("h200-141gb", 141, 989, 67, 4.8),
)
"""In ascending order of memory. Sources: NVIDIA's data sheets (dense figures, SXM where there are several forms)."""


def find_gpu(name: str) -> Gpu:
    """Return the GPU called ``name``; raises UserError with the nearest name where there is none."""
    known = {gpu.name: gpu for gpu in GPUS}
    if name not in known:
        raise UserError(f"--gpu {name} is unknown: {nearest(name, known)}")
    return known[name]
