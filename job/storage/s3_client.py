"""An S3 client as the job wants it. Credentials and endpoint come from botocore's chain alone.

That is boto3's too; boto3 itself, whose import takes a sixth of a second more, only moves files.
"""

from __future__ import annotations

import functools
import os
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, cast

import botocore.session
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.httpsession import URLLib3Session
from botocore.loaders import Loader, create_loader
from botocore.utils import get_environ_proxies

from job.errors import JobError, Problem, SettingsError, Unavailable
from job.redact import redact
from job.storage.observer import Observer
from job.storage.s3_credentials import credentials_fault
from job.storage.s3_faults import configuration_fault

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

ATTEMPTS: Final = 5
TRANSFER_THREADS: Final = 8
_STALLED_SECONDS: Final = 60
"""A connection that sends nothing for so long is given up."""
_GLANCE_SECONDS: Final = 10
"""The same for a request that nothing depends on."""
_SOURCES: Final = (
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_METADATA_SERVICE_TIMEOUT",
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS",
)


def open_client(where: str, observer: Observer) -> S3Client:
    """A client that retries and times out, and tells `observer` of each request sent again.

    `AWS_MAX_ATTEMPTS` and `max_attempts` of the AWS profile set the number of attempts (5 if
    unset). With a custom endpoint botocore addresses buckets by path, unless the profile says
    otherwise, and signs for us-east-1 if there is no region.

    Credentials are looked for, and some sources asked, but the store isn't. Raises `SettingsError`
    for a bad endpoint, profile or region, `AccessDenied` for half a pair of keys and the like, and
    `Unavailable` where a source is out of reach. `where` is for their messages.
    """
    core = botocore.session.get_session()
    core.register_component("data_loader", _models())
    try:
        client = core.create_client(
            "s3",
            # botocore reads AWS_DEFAULT_REGION alone; other SDKs, and many pods, say AWS_REGION.
            region_name=core.get_config_variable("region") or os.environ.get("AWS_REGION"),
            config=_config(_attempts(core), _checksums(core)),
        )
    except Exception as error:
        if (fault := _opening_fault(error, where)) is not None:
            raise fault from error
        raise
    client.meta.events.register("request-created.s3", _retry_counter(observer))
    return cast("S3Client", client)


def seconds_ahead(client: S3Client) -> float:
    """How far this machine's clock is ahead of that of the client's endpoint.

    From the `Date` of its answer to an unsigned request, be that a refusal: a signed one from a
    clock that is far off is refused anyway. Good to about a second. Raises `Unavailable`.
    """
    url = client.meta.endpoint_url
    session = URLLib3Session(
        verify=botocore.session.get_session().get_config_variable("ca_bundle") or True,
        proxies=get_environ_proxies(url),
        timeout=_GLANCE_SECONDS,
    )
    before = time.time()
    try:
        answer = session.send(AWSRequest("HEAD", url).prepare())
        told = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (BotoCoreError, KeyError, TypeError, ValueError) as error:
        found = f"did not tell its time: {redact(str(error))}"
        raise Unavailable(Problem(redact(url), found)) from error
    # `Date` has whole seconds, and was written about half way through the exchange.
    return (before + time.time()) / 2 - (told + 0.5)


@functools.cache
def _models() -> Loader:
    """The description of the S3 API, parsed once a process instead of once a client (0.1 s)."""
    return create_loader()


def _attempts(core: botocore.session.Session) -> int:
    try:
        return core.get_config_variable("max_attempts") or ATTEMPTS
    except ValueError as error:
        hint = "give a whole number from 1 on (max_attempts in a profile)"
        raise SettingsError(Problem("AWS_MAX_ATTEMPTS", str(error), hint)) from error


def _checksums(core: botocore.session.Session) -> Any:
    """Whether bodies are sent with a checksum: what the user says, and only where it is required
    where nothing is said. Some S3-compatible stores refuse the CRC trailers that boto3 sends by
    default; a bucket with Object Lock refuses a body without. Content is guarded by the SHA-256 of
    the manifests."""
    said = os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION")
    said = said or core.get_scoped_config().get("request_checksum_calculation")
    return said or "when_required"


def _opening_fault(error: Exception, where: str) -> JobError | None:
    """Nothing was sent to the store; None where the fault may be ours."""
    if isinstance(error, JobError):
        return None
    if fault := configuration_fault(error, where) or credentials_fault(error, where):
        return fault
    found = f"{type(error).__name__}: {redact(str(error))}"
    if isinstance(error, HTTPClientError | BotoConnectionError):
        return Unavailable(Problem(where, f"the source of the credentials: {found}"))
    # What botocore doesn't make its own: a program that is not there, an answer or a number that
    # can't be read, an address that is none.
    if isinstance(error, BotoCoreError | ValueError | OSError):
        return SettingsError(Problem("AWS configuration", found, f"check {_sources()}"))
    return None


def _sources() -> str:
    """Of credentials: the variables, of those that are set, that may be at fault; else the file."""
    names = [name for name in _SOURCES if name in os.environ]
    return ", ".join(names) or "credential_process in the profile"


def _config(attempts: int, checksums: Any) -> Config:
    return Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=_STALLED_SECONDS,
        tcp_keepalive=True,
        # The uploader's and the downloader's threads, the heartbeat and the main thread.
        max_pool_connections=4 * TRANSFER_THREADS,
        request_checksum_calculation=checksums,
        response_checksum_validation="when_required",
    )


def _retry_counter(observer: Observer) -> Any:
    """A handler for `request-created`: botocore emits it for each attempt, with its number."""

    def count(request: Any, operation_name: str, **_: Any) -> None:
        if request.context.get("retries", {}).get("attempt", 1) > 1:
            observer.retried(operation_name)

    return count
