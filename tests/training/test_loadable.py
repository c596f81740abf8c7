"""A checkpoint that arrives as it was sent and still can't be loaded."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from job.checkpoint import Rejected
from job.training import check_loadable

PARTS = [
    "adapter_model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"lora_A": torch.ones(4)}, tmp_path / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"state": torch.ones(100)}, tmp_path / name)
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 5}))
    return tmp_path


class Code:
    """A pickle that would run something."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._path,)


def test_a_sound_one(folder: Path) -> None:
    check_loadable(folder)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_every_part_is_looked_at(folder: Path, name: str, how: str) -> None:
    path = folder / name
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:10])
    else:
        path.write_bytes(b"\x80garbage" * 100)
    with pytest.raises(Rejected, match=f"{name} can't be loaded"):
        check_loadable(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite_are_of_no_use(
    folder: Path, value: float, dtype: torch.dtype
) -> None:
    weights = {"lora_A": torch.ones(4, dtype=dtype), "lora_B": torch.ones(4, dtype=dtype)}
    weights["lora_B"][2] = value
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(Rejected, match=r"adapter_model\.safetensors: lora_B is not finite"):
        check_loadable(folder)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_nothing_in_it_is_run(folder: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "was-run"
    torch.save({"state": Code(mark)}, folder / name, pickle_module=pickle)
    with pytest.raises(Rejected, match=name):
        check_loadable(folder)
    assert not mark.exists()
