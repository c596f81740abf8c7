"""A second attempt, as a process, that finds other data than the first one recorded."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from job.config import load_settings
from job.dataset import fetch
from job.ledger import Checkpoint, Ledger, read_record
from job.stages.fingerprint import of_run
from job.storage import open_storage
from tests.dataset.standin import model_folder
from tests.e2e.jobs import run, started

ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture
def env(bucket: str, tmp_path: Path) -> dict[str, str]:
    """Of a run that was preempted after its first checkpoint."""
    open_storage(bucket).write("data/rows.jsonl", ROW * 8)
    model = model_folder(tmp_path / "model")
    (model / "config.json").write_text('{"model_type": "llama"}')
    env = {
        "FORGE_RUN_ID": "run",
        "FORGE_DATASET_URI": f"{bucket}/data/",
        "FORGE_OUTPUT_URI": f"{bucket}/out",
        "FORGE_MODEL": str(model),
    }
    settings = load_settings(**{name[6:].lower(): value for name, value in env.items()})
    files = fetch(settings.dataset_uri, tmp_path / "first" / "data")
    ledger = Ledger.claim(
        open_storage(settings.run_uri), "run", version="1", conditional_writes=True
    )
    key = "checkpoints/00000008-001/"
    ledger.set_fields(
        fingerprint=of_run(
            settings, files, "commit", "template", "reference", "bf16", {"train": 8}
        ),
        checkpoints=[Checkpoint(step=8, attempt=1, key=key, manifest_sha256="0" * 64, bytes=1)],
    )
    ledger.close("preempted", 75, "received SIGTERM")
    return env | {
        "FORGE_WORK_DIR": str(tmp_path / "work"),
        "FORGE_TERMINATION_LOG": str(tmp_path / "termination-log"),
        "FORGE_METRICS_LINGER_SECONDS": "0",
        "FORGE_LOG_FORMAT": "json",
        "HF_HUB_OFFLINE": "1",
    }


def test_it_is_refused_with_what_differs(env: dict[str, str], bucket: str, tmp_path: Path) -> None:
    open_storage(bucket).write("data/rows.jsonl", ROW * 9)
    ended = run(env, tmp_path / "log")

    message = ended.events()[-1]["message"]
    assert ended.code == 65, message
    assert "the data were changed since this run began" in message
    assert f"rows.jsonl: was changed: size in bytes {len(ROW) * 8} -> {len(ROW) * 9}" in message
    assert "FORGE_ALLOW_FINGERPRINT_CHANGE=data" in message
    found = read_record(open_storage(f"{bucket}/out/run"))
    assert found is not None
    assert (found[0].status, found[0].current.exit_code) == ("failed", 65)
    assert found[0].durable_step == 8, "the run can go on once the data are mended"
    assert found[0].fingerprint["data.0.size"] == len(ROW) * 8


def test_other_settings_are_told_first(env: dict[str, str], bucket: str, tmp_path: Path) -> None:
    open_storage(bucket).write("data/rows.jsonl", ROW * 9)
    ended = run({**env, "FORGE_SEED": "1"}, tmp_path / "log")

    message = ended.events()[-1]["message"]
    assert ended.code == 78, message
    assert "seed: was 3407, is now 1" in message


@pytest.mark.parametrize(("setting", "code"), [({}, 65), ({"FORGE_SEED": "1"}, 78)])
def test_a_refusal_can_be_scraped(
    env: dict[str, str], bucket: str, tmp_path: Path, setting: dict[str, str], code: int
) -> None:
    open_storage(bucket).write("data/rows.jsonl", ROW * 9)
    env = {**env, **setting, "FORGE_METRICS_LINGER_SECONDS": "200"}
    with started(env, tmp_path / "log") as job:
        job.wait_until(lambda progress: progress.get("phase") == "failed")
        scraped = job.get("/metrics").splitlines()
        job.signal(signal.SIGTERM)
        ended = job.ended()
    assert ended.code == code, ended.log
    # An alert takes the code of the newest attempt, so it needs both.
    assert {f"forge_exit_code {code}.0", "forge_attempt 2.0"} <= set(scraped)
