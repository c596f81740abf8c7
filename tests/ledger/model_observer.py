"""Somebody outside who sees each change of a run's store, and who it was, and holds it against
what was promised. It keeps no other memory than what was once true."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from job.checkpoint import MANIFEST_NAME
from job.ledger import FINISHED, RECORD_KEY, Checkpoint, RunRecord
from tests.ledger.model_store import MemoryStore

Files = dict[str, bytes]


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass
class Observer:
    """`changed` is called after each change; it raises `Broken`."""

    store: MemoryStore
    keep: int
    """Checkpoints that retention leaves, beside the best."""
    strict: bool = True
    """Whether the store honours conditions, or whoever writes is alone between a look and a write.
    If not, an older attempt may overwrite what a newer one has just written."""
    record: RunRecord | None = None
    """As of the last change."""
    tokens: dict[str, str] = field(default_factory=dict)
    """Holder's token → the process that claimed with it."""
    marks: dict[str, str] = field(default_factory=dict)
    """What was acknowledged to be in the record, and to whom."""
    handed_over: dict[str, Files] = field(default_factory=dict)
    """Checkpoint's key → its files, as their attempt wrote them."""
    listed: dict[str, str] = field(default_factory=dict)
    """Every key that was ever listed, with its manifest's SHA-256."""
    unaware: set[str] = field(default_factory=set)
    """Processes that have looked at the run before it was finished, to claim it then."""
    damaged: set[str] = field(default_factory=set)
    """Keys of which a third party has altered files."""

    def owns(self, who: str) -> bool:
        """Whether that process is the one whom the record names."""
        holder = self.record.holder if self.record else None
        return holder is not None and self.tokens.get(holder.token) == who

    def acknowledged(self, who: str, mark: str) -> None:
        """That process was told that its mark is in the record."""
        self.marks[mark] = who
        if self.record is not None and self.strict:
            self._check_marks(self.record)

    def changed(self, who: str, key: str) -> None:
        if key == RECORD_KEY:
            self._swapped(who)
        if self.record is not None and self.strict:
            self._check_whole(self.record, key)

    # -- the record -------------------------------------------------------------------------

    def _swapped(self, who: str) -> None:
        try:
            new = RunRecord.model_validate_json(self.store.objects[RECORD_KEY])
        except ValidationError as error:
            raise Broken(f"run.json can't be read: {error}") from error
        old, self.record = self.record, new
        assert new.holder is not None
        if self.tokens.setdefault(new.holder.token, who) != who:
            raise Broken(f"{who} wrote in the name of {self.tokens[new.holder.token]}")
        if self.strict:
            self._check_attempts(old or RunRecord(run_id=new.run_id), new, who)
            self._check_marks(new)
            self._check_checkpoints(old or RunRecord(run_id=new.run_id), new)

    def _check_attempts(self, old: RunRecord, new: RunRecord, who: str) -> None:
        numbers = [attempt.number for attempt in new.attempts]
        if numbers != list(range(1, new.attempt + 1)):
            raise Broken(f"attempt {new.attempt} has a history of {numbers}")
        if new.attempt not in (old.attempt, old.attempt + 1):
            raise Broken(f"attempt {old.attempt} became {new.attempt}")
        if new.attempt == old.attempt and new.holder != old.holder:
            raise Broken(f"{who} took attempt {old.attempt} from its holder")
        if new.attempt > old.attempt and new.holder == old.holder:
            raise Broken(f"{who} claimed the run twice")
        if [a.holder for a in new.attempts[: old.attempt]] != [a.holder for a in old.attempts]:
            raise Broken(f"{who} changed who held an earlier attempt")
        if old.status == "succeeded" and new.status != "succeeded" and who not in self.unaware:
            raise Broken(f"{who} made a run that had succeeded {new.status}")

    def _check_marks(self, new: RunRecord) -> None:
        marks = new.results.get("marks", {})
        for mark, who in self.marks.items():
            if marks.get(mark) != who:
                raise Broken(f"lost: {mark}, which was acknowledged to {who}")

    # -- its checkpoints --------------------------------------------------------------------

    def _check_checkpoints(self, old: RunRecord, new: RunRecord) -> None:
        before = {checkpoint.key: checkpoint for checkpoint in old.checkpoints}
        after = {checkpoint.key: checkpoint for checkpoint in new.checkpoints}
        if len(after) != len(new.checkpoints):
            raise Broken(f"listed twice: {[c.key for c in new.checkpoints]}")
        added = [checkpoint for key, checkpoint in after.items() if key not in before]
        for checkpoint in added:
            self._check_added(checkpoint, new)
        for key in before.keys() & after.keys():
            if after[key].manifest_sha256 != before[key].manifest_sha256:
                raise Broken(f"{key} became another checkpoint")
        gone = before.keys() - after.keys()
        rejected = {rejection.key for rejection in new.current.rejected} & self.damaged
        if lost := gone - rejected - _superfluous([*old.checkpoints, *added], self.keep):
            raise Broken(f"left the list without a reason: {sorted(lost)}")
        if new.durable_step < old.durable_step and not gone & rejected:
            raise Broken(f"step {old.durable_step} was durable, now {new.durable_step} is")

    def _check_added(self, checkpoint: Checkpoint, new: RunRecord) -> None:
        key = f"checkpoints/{checkpoint.step:08d}-{new.attempt:03d}/"
        if checkpoint.key != key or checkpoint.attempt != new.attempt:
            raise Broken(f"attempt {new.attempt} listed {checkpoint.key}")
        if key in self.listed:
            raise Broken(f"{key} was committed twice")
        self.listed[key] = checkpoint.manifest_sha256

    # -- files ------------------------------------------------------------------------------

    def _check_whole(self, record: RunRecord, key: str) -> None:
        """What `key`, which has changed, may have to do with."""
        for checkpoint in record.checkpoints:
            if checkpoint.key not in self.damaged and _touches(key, checkpoint.key):
                files = self._verified(checkpoint.key, checkpoint.manifest_sha256)
                if files != self.handed_over.get(checkpoint.key):
                    raise Broken(f"{checkpoint.key} is not what its attempt wrote")
        if record.status in FINISHED:
            if record.adapter is None:
                raise Broken("finished without an adapter")
            if _touches(key, record.adapter.key):
                self._verified(record.adapter.key, record.adapter.manifest_sha256)

    def _verified(self, folder: str, manifest_sha256: str) -> Files:
        manifest = self.store.objects.get(folder + MANIFEST_NAME)
        if manifest is None or _sha256(manifest) != manifest_sha256:
            raise Broken(f"listed, and its manifest is not there or another one: {folder}")
        entries: dict[str, Any] = json.loads(manifest)["files"]
        files = {name: self.store.objects.get(folder + name, b"") for name in entries}
        for name, data in files.items():
            if {"size": len(data), "sha256": _sha256(data)} != entries[name]:
                raise Broken(f"listed, and not whole: {folder}{name}")
        return files


def _touches(key: str, folder: str) -> bool:
    return key == RECORD_KEY or key.startswith(folder)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _superfluous(checkpoints: list[Checkpoint], keep: int) -> set[str]:
    """Keys that retention may take out: neither of the newest nor the best."""
    scored = [c for c in checkpoints if c.eval_loss is not None]
    best = sorted(scored, key=lambda c: (c.eval_loss, c.step))[:1]
    return {c.key for c in checkpoints} - {c.key for c in [*checkpoints[-keep:], *best]}
