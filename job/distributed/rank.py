"""One of several ranks: rank 0 runs the job, the others follow it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from job.config import Settings
from job.distributed.follower import follow, follow_late
from job.errors import JobError, Unavailable
from job.ledger import FINISHED, RunRecord, read_record
from job.lifecycle import StopToken
from job.logs import LogContext
from job.ranks import Place, joined
from job.run import RunResult, run_job
from job.stages.finished import already_finished, is_finished_soundly
from job.stages.workdir import work_dir
from job.storage import Storage, open_storage
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
            while_waiting=_Look(settings, place),
        ) as ranks:
            if place.rank == 0:
                return run_job(settings, stop=stop, context=context, watch=watch, ranks=ranks)
            with stop.told_apart():
                return (
                    follow(settings, ranks, stop) if ranks.trains else follow_late(settings, ranks)
                )
    except _AlreadyFinished:
        return "the run is finished: there is nothing to train"


class _Look:
    """A pod that is started again alone, after the run was finished, would wait in vain.

    Rank 0 needs nobody for what it does with such a run. The others may go where that would end
    well: one that is gone can't help to publish a damaged adapter anew.
    """

    def __init__(self, settings: Settings, place: Place) -> None:
        self._settings = settings
        self._place = place
        self._due = time.monotonic() + _LOOK_SECONDS
        self._unsound = ""
        """The ETag of a record that needs all ranks."""

    def __call__(self) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _LOOK_SECONDS
        storage = open_storage(self._settings.run_uri)
        try:
            found = read_record(storage)
        except JobError:
            return  # it is rank 0 that judges storage
        if found is None or found[0].status not in FINISHED or found[1] == self._unsound:
            return
        with suppress(Unavailable):  # until the next look
            if self._is_over(storage, found):
                raise _AlreadyFinished
            self._unsound = found[1]

    def _is_over(self, storage: Storage, found: tuple[RunRecord, str]) -> bool:
        settings, size = self._settings, self._place.size
        # A folder of its own: the ranks of a node look at the same time.
        with work_dir(settings) as parent, TemporaryDirectory(dir=parent) as own:
            if self._place.rank == 0:
                return already_finished(settings, storage, found, Path(own), size) is not None
            return is_finished_soundly(settings, storage, found[0], Path(own), size)
