"""Changes that are made to rows of the data: to values, to texts, and to the bytes of a line."""

from __future__ import annotations

import copy
import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.fuzz.odd import EXTREMES, KEYS, ODD, ROLES, SCHEMAS, SECRET, TAGS, VALUES

_LONG: Final = 60_000
"""Characters of a long text."""

_RAW: Final = re.compile(r'"@raw:([^@"]*)@"')
"""A string that stands for JSON that Python wouldn't write."""


class Mutator:
    """Makes one change after another, all from one source of randomness."""

    def __init__(self, rng: random.Random, tokens: tuple[str, ...]) -> None:
        """`tokens`: the special tokens of some tokenizer."""
        self._rng = rng
        self._tokens = tokens

    def row(self, row: Any, donor: dict[str, Any], changes: int) -> Any:
        """A copy with `changes` of its values changed; `donor` gives parts of itself."""
        holder = {"": copy.deepcopy(row)}
        for _ in range(changes):
            self._rng.choice(self._WAYS)(self, holder, donor)
        return holder[""]

    def texts(self, row: dict[str, Any], changes: int) -> dict[str, Any]:
        """A copy of a row with other words, whose shape is the same."""
        changed = copy.deepcopy(row)
        turns = changed.get("messages") or changed["conversations"]
        for _ in range(changes):
            turn = self._rng.choice(turns)
            key = "value" if "value" in turn else "content"
            if isinstance(turn[key], str) and turn.get("from") != "function_call":
                turn[key] = self.text(turn[key])
        return changed

    def schemas(self, row: dict[str, Any], changes: int) -> dict[str, Any]:
        """A copy of a row whose tools ask for something else."""
        holder = {"": copy.deepcopy(row)}
        for _ in range(changes):
            self._schema(holder, row)
        return holder[""]

    def text(self, text: str) -> str:
        """With an odd piece in it, or in another form."""
        rng, at = self._rng, self._rng.randint(0, len(text))
        match rng.randrange(8):
            case 0:
                return text[:at]
            case 1:
                form = rng.choice(("NFC", "NFD", "NFKC", "NFKD"))
                return unicodedata.normalize(form, text)  # type: ignore[arg-type]
            case 2 if rng.random() < 0.1:
                return (text or "a ") * (_LONG // max(len(text), 2))
            case 3 if rng.random() < 0.3:
                half = (self._odd() + " ") * rng.choice((10, 10_000))
                return half[:_LONG] + self._odd() + half[:_LONG]
            case 4:
                return "".join(
                    rng.choice((self._odd(), piece)) for piece in re.split(r"(\s)", text)
                )
            case _:
                return text[:at] + self._odd() + text[rng.choice((at, min(at + 3, len(text)))) :]

    def line(self, row: object) -> bytes:
        """JSON, as some writer or other would write it. Lone surrogates may become no UTF-8."""
        rng = self._rng
        separators = rng.choice(((",", ":"), (", ", ": "), (" ,\t", " :\r")))
        ascii_only = rng.random() < 0.5
        text = json.dumps(row, ensure_ascii=ascii_only, separators=separators)
        if rng.random() < 0.1:  # PHP's way
            text = text.replace("/", "\\/")
        if rng.random() < 0.1:
            text = re.sub(r"(?<!\\)[<>|a]", lambda found: f"\\u{ord(found[0]):04x}", text)
        return _RAW.sub(r"\1", text).encode("utf-8", "surrogatepass")

    def bytes(self, line: bytes, other: bytes) -> bytes:
        """Some bytes changed, cut, doubled or taken from another line."""
        rng = self._rng
        a, b = sorted(rng.randint(0, len(line)) for _ in range(2))
        odd = rng.choice(ODD + TAGS + self._tokens).encode("utf-8", "surrogatepass")
        match rng.randrange(8):
            case 0 if line:
                at = rng.randrange(len(line))
                return line[:at] + bytes([line[at] ^ (1 << rng.randrange(8))]) + line[at + 1 :]
            case 1:
                return line[:a] + line[b:]
            case 2:
                return line[:b] + line[a:b] * rng.choice((1, 2, 9)) + line[b:]
            case 3:
                return line[:a] + other[rng.randint(0, len(other)) :]
            case 4:
                return line[:a] + odd + line[a:]
            case 5:
                key = json.dumps(rng.choice(KEYS)).encode()
                return line.replace(b"{", b"{" + key + b":" + rng.choice((b"1,", b"null,")), 1)
            case 6:
                return rng.choice((b"\xef\xbb\xbf", b" ", b"\x00", b"[", b"\x1f\x8b", b"\r")) + line
            case _:
                return line[:a] + rng.randbytes(rng.choice((1, 4, 40))) + line[a:]

    def _odd(self) -> str:
        pool = self._rng.choice((ODD, ODD, TAGS, self._tokens, (SECRET,)))
        return self._rng.choice(pool)

    def _value(self) -> Any:
        pool = self._rng.choice((VALUES, VALUES, EXTREMES, (self._odd(),), ROLES))
        return copy.deepcopy(self._rng.choice(pool))

    def _place(self, holder: dict[str, Any], kind: type = object) -> tuple[Any, Any] | None:
        """A container and a key of it, below which there is a value of this kind."""
        places = [place for place in _places(holder) if isinstance(place[0][place[1]], kind)]
        return self._rng.choice(places) if places else None

    def _replace(self, holder: dict[str, Any], donor: dict[str, Any]) -> None:
        container, key = self._place(holder) or (holder, "")
        container[key] = self._value()

    def _graft(self, holder: dict[str, Any], donor: dict[str, Any]) -> None:
        container, key = self._place(holder) or (holder, "")
        other, name = self._rng.choice(list(_places({"": donor})))
        container[key] = copy.deepcopy(other[name])

    def _merge(self, holder: dict[str, Any], donor: dict[str, Any]) -> None:
        if isinstance(holder[""], dict):
            holder[""] |= copy.deepcopy(donor)

    def _retext(self, holder: dict[str, Any], donor: dict[str, Any]) -> None:
        if place := self._place(holder, str):
            container, key = place
            container[key] = self._inside(container[key], donor)

    def _inside(self, text: str, donor: dict[str, Any]) -> str:
        """Where the text is JSON, or has JSON between tags, this is changed, too."""
        block = re.search(r"(?<=[>\n])\s*\{.*?\}\s*(?=[<\n])", text, re.DOTALL)
        part = block[0] if block else text
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            return self.text(text)
        changed = self.row(value, donor, 1) if isinstance(value, (dict, list)) else self._value()
        return text.replace(part, self.line(changed).decode("utf-8", "surrogatepass"), 1)

    def _items(self, holder: dict[str, Any], donor: dict[str, Any]) -> None:
        if not (place := self._place(holder, list)):
            return
        items = place[0][place[1]]
        at, to = (self._rng.randint(0, len(items)) for _ in range(2))
        match self._rng.randrange(4):
            case 0:
                del items[at : at + 1]
            case 1:
                items[to:to] = copy.deepcopy(items[at : at + 1]) * self._rng.choice((1, 1, 60))
            case 2:
                items[:] = items[at:] + items[:at]
            case _:
                items.insert(at, self._value())

    def _keys(self, holder: dict[str, Any], donor: dict[str, Any]) -> None:
        if not (place := self._place(holder, dict)):
            return
        values = place[0][place[1]]
        old, new = self._rng.choice([*values, ""]), self._rng.choice((*KEYS, self._odd()))
        if self._rng.random() < 0.5:
            values[new] = self._value()
        elif old in values:
            value = values.pop(old)
            if self._rng.random() < 0.6:
                values[new] = value

    def _roles(self, holder: dict[str, Any], donor: dict[str, Any]) -> None:
        places = [place for place in _places(holder) if place[1] in ("role", "from")]
        if places:
            container, key = self._rng.choice(places)
            container[key] = self._rng.choice(ROLES)

    def _nest(self, holder: dict[str, Any], donor: dict[str, Any]) -> None:
        container, key = self._place(holder) or (holder, "")
        for _ in range(self._rng.choice((1, 1, 2, 62, 70, 130))):
            inner = container[key]
            container[key] = self._rng.choice(([inner], {"a": inner}))

    def _quote(self, holder: dict[str, Any], donor: dict[str, Any]) -> None:
        """JSON as a string of JSON."""
        container, key = self._place(holder) or (holder, "")
        container[key] = json.dumps(container[key])

    def _schema(self, holder: dict[str, Any], donor: dict[str, Any]) -> None:
        places = [place for place in _places(holder) if place[1] in _SCHEMA_KEYS]
        if places:
            container, key = self._rng.choice(places)
            more = copy.deepcopy(self._rng.choice(SCHEMAS))
            inner = container[key]
            container[key] = inner | more if isinstance(inner, dict) else more

    _WAYS: Final[tuple[Callable[[Mutator, dict[str, Any], dict[str, Any]], None], ...]] = (
        *(_replace, _graft, _merge, _retext, _retext, _retext, _items, _items, _keys, _keys),
        *(_roles, _nest, _quote, _schema, _schema),
    )


_SCHEMA_KEYS: Final = (
    *(
        "parameters",
        "city",
        "legs",
        "to",
        "via",
        "code",
        "weight",
        "speed",
        "note",
        "place",
        "items",
    ),
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in `value` with each of its keys."""
    pending = [value]
    while pending:
        container = pending.pop()
        keys = container if isinstance(container, dict) else range(len(container))
        for key in keys:
            yield container, key
            if isinstance(container[key], (dict, list)):
                pending.append(container[key])
