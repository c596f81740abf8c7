"""`validate`: the code a run would have died with, every fault in one go, and no torch."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import zstandard

from job.storage import open_storage
from tests.environment import python
from tests.storage.wire import Interpose, ignores_conditions
from tests.tiny import write_rows

ANSWER = {"role": "assistant", "content": "I can't say."}


def test_a_sound_run(job_env: dict[str, str], bucket: str) -> None:
    done = python(job_env, "-m", "job", "validate")
    assert done.returncode == 0, done.stderr
    assert "settings   ok" in done.stdout
    assert "honours conditions" in done.stdout
    assert re.search(r"70 rows: \d+ train, 4 evaluation, ", done.stdout)
    assert "of the training tokens have a label" in done.stdout
    leftovers = [info.key for info in open_storage(bucket).list("out/")]
    assert leftovers == []  # validating is no attempt


def test_a_store_that_ignores_conditions_is_warned_of(
    job_env: dict[str, str], interpose: Interpose
) -> None:
    interpose(ignores_conditions)
    url = os.environ["AWS_ENDPOINT_URL_S3"]
    done = python(job_env | {"AWS_ENDPOINT_URL_S3": url}, "-m", "job", "validate")
    assert done.returncode == 0, done.stderr
    assert re.search(r"storage +warning +\S+ takes writes, but ignores conditions", done.stdout)


def test_a_gate_that_no_adapter_can_pass_is_told(job_env: dict[str, str], bucket: str) -> None:
    env = job_env | {"FORGE_GATE_MIN_EXACT": "0.5"}
    done = python(env, "-m", "job", "validate")
    assert "held-out tool-call turns to judge by" in done.stdout
    rows = [{"messages": [{"role": "user", "content": f"Q {i}?"}, ANSWER]} for i in range(40)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    open_storage(bucket).write("data/rows.jsonl", text.encode())
    done = python(env, "-m", "job", "validate")
    assert done.returncode == 0, done.stderr
    assert re.search(r"promotion gate +warning +a promotion gate is set, but no", done.stdout)


def test_torch_is_not_imported(job_env: dict[str, str]) -> None:
    done = python(job_env, "-X", "importtime", "-m", "job", "validate")
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert {"job.preflight.validate", "tokenizers"} <= imported
    heavy = {"torch", "trl", "peft", "datasets", "accelerate", "bitsandbytes"}
    assert not imported & heavy


def test_every_fault_is_reported_and_the_first_decides(
    job_env: dict[str, str], bucket: str
) -> None:
    open_storage(bucket).write("data/rows.jsonl", b'{"messages": 1}\nnonsense\n')
    env = job_env | {"FORGE_OUTPUT_URI": "s3://no-such-bucket/out"}
    done = python(env, "-m", "job", "validate", "--json")
    assert done.returncode == 78
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["storage"]["exit_code"] == 78
    assert "no-such-bucket" in checks["storage"]["detail"]
    assert checks["rows"]["exit_code"] == 65
    assert "rows.jsonl:1" in checks["rows"]["detail"]
    assert "rows.jsonl:2" in checks["rows"]["detail"]


def test_without_a_tokenizer_the_rows_are_still_checked(job_env: dict[str, str]) -> None:
    env = job_env | {"FORGE_MODEL": "owner/model"}  # a hub that is out of reach here
    done = python(env, "-m", "job", "validate")
    assert done.returncode == 0, done.stdout
    assert re.search(r"tokenizer +warning +FORGE_MODEL: owner/model can't be fetched", done.stdout)
    assert "a run that doesn't reach it either ends with 69" in done.stdout
    assert "lengths and masks were not checked" in done.stdout


def test_the_report_goes_where_it_is_wanted(job_env: dict[str, str], bucket: str) -> None:
    done = python(job_env, "-m", "job", "validate", "--report-to", f"{bucket}/look")
    assert done.returncode == 0, done.stdout
    assert "look/dataset/mask-preview.html" in done.stdout
    storage = open_storage(f"{bucket}/look")
    assert json.loads(storage.read("dataset/report.json")[0])["rows"] == 70
    assert b"<title>" in storage.read("dataset/mask-preview.html")[0]
    nowhere = python(job_env, "-m", "job", "validate", "--report-to", "s3://no-such-bucket/x")
    assert nowhere.returncode == 78
    assert re.search(r"report +failed", nowhere.stdout)


def test_rejected_rows_are_told_in_the_table_and_quarantined(
    job_env: dict[str, str], bucket: str
) -> None:
    storage = open_storage(bucket)
    good, _ = storage.read("data/rows.jsonl")
    secret = "AKIA" + "ABCDEFGHIJKLMNOP"
    bad = b'{"messages": [], "key": "%s"}' % secret.encode()
    storage.write("data/rows.jsonl", good + bad + b"\n")
    skip = {"FORGE_INVALID_ROWS": "skip", "FORGE_MAX_INVALID_FRACTION": "0.1"}
    arguments = ("-m", "job", "validate", "--json", "--report-to", f"{bucket}/look")
    done = python(job_env | skip, *arguments)
    assert done.returncode == 0, done.stdout
    [rows] = [check for check in json.loads(done.stdout) if check["name"] == "rows"]
    assert rows["report"]["counts"]["invalid"] == 1
    [told] = rows["report"]["rejected"]
    assert (told["line"], told["problems"][0]["reason"]) == (71, "is empty")
    quarantine, _ = open_storage(f"{bucket}/look").read("dataset/quarantine.jsonl")
    assert quarantine.startswith(b'{"messages": [], "key": "')
    assert secret.encode() not in quarantine


def test_hardly_a_trained_token_is_refused(job_env: dict[str, str]) -> None:
    done = python(job_env | {"FORGE_MIN_SUPERVISED_RATIO": "0.9"}, "-m", "job", "validate")
    assert done.returncode == 65
    assert "of the training tokens have a label" in done.stdout
    assert "FORGE_MIN_SUPERVISED_RATIO is 90.000%" in done.stdout


def test_it_logs_as_the_run_would(job_env: dict[str, str]) -> None:
    for log_format in ("text", "json"):
        done = python(job_env | {"FORGE_LOG_FORMAT": log_format}, "-m", "job", "validate")
        [line] = [line for line in done.stderr.splitlines() if "the model is " in line]
        assert line.startswith('{"') is (log_format == "json"), line


def test_bad_settings_for_machines(job_env: dict[str, str]) -> None:
    done = python(job_env | {"FORGE_SEED": "-1"}, "-m", "job", "validate", "--json")
    assert done.returncode == 78
    [check] = json.loads(done.stdout)
    assert (check["name"], check["exit_code"]) == ("settings", 78)
    assert "FORGE_SEED" in check["detail"]


def test_bad_settings(job_env: dict[str, str]) -> None:
    done = python(job_env | {"FORGE_SEED": "-1", "FORGE_SEDE": "1"}, "-m", "job", "validate")
    assert done.returncode == 78
    assert "FORGE_SEED" in done.stderr
    assert "FORGE_SEDE: is not a setting (did you mean FORGE_SEED?)" in done.stderr


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_prefix_with_compressed_files(
    job_env: dict[str, str], bucket: str, tmp_path: Path, suffix: str
) -> None:
    data = write_rows(tmp_path / "more.jsonl", 30, seed=1).read_bytes()
    packed = {"": data, ".gz": gzip.compress(data), ".zst": zstandard.compress(data)}[suffix]
    storage = open_storage(bucket)
    storage.write(f"many/a.jsonl{suffix}", packed)
    storage.write("many/readme.txt", b"not data")
    done = python(job_env | {"FORGE_DATASET_URI": f"{bucket}/many/"}, "-m", "job", "validate")
    assert done.returncode == 0, done.stdout
    assert "30 rows" in done.stdout


def test_gpu_memory_is_estimated_and_held_against_a_card(
    job_env: dict[str, str], tmp_path: Path
) -> None:
    done = python(job_env, "-m", "job", "validate")
    assert re.search(r"memory +ok +about \d\.\d GiB at micro-batch 2 \(", done.stdout)
    assert "; fits T4, L4" in done.stdout
    model = tmp_path / "large"
    shutil.copytree(job_env["FORGE_MODEL"], model)
    config = json.loads((model / "config.json").read_text())
    wide = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80}
    (model / "config.json").write_text(json.dumps(config | wide | {"num_attention_heads": 64}))
    large = job_env | {"FORGE_MODEL": str(model)}
    assert python(large, "-m", "job", "validate").returncode == 0, "no card was named"
    refused = python(large, "-m", "job", "validate", "--gpu-memory", "24")
    assert refused.returncode == 71
    assert "are needed at micro-batch 1, 24 GB are there" in refused.stdout
    unknown = job_env | {"FORGE_MODEL": "owner/model"}
    done = python(unknown, "-m", "job", "validate", "--gpu-memory", "24")
    assert re.search(r"memory +not checked", done.stdout)
