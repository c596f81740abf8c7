"""`validate`: the code a run would have died with, every fault in one go, and no torch."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from job.storage import open_storage
from tests.tiny import write_rows


def validate(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_sound_run(job_env: dict[str, str], bucket: str) -> None:
    done = validate(job_env, "-m", "job", "validate")
    assert done.returncode == 0, done.stderr
    assert "settings   ok" in done.stdout
    assert "honours conditions" in done.stdout
    assert "70 rows: 60 train" in done.stdout
    assert "of the training tokens have a label" in done.stdout
    leftovers = [info.key for info in open_storage(bucket).list("out/")]
    assert leftovers == []  # validating is no attempt


def test_torch_is_not_imported(job_env: dict[str, str]) -> None:
    done = validate(job_env, "-X", "importtime", "-m", "job", "validate")
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert {"job.validate", "tokenizers"} <= imported
    heavy = {"torch", "trl", "peft", "datasets", "accelerate", "bitsandbytes"}
    assert not imported & heavy


def test_every_fault_is_reported_and_the_first_decides(
    job_env: dict[str, str], bucket: str
) -> None:
    open_storage(bucket).write("data/rows.jsonl", b'{"messages": 1}\nnonsense\n')
    env = job_env | {"FORGE_OUTPUT_URI": "s3://no-such-bucket/out"}
    done = validate(env, "-m", "job", "validate", "--json")
    assert done.returncode == 78
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["storage"]["exit_code"] == 78
    assert "no-such-bucket" in checks["storage"]["detail"]
    assert checks["rows"]["exit_code"] == 65
    assert "rows.jsonl:1" in checks["rows"]["detail"]
    assert "rows.jsonl:2" in checks["rows"]["detail"]


def test_without_a_tokenizer_the_rows_are_still_checked(job_env: dict[str, str]) -> None:
    env = job_env | {"FORGE_MODEL": "owner/model"}  # a hub that is out of reach here
    done = validate(env, "-m", "job", "validate")
    assert done.returncode == 0, done.stdout
    assert re.search(r"tokenizer +not checked", done.stdout)
    assert "lengths and masks were not checked" in done.stdout


def test_bad_settings(job_env: dict[str, str]) -> None:
    done = validate(job_env | {"FORGE_SEED": "-1", "FORGE_SEDE": "1"}, "-m", "job", "validate")
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
    done = validate(job_env | {"FORGE_DATASET_URI": f"{bucket}/many/"}, "-m", "job", "validate")
    assert done.returncode == 0, done.stdout
    assert "30 rows" in done.stdout
