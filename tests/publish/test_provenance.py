"""The adapter's provenance, held against the specification's own protobuf models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementModel

from job.config import load_settings
from job.ledger import Attempt, Checkpoint, Holder, RunRecord
from job.publish.provenance import PREDICATE_TYPE, statement
from tests.settings import REQUIRED

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "ab" * 32
DATA = {"uri": "s3://data/a.jsonl", "sha256": DIGEST, "size": 9, "rows": 3, "etag": "e"}
SUBJECTS = {"adapter_model.safetensors": DIGEST, "README.md": "cd" * 32}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


def a_record(revision: str = COMMIT) -> RunRecord:
    ended = "2026-11-26T11:00:00.000+01:00"
    older, newer = "checkpoints/00000008-001/", "checkpoints/00000009-002/"
    return RunRecord(
        run_id="run-1",
        attempt=2,
        created_at=ended,
        model={"name": "owner/name", "revision": revision},
        fingerprint={"engine": "reference", "precision": "bf16", "versions.torch": "2.13.0"},
        effective_batch_size=8,
        checkpoints=[
            Checkpoint(step=8, attempt=1, key=older, manifest_sha256="cd" * 32, bytes=1),
            Checkpoint(step=9, attempt=2, key=newer, manifest_sha256=DIGEST, bytes=1),
        ],
        attempts=[
            Attempt(number=1, holder=Holder(token="t"), exit_code=75, ended_at=ended),
            Attempt(number=2, holder=Holder(token="u"), from_step=8),
        ],
    )


def stated(
    record: RunRecord, environ: dict[str, str] | None = None, **settings: Any
) -> dict[str, Any]:
    loaded = load_settings(**settings)
    moment = "2026-11-26T12:00:00.000+00:00"
    return statement(record, loaded, [DATA], SUBJECTS, finished_on=moment, environ=environ or {})


def dependencies(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    listed = found["predicate"]["buildDefinition"]["resolvedDependencies"]
    return {one["name"]: one for one in listed}


def test_it_keeps_the_specification() -> None:
    """Unknown fields and wrong types are errors of `ParseDict`; `validate` wants what must be."""
    found = stated(
        a_record(),
        {"OCI_IMAGE_REVISION": COMMIT, "OCI_IMAGE_SOURCE": "https://git.example/forge-job"},
        image=f"r.example/forge-job@sha256:{DIGEST}",
        model="owner/name",
    )
    parsed = ParseDict(found, StatementModel())
    Statement.copy_from_pb(parsed).validate()
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == PREDICATE_TYPE == "https://slsa.dev/provenance/v1"
    predicate = ParseDict(found["predicate"], Provenance())
    assert predicate.build_definition.build_type
    assert predicate.run_details.builder.id
    assert predicate.run_details.metadata.invocation_id == "s3://runs/out/run-1#attempt-2"
    times = predicate.run_details.metadata
    assert times.finished_on.seconds - times.started_on.seconds == 2 * 3600
    for dependency in predicate.build_definition.resolved_dependencies:
        assert dependency.uri
        assert dependency.digest


def test_what_it_was_made_from() -> None:
    image = f"r/f@sha256:{DIGEST}"
    found = stated(a_record(), {"OCI_IMAGE_REVISION": COMMIT}, image=image, model="owner/name@x")
    made_from = dependencies(found)
    assert made_from["data"]["digest"] == {"sha256": DIGEST}
    assert made_from["data"]["annotations"] == {"rows": 3, "bytes": 9, "etag": "e"}
    assert made_from["base model"]["uri"] == f"pkg:huggingface/owner/name@{COMMIT}"
    assert made_from["base model"]["digest"] == {"gitCommit": COMMIT}
    assert made_from["image"]["digest"] == {"sha256": DIGEST}
    assert made_from["source"]["digest"] == {"gitCommit": COMMIT}
    build = found["predicate"]["buildDefinition"]
    assert build["externalParameters"]["model"] == "owner/name@x"
    assert [a.get("exitCode") for a in build["internalParameters"]["attempts"]] == [75, None]
    assert build["internalParameters"]["versions"] == {"torch": "2.13.0"}
    [checkpoint, _] = found["predicate"]["runDetails"]["byproducts"]
    assert checkpoint["uri"] == "s3://runs/out/run-1/checkpoints/00000009-002/manifest.json"
    assert checkpoint["digest"] == {"sha256": DIGEST}


def test_what_is_not_known_is_left_out() -> None:
    made_from = dependencies(stated(a_record(), image="r.example/forge-job:1"))
    assert "digest" not in made_from["image"]
    assert "source" not in made_from
    assert "image" not in dependencies(stated(a_record()))


def test_a_tree_with_changes_is_no_commit() -> None:
    source = dependencies(stated(a_record(), {"OCI_IMAGE_REVISION": f"{COMMIT}-dirty"}))["source"]
    assert "digest" not in source
    assert source["annotations"] == {"revision": f"{COMMIT}-dirty"}


@pytest.mark.parametrize(
    ("model", "uri"),
    [
        ("/models/m", "file:///models/m"),
        ("/models/llama@16bit", "file:///models/llama@16bit"),
        ("s3://b/qwen@16bit", "s3://b/qwen@16bit"),
    ],
)
def test_a_hash_of_our_own_is_no_digest_of_anything(model: str, uri: str) -> None:
    found = dependencies(stated(a_record(DIGEST), model=model))["base model"]
    assert found == {"name": "base model", "uri": uri, "annotations": {"filesHash": DIGEST}}


def test_the_same_run_gives_the_same_statement() -> None:
    record = a_record()
    for attempt in record.attempts:
        attempt.started_at = "2026-11-26T10:00:00.000+00:00"
    swapped = dict(reversed(SUBJECTS.items()))
    settings, moment = load_settings(), "2026-11-26T12:00:00.000+00:00"
    again = statement(record, settings, [DATA], swapped, finished_on=moment, environ={})
    assert json.dumps(again) == json.dumps(stated(record))


def test_no_secret_is_in_it() -> None:
    secret = "hunter2hunter2"
    found = stated(
        a_record(),
        {"AWS_SECRET_ACCESS_KEY": secret},
        image=f"r.example/{secret}:1",
        pushgateway_url=f"https://u:{secret}@gw.example",
    )
    assert secret not in json.dumps(found)
    assert "pushgateway" not in json.dumps(found)
