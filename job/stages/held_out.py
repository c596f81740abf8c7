"""The rows that a run holds out, for whoever judges its adapter from outside."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from job.config import Settings
from job.dataset import DataFile, PrepareOptions, Row, fetch, prepare
from job.errors import DataChanged, DataError, Problem, SettingsError
from job.ledger import Difference, RunRecord, flatten, read_record
from job.model import look_at, recorded_revision
from job.stages import fingerprint
from job.storage import open_storage

_log = logging.getLogger(__name__)

_DECIDE: Final = (
    "split.eval_fraction",
    "split.eval_max_rows",
    "loss_on",
    "invalid_rows",
    "overlong_rows",
    "max_seq_length",
)
"""Settings by which rows go to the one side or the other, or to none."""
_REMEDY: Final = (
    "take settings and data as the run has them, or name rows of your own with --dataset"
)


def held_out_rows(settings: Settings, folder: Path) -> list[Row]:
    """Of the run that `settings` name, made in `folder`. Where it has trained, its record says what
    they are: rows that it has trained on would judge nothing.

    Raises `SettingsError` for settings or data that aren't the run's, `DataError` for data that
    were changed since, and what storage, model and data stage raise.
    """
    record = _trained(settings)
    if record is not None:
        _refuse_other_split(record, settings)
    revision = recorded_revision(record, settings) if record else None
    model = look_at(settings, folder, revision)
    files = _files(settings, record, folder / "data")
    options = PrepareOptions.from_settings(settings, model.position_limit)
    data = prepare(files, model.chat, options, folder / "prepared")
    if record is not None:
        _refuse_other_counts(record, data.report.counts)
    return data.evaluation_rows


def _trained(settings: Settings) -> RunRecord | None:
    """The run's record; None where nothing can have been trained yet."""
    found = read_record(open_storage(settings.run_uri))
    if found is None:
        _log.warning("there is no run %s yet: only settings say what is held out", settings.run_uri)
        return None
    record = found[0]
    return record if record.fingerprint and (record.checkpoints or record.adapter) else None


def _refuse_other_split(record: RunRecord, settings: Settings) -> None:
    known = [name for name in _DECIDE if name in record.fingerprint]
    problems = [
        Problem(
            f"FORGE_{found.name.split('.')[-1].upper()}",
            f"is {found.after}, the run {record.run_id} has {found.before}",
        )
        for found in _differences(record, fingerprint.of_settings(settings), known)
    ]
    if problems:
        raise SettingsError(problems, _REMEDY)


def _files(settings: Settings, record: RunRecord | None, folder: Path) -> list[DataFile]:
    """The run's own objects, whatever lies beside or over them by now."""
    uris, output = settings.dataset_uri, settings.output_uri
    if record is None:
        return fetch(uris, folder, output_uri=output)
    pins = fingerprint.recorded_data(record.fingerprint)
    if record.fingerprint.get("dataset_uri") == ",".join(uris):
        try:
            return fetch(uris, folder, pins=pins, output_uri=output)
        except DataChanged as changed:  # says how a resume is mended
            raise DataError(changed.problems, _REMEDY) from None
    files = fetch(uris, folder, output_uri=output)
    if sorted(f.source.sha256 for f in files) != sorted(pin.sha256 for pin in pins):
        there = f"other bytes than the run {record.run_id} has trained on"
        was = f"its {len(pins)} objects came from {record.fingerprint.get('dataset_uri')}"
        raise SettingsError(Problem("FORGE_DATASET_URI", f"names {there}", was), _REMEDY)
    return files


def _refuse_other_counts(record: RunRecord, counts: Mapping[str, int]) -> None:
    """The same data and settings, yet another split: of another tokenizer, which has dropped other
    rows, or of another release."""
    current = flatten({"rows": counts})
    known = [name for name in current if name in record.fingerprint]
    found = [str(difference) for difference in _differences(record, current, known)]
    if found:
        hint = "FORGE_MODEL may have another tokenizer than the run's"
        raise SettingsError(Problem("the held-out rows", "; ".join(found), hint), _REMEDY)


def _differences(
    record: RunRecord, current: Mapping[str, Any], names: Iterable[str]
) -> Iterator[Difference]:
    for name in names:
        found = Difference(name, record.fingerprint[name], current[name])
        if found.before != found.after:
            yield found
