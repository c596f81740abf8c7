"""Two workers under the launcher, against the real S3 server: signals, kills, other world sizes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from job.errors import FingerprintMismatch
from job.ledger import RunRecord, read_record
from job.storage import open_storage
from tests.distributed.workers import worker
from tests.e2e.jobs import JobProcess, run, started


def _record(env: dict[str, str]) -> RunRecord:
    found = read_record(open_storage(f"{env['FORGE_OUTPUT_URI']}/{env['FORGE_RUN_ID']}"))
    assert found is not None
    return found[0]


def _at_step(job: JobProcess, step: int) -> None:
    job.wait_until(lambda progress: progress.get("step", 0) >= step)


def test_a_signal_to_one_rank_preempts_all_and_torchrun_resumes(
    two_env: dict[str, str], tmp_path: Path
) -> None:
    with started(two_env, tmp_path / "first.log") as job:
        _at_step(job, 7)
        os.kill(worker(job.pid, 1), signal.SIGTERM)
        first = job.ended()
    assert first.code == 75, first.log
    record = _record(two_env)
    assert record.status == "preempted"
    assert record.durable_step == record.progress.step >= 7
    assert record.effective_batch_size == 8
    assert (tmp_path / "termination-log").read_text().startswith("exit 75: preempted")
    folder = record.checkpoints[-1].key
    names = {path.key for path in open_storage(f"{two_env['FORGE_OUTPUT_URI']}/run").list(folder)}
    assert {f"{folder}rng_state_0.pth", f"{folder}rng_state_1.pth"} <= names

    env = {**two_env, "FORGE_MAX_STEPS": "400", "PET_NPROC_PER_NODE": ""}
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "job")
    again = JobProcess(env, tmp_path / "again.log", command=command)
    try:
        _at_step(again, record.durable_step + 3)
        os.kill(worker(again.pid, 0), signal.SIGTERM)
        ended = again.ended()
    finally:
        again.kill()
    assert ended.code == 1, ended.log  # torchrun's, whatever its workers say
    record = _record(two_env)
    assert record.status == "preempted"
    assert record.attempts[-1].exit_code == 75
    assert record.attempts[-1].resume_drift == 0.0


def test_a_killed_rank_ends_all_and_other_numbers_go_on_by_name(
    two_env: dict[str, str], tmp_path: Path
) -> None:
    env = {**two_env, "FORGE_MAX_STEPS": "30"}
    with started(env, tmp_path / "first.log") as job:
        job.wait_until(lambda _: "checkpoint of step 5 is durable" in job.log())
        os.kill(worker(job.pid, 1), signal.SIGKILL)
        first = job.ended()
    assert first.code == 70, first.log
    record = _record(env)
    assert record.status == "failed"
    assert "connection between ranks broke" in record.current.reason
    durable = record.durable_step
    assert durable >= 5

    alone = {**env, "PET_NPROC_PER_NODE": "1"}
    refused = run(alone, tmp_path / "refused.log")
    assert refused.code == FingerprintMismatch.exit_code, refused.log
    assert "world_size: was 2, is now 1" in refused.log

    accepted = run(
        {**alone, "FORGE_ALLOW_FINGERPRINT_CHANGE": "world_size"}, tmp_path / "accepted.log"
    )
    assert accepted.code == 0, accepted.log
    record = _record(env)
    assert record.status == "succeeded"
    assert record.current.from_step == durable
    assert record.effective_batch_size == 8
