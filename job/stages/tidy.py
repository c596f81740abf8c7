"""What a finished run leaves in storage is what its record names: nobody comes after us who could
see to that."""

from __future__ import annotations

import logging
from pathlib import Path

from job import publish
from job.checkpoint import collect_orphans
from job.errors import JobError
from job.promotion import is_named, read_promoted
from job.stages.context import Run
from job.stages.evaluation import ANSWERS_KEY
from job.storage import open_storage

_log = logging.getLogger(__name__)


def tidy(run: Run, key: str, folder: Path) -> None:
    """Once the record says that the run is finished, and that its adapter is that of `folder`, in
    `key`. Raises `Fenced`."""
    try:
        publish.remove_leftovers(run.storage, key, folder)
        run.storage.delete([ANSWERS_KEY])
        collect_orphans(run.storage, run.ledger)
        _remove_other(run, key)
    except JobError as error:
        _log.warning("what earlier attempts have left stays in storage: %s", error)


def _remove_other(run: Run, key: str) -> None:
    """The adapter of an attempt that the gate judged the other way, and that was killed before it
    could say so: whole as it is, it says of itself that it passed, or that it did not."""
    other = publish.CANDIDATE_KEY if key == publish.ADAPTER_KEY else publish.ADAPTER_KEY
    left = [info.key for info in run.storage.list(other)]
    if not left:
        return
    if other == publish.ADAPTER_KEY and _is_promoted(run):
        _log.warning("%s/%s stays: promoted.json names it", run.storage.uri, other)
        return
    run.storage.delete(left)
    _log.info("%s/%s removed: the gate has judged otherwise since", run.storage.uri, other)


def _is_promoted(run: Run) -> bool:
    """Now, or as the one that can be gone back to."""
    found = read_promoted(open_storage(run.settings.output_uri)) or {}
    named = [found, found.get("previous")]
    return any(isinstance(it, dict) and is_named(it, run.settings.run_id) for it in named)
