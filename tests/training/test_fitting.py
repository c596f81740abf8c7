"""A micro-batch that fits: the real trainer, with memory that runs out where the test says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from job.errors import MicroBatchTooLarge, OutOfGpuMemory
from job.training import Fit, TrainingData, fitting
from job.training.fitting import smaller
from tests.training.runs import run

SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 3,
    "lora_dropout": 0.0,
}


class Memory:
    """Stands for a GPU's: rows of a micro-batch beyond `rows` are too many. Sees each batch."""

    def __init__(self) -> None:
        self.rows = 99
        self.after = 0
        """Forward passes that always fit."""
        self.error: Exception = torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2 GiB"
        )
        self.batches: list[tuple[int, int]] = []
        """Rows and tokens a row of each forward pass that trains."""

    def take(self, model: Any, ids: Any) -> None:
        if not model.training:
            return
        self.batches.append(tuple(ids.shape))
        if ids.shape[0] > self.rows and len(self.batches) > self.after:
            raise self.error


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    from transformers import LlamaModel

    memory, forward = Memory(), LlamaModel.forward

    def seen(self: Any, input_ids: Any = None, **kwargs: Any) -> Any:
        memory.take(self, input_ids)
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(LlamaModel, "forward", seen)
    monkeypatch.setattr(fitting, "memory_is_limited", lambda: True)
    return memory


Run = Callable[..., Any]


def test_the_longest_rows_are_tried_before_the_first_step(
    model: Path, data: TrainingData, tmp_path: Path, memory: Memory
) -> None:
    seen = run(model, data, tmp_path, **SETTINGS).seen
    longest = max(len(data.train[i].input_ids) for i in range(len(data.train)))
    assert memory.batches[0] == (4, longest)
    assert len(memory.batches) == 1 + 3 * 2
    assert [(f.per_device_train_batch_size, f.gradient_accumulation_steps) for f in seen.fits] == [
        (4, 2)
    ]


def test_a_try_leaves_nothing_behind(
    model: Path, data: TrainingData, tmp_path: Path, memory: Memory, monkeypatch: Any
) -> None:
    """Dropout draws from the same random state, and the trainer has counted nothing."""
    settings = SETTINGS | {"lora_dropout": 0.1}
    tried = run(model, data, tmp_path / "tried", **settings)
    monkeypatch.setattr(fitting, "memory_is_limited", lambda: False)
    plain = run(model, data, tmp_path / "plain", **settings)
    assert tried.adapter == plain.adapter
    assert tried.seen.losses == plain.seen.losses
    counted = [[(s.tokens, s.supervised_tokens) for s in o.seen.steps] for o in (tried, plain)]
    assert counted[0] == counted[1]


def test_the_micro_batch_is_halved_and_the_step_sees_the_same_rows(
    model: Path, data: TrainingData, tmp_path: Path, memory: Memory
) -> None:
    whole = run(model, data, tmp_path / "whole", **SETTINGS)
    memory.rows, memory.batches = 1, []
    seen = run(model, data, tmp_path / "halved", **SETTINGS)
    assert [rows for rows, _ in memory.batches] == [4, 2, 1] + [1] * 3 * 8
    assert seen.seen.fits == [Fit(1, 8)]
    assert [(s.samples, s.supervised_tokens) for s in seen.seen.steps] == [
        (s.samples, s.supervised_tokens) for s in whole.seen.steps
    ]
    for step, loss in whole.seen.losses.items():
        assert seen.seen.losses[step] == pytest.approx(loss, rel=0.02)


def test_where_one_conversation_does_not_fit_the_run_says_what_would_help(
    model: Path, data: TrainingData, tmp_path: Path, memory: Memory
) -> None:
    memory.rows = 0
    with pytest.raises(OutOfGpuMemory, match="the longest micro-batch of 1: CUDA out") as error:
        run(model, data, tmp_path, **SETTINGS)
    assert error.value.exit_code == 71
    assert "FORGE_MAX_SEQ_LENGTH" in str(error.value)


def test_memory_that_libraries_do_not_find_is_memory_too(
    model: Path, data: TrainingData, tmp_path: Path, memory: Memory
) -> None:
    memory.rows = 2
    memory.error = torch.AcceleratorError("CUDA error: out of memory\nIt might be reported later")
    assert run(model, data, tmp_path / "tried", **SETTINGS).seen.fits == [Fit(2, 4)]
    memory.after, memory.batches = 3, []
    with pytest.raises(MicroBatchTooLarge, match=r"GPU: CUDA error: out of memory \(the next"):
        run(model, data, tmp_path / "later", **SETTINGS)


def test_a_resumed_run_agrees(
    model: Path, data: TrainingData, tmp_path: Path, memory: Memory
) -> None:
    memory.rows = 2
    first = run(model, data, tmp_path / "first", save_steps=2, **SETTINGS)
    folder = first.seen.saves[0].folder
    memory.batches = []
    again = run(
        model, data, tmp_path / "again", resume_from=folder, fit=first.seen.fits[0], **SETTINGS
    )
    assert again.seen.began_at == 2
    assert [rows for rows, _ in memory.batches] == [2] + [2] * 4
    assert again.adapter == first.adapter


def test_what_was_found_for_another_batch_is_not_taken(
    model: Path, data: TrainingData, tmp_path: Path, memory: Memory
) -> None:
    run(model, data, tmp_path, fit=Fit(1, 4), **SETTINGS)
    assert memory.batches[0][0] == 4


def test_memory_that_runs_out_later_ends_the_attempt_and_the_next_one_knows(
    model: Path, data: TrainingData, tmp_path: Path, memory: Memory, monkeypatch: Any
) -> None:
    memory.rows, memory.after = 2, 3
    recorded: list[Fit] = []
    monkeypatch.setattr("tests.training.runs.Recorder.fitted", lambda _, fit: recorded.append(fit))
    with pytest.raises(MicroBatchTooLarge, match="goes on from the last checkpoint with 2 × 4"):
        run(model, data, tmp_path, **SETTINGS)
    assert recorded == [Fit(4, 2), Fit(2, 4)]
    memory.rows, memory.batches = 0, []
    with pytest.raises(OutOfGpuMemory):
        run(model, data, tmp_path, **SETTINGS | {"per_device_train_batch_size": 1})


def test_the_optimizers_room_is_kept_on_the_card_and_not_beside_embeddings_on_the_host() -> None:
    embeddings = torch.nn.Embedding(8, 4, device="cpu").requires_grad_(False)
    trained = torch.nn.Linear(4, 64, bias=False, device="meta")  # stands for the card
    trainer = SimpleNamespace(model=torch.nn.Sequential(embeddings, trained), optimizer=None)
    room = fitting._room_for_the_optimizer(trainer, "adamw_torch")
    assert (room.device.type, room.numel()) == ("meta", 4 * 64 * 8)


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ((4, 2), Fit(2, 4)),
        ((2, 4), Fit(1, 8)),
        ((3, 4), Fit(1, 12)),
        ((6, 2), Fit(3, 4)),
        ((5, 3), Fit(1, 15)),
        ((1, 8), None),
    ],
)
def test_the_next_smaller_one(batch: tuple[int, int], found: Fit | None) -> None:
    assert smaller(*batch) == found
