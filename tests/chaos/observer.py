"""Somebody who looks at a run's storage from outside, after each blow, and believes nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from job.checkpoint import MANIFEST_NAME
from job.checkpoint.manifest import Manifest
from job.ledger import RECORD_KEY, RunRecord
from job.storage import NotFound, Storage


@dataclass
class Observer:
    """`violations` is empty as long as every promise is kept."""

    storage: Storage
    violations: list[str] = field(default_factory=list)
    lost_commits: int = 0
    false_completions: int = 0
    looks: int = 0
    _durable: int = 0
    _attempt: int = 0
    _sound: dict[str, str] = field(default_factory=dict)
    """Folders that were found whole, with their manifest's SHA-256: immutable from then on."""

    def look(self) -> RunRecord | None:
        """Check the run as it lies there. None before it began."""
        self.looks += 1
        try:
            record = RunRecord.model_validate_json(self.storage.read(RECORD_KEY)[0])
        except NotFound:
            return None
        except ValueError as error:
            self.violations.append(f"run.json can't be read: {error}")
            return None
        if record.attempt < self._attempt:
            self.violations.append(f"attempt {self._attempt} became {record.attempt}")
        self._attempt = record.attempt
        self._check_checkpoints(record)
        self._check_completion(record)
        return record

    def _check_checkpoints(self, record: RunRecord) -> None:
        for checkpoint in record.checkpoints:
            if self._sound.get(checkpoint.key) == checkpoint.manifest_sha256:
                continue
            problem = _damage(self.storage, checkpoint.key, checkpoint.manifest_sha256)
            if problem and not self._is_listed(checkpoint.key):
                continue  # it has left the record since, and its files went after that
            if problem:
                self.violations.append(f"listed and not whole: {problem}")
            else:
                self._sound[checkpoint.key] = checkpoint.manifest_sha256
        if record.durable_step < self._durable:
            self.lost_commits += 1
            self.violations.append(
                f"step {self._durable} was durable, now {record.durable_step} is"
            )
        self._durable = record.durable_step

    def _is_listed(self, key: str) -> bool:
        record = RunRecord.model_validate_json(self.storage.read(RECORD_KEY)[0])
        return key in {checkpoint.key for checkpoint in record.checkpoints}

    def _check_completion(self, record: RunRecord) -> None:
        if record.status != "succeeded":
            return
        adapter = record.adapter
        problem = "it names no adapter"
        if adapter is not None:
            problem = _damage(self.storage, adapter.key, adapter.manifest_sha256)
        if problem:
            self.false_completions += 1
            self.violations.append(f"called succeeded: {problem}")


def _damage(storage: Storage, key: str, manifest_sha256: str) -> str:
    """What is wrong with a stored folder; nothing if it is whole. A plain check of its own."""
    try:
        data, _ = storage.read(key + MANIFEST_NAME)
        if hashlib.sha256(data).hexdigest() != manifest_sha256:
            return f"{key}{MANIFEST_NAME} is another one"
        for name, entry in Manifest.model_validate_json(data).files.items():
            content, _ = storage.read(key + name)
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                return f"{key}{name} is not what was committed"
    except NotFound as error:
        return f"{error} is missing"
    return ""


def result_of(storage: Storage) -> dict[str, object]:
    """What two runs that did the same have in common: the adapter's bytes and the curves."""
    adapter, _ = storage.read("adapter/adapter_model.safetensors")
    lines = storage.read("report/metrics.jsonl")[0].splitlines()
    entries = [json.loads(line) for line in lines]
    return {
        "adapter": hashlib.sha256(adapter).hexdigest(),
        "losses": [(e["step"], e.get("loss"), e.get("eval_loss")) for e in entries],
    }
