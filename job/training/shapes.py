"""Are a checkpoint's LoRA weights those of this model? Asked before the loop takes them up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open

from job.errors import FingerprintMismatch, Problem

_HINT = "give the FORGE_MODEL of the attempts before, or another FORGE_RUN_ID for a new run"


def refuse_other_shapes(model: Any, folder: Path) -> None:
    """Raise `FingerprintMismatch` unless the checkpoint has exactly the trained weights of `model`.

    Another base model can be accepted by name, since the same one may lie in another place; only
    the loaded model says whether it was the same. Trying it again would help nobody.
    """
    ours, theirs = _of_model(model), _of_checkpoint(folder / SAFETENSORS_WEIGHTS_NAME)
    others = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    if others:
        first = others[0]
        found = (
            f"{len(others)} of the checkpoint's {len(theirs)} matrices aren't this model's: "
            f"{first} is {_dimensions(theirs.get(first))} there and "
            f"{_dimensions(ours.get(first))} here"
        )
        raise FingerprintMismatch(Problem("LoRA weights", found, _HINT))


def _of_model(model: Any) -> dict[str, tuple[int, ...]]:
    """As PEFT names them in its files: without the adapter's own name."""
    mark = f".{model.active_adapter}."
    return {
        name.replace(mark, "."): tuple(weights.shape)
        for name, weights in model.named_parameters()
        if weights.requires_grad
    }


def _of_checkpoint(path: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(str(path), framework="pt") as file:
        names = file.keys()
        return {name: tuple(file.get_slice(name).get_shape()) for name in names}


def _dimensions(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " × ".join(map(str, shape))
