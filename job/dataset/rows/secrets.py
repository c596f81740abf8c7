"""Keys and passwords that slipped into the data: found to be warned of, masked where text is shown.

Only what has the issuer's own prefix and length is taken for a secret: a warning on every
`sk-learn` would soon be read by nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from jsonschema_rs import Draft202012Validator, RegexOptions

_MASK: Final = "***"

# A word begins here. In JSON text a `\n` before it is a backslash and a letter.
_WORD: Final = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrtbf]))"
_END: Final = r"(?![A-Za-z0-9_-])"

_PLACEHOLDERS: Final = (
    r"(?:pass(?:word|wd)?|pwd|secret|token|(?:my|your)[\w-]*|changeme|example|x+|\*+|\.+"
    r"|[<{$%\[][^\s@]*)"
)

_SECRETS: Final = {
    # Before the id that leads to it is masked.
    "AWS secret access key": (
        r"ecret_access_key|ECRET_ACCESS_KEY|ecretAccessKey|AKIA[A-Z2-7]{16}|ASIA[A-Z2-7]{16}",
        (
            r"(?:(?:secret_access_key|SECRET_ACCESS_KEY|[sS]ecretAccessKey)\W{1,10}|(?<![A-Z0-9])A(?:KIA|SIA)[A-Z2-7]{16}\b.{0,60}?)"
            r"(?<![A-Za-z0-9/+])(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
        ),
    ),
    "AWS access key id": (
        r"AKIA[A-Z2-7]{16}|ASIA[A-Z2-7]{16}",
        rf"{_WORD}A(?:KIA|SIA)[A-Z2-7]{{16}}{_END}",
    ),
    "GitHub token": (
        r"gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{36}",
        rf"{_WORD}(?:gh[pousr]_[A-Za-z0-9]{{36,255}}|github_pat_[A-Za-z0-9_]{{36,255}}){_END}",
    ),
    "GitLab token": (r"glpat-[A-Za-z0-9_-]{20}", rf"{_WORD}glpat-[A-Za-z0-9_-]{{20,}}"),
    "Hugging Face token": (r"hf_[A-Za-z0-9]{30}", rf"{_WORD}hf_[A-Za-z0-9]{{30,}}{_END}"),
    "Anthropic key": (
        r"sk-ant-[a-z]+[0-9]{2}-",
        rf"{_WORD}sk-ant-[a-z]+[0-9]{{2}}-[A-Za-z0-9_-]{{20,}}",
    ),
    "OpenAI key": (
        r"sk-(?:[a-z]{4,7}-|or-v1-)?[A-Za-z0-9_-]{20}",
        (
            rf"{_WORD}sk-(?:(?:proj|svcacct|admin)-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{{20,}}"
            rf"|or-v1-[0-9a-f]{{32,}}|(?=[A-Za-z]*[0-9])[A-Za-z0-9]{{32,}}){_END}"
        ),
    ),
    "Slack token": (
        r"xox[abeoprs]-[0-9]{8}",
        rf"{_WORD}xox[abeoprs]-[0-9]{{8,}}-[A-Za-z0-9-]{{10,}}",
    ),
    "Google API key": (r"AIza[A-Za-z0-9_-]{35}", rf"{_WORD}AIza[A-Za-z0-9_-]{{35}}{_END}"),
    "Stripe key": (r"k_live_[A-Za-z0-9]{16}", rf"{_WORD}[rs]k_live_[A-Za-z0-9]{{16,}}{_END}"),
    "npm token": (r"npm_[A-Za-z0-9]{36}", rf"{_WORD}npm_[A-Za-z0-9]{{36}}{_END}"),
    "SendGrid key": (
        r"SG\.[A-Za-z0-9_-]{16}",
        rf"{_WORD}SG\.[A-Za-z0-9_-]{{16,}}\.[A-Za-z0-9_-]{{16,}}",
    ),
    "JSON web token": (
        r"eyJ[A-Za-z0-9_-]{8,}\.eyJ",
        rf"{_WORD}eyJ[A-Za-z0-9_-]{{8,}}\.eyJ[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]{{8,}}",
    ),
    "private key": (
        r"PRIVATE KEY-----",
        (
            r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY-----"
            r"(?:.{0,16384}?-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY-----|[A-Za-z0-9+/=\s\\]*)"
        ),
    ),
    "password in a URL": (
        r":(?://|\\/\\/)[^\s/:@\"]*:[^\s/@\"]+@",
        rf"(?<=://)[^\s/:@\"'<>]*:(?P<secret>(?!{_PLACEHOLDERS}@)[^\s/@\"'<>]+)(?=@[\w.\[-])",
    ),
}
"""Kind → what each such secret holds, in JSON text and out of it, and its exact form.

The first is for a search that looks at most rows only once: without look-around it runs in Rust
at gigabytes a second, where `re` takes 16 ns a byte. The second is for what that search found.
"""

MARKS: Final = "|".join(mark for mark, _ in _SECRETS.values())
"""Not found in a text: it holds no secret."""


def lacking(pattern: str) -> dict[str, Any]:
    """The JSON Schema of a string in which the pattern is not found."""
    return {"type": "string", "not": {"pattern": pattern}}


def _free_of(pattern: str) -> Draft202012Validator:
    return Draft202012Validator(lacking(pattern), pattern_options=RegexOptions())


_FREE: Final = _free_of(MARKS)
_KINDS: Final = {
    kind: (_free_of(mark), re.compile(exact, re.DOTALL)) for kind, (mark, exact) in _SECRETS.items()
}


def find_secrets(data: bytes) -> tuple[str, ...]:
    """The kinds of secrets in JSON or plain text, each once; never the secrets themselves."""
    text = data.decode(errors="replace")
    return tuple(kind for kind, exact in _likely(text) if exact.search(text))


def mask_secrets(text: str) -> str:
    """`text` with `***` in the place of every secret."""
    # One that was part of a longer word may stand alone once what follows it is masked.
    while (masked := _masked_once(text)) != text:
        text = masked
    return text


def _masked_once(text: str) -> str:
    # A lone surrogate is no text to the Rust engine.
    for _, exact in _likely(text.encode(errors="replace").decode()):
        text = exact.sub(_masked, text)
    return text


def _likely(text: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    if not _FREE.is_valid(text):
        for kind, (free, exact) in _KINDS.items():
            if not free.is_valid(text):
                yield kind, exact


def _masked(found: re.Match[str]) -> str:
    if "secret" not in found.re.groupindex:
        return _MASK
    start, end = (position - found.start() for position in found.span("secret"))
    return found[0][:start] + _MASK + found[0][end:]
