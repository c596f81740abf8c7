"""What an adapter was made from, by what and when: an in-toto statement with SLSA's provenance.

in-toto Statement v1 (github.com/in-toto/attestation, spec/v1/statement.md) around the predicate
https://slsa.dev/provenance/v1. Its subjects are the adapter's files. What the process cannot know
(an image without a digest, a revision that nobody has built in) is left out. Unsigned:
docs/adapter.md says how to sign it. The same run gives the same statement, but for the times.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from job.config import Settings
from job.ledger import RunRecord, versions
from job.model_name import ModelName
from job.redact import Redactor
from job.version import __version__

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:x-forge-job:build:qlora-adapter:v1"
"""docs/adapter.md says what its parameters mean."""
BUILDER_ID: Final = "urn:x-forge-job:builder:job"

_PLATFORM: Final = ("engine", "precision", "template_sha256")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_IMAGE_DIGEST: Final = re.compile(r"@sha256:([0-9a-f]{64})$")

Document = dict[str, Any]


def statement(
    record: RunRecord,
    settings: Settings,
    data: Sequence[Mapping[str, Any]],
    subjects: Mapping[str, str],
    *,
    finished_on: str,
    environ: Mapping[str, str] = os.environ,
) -> Document:
    """The statement about `subjects` (file → SHA-256).

    `data` are the data report's files (`uri`, `sha256`, `size`, `rows`, `etag`, `version_id`),
    `finished_on` is ISO 8601. The image's `OCI_IMAGE_REVISION` and `OCI_IMAGE_SOURCE` come from
    `environ`, whose secrets are masked in all of it.
    """
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": sha256}}
            for name, sha256 in sorted(subjects.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": settings.public(),
                "internalParameters": _internal(record),
                "resolvedDependencies": [
                    *(_data_object(found) for found in data),
                    _base_model(record, settings),
                    *_image(settings),
                    *_source(environ),
                ],
            },
            "runDetails": _run_details(record, settings, finished_on),
        },
    }
    masked: Document = Redactor(environ).plain(document)
    return masked


def _internal(record: RunRecord) -> Document:
    """What the platform decided: engine, versions, what was loaded, how often it was stopped."""
    fingerprint = record.fingerprint
    return {
        **{name: fingerprint[name] for name in _PLATFORM if name in fingerprint},
        "versions": versions(fingerprint),
        "model": dict(record.model),
        "effectiveBatchSize": record.effective_batch_size,
        **({"microBatch": record.micro_batch.model_dump()} if record.micro_batch else {}),
        "attempts": [
            {
                "number": attempt.number,
                "fromStep": attempt.from_step,
                "startedOn": _utc(attempt.started_at),
                **({"endedOn": _utc(attempt.ended_at)} if attempt.ended_at else {}),
                **({} if attempt.exit_code is None else {"exitCode": attempt.exit_code}),
                **({"accepted": attempt.accepted} if attempt.accepted else {}),
            }
            for attempt in record.attempts
        ],
    }


def _data_object(found: Mapping[str, Any]) -> Document:
    told = {
        "rows": found.get("rows"),
        "bytes": found.get("size"),
        "etag": found.get("etag"),
        "versionId": found.get("version_id"),
    }
    return {
        "name": "data",
        "uri": found["uri"],
        "digest": {"sha256": found["sha256"]},
        "annotations": {name: value for name, value in told.items() if value is not None},
    }


def _base_model(record: RunRecord, settings: Settings) -> Document:
    """A hub's model by package URL (purl type `huggingface`) and commit; any other by its place.

    What stands for the revision of such a one is a hash that we make over its files: no digest
    that anybody else could recompute, so it is an annotation.
    """
    revision = record.model.get("revision", "")
    named = ModelName.parse(settings.base_model)
    if named.kind != "hub":
        place = f"file://{named.name}" if named.kind == "folder" else named.name
        return {"name": "base model", "uri": place, "annotations": {"filesHash": revision}}
    model: Document = {"name": "base model", "uri": f"pkg:huggingface/{named.name}@{revision}"}
    if _COMMIT.fullmatch(revision):
        model["digest"] = {"gitCommit": revision}
    return model


def _image(settings: Settings) -> Iterator[Document]:
    if not settings.image:
        return
    image: Document = {"name": "image", "uri": settings.image}
    if digest := _IMAGE_DIGEST.search(settings.image):
        image["digest"] = {"sha256": digest[1]}
    yield image


def _source(environ: Mapping[str, str]) -> Iterator[Document]:
    """The job's own code, as the image's build has written it down."""
    revision, place = environ.get("OCI_IMAGE_REVISION", ""), environ.get("OCI_IMAGE_SOURCE", "")
    if not revision:
        return
    source: Document = {"name": "source", "uri": f"git+{place}" if place else "pkg:pypi/forge-job"}
    if _COMMIT.fullmatch(revision):
        yield source | {"digest": {"gitCommit": revision}}
    else:  # built from a tree with changes
        yield source | {"annotations": {"revision": revision}}


def _run_details(record: RunRecord, settings: Settings, finished_on: str) -> Document:
    newest = max(record.checkpoints, key=lambda found: found.step, default=None)
    checkpoints = [newest] if newest else []
    return {
        "builder": {"id": BUILDER_ID, "version": {"forge-job": __version__}},
        "metadata": {
            "invocationId": f"{settings.run_uri}#attempt-{record.attempt}",
            "startedOn": _utc(record.created_at),
            "finishedOn": _utc(finished_on),
        },
        "byproducts": [
            *(
                {
                    "name": "checkpoint manifest",
                    "uri": f"{settings.run_uri}/{found.key}manifest.json",
                    "digest": {"sha256": found.manifest_sha256},
                }
                for found in checkpoints
            ),
            # Written after the adapter, which it tells of: so it has no digest here.
            {"name": "report", "uri": f"{settings.run_uri}/report/report.json"},
        ],
    }


def _utc(moment: str) -> str:
    """RFC 3339 with a Z, as the spec wants it."""
    moved = datetime.fromisoformat(moment).astimezone(UTC)
    return moved.isoformat(timespec="milliseconds").replace("+00:00", "Z")
