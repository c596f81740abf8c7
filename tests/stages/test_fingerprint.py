"""What a run's identity is made of, and which settings are part of it."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

from job.config import Settings, load_settings
from job.dataset import DataFile, DataObject
from job.errors import FingerprintMismatch, SettingsError
from job.ledger import Checkpoint, RunRecord, compare
from job.stages.fingerprint import (
    at_same_batch,
    library_versions,
    of_run,
    of_settings,
    pins,
    recorded_data,
)
from tests.settings import GIVEN

REQUIRED: dict[str, Any] = {
    "run_id": "run-1",
    "dataset_uri": "s3://data/train.jsonl",
    "output_uri": "s3://runs/out",
}

MATHEMATICS = {
    "dataset_uri": {"dataset_uri"},
    "profile": {"lora.r", "lora.alpha", "lora.dropout", "num_train_epochs"}
    | {"learning_rate", "warmup.ratio"},
    "model_family": {"model", "model_family"},
    "model": {"model"},
    "lora_r": {"lora.r"},
    "lora_alpha": {"lora.alpha"},
    "lora_dropout": {"lora.dropout"},
    "learning_rate": {"learning_rate"},
    "max_steps": {"max_steps"},
    "num_train_epochs": {"num_train_epochs"},
    "per_device_train_batch_size": {"effective_batch_size"},
    "gradient_accumulation_steps": {"effective_batch_size"},
    "warmup_steps": {"warmup.steps", "warmup.ratio"},
    "warmup_ratio": {"warmup.ratio"},
    "weight_decay": {"weight_decay"},
    "lr_scheduler_type": {"lr_scheduler_type"},
    "optim": {"optim"},
    "max_seq_length": {"max_seq_length"},
    "seed": {"seed"},
    "loss_on": {"loss_on"},
    "invalid_rows": {"invalid_rows"},
    "overlong_rows": {"overlong_rows"},
    "eval_fraction": {"split.eval_fraction"},
    "eval_max_rows": {"split.eval_max_rows"},
    "eval_steps": {"eval_steps"},
    "early_stopping_patience": {"early_stopping_patience"},
}
"""Setting → the fields of the fingerprint by which another value of it is refused."""

NEEDS_A_TRACKER = {"report_to"}


def settings(**given: Any) -> Settings:
    return load_settings(**(REQUIRED | given))


def refused(recorded: dict[str, Any], current: dict[str, Any]) -> set[str]:
    try:
        compare(recorded, current)
    except FingerprintMismatch as error:
        return {problem.where for problem in error.problems}
    return set()


@pytest.mark.parametrize("name", sorted(set(GIVEN) - NEEDS_A_TRACKER))
def test_exactly_what_changes_the_mathematics_is_refused(name: str) -> None:
    other = settings(**{name: GIVEN[name][0]})
    assert refused(of_settings(settings()), of_settings(other)) == MATHEMATICS.get(name, set())


def test_the_same_batch_in_other_pieces_goes_on_with_a_warning() -> None:
    one = settings(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    two = settings(per_device_train_batch_size=4, gradient_accumulation_steps=2)
    assert [str(found) for found in compare(of_settings(one), of_settings(two))] == [
        "provenance.per_device_train_batch_size: was 2, is now 4"
    ]


def test_a_profile_and_its_values_written_out_are_the_same_run() -> None:
    written_out = settings(
        profile="fast_dev",
        lora_r=16,
        max_steps=-1,
        warmup_steps=0,
        warmup_ratio=0.03,
    )
    assert compare(of_settings(settings()), of_settings(written_out)) == []


FILE = DataObject(uri="s3://data/train.jsonl", size=10, etag="e", version_id="v", sha256="aa")


def whole(
    file: DataObject = FILE, template: str = "tt", engine: str = "reference", train: int = 8
) -> dict[str, Any]:
    files = [DataFile(source=file, path=Path("/volume/data/0"))]
    return of_run(
        settings(), files, "commit", template, engine, "fp32", {"train": train, "evaluation": 2}
    )


def test_what_the_whole_holds() -> None:
    found = whole()
    assert of_settings(settings()).items() <= found.items()
    rest = {
        name: value
        for name, value in found.items()
        if name not in of_settings(settings()) and not name.startswith("versions.")
    }
    assert rest == {
        "data.0.uri": "s3://data/train.jsonl",
        "data.0.sha256": "aa",
        "data.0.size": 10,
        "rows.train": 8,
        "rows.evaluation": 2,
        "model_revision": "commit",
        "template_sha256": "tt",
        "engine": "reference",
        "precision": "fp32",
        "provenance.etags.0": "e",
        "provenance.version_ids.0": "v",
    }
    assert "/volume/data" not in str(found), "where it lies on this machine says nothing"


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        (whole(), set()),
        (whole(DataObject(FILE.uri, 10, "e2", "v2", "aa")), set()),
        (whole(DataObject(FILE.uri, 10, None, None, "aa")), set()),
        (whole(DataObject(FILE.uri, 11, "e2", "v2", "bb")), {"data.0.sha256", "data.0.size"}),
        (whole(template="t2"), {"template_sha256"}),
        (whole(engine="unsloth"), {"engine"}),
        (whole(train=9), {"rows.train"}),
    ],
)
def test_data_template_and_engine_are_part_of_it(other: dict[str, Any], fields: set[str]) -> None:
    assert refused(whole(), other) == fields


LOCAL = DataObject(uri="/data/a.jsonl", size=0, etag=None, version_id=None, sha256="bb")


@pytest.mark.parametrize("sources", [[FILE], [LOCAL, FILE], [FILE] * 12, []])
def test_the_data_can_be_read_out_of_it_again(sources: list[DataObject]) -> None:
    files = [DataFile(source, Path("/volume/data/0")) for source in sources]
    found = of_run(settings(), files, "commit", "tt", "reference", "fp32", {"train": 8})
    assert recorded_data(json.loads(json.dumps(found))) == sources


def record(*, checkpoints: int = 1) -> RunRecord:
    listed = [
        Checkpoint(step=8, attempt=1, key="checkpoints/8/", manifest_sha256="0" * 64, bytes=1)
    ]
    return RunRecord(
        run_id="run-1",
        fingerprint=whole(),
        effective_batch_size=8,
        checkpoints=listed * checkpoints,
    )


def test_a_run_with_checkpoints_goes_on_with_its_data() -> None:
    assert pins(record(), settings()) == [FILE]
    assert pins(record(), settings(allow_fingerprint_change="seed", seed=1)) == [FILE]
    assert pins(record(), settings(grace_seconds=60)) == [FILE]


def test_a_run_without_checkpoints_may_begin_anew_with_other_data() -> None:
    assert pins(record(checkpoints=0), settings(seed=1)) == []


@pytest.mark.parametrize("accepted", ["data", "data.0.sha256,data.0.size", "seed,data"])
def test_data_that_may_differ_are_not_pinned(accepted: str) -> None:
    assert pins(record(), settings(allow_fingerprint_change=accepted)) == []


def test_the_same_data_elsewhere() -> None:
    moved: dict[str, Any] = {"dataset_uri": "s3://data/moved.jsonl"}
    with pytest.raises(FingerprintMismatch, match="dataset_uri: was"):
        pins(record(), settings(**moved))
    accepted = settings(**moved, allow_fingerprint_change="dataset_uri,data")
    assert pins(record(), accepted) == []


def test_other_settings_are_refused_before_the_data_are_looked_at() -> None:
    with pytest.raises(FingerprintMismatch, match="seed: was 3407, is now 1"):
        pins(record(), settings(seed=1))


def test_what_no_checkpoint_can_be_loaded_under_is_refused_though_it_is_accepted() -> None:
    """On the CPU, before anything is fetched, and not after the model was loaded."""
    other = settings(lora_r=8, optim="adamw_torch", allow_fingerprint_change="lora,optim")
    with pytest.raises(FingerprintMismatch, match="another FORGE_RUN_ID"):
        pins(record(), other)


def test_a_field_of_another_release_is_left_to_the_whole() -> None:
    older = record()
    del older.fingerprint["early_stopping_patience"]
    older.fingerprint["a_field_of_a_newer_one"] = 1
    assert pins(older, settings()) == [FILE]


def test_another_number_of_processes_is_refused_and_the_hint_names_it_alone() -> None:
    with pytest.raises(FingerprintMismatch) as caught:
        pins(record(), settings(), ranks=2)
    told = [(problem.where, problem.found) for problem in caught.value.problems]
    assert told == [
        ("effective_batch_size", "was 8, is now 16"),
        ("world_size", "was 1, is now 2"),
    ]
    assert caught.value.remedy.endswith("FORGE_ALLOW_FINGERPRINT_CHANGE=world_size)")


ACCEPTED: dict[str, Any] = {"allow_fingerprint_change": "world_size"}


def test_another_number_of_processes_by_name_keeps_the_batch_of_a_step() -> None:
    before = record()
    two = at_same_batch(settings(**ACCEPTED), before, 2)
    assert two.hyperparameters().gradient_accumulation_steps == 2
    assert pins(before, two, ranks=2) == [FILE]
    unnamed = settings()
    assert at_same_batch(unnamed, before, 2) is unnamed
    one = settings(**ACCEPTED)
    assert at_same_batch(one, before, 1) is one


def test_attempts_after_the_one_that_changed_it_keep_the_batch_too() -> None:
    changed = record()
    changed.fingerprint["world_size"] = 2
    again = at_same_batch(settings(**ACCEPTED), changed, 2)
    assert again.hyperparameters().gradient_accumulation_steps == 2
    assert pins(changed, again, ranks=2) == [FILE]


def test_a_batch_that_the_processes_cannot_share_is_refused() -> None:
    with pytest.raises(SettingsError, match="which 3 processes with micro-batches of 2 can't"):
        at_same_batch(settings(**ACCEPTED), record(), 3)


def test_it_survives_the_record() -> None:
    found = whole()
    assert json.loads(json.dumps(found)) == found


def test_versions_are_those_that_are_installed() -> None:
    found = library_versions()
    assert found["transformers"] == importlib.metadata.version("transformers")
    assert {"torch", "trl", "peft", "bitsandbytes", "unsloth", "forge-job"} <= set(found)


def test_a_library_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("job.stages.fingerprint._LIBRARIES", ("no-such-distribution",))
    assert library_versions() == {"no-such-distribution": None}
