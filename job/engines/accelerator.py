"""What can be told of the node's accelerator before a model is loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from job.errors import Problem, SettingsError

DRIVER: Final = Path("/proc/driver/nvidia/version")
"""There wherever the kernel drives an NVIDIA card, also where torch can't use it."""

_ARCHITECTURE: Final = re.compile(r"(?:sm|compute)_(\d+)(\d)[af]?")

_NO_MEMORY: Final = ("out of memory", "alloc_failed", "negligible gpu memory")
"""As CUDA, its driver and Triton say it; cuBLAS and its like; and Unsloth's loss."""

_HINT: Final = (
    "take a node with another card or driver, or an image built for this one (CUDA 13 needs driver "
    "580 and no longer serves cards before Turing); FORGE_ENGINE=reference with "
    "CUDA_VISIBLE_DEVICES= trains on the CPU"
)


def has_accelerator() -> bool:
    """Whether torch has a card that it can use.

    Raises `SettingsError` where there is one that it can't: going on with the CPU would take days
    to do what was asked of a GPU, on a node that is paid for its GPU.
    """
    import torch

    if torch.cuda.is_available():
        capability = torch.cuda.get_device_capability()
        name = torch.cuda.get_device_name()
        refuse_old_card(name, capability, torch.cuda.get_arch_list())
        return True
    if DRIVER.exists() and is_visible():
        raise SettingsError(
            Problem("GPU", f"there is a card, but torch can't use it: {_why()}", _HINT)
        )
    return False


@dataclass(frozen=True)
class Card:
    """The accelerator that a run would take."""

    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int
    """Of nobody: another process on the card is seen here alone."""


def card() -> Card | None:
    """The card after a first use of it; None if there is none.

    Raises `SettingsError` for one that can't be used. That torch counts it is not enough: a card
    that another process holds exclusively, or that has fallen off its bus, fails when it is used.
    """
    if not has_accelerator():
        return None
    import torch

    try:
        torch.zeros(1, device="cuda")
        free, total = torch.cuda.mem_get_info()
    except (RuntimeError, AssertionError) as error:
        found = str(error).strip().splitlines()[0]
        raise SettingsError(Problem("GPU", f"a first use of the card failed: {found}")) from error
    return Card(torch.cuda.get_device_name(), torch.cuda.get_device_capability(), total, free)


def refuse_old_card(name: str, capability: tuple[int, int], built_for: Iterable[str]) -> None:
    """Raise `SettingsError` for a card that no kernel of this torch build runs on.

    A binary for x.y runs on x.z with z ≥ y; PTX (`compute_xy`) on everything that is newer
    (CUDA C++ Programming Guide, binary and PTX compatibility).
    """
    built_for = list(built_for)
    if not any(_runs(target, capability) for target in built_for):
        found = (
            f"{name} has compute capability {capability[0]}.{capability[1]}, this torch is built "
            f"for {', '.join(built_for)}"
        )
        raise SettingsError(Problem("GPU", found, _HINT))


def _runs(target: str, capability: tuple[int, int]) -> bool:
    found = _ARCHITECTURE.fullmatch(target)
    if found is None:
        return False
    built = int(found[1]), int(found[2])
    if target.startswith("compute"):
        return built <= capability
    return built[0] == capability[0] and built[1] <= capability[1]


def device() -> str:
    """Where this process has its model: the whole of it on one card, however many can be seen."""
    import torch

    # With several ranks on a node, each has made its own card the current one.
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"


def has_bf16() -> bool:
    """Whether the card computes in bf16. torch's own answer counts cards before Ampere, which only
    emulate it, at a fraction of what they do in fp16."""
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the card has no memory left for what failed. Only torch's allocator has an error of
    its own for that: what libraries take for kernels and workspaces they take past it."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(mark in said for mark in _NO_MEMORY)


def is_visible() -> bool:
    """Not hidden on purpose, which is how people ask for the CPU."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and os.environ.get(
        "NVIDIA_VISIBLE_DEVICES"
    ) not in ("void", "none")


def _why() -> str:
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built for the CPU"
    try:
        torch.zeros(1, device="cuda")
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0]
    return "it gives no reason"
