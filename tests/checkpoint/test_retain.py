"""Which checkpoints stay."""

from __future__ import annotations

import pytest

from job.checkpoint import best, unlist
from job.checkpoint.retain import superfluous
from job.ledger import Checkpoint, Ledger
from job.storage import Storage

NAN = float("nan")


def listed(*losses: float | None) -> list[Checkpoint]:
    """Checkpoints of steps 1, 2, … with these validation losses."""
    return [
        Checkpoint(
            step=step,
            attempt=1,
            key=f"checkpoints/{step:08d}-001/",
            manifest_sha256="0" * 64,
            bytes=1,
            eval_loss=loss,
        )
        for step, loss in enumerate(losses, 1)
    ]


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([], None),
        ([None, None], None),
        ([None, 1.0, None], 2),
        ([3.0, 1.0, 2.0], 2),
        ([1.0, 1.0], 1),
        ([0.0, 1.0], 1),
        ([NAN, 2.0, NAN], 2),
        ([2.0, NAN], 1),
        ([NAN, float("-inf")], None),
    ],
)
def test_the_best_has_the_lowest_loss(losses: list[float | None], step: int | None) -> None:
    found = best(listed(*losses))
    assert (found.step if found else None) == step


@pytest.mark.parametrize(
    ("losses", "keep", "gone"),
    [
        ([], 1, []),
        ([None], 1, []),
        ([None] * 4, 3, [1]),
        ([None] * 4, 9, []),
        ([0.1, 0.2, 0.3, 0.4], 1, [2, 3]),
        ([0.4, 0.3, 0.2, 0.1], 1, [1, 2, 3]),
        ([0.4, 0.1, 0.2, None], 2, [1]),
    ],
)
def test_neither_new_nor_best_is_superfluous(
    losses: list[float | None], keep: int, gone: list[int]
) -> None:
    assert [c.step for c in superfluous(listed(*losses), keep)] == gone


def test_unlisting_takes_out_those_and_no_others(storage: Storage) -> None:
    ledger = Ledger.claim(storage, "run-1", version="1", conditional_writes=True)
    one, two, three = listed(None, None, None)
    ledger.set_fields(checkpoints=[one, two, three])
    unlist(ledger, [two])
    assert ledger.record.checkpoints == [one, three]
    unlist(ledger, [two])
    assert ledger.record.checkpoints == [one, three]
