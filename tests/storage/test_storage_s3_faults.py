"""Every verb against every way that S3 can refuse it or be out of reach."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from job.demo.s3_server import S3Server
from job.errors import (
    AccessDenied,
    JobError,
    SettingsError,
    Unavailable,
)
from job.storage import Conflict, NotFound, Storage, open_storage, probe
from tests.storage.wire import Answer, Call, Interpose, s3_error


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def every_verb(storage: Storage, tmp_path: Path) -> dict[str, JobError]:
    """What each verb raises when nothing works."""
    source = tmp_path / "source"
    source.write_bytes(b"x")

    def stream() -> object:
        with storage.stream("key") as chunks:
            return list(chunks)

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
        "stream": stream,
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
    "endpoint",
    [
        "nonsense",
        "http://",
        "http://user:hunter2@ho st",
        "http://user:hunter2/x@host",
        "ftp://host",
        "http://h:port",
    ],
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


NO_KEY = "User: arn:aws:sts::1:role/r is not authorized to perform: kms:GenerateDataKey on resource"


@pytest.mark.parametrize(
    ("answer", "expected", "says"),
    [
        (s3_error(403, "AccessDenied"), AccessDenied, "s3:PutObject"),
        (s3_error(403, "AccessDenied", NO_KEY), AccessDenied, "bucket's KMS key"),
        (s3_error(400, "KMS.DisabledException"), AccessDenied, "bucket's KMS key"),
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


HTML = Answer(200, b"<html><body>Welcome</body></html>", {"Content-Type": "text/html"})


def test_an_endpoint_that_is_a_web_page(interpose: Interpose, bucket: str, tmp_path: Path) -> None:
    """The console of a store, or a proxy's page: whatever it is asked, it says yes."""
    interpose(lambda call: HTML)
    storage = open_storage(bucket)
    (tmp_path / "file").write_bytes(b"x")
    verbs: dict[str, Callable[[], object]] = {
        "write": lambda: storage.write("key", b"x"),
        "read": lambda: storage.read("key"),
        "stat": lambda: storage.stat("key"),
    }
    for verb in verbs.values():
        with pytest.raises(SettingsError, match=r"AWS_ENDPOINT_URL_S3: .* it is no S3 store"):
            verb()


def test_a_listing_that_is_no_xml(interpose: Interpose, bucket: str) -> None:
    interpose(lambda call: Answer(200, b"<html><br></html>", {"Content-Type": "text/html"}))
    with pytest.raises(Unavailable, match="check AWS_ENDPOINT_URL_S3"):
        list(open_storage(bucket).list())


def test_a_listing_that_does_not_say_how_it_goes_on(interpose: Interpose, bucket: str) -> None:
    """Of a store without ListObjectsV2: a thousand objects would pass for all there are."""
    first = b"<Contents><Key>a</Key><Size>1</Size><ETag>1</ETag></Contents>"
    body = b"<ListBucketResult><IsTruncated>true</IsTruncated>" + first + b"</ListBucketResult>"
    interpose(lambda call: Answer(200, body, {"Content-Type": "application/xml"}))
    with pytest.raises(SettingsError, match="ListObjectsV2"):
        list(open_storage(bucket).list())


def wants_checksums(call: Call) -> Answer | None:
    """As a bucket whose objects Object Lock retains."""
    names = {name.lower() for name in call.headers}
    sent = "content-md5" in names or any(name.startswith("x-amz-checksum-") for name in names)
    if call.method != "PUT" or sent or "x-amz-trailer" in names:
        return None
    header = "Content-MD5 OR x-amz-checksum- HTTP header is required"
    return s3_error(400, "InvalidRequest", f"{header} for Put Object requests with Object Lock")


def test_a_bucket_with_object_lock(
    interpose: Interpose, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION", raising=False)
    interpose(wants_checksums)
    hint = "set AWS_REQUEST_CHECKSUM_CALCULATION=when_supported"
    file = tmp_path / "file"
    file.write_bytes(b"x" * (20 << 20))  # in parts
    with pytest.raises(SettingsError, match=hint):
        open_storage(bucket).write("key", b"x")
    with pytest.raises(SettingsError, match=hint):
        open_storage(bucket).upload("key", file)

    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    assert probe(open_storage(bucket))
    open_storage(bucket).upload("key", file)
    assert open_storage(bucket).stat("key").size == 20 << 20


def test_a_profile_may_ask_for_checksums_too(
    interpose: Interpose, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION", raising=False)
    config = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    interpose(wants_checksums)
    config.write_text("[default]\nrequest_checksum_calculation = when_supported\n")
    open_storage(bucket).write("key", b"x")
    config.write_text("[default]\nrequest_checksum_calculation = sometimes\n")
    with pytest.raises(SettingsError, match="request_checksum_calculation"):
        open_storage(bucket)


def test_keys_that_can_only_be_deleted_one_by_one_are(interpose: Interpose, bucket: str) -> None:
    """Older stores want a Content-MD5 of DeleteObjects, in much the same words."""
    open_storage(bucket).write("key", b"x")
    missing = s3_error(400, "InvalidRequest", "Missing required header: Content-MD5")
    interpose(lambda call: missing if call.method == "POST" else None)
    open_storage(bucket).delete(["key"])
    assert list(open_storage(bucket).list()) == []
