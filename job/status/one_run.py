"""`forge-job status <run uri>`: what the run's record says, for people and for machines."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from job.errors import EXIT_CODES, AccessDenied, Problem, SettingsError, Unavailable
from job.ledger import FINISHED, RECORD_KEY, Attempt, RunRecord, read_record, seconds_since
from job.promotion import is_named, promoted_beside
from job.promotion.gate import PASSED
from job.redact import redact
from job.storage import S3_SCHEME, Storage, open_storage
from job.terminal import BLOCKS, encodable, harmless, printable

_BAR_WIDTH: Final = 30
_LABEL_WIDTH: Final = 12
_TOP_LINES: Final = 8
"""From the run's name to the adapter's."""
_RETRIED: Final = tuple(code for code, (_, action) in EXIT_CODES.items() if action == "Count")
"""What the Job and Argo start again, as after a preemption: the next attempt takes the run up."""


def status(
    uri: str,
    *,
    as_json: bool = False,
    watch: bool = False,
    out: TextIO | None = None,
    interval_seconds: float = 3.0,
) -> int:
    """Print the state of the run at `uri` (`<output>/<run id>`) to `out` (stdout); returns 0.

    `watch` goes on until the run is over or the user stops it: on a terminal it redraws in
    place, elsewhere it prints again when something changed. Raises `SettingsError` when there is
    no run at `uri`, and what storage raises.
    """
    out = out if out is not None else sys.stdout
    storage = open_storage(_joined_once(uri))
    record = _read(storage)
    if not watch:
        text = _shown(record, storage.uri, as_json=as_json, indent=2)
        print(encodable(text, out), file=out)
        return 0
    try:
        _watch(storage, record, as_json, out, interval_seconds)
    except KeyboardInterrupt:
        print(file=out)  # leaves the terminal's cursor on a line of its own
    return 0


def describe(
    record: RunRecord,
    uri: str,
    now: datetime | None = None,
    *,
    promoted: Mapping[str, Any] | None = None,
    unknown: str = "",
) -> str:
    """The record of the run at `uri` as a few lines of text; `promoted` is what `promoted.json`
    beside it holds, `unknown` why that may not be read."""
    now = now or datetime.now(UTC)
    progress = record.progress
    curve = sparkline([loss for _, loss in progress.losses])
    rows = [
        ("run", record.run_id),
        ("status", _status(record, now)),
        ("progress", _progress_bar(progress.step, progress.max_steps)),
        ("loss", _losses(record)),
        *([("", curve)] if curve else []),
        ("ETA", _duration(progress.eta_seconds) if record.status == "running" else "–"),
        ("durable", _durable(record, now)),
        ("adapter", f"{uri}/{record.adapter.key}" if record.adapter else "not yet"),
        *(
            [("promoted", _promotion(record, promoted, unknown))]
            if record.status == "succeeded"
            else []
        ),
        *((f"attempt {a.number}", _attempt(a, _runs(a, record))) for a in record.attempts),
    ]
    return "\n".join(printable(f"{name:<{_LABEL_WIDTH - 1}} {value}") for name, value in rows)


def sparkline(values: Sequence[float]) -> str:
    """One character a value, from the lowest block to the highest."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    top = len(BLOCKS) - 1
    return "".join(
        BLOCKS[round((v - low) / (high - low) * top) if high > low else 0] for v in values
    )


def _joined_once(uri: str) -> str:
    """Without the second slash that workflows put between an output which ends in one and a run's
    id: the run itself takes it off its output."""
    if not uri.startswith(S3_SCHEME):
        return uri  # a path means the same
    output, slash, run_id = uri.removeprefix(S3_SCHEME).rstrip("/").rpartition("/")
    return f"{S3_SCHEME}{output.rstrip('/')}{slash}{run_id}"


def _read(storage: Storage) -> RunRecord:
    found = read_record(storage)
    if found is None:
        raise SettingsError(
            Problem(
                storage.uri,
                f"there is no run here (no {RECORD_KEY})",
                "give <FORGE_OUTPUT_URI>/<FORGE_RUN_ID>, as the job's log says: 'attempt 1 at …'",
            )
        )
    return found[0]


def _is_over(record: RunRecord) -> bool:
    """Whether nothing more is to be watched."""
    failed_for_good = record.status == "failed" and record.current.exit_code not in _RETRIED
    return record.status in FINISHED or failed_for_good


