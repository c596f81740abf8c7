"""Which conversations the mask preview shows: a spread of the data, and its extremes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from job.dataset.review.preview import PreviewConversation, mask_preview, pieces, views
from job.dataset.rows.row import Row
from job.dataset.rows.secrets import mask_secrets
from job.dataset.split import Indices, Split
from job.dataset.store import Rows, Store
from job.dataset.tokens.chat import ChatFormat

_TRAINED: Final = 12
_HELD_OUT: Final = 4
_IN_REPORT: Final = 3


def shown(rows: Rows, sides: Split) -> dict[int, str]:
    """Index of each row to show → its side; evenly spread, with the longest, the shortest and the
    least trained ones."""
    chosen = dict.fromkeys(_spread(sides.train, _TRAINED), "train")
    if len(sides.train):
        tokens = np.asarray(rows["tokens"][sides.train], dtype=np.int64)
        share = rows["supervised"][sides.train] / np.maximum(tokens, 1)
        for place in (tokens.argmax(), tokens.argmin(), share.argmin()):
            chosen[int(sides.train[place])] = "train"
    return chosen | dict.fromkeys(_spread(np.sort(sides.evaluation), _HELD_OUT), "evaluation")


def conversations(
    chosen: Mapping[int, str], rows: Mapping[int, Row], store: Store, chat: ChatFormat
) -> list[PreviewConversation]:
    """Those that `shown` has chosen, token by token."""
    found = []
    for index, side in chosen.items():
        row, sample = rows[index], store.sample(index)
        found.append(
            PreviewConversation(
                where=row.where,
                side=side,
                tokens=len(sample.input_ids),
                supervised=sample.supervised,
                pieces=pieces(chat.decode, sample.input_ids.tolist(), sample.labels.tolist()),
                meta=row.meta,
            )
        )
    return found


def page(found: Sequence[PreviewConversation], summary: Mapping[str, Any]) -> bytes:
    """`mask-preview.html`."""
    return mask_preview(found, summary, title="What is trained", mask=mask_secrets)


def for_report(found: Sequence[PreviewConversation]) -> tuple[dict[str, Any], ...]:
    """A few of them that are short enough for a page about other things as well."""
    trained = sorted((each for each in found if each.side == "train"), key=lambda each: each.tokens)
    return tuple(views(trained[len(trained) // 2 :][:_IN_REPORT], mask_secrets))


def _spread(indices: Indices, count: int) -> list[int]:
    places = np.linspace(0, len(indices) - 1, min(count, len(indices))).astype(int)
    return [int(index) for index in indices[places]]
