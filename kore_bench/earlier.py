"""An adapter of an earlier stage: the factors in a folder that PEFT wrote, by the name of the layer that they change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kore_bench.component import Layers
from kore_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHTS = "adapter_model.safetensors"
_WRAPPED = "base_model.model."


def adapter_file(option: str, folder: str) -> Path:
    """Return the file of a PEFT adapter's factors; raises UserError naming ``option`` where it is not there."""
    file = Path(folder) / _WEIGHTS
    if not file.is_file():
        raise UserError(
            f"--set {option}={folder}: there is no {_WEIGHTS}: name a folder that `kore-bench export` or PEFT wrote"
        )
    return file


def check_adapter(option: str, folder: str, layers: Layers) -> None:
    """Read the shapes in the file, and raise UserError where a layer has no factors there, or others' shapes."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter_file(option, folder), framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"--set {option}={folder}: {_WEIGHTS} cannot be read: {error}") from None
    for layer, (out, width) in layers.items():
        a, b = (shapes.get(_key(layer, factor)) for factor in "AB")
        if a is None or b is None:
            there = {name.removeprefix(_WRAPPED).partition(".lora_")[0] for name in shapes}
            raise UserError(f"--set {option}={folder}: it has no factors of {layer}: {nearest(layer, there)}")
        if (b[0], a[1]) != (out, width):
            raise UserError(
                f"--set {option}={folder}: {layer} is {out} x {width} here, and {b[0]} x {a[1]} there: it is of "
                "another model"
            )


def read_factors(folder: str, layers: Layers) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A ``[r, in]`` and B ``[out, r]`` of ``layers``, in float32 on the CPU, from a folder that was checked."""
    from safetensors.torch import load_file

    tensors = load_file(Path(folder) / _WEIGHTS)
    return {layer: (tensors[_key(layer, "A")].float(), tensors[_key(layer, "B")].float()) for layer in layers}


def _key(layer: str, factor: str) -> str:
    return f"{_WRAPPED}{layer}.lora_{factor}.weight"
