"""Everything random that a step draws from, as one value to keep and to put back."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from job.ranks import Ranks


def random_state() -> dict[str, Any]:
    """Of Python, NumPy, torch, and torch on the GPU."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.random.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` gave."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.random.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.random.set_rng_state(state["cuda"])


def keep_random_states(folder: Path, ranks: Ranks) -> None:
    """Bring every rank's file, which the Trainer has written on its own node, into rank 0's
    checkpoint `folder`; the others' folders go. Collective."""
    if ranks.size == 1:
        return
    name = "rng_state_{}.pth"
    states = ranks.gather((folder / name.format(ranks.rank)).read_bytes())
    if ranks.rank:
        shutil.rmtree(folder, ignore_errors=True)
    for rank, state in enumerate(states):
        (folder / name.format(rank)).write_bytes(state)
