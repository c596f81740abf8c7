"""Ranks with different data or weights would not fail, they would learn nonsense: they compare."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from job.dataset import Samples
from job.errors import JobError, Problem
from job.ranks import Ranks

_BITS = 63
"""Of a digest: what a signed number of the exchange holds."""


def refuse_other_inputs(ranks: Ranks, train: Samples, evaluation: Samples, model: Any) -> None:
    """Raises `JobError` on every rank unless all hold the same tokens, split and base weights."""
    if ranks.size == 1:
        return
    every = ranks.exchange(_data_digest(train, evaluation), _weights_digest(model))
    problems = [
        Problem(f"rank {rank}", f"holds other {what} than rank 0", "same image, same files?")
        for number, what in enumerate(("tokenized data", "base weights"))
        for rank, digests in enumerate(every)
        if digests[number] != every[0][number]
    ]
    if problems:
        raise JobError(problems)


def _data_digest(train: Samples, evaluation: Samples) -> int:
    digest = hashlib.sha256()
    for column in (*train.store.columns, train.indices, evaluation.indices):
        digest.update(np.ascontiguousarray(column).data)
    return _number(digest)


def _weights_digest(model: Any) -> int:
    """Of sums over bytes, which a GPU makes in no time."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            as_bytes = parameter.detach().contiguous().view(-1).view(torch.uint8)
            total = int(as_bytes.sum(dtype=torch.int64))
            digest.update(f"{name} {total}\n".encode())
    return _number(digest)


def _number(digest: Any) -> int:
    return int.from_bytes(digest.digest()[:8], "big") >> (64 - _BITS)
