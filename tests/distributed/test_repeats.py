"""Which conversations of an epoch's last round a rank has for the first time."""

from __future__ import annotations

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard  # type: ignore[import-untyped]
from torch.utils.data import BatchSampler, SequentialSampler

from job.training.repeats import first, leave_out, repeated


@pytest.mark.parametrize("samples", range(9, 26))
@pytest.mark.parametrize(("batch", "ranks"), [(1, 2), (2, 2), (4, 2), (2, 3), (3, 4)])
def test_what_is_kept_is_every_sample_once(samples: int, batch: int, ranks: int) -> None:
    """Against accelerate's own sampler, which decides what each rank gets."""
    seen: list[int] = []
    for rank in range(ranks):
        order = BatchSampler(SequentialSampler(range(samples)), batch, drop_last=False)
        batches = list(BatchSamplerShard(order, num_processes=ranks, process_index=rank))
        batches[-1] = batches[-1][: repeated(samples, batch, rank, ranks)]
        seen += [sample for found in batches for sample in found]
    assert sorted(seen) == list(range(samples))


def test_conversations_in_one_row_are_cut_at_their_starts() -> None:
    batch = {
        "input_ids": torch.arange(6)[None],
        "labels": torch.arange(6)[None],
        "position_ids": torch.tensor([[0, 1, 0, 1, 2, 0]]),
    }
    assert first(batch, 2)["input_ids"].tolist() == [[0, 1, 2, 3, 4]]
    assert first(batch, 0)["input_ids"].numel() == 0
    leave_out(batch, 1)
    assert batch["labels"].tolist() == [[0, 1, -100, -100, -100, -100]]
