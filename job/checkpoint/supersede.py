"""Does an older checkpoint give way to a newer one before it is durable?

A newer one replaces one that waits. One that is being uploaded is given up where that makes the
newer state durable (`gives_way`). Neither happens to the one with the lowest validation loss so
far, where the run's result depends on it (`is_best`): steps can be trained again, but once the run
has resumed after it nobody makes that state again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from job.checkpoint.commit import Local
from job.checkpoint.grace import Grace
from job.lifecycle import StopToken
from job.storage.cancellation import Cancellation


@dataclass(frozen=True)
class Upload:
    """One that is under way."""

    local: Local
    superseded: threading.Event = field(default_factory=threading.Event)
    """A newer one is to go instead, at the latest before the next try."""
    cancellation: Cancellation = field(default_factory=Cancellation)
    began: float = field(default_factory=lambda: time.monotonic())


def is_best(local: Local, other_losses: Iterable[float | None]) -> bool:
    """Whether `local` has a validation loss, and none of the others is lower."""
    own = local.eval_loss
    return own is not None and all(own <= loss for loss in other_losses if loss is not None)


def gives_way(
    upload: Upload, stop: StopToken, grace: Grace, *, failing: bool, dropped_last: bool
) -> bool:
    """Whether to end an upload for the sake of a newer state; `failing` says that it waits for
    another try, `dropped_last` that the one before it was ended so.

    Once the run is asked to stop: if the newer can make it within what is left of the grace period;
    if not, the older one is all that will stay. Before that: if it waits out an outage, or is not
    half done by the measure of those before it; never twice in a row, or slow uploads would follow
    each other for ever and nothing would become durable.
    """
    elapsed = 0.0 if failing else time.monotonic() - upload.began
    if stop.requested:
        estimate = max(grace.durable_seconds or 2 * elapsed, elapsed)
        return estimate <= stop.seconds_left()
    half = grace.pace.upload_seconds / 2
    return failing or (elapsed < half and not dropped_last)
