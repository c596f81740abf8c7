"""What a setting's value may look like: one function each, for pydantic to call.

All raise `ValueError` with what to write instead; it never quotes what may hold a password.
"""

from __future__ import annotations

import importlib.util
import re
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationInfo

from job.families import FAMILIES
from job.model_name import ModelName

_DNS_1123_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HUB_ID: Final = re.compile(r"(?!\.)[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
_DATA_SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_BUCKET: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")
"""Looser than S3's rules, as buckets of old and other stores are; no '@' and ':', as in a user's
name and password."""


class MayHoldPassword(ValueError):
    """Of a value that no message may quote."""


def s3_bucket(uri: str) -> str:
    """The bucket of an S3 URI, '' where it names none. Raises `MayHoldPassword` for what can't be
    one."""
    bucket = uri.removeprefix("s3://").partition("/")[0]
    if bucket and not _BUCKET.fullmatch(bucket):
        raise MayHoldPassword(
            "what follows s3:// is no bucket's name (letters, digits, '.', '-', '_'); credentials "
            "belong in the AWS variables"
        )
    return bucket


def split_names(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def run_id(value: str) -> str:
    if not _DNS_1123_LABEL.fullmatch(value):
        raise ValueError(
            "must be a DNS-1123 label: at most 63 of a-z, 0-9 and '-', no '-' at either end"
        )
    return value


def dataset_uris(uris: tuple[str, ...]) -> tuple[str, ...]:
    if not uris:
        raise ValueError("names no data set")
    for uri in uris:
        if uri.startswith("s3://"):
            key = uri.removeprefix("s3://").partition("/")[2]
            if not s3_bucket(uri):
                raise ValueError(f"'{uri}' has no bucket; write s3://bucket/key.jsonl")
            if key and not key.endswith(("/", *_DATA_SUFFIXES)):
                raise ValueError(
                    f"'{uri}' is neither a {', '.join(_DATA_SUFFIXES)} object "
                    "nor a prefix ending in '/'"
                )
        elif "://" in uri:
            found = "a URI" if "@" in uri else f"'{uri}'"  # after a user and a password
            raise ValueError(f"{found} has an unknown scheme; s3:// or a local path are read")
    return uris


def output_uri(uri: str) -> str:
    uri = uri.rstrip("/")
    if uri.startswith("s3://"):
        if not s3_bucket(uri):
            raise ValueError("has no bucket; write s3://bucket/prefix")
    elif uri.startswith("file://"):
        uri = uri.removeprefix("file://")
    if not uri.startswith(("s3://", "/")):
        raise ValueError("must be s3://bucket/prefix (or an absolute path)")
    return uri


def model_name(value: str | None) -> str | None:
    if value is None:
        return None
    kind = ModelName.parse(value).kind
    if kind == "mirror":
        s3_bucket(value)
    elif kind == "hub" and not _HUB_ID.fullmatch(value):
        raise ValueError(
            "must be a hub id (owner/name, owner/name@revision), an absolute path or s3://…"
        )
    return value


def trusted_model(value: str | None, info: ValidationInfo) -> str | None:
    """Held against fields before it, unless they are wrong themselves."""
    if value is None or not {"model", "model_family"} <= info.data.keys():
        return value
    model = info.data["model"] or FAMILIES[info.data["model_family"]].base_model
    if value != model:
        raise ValueError(f"the model is {model}: name the very model, or nothing")
    return value


def exports(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in ("merged_16bit", "gguf"):
            raise ValueError(f"'{name}' is not one of merged_16bit, gguf")
    return names


def hub_repository(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", value):
        raise ValueError("must be owner/name")
    return value


def trackers(names: tuple[str, ...]) -> tuple[str, ...]:
    for tracker in names:
        if tracker not in ("tensorboard", "wandb", "mlflow"):
            raise ValueError(f"'{tracker}' is not one of tensorboard, wandb, mlflow")
        if importlib.util.find_spec(tracker) is None:
            raise ValueError(f"'{tracker}' is not installed in this image")
    return names


def http_url(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text may quote the password
        valid = False
    # A '/', '#' or '?' ends the part with the password, and what is left of that is no host.
    if not valid or "@" in value.partition("://")[2].removeprefix(parts.netloc):
        raise ValueError(
            "must be an http:// or https:// URL, with %2F, %23, %3F for '/', '#', '?' in a password"
        )
    return value


def max_steps(value: int | None) -> int | None:
    if value == 0:
        raise ValueError("must be at least 1, or -1 to let the epochs decide")
    return value
