"""Two workers against the real S3 server: a signal, a kill, a frozen node, another world size."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from job.errors import Fenced, FingerprintMismatch
from job.storage import open_storage
from tests.distributed.workers import durable_step, record_of, worker
from tests.e2e.jobs import JobProcess, run, started


@pytest.mark.usefixtures("forked_jobs")  # launchers and runs of one; workers start as they do
def test_a_run_of_two_through_a_signal_a_kill_and_a_frozen_node(
    two_env: dict[str, str], tmp_path: Path
) -> None:
    """One run, since each of its attempts starts where the one before has ended."""
    _preempted_under_torchrun(two_env, tmp_path)
    _resumed_and_killed(two_env, tmp_path)
    _frozen_and_replaced(two_env, tmp_path)
    _started_again(two_env, tmp_path)


def _preempted_under_torchrun(env: dict[str, str], folder: Path) -> None:
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "job")
    alone = {**env, "PET_NPROC_PER_NODE": ""}
    job = JobProcess(alone, folder / "first.log", command=command)
    try:
        job.wait_until(lambda progress: progress.get("step", 0) >= 7)
        os.kill(worker(job.pid, 1), signal.SIGTERM)
        ended = job.ended()
    finally:
        job.kill()
    assert ended.code == 1, ended.log  # torchrun's, whatever its workers say
    record = record_of(env)
    assert record.status == "preempted"
    assert record.current.exit_code == 75
    assert record.durable_step == record.progress.step >= 7
    assert record.effective_batch_size == 8
    assert Path(env["FORGE_TERMINATION_LOG"]).read_text().startswith("exit 75: preempted")
    key = record.checkpoints[-1].key
    names = {info.key for info in open_storage(f"{env['FORGE_OUTPUT_URI']}/run").list(key)}
    assert {f"{key}rng_state_0.pth", f"{key}rng_state_1.pth"} <= names


def _resumed_and_killed(env: dict[str, str], folder: Path) -> None:
    later = record_of(env).durable_step + 6
    with started(env, folder / "second.log") as job:
        job.wait_until(lambda _: durable_step(job.log()) >= later)
        os.kill(worker(job.pid, 1), signal.SIGKILL)
        ended = job.ended()
    assert ended.code == 70, ended.log
    record = record_of(env)
    assert record.status == "failed"
    assert record.current.resume_drift in (None, 0.0)  # none: it was stopped between two steps
    assert "connection between ranks broke" in record.current.reason
    assert record.durable_step >= later


def _frozen_and_replaced(env: dict[str, str], folder: Path) -> None:
    """The whole node stands still, and wakes up when another one has finished the run."""
    later = record_of(env).durable_step + 6
    with started(env, folder / "frozen.log") as job:
        job.wait_until(lambda _: durable_step(job.log()) >= later)
        both = [worker(job.pid, rank) for rank in range(2)]
        _signal(both, signal.SIGSTOP)
        _finished_alone(env, folder)
        before = _etags(env)
        _signal(both, signal.SIGCONT)
        ended = job.ended()
    assert ended.code == Fenced.exit_code, ended.log
    assert _etags(env) == before


def _signal(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)


def _etags(env: dict[str, str]) -> dict[str, str]:
    """Of all that the run holds but checkpoints that no record names."""
    listed = open_storage(f"{env['FORGE_OUTPUT_URI']}/{env['FORGE_RUN_ID']}").list()
    known = tuple(checkpoint.key for checkpoint in record_of(env).checkpoints)
    return {
        info.key: info.etag
        for info in listed
        if info.key.startswith(known) or not info.key.startswith("checkpoints/")
    }


def _finished_alone(env: dict[str, str], folder: Path) -> None:
    durable = record_of(env).durable_step
    alone = {**env, "PET_NPROC_PER_NODE": "1"}
    refused = run(alone, folder / "refused.log")
    assert refused.code == FingerprintMismatch.exit_code, refused.log
    assert "world_size: was 2, is now 1" in refused.log

    allowed = {**alone, "FORGE_ALLOW_FINGERPRINT_CHANGE": "world_size"}
    ended = run(allowed, folder / "finished.log")
    assert ended.code == 0, ended.log
    record = record_of(env)
    assert record.status == "succeeded"
    assert record.current.from_step == durable
    assert record.effective_batch_size == 8
    *together, refused_attempt, last = (attempt.processes for attempt in record.attempts)
    assert set(together) == {2}
    assert (refused_attempt, last) == (1, 1)


def _started_again(env: dict[str, str], folder: Path) -> None:
    """The finished run, by two workers: there is nothing to do, and both say so."""
    before = _etags(env)
    again = run({**env, "FORGE_ALLOW_FINGERPRINT_CHANGE": "world_size"}, folder / "again.log")
    assert again.code == 0, again.log
    assert "rank 0 found the run finished" in again.log
    assert Path(env["FORGE_TERMINATION_LOG"]).read_text().startswith("exit 0: ")
    assert _etags(env) == before
