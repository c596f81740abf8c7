"""Credentials in a file that an agent beside the job renews, as it runs out under a run of days."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from job.errors import AccessDenied
from job.storage import NotFound, Storage, open_storage
from tests.storage.wire import Answer, Call, Interpose, s3_error


class Credentials:
    """The file; and the store, to which the key `OLD` has expired."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[str] = []
        self.accepted_calls = 0
        """Of `OLD`, until then."""

    def give(self, key: str) -> None:
        self.path.write_text(
            f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n"
        )

    def rule(self, call: Call) -> Answer | None:
        self.calls.append(call.method)
        expired = "Credential=OLD" in call.headers.get("Authorization", "")
        refused = expired and len(self.calls) > self.accepted_calls
        if "list-type" in call.path:
            call.path += "&max-keys=1"
        return s3_error(403, "ExpiredToken") if refused else None


@pytest.fixture
def credentials(
    bucket: str, interpose: Interpose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Credentials:
    open_storage(bucket).write("there/a", b"content")
    open_storage(bucket).write("there/b", b"content")
    found = Credentials(tmp_path / "credentials")
    found.give("OLD")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(found.path))
    interpose(found.rule)
    return found


def streamed(storage: Storage) -> bytes:
    with storage.stream("there/a") as chunks:
        return b"".join(chunks)


VERBS: dict[str, Callable[[Storage, Path], Any]] = {
    "stat": lambda storage, _: storage.stat("there/a"),
    "list": lambda storage, _: next(storage.list()),
    "folders": lambda storage, _: next(storage.folders()),
    "read": lambda storage, _: storage.read("there/a"),
    "write": lambda storage, _: storage.write("new", b""),
    "create": lambda storage, _: storage.write("new", b"", if_none_match=True),
    "upload": lambda storage, path: storage.upload("new", path),
    "download": lambda storage, path: storage.download("there/a", path.with_name("target")),
    "stream": lambda storage, _: streamed(storage),
    "delete": lambda storage, _: storage.delete(["there/a"]),
}


@pytest.mark.parametrize("verb", VERBS)
def test_who_asks_once_is_served_with_the_renewed_ones(
    bucket: str, credentials: Credentials, verb: str
) -> None:
    storage = open_storage(bucket)
    credentials.give("NEW")
    VERBS[verb](storage, credentials.path)
    assert len(credentials.calls) > 1, "nothing was refused"


def test_unfinished_uploads_are_forgotten_with_the_renewed_ones(
    bucket: str, credentials: Credentials
) -> None:
    storage = open_storage(bucket)
    credentials.give("NEW")
    boto3.session.Session().client("s3").create_multipart_upload(
        Bucket=bucket.removeprefix("s3://"), Key="checkpoints/a"
    )
    assert storage.forget_uploads("checkpoints/") == 1


def test_a_listing_goes_on_where_it_was_when_they_ran_out(
    bucket: str, credentials: Credentials
) -> None:
    credentials.accepted_calls = 1
    listing = open_storage(bucket).list()
    assert next(listing).key == "there/a"
    credentials.give("NEW")
    assert [info.key for info in listing] == ["there/b"]


def test_those_that_stay_refused_are_looked_for_at_each_request(
    bucket: str, credentials: Credentials
) -> None:
    storage = open_storage(bucket)
    with pytest.raises(AccessDenied, match="ExpiredToken"):
        storage.read("key")
    credentials.give("NEW")
    with pytest.raises(NotFound):
        storage.read("key")


@pytest.mark.parametrize(
    "half_written", ["", "[default]\naws_access_key_id = NEW\n", "[default]\naws_acc"]
)
def test_a_file_that_is_just_being_written(
    bucket: str, credentials: Credentials, half_written: str
) -> None:
    storage = open_storage(bucket)
    credentials.path.write_text(half_written)
    for _ in range(2):
        with pytest.raises(AccessDenied):
            storage.read("there/a")
    credentials.give("NEW")
    assert storage.read("there/a")[0] == b"content"


def test_what_a_role_may_not_do_is_not_tried_again(bucket: str, interpose: Interpose) -> None:
    calls: list[str] = []

    def refuse(call: Call) -> Answer:
        calls.append(call.method)
        return s3_error(403, "AccessDenied")

    interpose(refuse)
    with pytest.raises(AccessDenied):
        open_storage(bucket).write("key", b"")
    assert calls == ["PUT"]
