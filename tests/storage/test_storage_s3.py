"""What only S3, and the way to it, can do wrong. The faults are made on the wire."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from job.demo.s3_server import S3Server
from job.errors import (
    AccessDenied,
    JobError,
    OutOfDisk,
    Preempted,
    SettingsError,
    Unavailable,
)
from job.lifecycle import StopToken
from job.storage import Conflict, NotFound, Storage, open_storage, probe, split_s3_uri
from tests.storage.wire import Answer, Call, Interpose, s3_error


class Counts:
    """An observer that remembers. The tests below use one thread at a time to look at it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bytes: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()

    def sent(self, count: int) -> None:
        with self.lock:
            self.bytes["sent"] += count

    def received(self, count: int) -> None:
        with self.lock:
            self.bytes["received"] += count

    def retried(self, operation: str) -> None:
        with self.lock:
            self.retries[operation] += 1


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def every_verb(storage: Storage, tmp_path: Path) -> dict[str, JobError]:
    """What each verb raises when nothing works."""
    source = tmp_path / "source"
    source.write_bytes(b"x")
    verbs: dict[str, Callable[[], object]] = {
        "stat": lambda: storage.stat("key"),
        "list": lambda: list(storage.list()),
        "read": lambda: storage.read("key"),
        "write": lambda: storage.write("key", b"x"),
        "create": lambda: storage.write("key", b"x", if_none_match=True),
        "replace": lambda: storage.write("key", b"x", if_match="0"),
        "upload": lambda: storage.upload("key", source),
        "download": lambda: storage.download("key", tmp_path / "target"),
        "pinned download": lambda: storage.download("key", tmp_path / "target", etag="0"),
        "delete": lambda: storage.delete(["key"]),
        "probe": lambda: probe(storage),
    }
    raised = {}
    for name, verb in verbs.items():
        with pytest.raises(JobError) as error:
            verb()
        raised[name] = error.value
    return raised


def test_bucket_that_is_not_there(aws_env: dict[str, str], tmp_path: Path) -> None:
    storage = open_storage("s3://no-such-bucket/prefix")

    for name, error in every_verb(storage, tmp_path).items():
        assert isinstance(error, SettingsError), name
        assert "bucket 'no-such-bucket' does not exist" in str(error), name
        assert "s3://no-such-bucket/prefix" in str(error), name


def test_endpoint_that_nobody_serves(
    aws_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    endpoint = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    for name, error in every_verb(open_storage("s3://bucket/prefix"), tmp_path).items():
        assert isinstance(error, Unavailable), name
        assert endpoint in str(error), name


def test_credentials_in_the_endpoint_are_not_shown(
    aws_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://user:hunter2@127.0.0.1:{closed_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(JobError) as error:
        open_storage("s3://bucket").read("key")

    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "http://", "http://user:hunter2@ho st", "ftp://host", "http://h:port"]
)
def test_endpoint_that_is_none(
    aws_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)

    with pytest.raises(SettingsError, match="AWS_ENDPOINT_URL_S3") as error:
        open_storage("s3://bucket").stat("key")
    assert "hunter2" not in str(error.value)


