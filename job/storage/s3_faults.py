"""The one place where botocore's errors become ours.

Import this only from modules of S3: botocore takes a tenth of a second to import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from job.errors import AccessDenied, JobError, Problem, SettingsError, Unavailable
from job.redact import redact
from job.storage.base import Conflict, NotFound, Unanswered
from job.storage.faults import NotSupported, work_disk_fault
from job.storage.observer import Observer
from job.storage.s3_credentials import credentials_fault, credentials_hint


class TransferFailed(Exception):
    """The transfer manager gave a file up."""


class ObjectChanged(Exception):
    """While the transfer manager read it."""


TORN = (boto.IncompleteReadError, boto.ResponseStreamingError, boto.ReadTimeoutError)
"""A response whose body broke off. botocore retries requests, not bodies."""

READ_ATTEMPTS: Final = 3
STREAM_ATTEMPTS: Final = 5
"""Without a byte of progress between them."""

_UNANSWERED = (boto.ConnectionClosedError, boto.ReadTimeoutError)
_UNREACHABLE = (
    *TORN,
    boto.HTTPClientError,
    boto.EndpointConnectionError,
    boto.ConnectionClosedError,
    boto.ConnectTimeoutError,
    boto.ProxyConnectionError,
    boto.SSLError,
    boto.ChecksumError,
    boto.FlexibleChecksumError,
    ResponseParserError,
    TransferFailed,
    ConnectionError,
    TimeoutError,
)
_BAD_CONFIGURATION = (
    boto.ProfileNotFound,
    boto.ConfigParseError,
    boto.ConfigNotFound,
    boto.InvalidChecksumConfigError,
    boto.InvalidConfigError,
    boto.InvalidRegionError,
    boto.InvalidRetryConfigurationError,
    boto.UnknownEndpointError,
)
_TRANSIENT_CODES = {
    "BadDigest",
    "InternalError",
    "NoSuchUpload",  # a store cleaned the parts up under a slow upload
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}
_CREDENTIAL_CODES = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidIdentityToken",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_UNSIGNED_BODY = ("content-md5", "x-amz-checksum")
"""In AWS's words for a body without a checksum, which Object Lock wants; DeleteObjects is met with
such words too, by older stores (see `is_of_the_batch`)."""
_REGION_CODES = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_PERMISSION_CODES = {"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "Forbidden"}

_PERMISSION_HINT = (
    "the role needs s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on "
    "the prefix, s3:ListBucket on the bucket, and s3:GetObjectVersion where it keeps versions"
)
_KMS = "KMS."
"""Begins AWS's codes for a bucket's key that is disabled, about to be deleted, or not there."""
_KMS_HINT = (
    "the bucket's KMS key must be there and enabled, and let the role use kms:GenerateDataKey and "
    "kms:Decrypt"
)
_CHECKSUM_HINT = (
    "set AWS_REQUEST_CHECKSUM_CALCULATION=when_supported, as a bucket with Object Lock needs"
)
_ENDPOINT_HINT = "set AWS_ENDPOINT_URL_S3 to http(s)://host[:port], or unset it for AWS itself"


@dataclass(frozen=True)
class S3Faults:
    """Translates errors for one root, so that messages can name it."""

    root: str
    """The URI the user gave."""
    bucket: str
    endpoint: str
    credentials_refused: Callable[[], None] = lambda: None
    """Called where it is the credentials, not what they permit; also where there are none."""

    @contextmanager
    def mapped(self, where: str) -> Iterator[None]:
        """Raise our exception in place of botocore's. `where` is the URI the request was about."""
        try:
            yield
        except Exception as error:
            ours = self.translate(error, where)
            if ours is None:
                raise
            raise ours from error

    def translate(self, error: Exception, where: str) -> Exception | None:
        """Our exception for theirs, or None if it is none of storage's."""
        if isinstance(error, boto.ClientError):
            return self._from_response(error, where)
        if isinstance(error, ObjectChanged):
            return Conflict(f"{where}: changed since its ETag was taken")
        if isinstance(error, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            found = f"the certificate of {redact(self.endpoint)} is not trusted"
            return SettingsError(Problem(where, found, "name its CA file in AWS_CA_BUNDLE"))
        if (fault := credentials_fault(error, where)) is not None:
            if isinstance(fault, AccessDenied):
                self.credentials_refused()
            return fault
        if isinstance(error, KeyError) and error.args == ("ETag",):
            found = f"{redact(self.endpoint)} answered without an ETag: it is no S3 store"
            return SettingsError(Problem("AWS_ENDPOINT_URL_S3", found, _ENDPOINT_HINT))
        if isinstance(error, _UNREACHABLE):
            kind = Unanswered if isinstance(error, _UNANSWERED) else Unavailable
            return self._unreachable(where, redact(str(error)), kind)
        if isinstance(error, OSError):
            return work_disk_fault(error)
        return configuration_fault(error, where)

    def _unreachable(
        self, where: str, found: str, kind: type[Unavailable] = Unavailable
    ) -> Unavailable:
        hint = "check AWS_ENDPOINT_URL_S3 and the network"
        return kind(
            Problem(where, f"{redact(self.endpoint)} did not serve the request: {found}", hint)
        )

    def _from_response(self, error: boto.ClientError, where: str) -> Exception:
        """The store answered, with an error."""
        told = error.response.get("Error", {})
        code = told.get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        # Ceph's gateway leaves the message out.
        said = f"{error.operation_name} answered {code}: {told.get('Message') or 'no reason given'}"
        if code == "NoSuchBucket":
            found = f"bucket '{self.bucket}' does not exist at {redact(self.endpoint)}"
            hint = "create it, or correct the URI and AWS_ENDPOINT_URL_S3"
            return SettingsError(Problem(self.root, found, hint))
        if status == 412 or code in ("PreconditionFailed", "ConditionalRequestConflict"):
            return Conflict(f"{where}: {said}")
        if code in _TRANSIENT_CODES or status == 429 or (status >= 500 and status != 501):
            return self._unreachable(where, said)
        if status == 404 or code in ("NoSuchKey", "NoSuchVersion"):
            return NotFound(where)
        if status == 501 or code == "NotImplemented":
            return NotSupported(Problem(where, said, "the store does not implement this request"))
        if code in _CREDENTIAL_CODES or status == 401:
            self.credentials_refused()
        if error.operation_name != "DeleteObjects" and _wants_checksum(status, said):
            return SettingsError(Problem(where, said, _CHECKSUM_HINT))
        return _refused(code, status, Problem(where, said))


def again_if_torn(observer: Observer, attempts: int) -> Retrying:
    """Calls a function that reads a body, once more each time that the body breaks off."""
    return Retrying(
        retry=retry_if_exception_type(TORN),
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        before_sleep=lambda _: observer.retried("GetObject"),
        reraise=True,
    )


def is_of_the_batch(refusal: JobError) -> bool:
    """Whether keys that DeleteObjects was refused for may be deleted one by one.

    Some stores don't have it; older ones want its Content-MD5, for which botocore sends a newer
    checksum; older releases of Ceph's gateway want the right to it for the whole bucket, where a
    policy gives it for the run's prefix alone.
    """
    elsewhere = isinstance(refusal, Unavailable | SettingsError)
    return isinstance(refusal, NotSupported) or not elsewhere


def configuration_fault(error: Exception, where: str) -> SettingsError | None:
    """A bad AWS setting, found before any request is sent; None if it is something else."""
    if isinstance(error, boto.EndpointProviderError) or (
        isinstance(error, ValueError) and str(error).startswith("Invalid endpoint")
    ):
        return SettingsError(Problem("AWS_ENDPOINT_URL_S3", redact(str(error)), _ENDPOINT_HINT))
    if isinstance(error, boto.ParamValidationError):
        return SettingsError(Problem(where, f"is not a valid S3 location: {error}"))
    if isinstance(error, _BAD_CONFIGURATION):
        hint = "check AWS_PROFILE, AWS_DEFAULT_REGION and AWS_CONFIG_FILE"
        return SettingsError(Problem("AWS configuration", redact(str(error)), hint))
    return None


def _wants_checksum(status: int, said: str) -> bool:
    return status == 400 and any(name in said.lower() for name in _UNSIGNED_BODY)


def _refused(code: str, status: int, problem: Problem) -> JobError:
    """The store understood and said no."""
    if code == "InvalidObjectState":
        hint = "restore it to a storage class that can be read at once"
        return SettingsError(Problem(problem.where, problem.found, hint))
    if code == "RequestTimeTooSkewed":
        return AccessDenied(Problem(problem.where, problem.found, "set this machine's clock"))
    if code in _CREDENTIAL_CODES or status == 401:
        return AccessDenied(Problem(problem.where, problem.found, credentials_hint()))
    if code.startswith(_KMS) or " kms:" in problem.found:
        return AccessDenied(Problem(problem.where, problem.found, _KMS_HINT))
    if code in _PERMISSION_CODES or status == 403:
        return AccessDenied(Problem(problem.where, problem.found, _PERMISSION_HINT))
    if code in _REGION_CODES or status == 301:
        hint = "set AWS_DEFAULT_REGION to the bucket's region"
        return SettingsError(Problem(problem.where, problem.found, hint))
    if code == "InvalidBucketName":
        return SettingsError(problem)
    return JobError(problem)
