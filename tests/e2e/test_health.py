"""What the liveness probe of a real run is told."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from job.demo.s3_server import S3Server
from job.ledger import read_record
from job.storage import open_storage
from tests.e2e.jobs import started
from tests.ledger.wrapped import wait_until
from tests.storage.wire import Answer, Call, interposed, s3_error

STALL_SECONDS = 2


@pytest.mark.usefixtures("forked_jobs")
def test_waiting_an_outage_out_is_no_stall(
    s3_server: S3Server, job_env: dict[str, str], tmp_path: Path
) -> None:
    """Trained to its end, the run waits for its last checkpoint's upload, longer than a step may
    take, and its heartbeat says so. The termination message says how far it came."""
    over = threading.Event()

    def outage(call: Call) -> Answer | None:
        is_upload = call.method in ("PUT", "POST") and "/checkpoints/" in call.path
        return s3_error(503, "SlowDown") if is_upload and not over.is_set() else None

    message = Path(job_env["FORGE_TERMINATION_LOG"])
    message.touch()
    with interposed(s3_server, outage) as url:
        job_env |= {
            "AWS_ENDPOINT_URL_S3": url,
            "AWS_MAX_ATTEMPTS": "2",
            "FORGE_STALL_SECONDS": str(STALL_SECONDS),
            "FORGE_MAX_STEPS": "2",
            "FORGE_HEARTBEAT_SECONDS": "0.5",
        }
        with started(job_env, tmp_path / "log") as job:
            job.wait_until(lambda progress: progress.get("phase") == "publishing")
            until = time.monotonic() + 2 * STALL_SECONDS
            while time.monotonic() < until:
                assert job.get("/healthz") == "ok: publishing\n"  # raises for a 503
                time.sleep(0.2)
            wait_until(
                lambda: _recorded_phase(f"{job_env['FORGE_OUTPUT_URI']}/run") == "publishing"
            )
            over.set()
            ended = job.ended()
    assert ended.code == 0, ended.log
    text = message.read_text()
    assert len(text.encode()) <= 4096
    assert text.startswith("exit 0: succeeded: step 2, adapter at s3://")
    progress = json.loads(text.partition(" | ")[2])
    assert (progress["phase"], progress["step"], progress["max_steps"]) == ("finished", 2, 2)
    assert progress["safe_to_preempt"] is True


def _recorded_phase(run_uri: str) -> str:
    found = read_record(open_storage(run_uri))
    assert found is not None
    return found[0].progress.phase
