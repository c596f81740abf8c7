"""What values a setting may have, and what is said of others."""

from __future__ import annotations

import sys

import pytest

from job.config import load_settings
from tests.settings import REQUIRED, problems


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


# -- URIs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "uris"),
    [
        ("s3://b/a.jsonl,s3://b/b.jsonl.zst", ("s3://b/a.jsonl", "s3://b/b.jsonl.zst")),
        (" s3://b/p/ , , ", ("s3://b/p/",)),
        ("s3://b", ("s3://b",)),
        ("s3://b/", ("s3://b/",)),
        ("/data/train.jsonl.gz", ("/data/train.jsonl.gz",)),
        ("data/train", ("data/train",)),
    ],
)
def test_data_sets(text: str, uris: tuple[str, ...], env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_DATASET_URI", text)
    assert load_settings().dataset_uri == uris


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (",", "names no data set"),
        ("s3:///train.jsonl", "'s3:///train.jsonl' has no bucket"),
        ("s3://", "'s3://' has no bucket"),
        ("s3://b/train.csv", "neither a .jsonl, .jsonl.gz, .jsonl.zst object nor a prefix"),
        ("s3://b/a.jsonl,s3://b/p", "'s3://b/p' is neither"),
        ("s3://b/a.jsonl.bz2", "is neither"),
        ("https://host/a.jsonl", "has an unknown scheme"),
        ("gs://b/a.jsonl", "has an unknown scheme"),
    ],
)
def test_data_sets_that_are_none(text: str, why: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_DATASET_URI", text)
    assert why in problems()["FORGE_DATASET_URI"]


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("s3://b", "s3://b"),
        ("s3://b/p//", "s3://b/p"),
        ("/runs/", "/runs"),
        ("file:///runs", "/runs"),
    ],
)
def test_outputs(text: str, uri: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_OUTPUT_URI", text)
    settings = load_settings()
    assert settings.output_uri == uri
    assert settings.run_uri == f"{uri}/run-1"


@pytest.mark.parametrize(
    "text", ["s3://", "s3:///p", "/", "runs", "./runs", "file://runs", "gs://b"]
)
def test_outputs_that_are_none(text: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_OUTPUT_URI", text)
    assert "s3://bucket/prefix" in problems()["FORGE_OUTPUT_URI"]


@pytest.mark.parametrize("text", ["a", "run-1", "0", "a" * 63])
def test_run_ids(text: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_RUN_ID", text)
    assert load_settings().run_id == text


@pytest.mark.parametrize(
    "text", ["Run", "-a", "a-", "a_b", "a.b", "a/b", "../a", "a b", "a\n", "é", "a" * 64]
)
def test_run_ids_that_are_none(text: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_RUN_ID", text)
    assert "must be a DNS-1123 label" in problems()["FORGE_RUN_ID"]


@pytest.mark.parametrize(
    "text", ["gpt2", "owner/name", "o/n@refs/pr/1", "/models/x", "s3://b/models/x/"]
)
def test_models(text: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_MODEL", text)
    assert load_settings().base_model == text


@pytest.mark.parametrize("text", ["./x", "../x", "a/b/c", "https://hub/x", "a b", "owner/"])
def test_models_that_are_none(text: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_MODEL", text)
    assert "must be a hub id" in problems()["FORGE_MODEL"]


# -- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LORA_R", "0"),
        ("LORA_ALPHA", "-1"),
        ("LORA_DROPOUT", "1"),
        ("LEARNING_RATE", "0"),
        ("LEARNING_RATE", "nan"),
        ("MAX_STEPS", "0"),
        ("MAX_STEPS", "-2"),
        ("MAX_STEPS", "1.5"),
        ("NUM_TRAIN_EPOCHS", "0"),
        ("NUM_TRAIN_EPOCHS", "inf"),
        ("PER_DEVICE_TRAIN_BATCH_SIZE", "0"),
        ("WARMUP_RATIO", "1"),
        ("WARMUP_STEPS", "-1"),
        ("MAX_SEQ_LENGTH", "15"),
        ("SEED", "-1"),
        ("SEED", str(2**32)),
        ("OPTIM", "sgd"),
        ("LR_SCHEDULER_TYPE", "step"),
        ("ENGINE", "cuda"),
        ("MODEL_FAMILY", "mistral"),
        ("LOSS_ON", "prompt"),
        ("INVALID_ROWS", "ignore"),
        ("MAX_INVALID_FRACTION", "1.1"),
        ("OVERLONG_ROWS", "cut"),
        ("EVAL_FRACTION", "1"),
        ("EARLY_STOPPING_PATIENCE", "-1"),
        ("GATE_MIN_EXACT", "1.01"),
        ("GATE_MIN_GAIN", "-1.01"),
        ("SAVE_STEPS", "0"),
        ("SAVE_SECONDS", "0"),
        ("SAVE_TOTAL_LIMIT", "0"),
        ("GRACE_SECONDS", "0"),
        ("METRICS_PORT", "65536"),
        ("METRICS_LINGER_SECONDS", "-1"),
        ("METRICS_LINGER_SECONDS", "nan"),
        ("HEARTBEAT_SECONDS", "inf"),
        ("STORAGE_PATIENCE_SECONDS", "-1"),
        ("STORAGE_PATIENCE_SECONDS", "inf"),
        ("METRICS_LINGER_SECONDS", "inf"),
        ("GPU_HOUR_PRICE", "inf"),
        ("LOG_FORMAT", "xml"),
        ("PUSHGATEWAY_URL", "gw:9091"),
        ("REPORT_TO", "tensorbored"),
    ],
)
def test_values_out_of_bounds(name: str, value: str, env: pytest.MonkeyPatch) -> None:
    env.setenv(f"FORGE_{name}", value)
    assert list(problems()) == [f"FORGE_{name}"]


def test_a_tracker_that_is_not_installed(env: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "mlflow", "tensorboard"):
        env.setitem(sys.modules, name, None)
    env.setattr("importlib.util.find_spec", lambda _name: None)
    env.setenv("FORGE_REPORT_TO", "wandb")
    assert "'wandb' is not installed in this image" in problems()["FORGE_REPORT_TO"]


def test_a_long_value_is_cut(env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_SEED", "x" * 5000)
    assert len(problems()["FORGE_SEED"]) < 300


def test_code_is_trusted_by_the_very_models_name(env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_MODEL", "owner/name@abc")
    assert not load_settings().trusts_model
    env.setenv("FORGE_TRUST_REMOTE_CODE", "owner/name")
    assert "the model is owner/name@abc" in problems()["FORGE_TRUST_REMOTE_CODE"]
    env.setenv("FORGE_TRUST_REMOTE_CODE", "true")
    env.setenv("FORGE_SEED", "-1")
    assert set(problems()) == {"FORGE_TRUST_REMOTE_CODE", "FORGE_SEED"}
    env.setenv("FORGE_MODEL", "a b")
    assert set(problems()) == {"FORGE_MODEL", "FORGE_SEED"}
    env.setenv("FORGE_MODEL", "owner/name@abc")
    env.delenv("FORGE_SEED")
    env.setenv("FORGE_TRUST_REMOTE_CODE", "owner/name@abc")
    assert load_settings().trusts_model
