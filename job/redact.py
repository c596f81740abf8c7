"""Masks secrets in all that leaves the process: log lines, reports, the termination message."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

_MASK: Final = "***"
_SECRET_NAME: Final = re.compile(r"(_TOKEN|_SECRET|_PASSWORD|_KEY)$")
_SECRET_MIN_LENGTH: Final = 8
"""Shorter values are ordinary words: masking them would make the logs unreadable."""

_PATTERNS: Final = (
    # The user part of a URL. What follows the ':' is a password and no port where it isn't digits
    # alone: up to the last '@', as a '/', '#' or '?' in one ought to be quoted and often isn't.
    (
        re.compile(r"(://)(?:[^/\s\"'<>?#@:]*:(?!\d*[/?#])[^\s\"'<>]{0,256}|[^/\s\"'<>?#]*)@"),
        rf"\1{_MASK}@",
    ),
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), _MASK),
    # The secret that stands next to an AWS access key id, and the parts of a signed URL.
    (
        re.compile(
            r"\b(A(?:KIA|SIA)[A-Z0-9]{16}\b.{0,60}?)"
            r"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
            re.DOTALL,
        ),
        rf"\1{_MASK}",
    ),
    (re.compile(r"\b((?:X-(?:Amz|Goog)-)?(?:Signature|Security-Token)=)[^&\s\"']+"), rf"\1{_MASK}"),
    (
        re.compile(r"([Aa]uthorization['\"]?\s*[:=]\s*['\"]?(?:\w+\s+)?)[^\s'\"]+"),
        rf"\1{_MASK}",
    ),
)


class Redactor:
    """Knows the secrets that an environment held when it was made. Immutable, thread-safe.

    A secret is the value of a variable whose name ends in _TOKEN, _SECRET, _PASSWORD or _KEY
    (AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, HF_TOKEN, WANDB_API_KEY, … among them), also when
    it is quoted for a URL, escaped in a literal, or rid of the line end that a Secret may have
    given it; and whatever looks like one.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        forms: set[str] = set()
        for name, value in environ.items():
            if _SECRET_NAME.search(name):
                forms |= _forms(value) | _forms(value.strip())
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def text(self, text: str) -> str:
        """`text` with every secret masked; what can't be written as UTF-8 is escaped."""
        if self._known is not None:
            text = self._known.sub(_MASK, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        # A lone surrogate stems from a file name that is not UTF-8.
        return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()

    def plain(self, value: Any) -> Any:
        """`value` as data that JSON can carry, masked throughout. NaN and infinity become None."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            return value if abs(value) < float("inf") else None
        if isinstance(value, int):
            # Beyond 64 bits many JSON readers lose digits.
            return value if value.bit_length() < 64 else str(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.plain(item) for item in value]
        return self.text(str(value))


def _forms(secret: str) -> set[str]:
    """In which it may stand in a text; none of one that is too short."""
    if len(secret) < _SECRET_MIN_LENGTH:
        return set()
    data = os.fsencode(secret)  # what a variable holds need not be UTF-8
    quoted = {quote(data, safe=""), quote(data), quote_plus(data)}
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]} | quoted


def redact(text: str) -> str:
    """`text` without the secrets of this process' environment, for reports and messages."""
    return Redactor(os.environ).text(text)
