"""One of several ranks: rank 0 runs the job, the others follow it."""

from __future__ import annotations

import time

from job.config import Settings
from job.distributed.follower import follow
from job.errors import GateFailed, JobError, Problem
from job.ledger import FINISHED, read_record
from job.lifecycle import StopToken
from job.logs import LogContext
from job.promotion.gate import verdict_of_finished
from job.ranks import Place, joined
from job.run import RunResult, run_job
from job.storage import open_storage
from job.watchdog import Watch

_LOOK_SECONDS = 15.0
"""Between two looks at the record while not all are there."""


class _AlreadyFinished(Exception):
    """Nobody is there to follow: the run is over."""


def run_together(
    settings: Settings, place: Place, *, stop: StopToken, context: LogContext, watch: Watch
) -> RunResult | str:
    """Raises as `run_job` and `follow` do, and `PeerLost` where the others don't come."""
    stop.grace_seconds = settings.grace_seconds
    context.update(rank=place.rank)
    try:
        with joined(
            place,
            stop,
            watch,
            join_seconds=settings.rank_join_seconds,
            timeout_seconds=settings.rank_timeout_seconds,
            while_waiting=_Look(settings),
        ) as ranks:
            if place.rank == 0:
                return run_job(settings, stop=stop, context=context, watch=watch, ranks=ranks)
            return follow(settings, ranks, stop)
    except _AlreadyFinished:
        return "the run is finished: there is nothing to train"


class _Look:
    """A pod that is started again alone, after the run was finished, would wait in vain."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._due = time.monotonic() + _LOOK_SECONDS

    def __call__(self) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _LOOK_SECONDS
        try:
            found = read_record(open_storage(self._settings.run_uri))
        except JobError:
            return  # it is rank 0 that judges storage
        if found is None or found[0].status not in FINISHED:
            return
        if failure := verdict_of_finished(self._settings, found[0]):
            raise GateFailed(Problem("promotion gate", failure))
        raise _AlreadyFinished
