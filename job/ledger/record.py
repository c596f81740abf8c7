"""`run.json`: the schema of the one mutable object of a run, and the truth about it.

Readers (people, `status`, serving, other attempts) rely on it, so fields are added, never changed.
Times are ISO 8601 in UTC; `*_seconds` are seconds, `bytes` are bytes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

Status = Literal["running", "preempted", "succeeded", "gate_failed", "failed"]
FINISHED: tuple[Status, ...] = ("succeeded", "gate_failed")
"""Nothing is left to do: a new attempt verifies and ends with the run's verdict."""

TRAINED = ("evaluation", "publishing", "finished")
"""Phases of `Progress` in which no step is made any more."""

_SILENT_BEATS = 3
"""Heartbeats that a running attempt may miss before it is called silent."""
_DEFAULT_HEARTBEAT_SECONDS = 30.0


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def seconds_since(moment: str, now: datetime) -> float | None:
    """Of an ISO 8601 time, in UTC if it names no zone; None if it is none. Clocks differ: never
    negative."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (now - then).total_seconds())


class _Part(BaseModel):
    # A newer release may have written fields that this one doesn't know: they are kept.
    model_config = ConfigDict(extra="allow")


class Holder(_Part):
    """Who runs an attempt. `token` is unique, so that two pods of one name are told apart."""

    token: str
    host: str = ""
    pid: int = 0
    version: str = ""
    """Of forge-job."""


class Progress(_Part):
    """How far the run is, as of the last heartbeat."""

    phase: str = "starting"
    step: int = 0
    max_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    eval_loss: float | None = None
    eta_seconds: float | None = None
    losses: list[tuple[int, float]] = Field(default_factory=list)
    """Step and training loss, at most 60 of them, evenly over the whole run."""
    updated_at: str = Field(default_factory=now)


class Checkpoint(_Part):
    """A committed checkpoint. Its files are immutable while it is listed."""

    step: int
    attempt: int
    key: str
    """Folder below the run, ending in '/': `checkpoints/00000050-001/`."""
    manifest_sha256: str
    bytes: int
    committed_at: str = Field(default_factory=now)
    eval_loss: float | None = None
    """The validation loss at this very step, if it was evaluated there."""
    next_loss: float | None = None
    """Training loss of the micro-batch that followed: what a resumed attempt has to find again."""


class Adapter(_Part):
    """The published adapter (or the candidate that failed the gate)."""

    key: str
    """`adapter/` or `candidate/`."""
    manifest_sha256: str
    bytes: int
    step: int
    committed_at: str = Field(default_factory=now)


class Export(_Part):
    """Something that was made from the adapter, verified, besides it."""

    place: str
    """Folder below the run, ending in '/', or a repository's address."""
    made_from: str
    """SHA-256 of the adapter's weights, and what else it is made from."""
    digest: str
    """SHA-256 of the folder's manifest; the commit in a repository."""
    bytes: int
    committed_at: str = Field(default_factory=now)


class Pace(_Part):
    """What was measured on the way to a durable checkpoint, for the next attempt's start."""

    micro_batch_seconds: float = 0.0
    write_seconds: float = 0.0
    """Of a checkpoint to the work volume."""
    upload_seconds: float = 0.0
    commit_seconds: float = 0.0
    """Of the swap that lists it."""


class MicroBatch(_Part):
    """What fits the GPU, found by the first attempt that tried; later ones agree with it."""

    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    peak_bytes: int = 0
    """That the longest micro-batch took; 0 where nothing was tried."""


class Rejection(_Part):
    """A checkpoint that was passed over, and why."""

    key: str
    step: int
    reason: str


