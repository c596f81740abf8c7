"""Merged weights: the same model as base and adapter together, in a folder for anyone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from job.card import CardFacts
from job.cgroups import Cgroups
from job.config import Settings
from job.errors import JobError, Preempted
from job.exports import ExportContext, make
from job.exports.merged import build
from job.exports.room import problems
from job.ledger import Ledger
from job.lifecycle import StopToken
from job.model import look_at
from job.storage import Patience, Storage
from job.storage.observer import NoObserver
from tests import cgroups

TOKENS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that changes what the model says."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(str(tiny_model))
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(str(folder))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / name, folder / name)
    (folder / "README.md").write_text("the adapter's card")
    return folder


def merge(base: Path, adapter: Path, into: Path, stop: StopToken | None = None) -> None:
    build(base, adapter, into, stop or StopToken(), card="# merged", trust_remote_code=False)


def said(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits = model.eval()(TOKENS).logits.float()
    assert isinstance(logits, torch.Tensor)
    return logits


def test_it_is_base_and_adapter_in_one(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = tmp_path / "merged"
    merge(tiny_model, adapter, merged)
    model = AutoModelForCausalLM.from_pretrained(str(merged), dtype="auto")
    assert {p.dtype for p in model.parameters()} <= {torch.bfloat16, torch.float16}
    base = AutoModelForCausalLM.from_pretrained(str(tiny_model), dtype=torch.float32)
    plain = said(base)
    expected = said(PeftModel.from_pretrained(base, str(adapter)))
    found = said(model)
    assert (found - expected).abs().max() < 0.1 * (plain - expected).abs().max()
    assert AutoTokenizer.from_pretrained(str(merged)).chat_template == (
        AutoTokenizer.from_pretrained(str(adapter)).chat_template
    )
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=merged, check=True)
    assert (merged / "README.md").read_text() == "# merged", "not the adapter's card"
    assert not (merged / "adapter_config.json").exists()


def test_it_ends_when_asked_to(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    stop = StopToken()
    stop.request(Preempted("node goes away"))
    with pytest.raises(Preempted):
        merge(tiny_model, adapter, tmp_path / "merged", stop)
    assert not (tmp_path / "merged").exists()


def test_what_goes_wrong_in_it_is_said(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    with pytest.raises(JobError, match=r"merging failed: .*adapter_config\.json"):
        merge(tiny_model, tmp_path / "adapter", tmp_path / "merged")


def test_room_is_looked_for(tmp_path: Path) -> None:
    def limited(limit: str) -> Cgroups:
        return cgroups.made(tmp_path, {"memory.max": limit})

    assert list(problems(10**6, tmp_path, Cgroups(tmp_path, tmp_path / "none"))) == [], "no cgroup"
    assert list(problems(10**6, tmp_path, limited("max"))) == []
    (disk,) = problems(10**14, tmp_path, limited(f"{10**15}"))
    assert disk.where == "FORGE_WORK_DIR"


@pytest.mark.parametrize(
    ("own", "file"),
    [
        ("0::/\n", "memory.max"),
        ("0::/kubepods/pod\n", "kubepods/pod/memory.max"),
        ("4:memory:/\n", "memory/memory.limit_in_bytes"),
        ("4:memory:/kubepods/pod\n", "memory/kubepods/pod/memory.limit_in_bytes"),
    ],
)
def test_the_memory_is_looked_at_wherever_the_kernel_tells_of_it(
    own: str, file: str, tmp_path: Path
) -> None:
    (memory,) = problems(10**6, tmp_path, cgroups.made(tmp_path, {file: "1000000"}, own))
    assert memory.where == "FORGE_EXPORT"
    assert "0.0 GB of memory" in memory.found
    assert file in memory.found


def test_what_lies_in_its_place_is_not_taken_for_ours(
    directory: Storage, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    """Whole as it looks, it may be of another adapter."""
    own = tmp_path / "work" / "own"
    (own / "merged").mkdir(parents=True)
    (own / "merged" / "SHA256SUMS").touch()
    (own / "merged" / "model.safetensors").write_text("of another adapter")
    settings = Settings(
        run_id="run-1",
        dataset_uri=("/d",),
        output_uri="/o",
        model=str(tiny_model),
        model_family="smollm2",
        export=("merged_16bit",),
    )
    facts: dict[str, Any] = {"data": {"files": []}, "fingerprint": {}, "evaluation": None}
    made = make(
        ExportContext(
            settings=settings,
            storage=directory,
            ledger=Ledger.claim(directory, "run-1", version="1", conditional_writes=True),
            stop=StopToken(),
            patiently=Patience(0),
            observer=NoObserver(),
            alive=lambda: None,
            model=look_at(settings, own.parent),
            adapter=adapter,
            facts=CardFacts(
                run_uri="/o/run-1",
                base_model=str(tiny_model),
                revision="r",
                step=1,
                settings={},
                attempts=1,
                **facts,
            ),
            step=1,
            work_dir=own.parent,
            own_dir=own,
        )
    )
    assert made["merged_16bit"].place == "merged/"
    assert len(directory.read("merged/model.safetensors")[0]) > 1000