def test_credentials_that_a_store_does_not_know(
    aws_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server of its own that checks who asks, from its second request on."""
    monkeypatch.setenv("INITIAL_NO_AUTH_ACTION_COUNT", "1")
    with S3Server() as server:
        server.create_bucket("guarded")
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")

        for name, error in every_verb(open_storage("s3://guarded"), tmp_path).items():
            assert isinstance(error, AccessDenied), name
            assert "AWS_ACCESS_KEY_ID" in str(error), name
            assert "hunter2" not in str(error), name


def test_no_credentials_at_all(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    for name, error in every_verb(open_storage(bucket), tmp_path).items():
        assert isinstance(error, AccessDenied), name
        assert "AWS_ACCESS_KEY_ID" in str(error), name


def test_token_of_a_service_account_that_is_not_mounted(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/trainer")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))

    with pytest.raises(AccessDenied, match="IRSA"):
        open_storage(bucket).read("key")


def test_profile_that_is_not_there(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    with pytest.raises(SettingsError, match="AWS_PROFILE"):
        open_storage(bucket)


@pytest.mark.parametrize(
    ("answer", "expected", "says"),
    [
        (s3_error(403, "AccessDenied"), AccessDenied, "s3:PutObject"),
        (s3_error(403, "SignatureDoesNotMatch"), AccessDenied, "AWS_SECRET_ACCESS_KEY"),
        (s3_error(400, "ExpiredToken"), AccessDenied, "IRSA"),
        (s3_error(403, "RequestTimeTooSkewed"), AccessDenied, "clock"),
        (s3_error(403, "InvalidObjectState"), SettingsError, "restore"),
        (s3_error(400, "AuthorizationHeaderMalformed"), SettingsError, "AWS_DEFAULT_REGION"),
        (s3_error(503, "SlowDown"), Unavailable, "SlowDown"),
        (s3_error(500, "InternalError"), Unavailable, "InternalError"),
        (s3_error(400, "RequestTimeout"), Unavailable, "RequestTimeout"),
        (s3_error(409, "ConditionalRequestConflict"), Conflict, "ConditionalRequestConflict"),
        (s3_error(501, "NotImplemented"), SettingsError, "does not implement"),
        (s3_error(400, "TeapotError"), JobError, "TeapotError"),
    ],
    ids=lambda value: value.body.decode()[13:30] if isinstance(value, Answer) else "",
)
def test_answers_become_our_errors(
    interpose: Interpose, bucket: str, answer: Answer, expected: type[Exception], says: str
) -> None:
    interpose(lambda call: answer)
    storage = open_storage(bucket)

    for verb in (lambda: storage.write("key", b"x"), lambda: storage.read("key")):
        with pytest.raises(expected, match=says) as error:
            verb()
        assert type(error.value) is expected or issubclass(expected, SettingsError)


def test_expired_token_is_told_of_a_request_whose_answer_has_no_body(
    interpose: Interpose, bucket: str
) -> None:
    interpose(lambda call: Answer(400) if call.method == "HEAD" else s3_error(400, "ExpiredToken"))

    with pytest.raises(AccessDenied, match="ExpiredToken"):
        open_storage(bucket).stat("key")


def test_who_may_not_list_is_still_told_that_a_key_is_missing(
    interpose: Interpose, bucket: str
) -> None:
    interpose(lambda call: s3_error(403, "AccessDenied") if "list-type" in call.path else None)

    with pytest.raises(NotFound):
        open_storage(bucket).stat("key")


def test_torn_download_is_fetched_again(interpose: Interpose, bucket: str, tmp_path: Path) -> None:
    counts, torn = Counts(), iter([True])

    def tear_once(call: Call) -> Answer | None:
        if call.method == "GET" and next(torn, False):
            whole = {"Content-Range": "bytes 0-999999/1000000", "ETag": '"e"'}
            return Answer(206, b"x" * 1_000_000, whole, sent=300_000)
        return None

    open_storage(bucket).write("key", b"y" * 1_000_000)
    interpose(tear_once)
    open_storage(bucket, counts).download("key", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == b"y" * 1_000_000
    assert counts.retries["GetObject"] == 1
    assert counts.bytes["received"] > 1_000_000


def test_torn_downloads_never_leave_the_final_name(
    interpose: Interpose, bucket: str, tmp_path: Path
) -> None:
    target = tmp_path / "in" / "target"
    whole = {"Content-Range": "bytes 0-999999/1000000", "ETag": '"e"'}
    interpose(lambda call: Answer(206, b"x" * 1_000_000, whole, sent=300_000))

    with pytest.raises(Unavailable):
        open_storage(bucket).download("key", target)

    assert list(target.parent.iterdir()) == []


def test_torn_read_is_tried_again_and_then_unavailable(interpose: Interpose, bucket: str) -> None:
    counts, calls = Counts(), []

    def tear(call: Call) -> Answer:
        calls.append(call)
        return Answer(200, b'{"half": true}', {"ETag": '"e"'}, sent=7)

    interpose(tear)
    with pytest.raises(Unavailable):
        open_storage(bucket, counts).read("key")

    assert len(calls) == 3
    assert counts.retries["GetObject"] == 2


def test_object_that_changes_during_its_download_conflicts(
    interpose: Interpose, bucket: str, tmp_path: Path
) -> None:
    """Parts are asked for under the ETag of the first: no file is made of two versions."""
    direct = open_storage(bucket)
    source = tmp_path / "source"
    source.write_bytes(b"1" * 20 * 1024 * 1024)
    direct.upload("key", source)
    source.write_bytes(b"2" * 20 * 1024 * 1024)

    def change_before_the_second_part(call: Call) -> None:
        if call.headers.get("Range", "").startswith("bytes=16777216"):
            direct.upload("key", source)

    interpose(change_before_the_second_part)
    with pytest.raises(Conflict):
        open_storage(bucket).download("key", tmp_path / "in" / "target")

    assert list((tmp_path / "in").iterdir()) == []


def test_sigterm_during_a_download_ends_it(
    interpose: Interpose, bucket: str, tmp_path: Path
) -> None:
    open_storage(bucket).write("key", b"content")
    token, released, target = StopToken(), threading.Event(), tmp_path / "in" / "target"

    def wait_for_the_signal(call: Call) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        released.wait(60)

    def stop(number: int, frame: object) -> None:
        released.set()
        token.request(Preempted("received SIGTERM"))
        token.check()

    interpose(wait_for_the_signal)
    storage = open_storage(bucket)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Preempted):
            storage.download("key", target)
    finally:
        signal.signal(signal.SIGTERM, before)

    left = [path.name for path in target.parent.iterdir()]
    assert left == [] or (left == ["target"] and target.read_bytes() == b"content")


def test_full_work_volume(bucket: str) -> None:
    storage = open_storage(bucket)
    storage.write("key", b"x" * 100_000)

    with pytest.raises(OutOfDisk, match="FORGE_WORK_DIR"):
        storage.download("key", Path("/dev/full"))


def test_large_files_go_in_parts(bucket: str, tmp_path: Path) -> None:
    counts = Counts()
    storage = open_storage(bucket, counts)
    size = 40 * 1024 * 1024
    (tmp_path / "source").write_bytes(os.urandom(size))

    storage.upload("key", tmp_path / "source")
    storage.download("key", tmp_path / "target")

    info = storage.stat("key")
    assert info.size == size
    assert info.etag.endswith("-3")
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
    assert counts.bytes == {"sent": size, "received": size}
    assert not counts.retries


def test_failed_upload_leaves_no_parts(interpose: Interpose, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 40 * 1024 * 1024)
    interpose(lambda call: s3_error(403, "AccessDenied") if "partNumber=2" in call.path else None)

    with pytest.raises(AccessDenied):
        open_storage(bucket).upload("key", tmp_path / "source")

    uploads = boto3.client("s3").list_multipart_uploads(Bucket=split_s3_uri(bucket)[0])
    assert "Uploads" not in uploads


def test_retries_are_counted(interpose: Interpose, bucket: str) -> None:
    counts, failing = Counts(), iter([True])
    interpose(lambda call: s3_error(503, "SlowDown") if next(failing, False) else None)

    open_storage(bucket, counts).write("key", b"x" * 10)

    assert counts.retries == {"PutObject": 1}
    assert counts.bytes == {"sent": 10}


def test_version_pins(bucket: str, tmp_path: Path) -> None:
    name, _ = split_s3_uri(bucket)
    boto3.client("s3").put_bucket_versioning(
        Bucket=name, VersioningConfiguration={"Status": "Enabled"}
    )
    storage = open_storage(bucket)
    etag = storage.write("key", b"old")
    old = storage.stat("key").version_id
    storage.write("key", b"new")

    storage.download("key", tmp_path / "target", etag=etag, version_id=old)
    assert (tmp_path / "target").read_bytes() == b"old"

    boto3.client("s3").delete_object(Bucket=name, Key="key", VersionId=str(old))
    with pytest.raises(Conflict):
        storage.download("key", tmp_path / "gone", version_id=old)
    assert not (tmp_path / "gone").exists()


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


def test_delete_in_a_store_without_batches(interpose: Interpose, bucket: str) -> None:
    direct = open_storage(bucket)
    direct.write("a", b"")
    direct.write("b", b"")
    interpose(lambda call: s3_error(501, "NotImplemented") if call.method == "POST" else None)

    open_storage(bucket).delete(["a", "b"])

    assert list(direct.list()) == []


def test_probe_of_a_store_that_ignores_conditions(interpose: Interpose, bucket: str) -> None:
    def strip(call: Call) -> None:
        for name in [name for name in call.headers if name.lower().startswith("if-")]:
            del call.headers[name]

    interpose(strip)
    storage = open_storage(bucket)

    assert probe(storage) is False
    assert list(storage.list()) == []


@pytest.mark.parametrize("ignored", ["if-match", "if-none-match"])
def test_probe_of_a_store_that_ignores_one_condition(
    interpose: Interpose, bucket: str, ignored: str
) -> None:
    def strip(call: Call) -> None:
        for name in [name for name in call.headers if name.lower() == ignored]:
            del call.headers[name]

    interpose(strip)
    assert probe(open_storage(bucket)) is False


def test_probe_of_a_store_that_refuses_conditions(interpose: Interpose, bucket: str) -> None:
    def refuse(call: Call) -> Answer | None:
        conditional = any(name.lower().startswith("if-") for name in call.headers)
        return s3_error(501, "NotImplemented") if conditional else None

    interpose(refuse)
    storage = open_storage(bucket)

    assert probe(storage) is False
    assert list(storage.list()) == []


def test_probe_of_a_store_that_returns_something_else(interpose: Interpose, bucket: str) -> None:
    stale = Answer(200, b"stale", {"ETag": '"e"'})
    interpose(lambda call: stale if call.method == "GET" else None)

    with pytest.raises(JobError, match="consistent"):
        probe(open_storage(bucket))


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


def test_server_ends_with_the_process_that_started_it() -> None:
    script = (
        "import os, signal\n"
        "from job.demo.s3_server import S3Server\n"
        "server = S3Server().__enter__()\n"
        "print(server.endpoint_url, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The server holds its own end of no pipe but standard error: it ends, and so does this read.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    port = int(done.stdout.strip().rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()


def test_server_on_the_command_line(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "job.demo.s3_server", "--port-file", str(port_file)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    with server.stdout:
        url = server.stdout.readline().strip()
    second = subprocess.run([*command, "--port", url.rpartition(":")[2]], capture_output=True)
    server.send_signal(signal.SIGTERM)

    assert server.wait() == 0
    assert url == f"http://127.0.0.1:{port_file.read_text()}"
    assert second.returncode == 2
    assert b"in use" in second.stderr
