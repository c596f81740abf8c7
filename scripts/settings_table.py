"""Writes the tables of settings and exit codes into README.md, from the code that defines them.

With `--check` nothing is written, and the exit status is 1 where a table is stale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from job.config import PREFIX, Settings
from job.errors import EXIT_CODES
from job.profiles import Hyperparameters

README: Final = Path(__file__).resolve().parent.parent / "README.md"

_UNSET: Final = {
    "model": "the family's",
    "work_dir": "a temporary folder",
    **dict.fromkeys(Hyperparameters.__dataclass_fields__, "the profile's"),
}
"""What stands in for `None` where that means more than "none"."""


class MarkersMissing(Exception):
    """The text has no place for a table."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether they are fresh")
    check = parser.parse_args(argv).check
    try:
        old = README.read_text(encoding="utf-8")
        new = refreshed(old)
    except (FileNotFoundError, MarkersMissing) as error:
        print(error, file=sys.stderr)
        return 1
    if new == old:
        return 0
    if check:
        print("README.md: a table is stale; run scripts/settings_table.py", file=sys.stderr)
        return 1
    README.write_text(new, encoding="utf-8")
    return 0


def refreshed(text: str) -> str:
    """`text` with both tables as they are now. Raises `MarkersMissing`."""
    for name, table in (("settings", settings_table()), ("exit-codes", exit_codes_table())):
        text = _between(text, name, table)
    return text


def settings_table() -> str:
    """Variable, default and meaning of every field of `Settings`, in their order."""
    rows = (
        (f"`{PREFIX}{name.upper()}`", _default(name, field), field.description or "")
        for name, field in Settings.model_fields.items()
    )
    return _table(("Variable", "Default", "Meaning"), rows)


def exit_codes_table(codes: Mapping[int, tuple[str, str]] = EXIT_CODES) -> str:
    """Code, meaning, and what `podFailurePolicy` does with it."""
    rows = ((str(code), meaning, policy) for code, (meaning, policy) in codes.items())
    return _table(("Code", "Meaning", "podFailurePolicy"), rows)


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value == ():
        return _UNSET.get(name, "none")
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def _between(text: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise MarkersMissing(f"README.md has no '{begin}' … '{end}'")
    return f"{head}{begin}\n{table}\n{end}{tail}"


if __name__ == "__main__":
    sys.exit(main())
