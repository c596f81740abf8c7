"""The closed sets that label values come from, so that no input can grow the number of series.

Names of tools, scenarios, files and errors' messages are never among them.
"""

from __future__ import annotations

import re
from typing import Final

OTHER: Final = "other"
"""In place of a value that its set lacks."""

STAGES: Final = ("write", "upload", "commit")
"""Of a checkpoint."""

DIRECTIONS: Final = ("sent", "received")

FAILURE_REASONS: Final = (
    "access_denied",
    "conflict",
    "internal_error",
    "not_found",
    "out_of_disk",
    "settings_error",
    "unavailable",
)
"""Why a checkpoint did not become durable: classes of errors, as label values are written."""

OPERATIONS: Final = (
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CreateMultipartUpload",
    "DeleteObject",
    "DeleteObjects",
    "GetObject",
    "HeadObject",
    "ListMultipartUploads",
    "ListObjectsV2",
    "PutObject",
    "UploadPart",
)
"""S3's names of the requests that the job makes."""


def failure_reason(error: str) -> str:
    """`AccessDenied` → `access_denied`."""
    return among(FAILURE_REASONS, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", error).lower())


def among(values: tuple[str, ...], value: str) -> str:
    """`value`, or `OTHER`."""
    return value if value in values else OTHER
