"""Can a checkpoint be loaded? Asked before the model is, while an older one can still be taken."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers.trainer_callback import TrainerState
from transformers.trainer_pt_utils import safe_globals

from job.checkpoint import Rejected

_BROKEN = (OSError, ValueError, RuntimeError, KeyError, TypeError, EOFError)


def check_loadable(folder: Path) -> None:
    """Raises `Rejected` unless all that a resume reads is there and loads, without running code
    (with safetensors, or as torch's `weights_only`), and the weights are finite."""
    parts = _PARTS | dict.fromkeys(_random_states(folder), _random_state)
    for name, load in parts.items():
        try:
            load(folder / name)
        except (*_BROKEN, SafetensorError, pickle.UnpicklingError) as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise Rejected(f"{name} can't be loaded: {first}") from error


def _random_states(folder: Path) -> list[str]:
    """One for each rank; a lone process writes one without a number."""
    return sorted(path.name for path in folder.glob("rng_state_*.pth")) or ["rng_state.pth"]


def _weights(path: Path) -> None:
    with safe_open(str(path), framework="pt") as file:
        names = file.keys()
        if not names:
            raise ValueError("it holds no weights")
        for name in names:
            if not torch.isfinite(file.get_tensor(name)).all():
                raise Rejected(f"{path.name}: {name} is not finite")


def _state(path: Path) -> None:
    # Mapped: what it points to is read when it is used.
    torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _random_state(path: Path) -> None:
    with safe_globals():
        torch.load(path, weights_only=True)


def _trainer_state(path: Path) -> None:
    TrainerState.load_from_json(str(path))


_PARTS: dict[str, Callable[[Path], None]] = {
    "adapter_model.safetensors": _weights,
    "optimizer.pt": _state,
    "scheduler.pt": _state,
    "trainer_state.json": _trainer_state,
}
