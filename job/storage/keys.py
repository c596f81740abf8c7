"""What a key may look like, the same for every backend."""

from __future__ import annotations

from job.validators import s3_bucket

S3_SCHEME = "s3://"


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Bucket and key (or prefix, or '') of an S3 URI.

    Raises `ValueError` if it is none or names no bucket; `MayHoldPassword` quotes nothing of it.
    """
    if not uri.startswith(S3_SCHEME):
        raise ValueError(f"'{uri}' is not an S3 URI; write s3://bucket/key")
    bucket, key = s3_bucket(uri), uri.removeprefix(S3_SCHEME).partition("/")[2]
    if not bucket:
        raise ValueError(f"'{uri}' has no bucket; write s3://bucket/key")
    return bucket, key


def checked_key(key: str) -> str:
    """The key itself, if it can only mean one object below the root; else `ValueError`.

    Refused are '..' and '.', a leading or trailing '/', '//' and the NUL byte: a store would take
    some of them as they are, and a file system would read another path into them.
    """
    if any(part in ("", ".", "..") for part in key.split("/")) or "\0" in key:
        raise ValueError(f"{key!r} is no key: parts between '/' must be names, not '', '.' or '..'")
    return key


def checked_folder(prefix: str) -> str:
    """The prefix itself, if it is '' or names a folder (`runs/`); else `ValueError`."""
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"{prefix!r} is no folder: it must end in '/'")
    return checked_prefix(prefix)


def checked_names(names: str) -> str:
    """The text itself, if a folder's name may begin so; else `ValueError`. '' means all."""
    if "/" in names or "\0" in names:
        raise ValueError(f"{names!r} begins no name of a folder: those hold no '/'")
    return names


def checked_prefix(prefix: str) -> str:
    """The prefix itself, if keys may start with it; else `ValueError`. '' means everything."""
    parts = prefix.split("/")
    if prefix and (any(part in ("", ".", "..") for part in parts[:-1]) or parts[-1] == ".."):
        raise ValueError(f"{prefix!r} is no prefix of any key")
    return prefix
