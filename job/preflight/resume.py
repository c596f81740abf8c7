"""What earlier attempts have left, compared with the settings as the next attempt would do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from job import exports
from job.config import Settings
from job.dataset import DataFile, DataObject, DataReport
from job.errors import GateFailed, Problem
from job.ledger import FINISHED, RunRecord, compare, read_record
from job.model import BaseModel, recorded_revision
from job.promotion.gate import verdict_of_finished
from job.stages import fingerprint
from job.storage import open_storage


@dataclass(frozen=True)
class Past:
    """Of a run: what its next attempt has to go on with."""

    settings: Settings
    """With the accumulation that leaves a step what it was, where the processes may change."""
    record: RunRecord | None = None
    """None for a run that never began."""
    finished: bool = False
    pins: Sequence[DataObject] = ()

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint, with whose fingerprint all has to agree."""
        return self.record is not None and bool(self.record.checkpoints)

    @property
    def revision(self) -> str | None:
        """Of the model."""
        return recorded_revision(self.record, self.settings) if self.record else None

    def told(self) -> str:
        record = self.record
        if record is None:
            return "the run has not begun"
        if self.finished:
            return (
                f"the run is finished ({record.status}): its adapter would be verified, and "
                "nothing trained; another FORGE_RUN_ID is a new run"
            )
        said = f"the run is {record.status}"
        return f"{said}, attempt {record.attempt + 1} would go on at step {record.durable_step}"


def past_of(settings: Settings) -> Past:
    """Raises what the next attempt would end with: a record that is none, other settings than it
    was begun with, a gate that it has failed, exports that a finished run wasn't asked for."""
    found = read_record(open_storage(settings.run_uri))
    if found is None:
        return Past(settings)
    record = found[0]
    # Its own number: this process says nothing about how many will train.
    settings = fingerprint.at_same_batch(settings, record, record.processes)
    if record.status in FINISHED and record.adapter is not None:
        fingerprint.refuse_to_finish_again(record, settings, record.processes)
        if failure := verdict_of_finished(settings, record):
            raise GateFailed(Problem("promotion gate", failure))
        exports.refuse_new(settings, record)
        return Past(settings, record, finished=True)
    pins = fingerprint.pins(record, settings, record.processes)
    return Past(settings, record, pins=pins)


def refuse_other_content(
    past: Past, files: Sequence[DataFile], model: BaseModel, report: DataReport
) -> str:
    """Hold the whole fingerprint against the recorded one, all but what only the node that trains
    can tell. Raises `FingerprintMismatch`."""
    record = past.record
    if record is None:
        return "nothing to agree with"
    before = fingerprint.recorded(record)
    current = fingerprint.of_run(
        past.settings,
        files,
        model.revision,
        model.chat.template_sha256,
        before.get("engine", ""),
        before.get("precision", ""),
        report.counts,
        record.processes,
    )
    accepted = past.settings.allow_fingerprint_change
    tolerated = compare(_unversioned(before), _unversioned(current), accepted)
    said = "data, model and template are the recorded ones"
    return "; ".join([said, *map(str, tolerated)])


def _unversioned(whole: Mapping[str, Any]) -> dict[str, Any]:
    """This machine's libraries are not those that train."""
    return {name: value for name, value in whole.items() if not name.startswith("versions.")}
