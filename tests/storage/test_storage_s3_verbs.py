"""What S3 has and a directory has not: pages, batches, folder markers, regions."""

from __future__ import annotations

from collections import Counter

import boto3
import pytest

from job.errors import AccessDenied, JobError, SettingsError, Unavailable
from job.storage import open_storage, probe, split_s3_uri
from tests.storage.wire import Answer, Call, Interpose, s3_error


def test_folder_markers_are_not_objects(bucket: str) -> None:
    name, _ = split_s3_uri(bucket)
    for key in ("data/", "data/sub/", "data/sub/a.jsonl"):
        boto3.client("s3").put_object(Bucket=name, Key=key, Body=b"")

    assert [found.key for found in open_storage(bucket + "/data").list()] == ["sub/a.jsonl"]


def test_more_keys_than_one_answer_lists(interpose: Interpose, bucket: str) -> None:
    keys, calls = ["a", "b", "c/d", "c/e", "f"], Counter[str]()

    def small_pages(call: Call) -> None:
        if "list-type" in call.path:
            calls["list"] += 1
            call.path += "&max-keys=2"

    interpose(small_pages)
    storage = open_storage(bucket + "/prefix")
    for key in keys:
        storage.write(key, b"x")

    assert [found.key for found in storage.list()] == keys
    assert calls["list"] == 3


def test_more_keys_than_one_request_deletes(interpose: Interpose, bucket: str) -> None:
    batches: list[int] = []
    interpose(lambda call: batches.append(call.body.count(b"<Key>")))

    open_storage(bucket).delete(f"key/{number}" for number in range(1001))

    assert batches == [1000, 1]


def test_every_key_that_was_not_deleted_is_named(interpose: Interpose, bucket: str) -> None:
    refused = "".join(
        f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
        for key in ("a", "b")
    )
    interpose(lambda call: Answer(200, f"<DeleteResult>{refused}</DeleteResult>".encode()))

    with pytest.raises(AccessDenied) as error:
        open_storage(bucket).delete(["a", "b", "c"])

    assert [problem.where for problem in error.value.problems] == [f"{bucket}/a", f"{bucket}/b"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(501, "NotImplemented", id="no batches in the store"),
        # As older releases of Ceph's gateway answer whom a policy gives a prefix alone.
        pytest.param(403, "AccessDenied", id="no right to a batch"),
        pytest.param(400, "MissingContentMD5", id="a checksum that botocore doesn't send"),
        pytest.param(400, "InvalidArgument", id="the same as Google's store says it"),
        pytest.param(405, "MethodNotAllowed", id="no such request"),
    ],
)
def test_keys_are_deleted_one_by_one_where_a_batch_is_refused(
    interpose: Interpose, bucket: str, status: int, code: str
) -> None:
    direct = open_storage(bucket)
    direct.write("a", b"")
    direct.write("b", b"")
    interpose(lambda call: s3_error(status, code) if call.method == "POST" else None)

    open_storage(bucket).delete(["a", "b"])

    assert list(direct.list()) == []


def wants_md5(call: Call) -> Answer | None:
    """As older releases of MinIO do of DeleteObjects; botocore sends a newer checksum."""
    lacks = call.method == "POST" and "Content-MD5" not in call.headers
    return s3_error(400, "MissingContentMD5") if lacks else None


def test_probe_of_a_store_that_wants_another_checksum(interpose: Interpose, bucket: str) -> None:
    interpose(wants_md5)
    storage = open_storage(bucket)

    assert probe(storage) is True
    assert list(storage.list()) == []


def test_a_key_that_could_not_be_deleted_by_itself_either(
    interpose: Interpose, bucket: str
) -> None:
    def rule(call: Call) -> Answer | None:
        return wants_md5(call) or (
            s3_error(403, "AccessDenied") if "DELETE" in call.method else None
        )

    interpose(rule)
    with pytest.raises(AccessDenied, match="DeleteObject answered AccessDenied") as error:
        open_storage(bucket).delete(["a", "b"])
    assert [problem.where for problem in error.value.problems] == [f"{bucket}/a"]


def test_a_single_key_that_is_not_there_is_no_error(interpose: Interpose, bucket: str) -> None:
    """Google's store answers so."""
    gone = s3_error(404, "NoSuchKey")
    interpose(lambda call: gone if call.method == "DELETE" else wants_md5(call))

    open_storage(bucket).delete(["a", "b"])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (s3_error(503, "SlowDown"), Unavailable),
        (s3_error(404, "NoSuchBucket"), SettingsError),
    ],
    ids=["outage", "no bucket"],
)
def test_what_has_nothing_to_do_with_a_batch_is_not_tried_key_by_key(
    interpose: Interpose, bucket: str, answer: Answer, expected: type[JobError]
) -> None:
    methods: list[str] = []

    def rule(call: Call) -> Answer:
        methods.append(call.method)
        return answer

    interpose(rule)
    with pytest.raises(expected):
        open_storage(bucket).delete(["a", "b"])
    assert "DELETE" not in methods


def test_region_and_addressing_need_no_setting(
    interpose: Interpose, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Call] = []
    interpose(calls.append)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    open_storage(bucket).write("key", b"x")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    open_storage(bucket).write("key", b"x")

    assert calls[0].path == f"/{split_s3_uri(bucket)[0]}/key"
    assert "/us-east-1/s3/" in calls[0].headers["Authorization"]
    assert "/eu-north-1/s3/" in calls[1].headers["Authorization"]


def test_reports_open_in_a_browser(bucket: str) -> None:
    open_storage(bucket).write("report/report.html", b"<html>")

    head = boto3.client("s3").head_object(Bucket=split_s3_uri(bucket)[0], Key="report/report.html")
    assert head["ContentType"] == "text/html"


def test_uris() -> None:
    assert split_s3_uri("s3://bucket/a/b.jsonl") == ("bucket", "a/b.jsonl")
    assert split_s3_uri("s3://bucket") == ("bucket", "")
    with pytest.raises(ValueError, match="bucket"):
        split_s3_uri("s3:///key")
    with pytest.raises(ValueError, match="S3 URI"):
        split_s3_uri("/key")
