"""The place of the output, against a real S3 server and what stands between."""

from __future__ import annotations

import pytest

from job.config import Settings, load_settings
from job.errors import AccessDenied, SettingsError, Unavailable
from job.preflight.checks import Finding
from job.preflight.output import look_at_output
from job.storage import open_storage
from tests.storage.wire import Answer, Call, Interpose, ignores_conditions, s3_error


def run_below(output_uri: str, gate: float | None = None) -> Settings:
    return load_settings(
        run_id="r", dataset_uri="/data", output_uri=output_uri, gate_min_exact=gate
    )


def test_output(bucket: str) -> None:
    said = f"{bucket}/out/r takes writes and honours conditions"
    assert look_at_output(run_below(f"{bucket}/out")) == said
    assert look_at_output(run_below(f"{bucket}/out", gate=0.5)) == said
    assert list(open_storage(bucket).list()) == []


def test_output_that_ignores_conditions(interpose: Interpose, bucket: str) -> None:
    interpose(ignores_conditions)
    found = look_at_output(run_below(f"{bucket}/out"))
    assert isinstance(found, Finding)
    assert (found.result, "ignores conditions" in found.detail) == ("warning", True)


def test_output_that_can_not_be_written(
    interpose: Interpose, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="'no-such-bucket' does not exist"):
        look_at_output(run_below("s3://no-such-bucket/out"))
    interpose(lambda call: s3_error(403, "AccessDenied") if call.method == "PUT" else None)
    with pytest.raises(AccessDenied):
        look_at_output(run_below(f"{bucket}/out"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(Unavailable):
        look_at_output(run_below(f"{bucket}/out"))


def test_rights_of_one_run_alone_are_too_few_where_it_would_promote(
    interpose: Interpose, bucket: str
) -> None:
    """The run ends at its start, with 77."""

    def own_prefix_only(call: Call) -> Answer | None:
        return None if "/out/r/" in call.path else s3_error(403, "AccessDenied")

    interpose(own_prefix_only)
    assert isinstance(look_at_output(run_below(f"{bucket}/out")), str)
    with pytest.raises(AccessDenied):
        look_at_output(run_below(f"{bucket}/out", gate=0.5))
