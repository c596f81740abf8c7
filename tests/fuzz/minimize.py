"""Makes a case that fails as small as greed finds it."""

from __future__ import annotations

import copy
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final, NoReturn

from tests.fuzz.cases import Case, Part

_CPU_SECONDS: Final = 20
"""A process that takes more is killed, too."""


def minimized(case: Case, fails: Callable[[Case], bool], seconds: float) -> Case:
    """The smallest case found in so many seconds that still `fails` in the same way."""
    until = time.monotonic() + seconds
    while (smaller := _first(_smaller(case), fails, until)) is not None:
        case = smaller
    return case


def dies(attempt: Callable[[Case], object], case: Case) -> bool:
    """Whether a process that attempts the case is killed, by the system or by its own abort.

    The calling process must not have tokenized before: its threads are missing in the copy.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        child = os.fork()
        if not child:
            tempfile.tempdir = folder  # what a killed child leaves is removed by its parent
            _end_after(attempt, case)
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _end_after(attempt: Callable[[Case], object], case: Case) -> NoReturn:
    """In the child: nothing of the parent may be cleaned up, nor its output be written twice."""
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
        attempt(case)
    finally:
        os._exit(0)


def _first(cases: Iterator[Case], fails: Callable[[Case], bool], until: float) -> Case | None:
    for case in cases:
        if time.monotonic() > until:
            return None
        if fails(case):
            return case
    return None


def _smaller(case: Case) -> Iterator[Case]:
    for n in range(len(case.parts)) if len(case.parts) > 1 else ():
        yield replace(case, parts=case.parts[:n] + case.parts[n + 1 :])
    for name in case.options:
        yield replace(case, options={k: v for k, v in case.options.items() if k != name})
    for n, part in enumerate(case.parts):
        for smaller in _smaller_part(part):
            yield replace(case, parts=(*case.parts[:n], smaller, *case.parts[n + 1 :]))


def _smaller_part(part: Part) -> Iterator[Part]:
    plain = replace(part, suffix=".jsonl", end=b"\n", harm="", at=0.0)
    if plain != part:
        yield plain
    lines = part.lines
    for n in range(len(lines)):
        yield replace(part, lines=lines[:n] + lines[n + 1 :])
    for n, line in enumerate(lines):
        for smaller in _smaller_line(line):
            yield replace(part, lines=(*lines[:n], smaller, *lines[n + 1 :]))


def _smaller_line(line: bytes) -> Iterator[bytes]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    for smaller in _smaller_values(value):
        text = json.dumps(smaller, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if len(text) < len(line):
            yield text
    size = len(line) // 2
    while size:
        for at in range(0, len(line), size):
            yield line[:at] + line[at + size :]
        size = size // 2 if len(line) // size < 64 else 0


def _smaller_values(value: Any) -> Iterator[Any]:
    """Copies of `value` in each of which one part is gone or shorter; large parts first."""
    holder = {"": value}
    pending: list[Any] = [holder]
    while pending:
        container = pending.pop(0)
        for key in list(container) if isinstance(container, dict) else range(len(container)):
            inner = container[key]
            if container is not holder:
                yield from _without(holder, container, key)
            if isinstance(inner, str):
                for shorter in {inner[: len(inner) // 2], inner[len(inner) // 2 :]} - {inner}:
                    container[key] = shorter
                    yield copy.deepcopy(holder[""])
                container[key] = inner
            elif isinstance(inner, (dict, list)):
                pending.append(inner)


def _without(holder: dict[str, Any], container: Any, key: Any) -> Iterator[Any]:
    saved = copy.copy(container)
    del container[key]
    yield copy.deepcopy(holder[""])
    container.clear()
    (container.update if isinstance(container, dict) else container.extend)(saved)
