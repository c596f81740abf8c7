"""Folders, disk, memory and grace period, against what a run needs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.shapes import LLAMA_8B, QWEN_14B
from job.cgroups import Cgroups
from job.config import Settings, load_settings
from job.errors import SettingsError
from job.families import FAMILIES
from job.memory import Shape
from job.preflight.checks import Finding
from job.preflight.doctor import limits, needs, volumes
from job.preflight.doctor.needs import Needs
from job.preflight.doctor.wanted import Wanted
from job.stages.workdir import run_folder
from job.storage import open_storage
from tests import cgroups

SMOLLM2_135M = {
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
"""As its config.json says."""


def settings(**given: Any) -> Settings:
    required = {"run_id": "r", "dataset_uri": "s3://b/d/", "output_uri": "s3://b/out"}
    return load_settings(**(required | given))


def words(found: str | Finding) -> str:
    return f"{found.result}: {found.detail}" if isinstance(found, Finding) else f"ok: {found}"


# -- folders --------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that a run writes into lies here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("HF_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("UNSLOTH_COMPILE_LOCATION", raising=False)
    return tmp_path


def test_folders_that_can_be_written(home: Path) -> None:
    said = words(volumes.folders(Wanted(settings(work_dir=str(home / "work")))))
    assert said.startswith(f"ok: {run_folder(home / 'work', settings())} takes files")
    for name in ("TMPDIR", "HOME", "HF_HOME", "TRITON_CACHE_DIR", "UNSLOTH_COMPILE_LOCATION"):
        assert name in said
    assert list(home.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize("variable", ["TRITON_CACHE_DIR", "TMPDIR", "HF_HOME"])
@pytest.mark.parametrize("kind", ["below a file", "in /proc"])
def test_a_folder_that_can_not(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, kind: str
) -> None:
    (home / "file").touch()
    folder = home / "file" / "below" if kind == "below a file" else Path("/proc/forge")
    monkeypatch.setenv(variable, str(folder))
    with pytest.raises(SettingsError, match=f"^{variable}: {folder} can't be written") as refused:
        volumes.folders(Wanted(settings(work_dir=str(home / "work"))))
    assert len(refused.value.problems) == 1


def test_a_work_folder_that_can_not_takes_the_compile_folders_with_it(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(SettingsError) as refused:
        volumes.folders(Wanted(settings(work_dir=str(home / "file"))))
    where = {problem.where for problem in refused.value.problems}
    assert {"FORGE_WORK_DIR", "TRITON_CACHE_DIR", "UNSLOTH_COMPILE_LOCATION"} <= where
    assert "TMPDIR" not in where


def test_folders_that_only_some_runs_want(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/home")
    monkeypatch.setenv("HF_HOME", "/proc/hf")
    work = str(home / "work")
    with pytest.raises(SettingsError, match=r"^HF_HOME"):
        volumes.folders(Wanted(settings(work_dir=work)))
    said = words(volumes.folders(Wanted(settings(work_dir=work, model=str(home)))))
    assert said.startswith("warning: HOME: /proc/home can't be written")
    assert "HF_HOME: /proc/hf" in said


# -- what a run needs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "config", "bits"),
    [
        ("qwen-2.5", QWEN_14B, 4.127),
        ("deepseek-r1", LLAMA_8B, 4.127),
        ("llama-3", LLAMA_8B, 4.127),
        ("smollm2", SMOLLM2_135M, 16),
    ],
)
def test_what_is_known_of_the_default_models_follows_from_their_shapes(
    family: str, config: dict[str, Any], bits: float
) -> None:
    shape = Shape.of(config)
    assert shape is not None
    weights, a_rank = needs._KNOWN[FAMILIES[family].base_model]
    assert a_rank == shape.lora_parameters(1)
    linear = shape.layers * sum(ins * outs for ins, outs in shape.matrices)
    embeddings = 2 * shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    assert weights == pytest.approx(linear * bits / 8 + embeddings, rel=0.02)


def test_every_family_is_known() -> None:
    assert {family.base_model for family in FAMILIES.values()} == set(needs._KNOWN)


def test_needs_of_the_default_model() -> None:
    small, large = Needs.of(settings()), Needs.of(settings(profile="max_quality"))
    assert small.checkpoint == pytest.approx(275e6 + 140e6, rel=0.02)  # as it was measured
    assert large.checkpoint == pytest.approx(2200e6 + 1120e6, rel=0.02)
    assert large.disk > small.disk > 9.9e9
    assert small.memory(gpu=True) > small.memory(gpu=False) > (small.checkpoint or 0)
    pinned = settings(model="unsloth/Qwen2.5-14B-Instruct-bnb-4bit@main")
    assert Needs.of(pinned) == small


def model_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    (folder / "model.safetensors").write_bytes(b"\0" * 1000)
    (folder / "README.md").write_bytes(b"\0" * 77)
    return folder


def test_needs_of_a_folder_a_mirror_and_something_else(tmp_path: Path, bucket: str) -> None:
    folder = model_folder(tmp_path / "model")
    default = Needs.of(settings(model_family="llama-3"))
    mounted = Needs.of(settings(model=str(folder)))
    assert (mounted.download, mounted.weights) == (0, 1000)
    assert mounted.checkpoint == default.checkpoint
    for path in folder.iterdir():
        open_storage(bucket).upload(f"mirror/{path.name}", path)
    mirrored = Needs.of(settings(model=f"{bucket}/mirror"))
    assert (mirrored.download, mirrored.weights) == (1000, 1000)
    assert mirrored.checkpoint == default.checkpoint
    open_storage(bucket).write("mirror/config.json", b"[]")
    assert Needs.of(settings(model=f"{bucket}/mirror")) == Needs(1000, 1000)
    for unknown in ("owner/name", f"{bucket}/nothing", "s3://no-such-bucket-here/x"):
        assert Needs.of(settings(model=unknown)) == Needs()


# -- disk -----------------------------------------------------------------------------------------


def test_disk(tmp_path: Path) -> None:
    wanted = Wanted(settings(work_dir=str(tmp_path / "work")))
    free = shutil.disk_usage(tmp_path).free

    def look(download: float | None) -> str:
        return words(volumes.disk(wanted, Needs(download, None, 0.0, 0.0)))

    assert look(0).startswith("ok: ")
    assert "about 2.0 GB are needed" in look(0)
    assert look(0.9 * free - 2e9).startswith("warning: ")
    with pytest.raises(
        SettingsError, match=r"GB are free for .*, about \d+\.\d GB are needed"
    ) as e:
        look(1.5 * free)
    assert e.value.exit_code == 78
    assert look(None).startswith("not checked: ")
    assert words(volumes.disk(wanted, None)).startswith("not checked: ")
    with pytest.raises(SettingsError):
        volumes.disk(wanted, Needs(None, None, 1.5 * free, 0.0))


def test_what_an_earlier_attempt_has_fetched_counts_as_free(tmp_path: Path) -> None:
    left = run_folder(tmp_path / "work", settings()) / "models" / "weights"
    left.parent.mkdir(parents=True)
    left.touch()
    os.truncate(left, 10**13)  # sparse
    unset, own = Wanted(settings()), Wanted(settings(work_dir=str(tmp_path / "work")))
    huge = Needs(0.9 * 10**13 / 1.25, None, 0.0, 0.0)
    assert words(volumes.disk(own, huge)).startswith("ok: ")
    with pytest.raises(SettingsError):
        volumes.disk(unset, huge)


# -- memory ---------------------------------------------------------------------------------------


@pytest.fixture
def limited(tmp_path: Path) -> Callable[[str], Cgroups]:
    return lambda limit: cgroups.made(tmp_path, {"memory.max": limit})


def test_memory(limited: Callable[[str], Cgroups], tmp_path: Path) -> None:
    wanted = Needs(0.0, 1e9, 0.5e9, 0.0)  # 2 GB on a CPU, 4.5 with a GPU
    enough = limited(str(10 * 10**6))
    with pytest.raises(SettingsError, match=r"0\.0 GB .*memory\.max\), about 2\.0 GB are") as e:
        limits.memory(enough, wanted, gpu=False)
    assert e.value.exit_code == 78
    tight = limited(str(25 * 10**8))
    assert words(limits.memory(tight, wanted, gpu=False)).startswith("warning: 2.5 GB")
    with pytest.raises(SettingsError, match=r"about 4\.5 GB are needed .raise the container"):
        limits.memory(tight, wanted, gpu=True)
    assert words(limits.memory(tight, None, gpu=False)).startswith("ok: 2.5 GB")
    roomy = limited(str(31 * 10**8))
    assert words(limits.memory(roomy, wanted, gpu=False)).startswith("ok: 3.1 GB")


def test_each_process_takes_its_own_memory(limited: Callable[[str], Cgroups]) -> None:
    wanted = Needs(0.0, 1e9, 0.5e9, 0.0)
    found = limited(str(25 * 10**9))
    assert words(limits.memory(found, wanted, gpu=True)).startswith("ok: 25.0 GB")
    with pytest.raises(SettingsError, match=r"about 32\.5 GB are needed by 8 processes .raise"):
        limits.memory(found, wanted, gpu=True, processes=8)
    # The file of the weights is cached once for all; on a CPU each process holds its own.
    tight = limited(str(34 * 10**8))
    assert words(limits.memory(tight, wanted, gpu=False)).startswith("ok: ")
    tight = limited(str(52 * 10**8))
    said = words(limits.memory(tight, wanted, gpu=False, processes=2))
    assert said.startswith("warning: 5.2 GB")
    assert "2.0 GB of weights" in said


@pytest.mark.parametrize("limit", ["max", str(10**17)])
def test_the_machine_is_a_limit_too(limited: Callable[[str], Cgroups], limit: str) -> None:
    found = limited(limit)
    with pytest.raises(SettingsError, match="all that the machine has"):
        limits.memory(found, Needs(0.0, 0.0, 1e16, 0.0), gpu=False)


# -- the grace period -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "checkpoint", "result"),
    [
        (30, 415e6, "ok"),
        (24, 415e6, "warning"),
        (25, None, "ok"),
        (24, None, "warning"),
        (30, 3.3e9, "warning"),
        (60, 3.3e9, "ok"),
    ],
)
def test_grace(seconds: float, checkpoint: float | None, result: str) -> None:
    said = words(limits.grace(seconds, Needs(0.0, 0.0, checkpoint, 0.0)))
    assert said.startswith(f"{result}: {seconds} s")
    assert "terminationGracePeriodSeconds can't be seen from here" in said
