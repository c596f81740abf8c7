"""What missing credentials mean, and a source of credentials that fails.

botocore asks some sources when a client is made (the agents of EKS Pod Identity and ECS, a
`credential_process`), and all that give them for a while again later, in the middle of a request.
"""

from __future__ import annotations

import os
import re
from typing import Final

from botocore import exceptions as boto

from job.errors import AccessDenied, JobError, Problem, Unavailable
from job.redact import redact

_NO_CREDENTIALS: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
    boto.MetadataRetrievalError,
    boto.SSOError,
    boto.LoginError,
)
_NOT_SERVED: Final = re.compile(
    r"Received error when attempting to retrieve container metadata"
    r"|Received non 200 response (429|5\d\d) "
)
"""By an agent, in botocore's words, which raises the same exception for one that refuses."""
_AGENT_KEYS: Final = (("AccessKeyId",), ("SecretAccessKey",), ("Token",), ("Expiration",))
_ILLEGAL_HEADER: Final = re.compile("Invalid header value|not a legal header value")
_TOKEN_FILES: Final = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
_IN_HEADERS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN")
_GIVEN: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

_LINE_END_HINT: Final = "make the Secret without it, as of `printf %s key | base64`"
_HINT: Final = (
    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of the pod's service account "
    "(IRSA, pod identity)"
)


def credentials_fault(error: Exception, where: str) -> JobError | None:
    """`AccessDenied`, or `Unavailable` for a source that may serve them a moment later; None for
    what has nothing to do with credentials. `where` is the URI that they were wanted for."""
    if _ILLEGAL_HEADER.search(str(error)):  # the value itself is in there, and is never told
        found = f"{_with_a_line_end(_IN_HEADERS)}, which no request can carry"
        return AccessDenied(Problem(where, found, _LINE_END_HINT))
    if isinstance(error, boto.CredentialRetrievalError) and _NOT_SERVED.search(str(error)):
        found = f"the source of the credentials does not serve them: {redact(str(error))}"
        hint = "look at the agent on this node (EKS Pod Identity, ECS)"
        return Unavailable(Problem(where, found, hint))
    if isinstance(error, KeyError) and error.args[:1] in _AGENT_KEYS:
        found = f"the source of the credentials gave none: its answer has no {error}"
        return AccessDenied(Problem(where, found, credentials_hint()))
    if isinstance(error, _NO_CREDENTIALS) or _is_token_file(error):
        found = f"no usable credentials: {redact(str(error))}"
        return AccessDenied(Problem(where, found, credentials_hint()))
    return None


def credentials_hint() -> str:
    """What to look at where they are refused."""
    return f"{_with_a_line_end(_GIVEN)}: {_LINE_END_HINT}" if _ending(_GIVEN) else _HINT


def _with_a_line_end(names: tuple[str, ...]) -> str:
    found = _ending(names)
    return f"{' and '.join(found) or 'the access key or its session token'} ends in a line end"


def _ending(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if os.environ.get(name, "").endswith(("\n", "\r"))]


def _is_token_file(error: Exception) -> bool:
    """Is it a projected token that can't be read? botocore lets `open` fail as it is."""
    if not isinstance(error, OSError) or error.filename is None:
        return False
    return error.filename in [os.environ.get(name) for name in _TOKEN_FILES]