def _watch(
    storage: Storage, record: RunRecord, as_json: bool, out: TextIO, interval_seconds: float
) -> None:
    screen = _Screen(out)
    while True:
        try:
            text = _shown(record, storage.uri, as_json=as_json)
        except Unavailable as error:
            _say_tried_again(error)
        else:
            screen.show(text, redraw=not as_json)
            if _is_over(record):
                return
        time.sleep(interval_seconds)
        try:
            record = _read(storage)
        except Unavailable as error:
            _say_tried_again(error)


def _say_tried_again(error: Unavailable) -> None:
    told = f"storage can't be reached, trying again: {error}"
    print(harmless(redact(told)), file=sys.stderr)


class _Screen:
    """Shows a text in the place of the one before; without a terminal, only what changed."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown = ""

    def show(self, text: str, *, redraw: bool) -> None:
        redraw = redraw and self._out.isatty()
        text = encodable(text, self._out)
        if redraw:
            text = _fitted(text, shutil.get_terminal_size())
        if text == self._shown:
            return
        if redraw and self._shown:
            # Up to the first line of the last text, and clear from there.
            print(f"\x1b[{self._shown.count(chr(10)) + 1}F\x1b[J", end="", file=self._out)
        print(text, file=self._out, flush=True)
        self._shown = text


def _fitted(text: str, size: os.terminal_size) -> str:
    """What a terminal of that size shows without wrapping or scrolling: either would put the
    cursor elsewhere than the next redraw takes it for. Of too many attempts the newest stay."""
    lines = [line[: size.columns - 1] for line in text.splitlines()]
    room = size.lines - 1
    if len(lines) > room:
        top = min(_TOP_LINES, room)
        lines = lines[:top] + lines[len(lines) - (room - top) :]
    return "\n".join(lines)


def _shown(record: RunRecord, uri: str, *, as_json: bool, indent: int | None = None) -> str:
    promoted, unknown = _promoted(uri) if record.status == "succeeded" else (None, "")
    if not as_json:
        return describe(record, uri, promoted=promoted, unknown=unknown)
    more = {"promoted": None if unknown else is_named(promoted, record.run_id)}
    return record.model_copy(update=more).model_dump_json(indent=indent)


def _promoted(uri: str) -> tuple[dict[str, Any] | None, str]:
    """And why that is not known: who may read the run need not have rights above it."""
    try:
        return promoted_beside(uri), ""
    except AccessDenied as error:
        return None, redact(str(error))


def _promotion(record: RunRecord, promoted: Mapping[str, Any] | None, unknown: str) -> str:
    if unknown:
        return f"not known: {unknown}"
    if is_named(promoted, record.run_id):
        return "yes"
    if record.results.get("gate") != PASSED:
        return f"no, the gate: {record.results.get('gate', 'not set')}"
    return f"no, {promoted.get('run_id')} is" if promoted else "no"


def _status(record: RunRecord, now: datetime) -> str:
    if record.status != "running":
        return record.status
    text = f"running ({record.progress.phase})"
    if (seconds := record.silent_for(now)) is not None:
        text += f", no heartbeat for {_duration(seconds)}: the pod may be gone"
    return text


def _progress_bar(step: int, total: int) -> str:
    if total <= 0:
        return f"step {step}"
    share = min(1.0, step / total)
    bar = ("#" * round(share * _BAR_WIDTH)).ljust(_BAR_WIDTH, "-")
    return f"[{bar}] {step}/{total} ({share:.0%})"


def _losses(record: RunRecord) -> str:
    train, validation = record.progress.loss, record.progress.eval_loss
    shown = [f"{train:.4f}"] if train is not None else ["–"]
    if validation is not None:
        shown.append(f"validation {validation:.4f}")
    return ", ".join(shown)


def _durable(record: RunRecord, now: datetime) -> str:
    if not record.checkpoints:
        return "no checkpoint yet"
    newest = record.checkpoints[-1]
    age = seconds_since(newest.committed_at, now)
    return f"step {newest.step}, {_duration(age)} ago ({newest.bytes / 1e6:.1f} MB)"


def _runs(attempt: Attempt, record: RunRecord) -> bool:
    return record.status == "running" and attempt.number == record.attempt


def _attempt(attempt: Attempt, runs: bool) -> str:
    steps = f"from step {attempt.from_step}"
    if runs:
        return f"{steps}, running"
    if attempt.exit_code is None:
        return f"{steps}, was killed before it could say why"
    reason = f": {redact(attempt.reason)}" if attempt.reason else ""
    return f"{steps} to {attempt.to_step}, exit {attempt.exit_code}{reason}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
