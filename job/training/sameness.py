"""Ranks compare data and weights: with different ones they would not fail, but learn nonsense."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from job.dataset import Samples
from job.errors import JobError, Problem, SettingsError
from job.ranks import Ranks

_SETTINGS_HINT = "give every pod the same environment, and the same kind of GPU"
_FILES_HINT = "same image, same files?"

_OWN_ARGUMENTS = ("output_dir", "report_to")
"""What a rank may have of its own."""

_BITS = 63
"""Of a digest: what a signed number of the exchange holds."""


def refuse_other_inputs(
    ranks: Ranks,
    train: Samples,
    evaluation: Samples,
    model: Any,
    arguments: Mapping[str, Any],
) -> None:
    """Unless all ranks hold the same, raises on every one of them `SettingsError` for other
    `arguments` of the trainer, and `JobError` for other tokens, another split, or base weights."""
    if ranks.size == 1:
        return
    every = ranks.all_gather(
        _arguments_digest(arguments), _data_digest(train, evaluation), _weights_digest(model)
    )
    if problems := _differing_ranks(
        every, 0, "other settings, or in another precision,", _SETTINGS_HINT
    ):
        raise SettingsError(problems)
    problems = _differing_ranks(every, 1, "other tokenized data", _FILES_HINT)
    problems += _differing_ranks(every, 2, "other base weights", _FILES_HINT)
    if problems:
        raise JobError(problems)


def _differing_ranks(
    every: list[tuple[int, ...]], number: int, what: str, hint: str
) -> list[Problem]:
    return [
        Problem(f"rank {rank}", f"trains with {what} than rank 0", hint)
        for rank, digests in enumerate(every)
        if digests[number] != every[0][number]
    ]


def _arguments_digest(arguments: Mapping[str, Any]) -> int:
    here = {name: value for name, value in arguments.items() if name not in _OWN_ARGUMENTS}
    return _number(hashlib.sha256(repr(sorted(here.items())).encode()))


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