class Attempt(_Part):
    """One process that worked on the run, and how it ended."""

    number: int
    holder: Holder
    processes: int | None = None
    """That trained together, each on a GPU of its own; None in a record of an earlier release."""
    started_at: str = Field(default_factory=now)
    ended_at: str | None = None
    from_step: int = 0
    to_step: int = 0
    """The last durable step when it ended."""
    lost_steps: int = 0
    """Steps trained before that were not durable, or whose checkpoint was rejected, and are trained
    again."""
    lost_at_least: bool | None = None
    """There may be more of them: the attempt before was killed, and its last heartbeat is all that
    is known. None in a record of an earlier release."""
    began: bool | None = None
    """It came as far as training, with what it goes on from loaded. None as above."""
    exit_code: int | None = None
    """None while it runs, and for ever if it was killed without a chance to say so."""
    reason: str = ""
    rejected: list[Rejection] = Field(default_factory=list)
    """Checkpoints that it found damaged, newest first."""
    resume_drift: float | None = None
    """Relative difference of the first loss after a resume from the one recorded; 0: the same."""
    gave_up: bool = False
    """It ended since those before it had made no progress; the next one is given a new chance."""
    last_seen_at: str | None = None
    """The last heartbeat of one that was killed; None where it ended by itself or still runs."""
    accepted: list[str] = Field(default_factory=list)
    """Differences from the fingerprint before that were accepted, from `from_step` on."""
    validation_changed: bool = False
    """By one of them a validation loss is of something else: none before it says anything."""
    advanced: bool = False
    """It kept what no step shows: answers of the evaluation, or an export."""

    @property
    def resumed(self) -> bool:
        """It trained on from a checkpoint: one that was refused before, as by another fingerprint,
        did not. Of an earlier release's nobody knows, so it counts."""
        return self.from_step > 0 and self.began is not False

    @property
    def progressed(self) -> bool:
        return self.to_step > self.from_step or self.advanced


class RunRecord(_Part):
    """The whole of `run.json`."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: Status = "running"
    attempt: int = 0
    """Number of the attempt that owns the run. Whoever holds a lower one is fenced."""
    holder: Holder | None = None
    created_at: str = Field(default_factory=now)
    updated_at: str = Field(default_factory=now)
    conditional_writes: bool = True
    """False where the store ignores them: fencing is then read-before-write only."""
    fingerprint: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    """The resolved settings, secrets left out."""
    model: dict[str, str] = Field(default_factory=dict)
    """What was really loaded: name, revision, architecture, precision, device."""
    effective_batch_size: int = 0
    micro_batch: MicroBatch | None = None
    progress: Progress = Field(default_factory=Progress)
    checkpoints: list[Checkpoint] = Field(default_factory=list)
    """Oldest first."""
    pace: Pace = Field(default_factory=Pace)
    adapter: Adapter | None = None
    exports: dict[str, Export] = Field(default_factory=dict)
    """By name, as soon as each is verified: a later attempt doesn't make it again."""
    results: dict[str, Any] = Field(default_factory=dict)
    """Tool-call evaluation, gate verdict, and where the exports are."""
    promotion_settled: bool = False
    """The run has had its say in `promoted.json`: whoever changes that since has the last word."""
    attempts: list[Attempt] = Field(default_factory=list)

    def silent_for(self, now: datetime) -> float | None:
        """Seconds since the last heartbeat of a running attempt that may be gone; else None."""
        age = seconds_since(self.updated_at, now)
        beat = self.settings.get("heartbeat_seconds") or _DEFAULT_HEARTBEAT_SECONDS
        if self.status != "running" or age is None or age <= _SILENT_BEATS * float(beat):
            return None
        return age

    @property
    def processes(self) -> int:
        """That train together now, each on a GPU of its own if there is any."""
        return self.processes_of(self.current) if self.attempts else 1

    def processes_of(self, attempt: Attempt) -> int:
        """As the attempt says; before it could, as the fingerprint does, or one."""
        return int(attempt.processes or self.fingerprint.get("world_size") or 1)

    def gpus_of(self, attempt: Attempt) -> int:
        """0 where the model was loaded on a CPU; before it is loaded nobody knows."""
        return 0 if self.model.get("device") == "cpu" else self.processes_of(attempt)

    @property
    def had_card(self) -> bool:
        """Whether an attempt has loaded the model on a GPU."""
        return self.model.get("device", "cpu") != "cpu"

    @property
    def durable_step(self) -> int:
        """The newest step that a committed checkpoint holds; 0 before the first."""
        return max((checkpoint.step for checkpoint in self.checkpoints), default=0)

    @property
    def resumed_at(self) -> list[int]:
        """The steps that attempts went on from, oldest first."""
        return [attempt.from_step for attempt in self.attempts if attempt.resumed]

    @property
    def current(self) -> Attempt:
        """The attempt that owns the run."""
        return self.attempts[-1]
