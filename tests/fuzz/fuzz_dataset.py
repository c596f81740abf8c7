"""Feeds the data stage with what no one should write, until something gives.

    python -m tests.fuzz.fuzz_dataset --seconds 600 --seed 7
    python -m tests.fuzz.fuzz_dataset --repeat findings/finding-….json

Each case is put through `check_only` and twice through `prepare`; `invariants` says what must hold.
A finding is made small and kept in `--findings` with the command that repeats it. If the process
itself dies, or hangs and ends itself, the case is in `running.json` there, and the next start makes
a finding of it.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import itertools
import logging
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Final

from jinja2 import Environment

from tests.fuzz.cases import Case
from tests.fuzz.invariants import hold
from tests.fuzz.minimize import dies, minimized
from tests.fuzz.violation import Violation

_HANGS_AFTER: Final = 120
"""Seconds of one case after which the process ends itself, with a traceback."""
_ADDRESS_SPACE: Final = 6 * 2**30
"""Bytes, so that a case that devours memory doesn't take the machine with it."""
_MINIMIZING: Final = 60.0
"""Seconds that are spent on one finding."""
_TOLD_EVERY: Final = 10.0


@dataclass(frozen=True)
class Failure:
    """What went wrong with a case."""

    kind: str
    """The same for the same fault, however the case looks."""
    text: str


def attempt(case: Case) -> Failure | None:
    """Put a case through the stage."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        try:
            hold(case, Path(folder))
        except Violation as violation:
            return Failure(str(violation.args[0]), "\n".join(violation.args))
        except Exception as error:  # noqa: BLE001 that none but its own comes out is what is tested
            return Failure(_crash(error), traceback.format_exc())
    return None


def _crash(error: Exception) -> str:
    """The exception and the innermost place in the job's own code."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/job/" in f.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "the fuzzer"
    return f"{type(error).__name__} in {place}"


class Fuzzer:
    """Runs cases, keeps one finding of each kind."""

    def __init__(self, findings: Path, minimizing: float = _MINIMIZING) -> None:
        self.failures: dict[str, Path] = {}
        """Kind → where the case is kept."""
        self.cases = 0
        self._findings = findings
        self._minimizing = minimizing
        findings.mkdir(parents=True, exist_ok=True)
        self._running = findings / "running.json"
        if self._running.exists():
            self._keep_what_died()

    def run(self, seed: int, first: int, cases: int | None, seconds: float | None) -> None:
        """Cases of `seed` from number `first` on, until so many are run or so long has passed."""
        until = told = time.monotonic()
        for number in itertools.count(first):
            now = time.monotonic()
            if self.cases == cases or (seconds is not None and now - until > seconds):
                break
            if now - told > _TOLD_EVERY:
                told = now
                print(f"{self.cases} cases, {len(self.failures)} findings", flush=True)
            self._one(seed, number)
        self._running.unlink(missing_ok=True)

    def _one(self, seed: int, number: int) -> None:
        case = Case.made(seed, number)
        self._running.write_text(case.to_json())
        faulthandler.dump_traceback_later(
            _HANGS_AFTER, exit=True, file=sys.__stderr__ or sys.stderr
        )
        failure = attempt(case)
        faulthandler.cancel_dump_traceback_later()
        self.cases += 1
        if failure is not None and failure.kind not in self.failures:
            print(f"case {number} of seed {seed}: {failure.kind}", flush=True)
            self._keep(case, failure)

    def _keep_what_died(self) -> None:
        """The case in which a process died before this one."""
        case = Case.from_json(self._running.read_text())
        self._running.unlink()
        if not dies(attempt, case):
            print("the process ended in the middle of a case that is harmless by itself")
            return
        case = minimized(case, lambda smaller: dies(attempt, smaller), 3 * self._minimizing)
        text = case.to_json()
        path = self._findings / f"died-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        path.write_text(text)
        self.failures["the process dies"] = path
        print(f"the process died the last time; repeat it: {repeated_by(path)}\n", flush=True)

    def _keep(self, case: Case, failure: Failure) -> None:
        def fails(smaller: Case) -> bool:
            found = attempt(smaller)
            return found is not None and found.kind == failure.kind

        case = minimized(case, fails, self._minimizing)
        failure = attempt(case) or failure
        name = hashlib.sha256(failure.kind.encode()).hexdigest()[:12]
        path = self._findings / f"finding-{name}.json"
        path.write_text(case.to_json())
        self.failures[failure.kind] = path
        print(f"{failure.text}\nrepeat it: {repeated_by(path)}\n", flush=True)


def _compile_once() -> None:
    """Jinja compiles the preview's template for each page: most of the time of a small case."""
    compiled: dict[tuple[type, str], CodeType] = {}
    compile_anew = Environment.compile

    def compile_known(self: Environment, source: str, *rest: Any, **more: Any) -> Any:
        key = type(self), source
        if key not in compiled:
            compiled[key] = compile_anew(self, source, *rest, **more)
        return compiled[key]

    Environment.compile = compile_known  # type: ignore[assignment,method-assign]


def repeated_by(path: Path) -> str:
    return f"python -m tests.fuzz.fuzz_dataset --repeat {path}"


def main() -> int:
    """0 if all held, else 1."""
    parser = argparse.ArgumentParser(prog="fuzz_dataset", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--cases", type=int, help="so many cases, the same everywhere")
    parser.add_argument("--seconds", type=float, help="so long, instead of a number of cases")
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir(), "forge-fuzz"))
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="one case that was kept")
    given = parser.parse_args()
    logging.disable()
    # The warning of the tokenizers, should the stage ever fork, would be noise.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    faulthandler.enable()
    _compile_once()
    if given.repeat:
        failure = attempt(Case.from_json(given.repeat.read_text()))
        print(failure.text if failure else "all held")
        return int(failure is not None)
    cases = given.cases if given.seconds is None else None
    print(f"seed {given.seed}; the case that runs is in {given.findings}/running.json", flush=True)
    fuzzer = Fuzzer(given.findings)
    fuzzer.run(given.seed, given.first, cases, given.seconds)
    print(f"{fuzzer.cases} cases, {len(fuzzer.failures)} findings: {', '.join(fuzzer.failures)}")
    return int(bool(fuzzer.failures))


if __name__ == "__main__":
    sys.exit(main())
