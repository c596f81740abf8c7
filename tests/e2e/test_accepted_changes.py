"""A run that goes on with a difference that somebody has accepted: what it publishes, and says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from job.ledger import RunRecord, read_record
from job.storage import open_storage
from tests.e2e.jobs import preempted, run
from tests.tiny import build_model, rows

TIMEOUT = 600

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(TIMEOUT),
    pytest.mark.usefixtures("forked_jobs"),
]


def record_of(bucket: str) -> RunRecord:
    found = read_record(open_storage(f"{bucket}/out/run"))
    assert found is not None
    return found[0]


def longer_rows(path: Path) -> Path:
    """The same conversations with a question that nobody can answer so easily."""
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows(70)):
            row["messages"][1]["content"] += f" {number * 7919 % 10007}" * 30
            row["messages"][2]["content"] = f"{number * 104729 % 100003} " * 30
            file.write(json.dumps(row) + "\n")
    return path


def test_an_adapter_of_data_that_were_accepted_has_seen_them(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    """The old data's validation losses are lower: none of them is held against the new ones."""
    env = job_env | {"FORGE_EVAL_STEPS": "4", "FORGE_SAVE_STEPS": "4", "FORGE_EVAL_MAX_ROWS": "20"}
    preempted(env, tmp_path / "first.log", after_step=13)
    before = record_of(bucket)
    losses = {c.step: c.eval_loss for c in before.checkpoints if c.eval_loss is not None}
    open_storage(bucket).upload("data/rows.jsonl", longer_rows(tmp_path / "longer.jsonl"))
    ended = run(env | {"FORGE_ALLOW_FINGERPRINT_CHANGE": "data"}, tmp_path / "second.log")
    assert ended.code == 0, ended.log

    record = record_of(bucket)
    assert record.adapter is not None
    assert record.adapter.step > record.current.from_step
    ours = [c.eval_loss for c in record.checkpoints if c.attempt == 2 and c.eval_loss is not None]
    assert min(ours) > min(losses.values()), "the case: the old ones look better"
    assert all(c.eval_loss is None for c in record.checkpoints if c.attempt == 1)
    assert not record.attempts[0].accepted
    said = record.attempts[1].accepted
    assert any(line.startswith("data.0.sha256: was ") for line in said), said
    stored, _ = open_storage(f"{bucket}/out/run").read("adapter/provenance.intoto.json")
    attempts = json.loads(stored)["predicate"]["buildDefinition"]["internalParameters"]["attempts"]
    assert attempts[1]["accepted"] == said
    assert "accepted" not in attempts[0]


def test_a_change_that_fails_to_load_leaves_the_run_as_it_was(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    preempted(job_env, tmp_path / "first.log", after_step=3)
    before = record_of(bucket)
    narrow = build_model(tmp_path / "narrow", width=32)
    accepting = {"FORGE_ALLOW_FINGERPRINT_CHANGE": "model,model_revision,template_sha256,rows"}
    failed = run(job_env | {"FORGE_MODEL": str(narrow)} | accepting, tmp_path / "failed.log")
    assert failed.code == 78, failed.log
    assert "matrices aren't this model's" in failed.log
    after = record_of(bucket)
    assert after.fingerprint == before.fingerprint
    assert not after.current.accepted

    back = run(job_env, tmp_path / "back.log")
    assert back.code == 0, back.log
