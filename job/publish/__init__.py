"""The adapter as people get it, and the statement of what it was made from."""

from job.publish.adapter import (
    ADAPTER_KEY,
    CANDIDATE_KEY,
    CHECKSUMS_NAME,
    PROVENANCE_NAME,
    publish,
    remove_leftovers,
    save_adapter,
    seal,
    upload,
    verify,
    write_checksums,
)

__all__ = [
    "ADAPTER_KEY",
    "CANDIDATE_KEY",
    "CHECKSUMS_NAME",
    "PROVENANCE_NAME",
    "publish",
    "remove_leftovers",
    "save_adapter",
    "seal",
    "upload",
    "verify",
    "write_checksums",
]
