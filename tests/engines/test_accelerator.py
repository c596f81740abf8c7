"""Cards that a torch build can and can't use, and a node whose card torch doesn't see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from job.engines import accelerator, choose_engine
from job.errors import SettingsError

CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
CUDA_12 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "compute_90"]


@pytest.mark.parametrize(
    ("name", "capability", "built_for"),
    [
        ("Tesla T4", (7, 5), CUDA_13),
        ("L4", (8, 9), CUDA_13),
        ("A10G", (8, 6), CUDA_13),
        ("A100", (8, 0), CUDA_13),
        ("H100", (9, 0), CUDA_13),
        ("V100", (7, 0), CUDA_12),
        ("newer than the build, by its PTX", (10, 3), CUDA_12),
        ("a variant", (9, 0), ["sm_90a"]),
    ],
)
def test_cards_that_are_served(
    name: str, capability: tuple[int, int], built_for: list[str]
) -> None:
    accelerator.refuse_old_card(name, capability, built_for)


@pytest.mark.parametrize(
    ("name", "capability", "built_for"),
    [
        ("V100", (7, 0), CUDA_13),
        ("P100", (6, 0), CUDA_13),
        ("newer than the build, which has no PTX", (11, 0), CUDA_13),
        ("an older minor version", (8, 0), ["sm_86"]),
        ("a build for no card", (8, 0), []),
    ],
)
def test_cards_that_are_not(name: str, capability: tuple[int, int], built_for: list[str]) -> None:
    with pytest.raises(SettingsError, match=f"GPU: {name} has compute capability") as refused:
        accelerator.refuse_old_card(name, capability, built_for)
    assert refused.value.exit_code == 78


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU that works is here")
@pytest.mark.parametrize("engine", ["auto", "unsloth", "reference"])
def test_a_card_that_torch_does_not_see_is_no_reason_to_train_on_the_cpu(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.0")
    monkeypatch.setattr(accelerator, "DRIVER", driver)
    with pytest.raises(SettingsError, match="there is a card, but torch can't use it: torch"):
        choose_engine(engine)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    if engine != "unsloth":
        assert choose_engine(engine).name == "reference"
