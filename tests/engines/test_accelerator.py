"""Cards that a torch build can and can't use, and a node whose card torch doesn't see."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from job.config import Settings
from job.engines import Engine, ReferenceEngine, UnslothEngine, accelerator, choose_engine
from job.engines.loading import refusing
from job.errors import CardLost, OutOfGpuMemory, SettingsError
from job.ledger import Ledger, read_record
from job.run import run_job
from job.storage import open_storage
from tests.tiny import write_rows

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


@pytest.fixture
def _broken_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel drives a card that torch can't use."""
    if torch.cuda.is_available():
        pytest.skip("a GPU that works is here")
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.0")
    monkeypatch.setattr(accelerator, "DRIVER", driver)


@pytest.mark.usefixtures("_broken_card")
@pytest.mark.parametrize("engine", ["auto", "unsloth", "reference"])
def test_a_card_that_torch_does_not_see_is_no_reason_to_train_on_the_cpu(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="there is a card, but torch can't use it: torch"):
        choose_engine(engine)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    if engine != "unsloth":
        assert choose_engine(engine).name == "reference"


@pytest.mark.usefixtures("_broken_card")
@pytest.mark.parametrize("engine", ["auto", "unsloth", "reference"])
def test_one_that_served_before_is_the_nodes_fault(engine: str) -> None:
    """Nothing of the run's has to be mended: its next pod may get a node whose card is sound."""
    with pytest.raises(CardLost, match="another node") as lost:
        choose_engine(engine, had_card=True)
    assert lost.value.exit_code == 70
    assert "torch can't use it" in str(lost.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU that works is here")
def test_a_node_without_its_driver_is_no_other_mathematics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The CPU's engine would be refused by the fingerprint, for good."""
    monkeypatch.setattr(accelerator, "DRIVER", Path("/nowhere"))
    for engine in ("auto", "unsloth"):
        with pytest.raises(CardLost, match="torch sees none"):
            choose_engine(engine, had_card=True)
    assert choose_engine("auto").name == "reference"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_engine("auto", had_card=True).name == "reference", "asked for"


@pytest.mark.usefixtures("_broken_card")
@pytest.mark.parametrize(("device", "code"), [(None, 78), ("cpu", 78), ("NVIDIA L4", 70)])
def test_a_run_that_trained_on_a_card_is_not_ended_by_a_node_that_lost_its_own(
    device: str | None, code: int, tmp_path: Path, tiny_model: Path
) -> None:
    settings = Settings(
        run_id="run",
        dataset_uri=str(write_rows(tmp_path / "rows.jsonl", 12)),
        output_uri=str(tmp_path / "out"),
        model=str(tiny_model),
        model_family="smollm2",
        work_dir=tmp_path / "work",
        metrics_port=0,
        metrics_linger_seconds=0,
    )
    storage = open_storage(settings.run_uri)
    if device:
        earlier = Ledger.claim(storage, "run", version="1", conditional_writes=True)
        earlier.set_fields(model={"device": device})
    with pytest.raises((CardLost, SettingsError), match="torch can't use it") as ended:
        run_job(settings)
    assert ended.value.exit_code == code
    found = read_record(storage)
    assert found is not None
    assert found[0].attempts[-1].exit_code == code


@pytest.mark.parametrize("engine", [ReferenceEngine(), UnslothEngine()], ids=lambda e: e.name)
@pytest.mark.parametrize(("major", "precision"), [(7, "fp16"), (8, "bf16")])
def test_a_card_that_only_emulates_bf16_computes_in_fp16(
    engine: Engine, major: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A T4 and a V100 hold tensors of bf16, for which torch counts them as cards that have it."""
    properties = SimpleNamespace(major=major)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _device: True)
    assert torch.cuda.is_bf16_supported()
    given = engine.training_arguments()
    assert [name for name in ("bf16", "fp16") if given[name]] == [precision]


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("Unsloth: No or negligible GPU memory available for fused cross entropy."),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_a_model_that_does_not_fit_is_no_bad_setting(error: RuntimeError, tmp_path: Path) -> None:
    with pytest.raises(OutOfGpuMemory, match="GPU: the model does not fit: "), refusing(tmp_path):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("Triton Error [CUDA]: device kernel image is invalid"),
        OSError("out of memory"),
    ],
    ids=str,
)
def test_other_failures_are_none_of_memory(error: Exception) -> None:
    assert not accelerator.is_out_of_memory(error)
