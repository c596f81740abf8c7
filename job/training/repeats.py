"""The end of an epoch with several ranks, where not every one has conversations left.

Each rank has to take part in the same number of micro-batches, or the others wait for its
gradients for ever. So the data loader (accelerate's `BatchSamplerShard` with `even_batches`) fills
the last ones up with conversations from the epoch's beginning. Those would be trained on twice;
here they lose their labels, or their whole micro-batch its weight, and the step is the one that a
single process would have made.
"""

from __future__ import annotations

from typing import Any

_IGNORED = -100


def repeated(samples: int, batch_size: int, rank: int, ranks: int) -> int:
    """How many conversations of a rank's last micro-batch of an epoch are its first time.

    Micro-batches go to the ranks in turn, so the last round has the rest of
    samples / (batch size × ranks).
    """
    rest = samples % (batch_size * ranks)
    if rest == 0:
        return batch_size
    return max(0, min(batch_size, rest - rank * batch_size))


def first(batch: dict[str, Any], kept: int) -> dict[str, Any]:
    """Only the first `kept` conversations of a batch, for counting."""
    if "attention_mask" in batch:
        return {name: batch[name][:kept] for name in ("input_ids", "labels", "attention_mask")}
    end = [*_starts(batch), batch["input_ids"].shape[-1]][kept]
    return {name: batch[name][:, :end] for name in ("input_ids", "labels", "position_ids")}


def leave_out(batch: dict[str, Any], kept: int) -> Any:
    """Take the labels of all but the first `kept` conversations; returns what they all were."""
    labels = batch["labels"]
    left = labels.clone()
    if "attention_mask" in batch:
        left[kept:] = _IGNORED
    else:  # one row, conversations one after another, each starting at position 0
        starts = _starts(batch)
        if kept < len(starts):
            left[:, starts[kept] :] = _IGNORED
    batch["labels"] = left
    return labels


def _starts(batch: dict[str, Any]) -> list[int]:
    found: list[int] = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    return found


def put_back(batch: dict[str, Any], labels: Any) -> None:
    """A loss over no label at all has no gradients, for which the other ranks would wait."""
    batch["labels"] = labels
