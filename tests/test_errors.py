"""The exit codes, against the contract's table and against each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import pytest

from job import errors
from job.errors import EXIT_CODES, JobError, Problem, Stopped, describe
from job.storage import Conflict, NotFound

T = TypeVar("T", bound=BaseException)

CONTRACT = {
    0: "–",
    65: "FailJob",
    69: "Count",
    70: "Count",
    71: "FailJob",
    75: "Ignore",
    76: "Ignore",
    77: "FailJob",
    78: "FailJob",
    80: "FailJob",
    81: "FailJob",
}
"""Exit code → what the Job's `podFailurePolicy` does with it."""

CLASSES: dict[type[JobError | Stopped], int] = {
    errors.JobError: 70,
    errors.DataError: 65,
    errors.DataChanged: 65,
    errors.Unavailable: 69,
    errors.NoProgress: 70,
    errors.OutOfDisk: 70,
    errors.CardLost: 70,
    errors.MicroBatchTooLarge: 70,
    errors.OutOfGpuMemory: 71,
    errors.AccessDenied: 77,
    errors.SettingsError: 78,
    errors.FingerprintMismatch: 78,
    errors.GateFailed: 80,
    errors.Diverged: 81,
    errors.Stopped: 75,
    errors.Preempted: 75,
    errors.Fenced: 76,
}


def family(root: type[T]) -> Iterator[type[T]]:
    yield root
    for child in root.__subclasses__():
        yield from family(child)


EVERY: list[type[JobError | Stopped]] = [*family(JobError), *family(Stopped)]


def test_the_table_is_the_contract() -> None:
    assert {code: policy for code, (_, policy) in EXIT_CODES.items()} == CONTRACT
    assert all(meaning for meaning, _ in EXIT_CODES.values())
    assert list(EXIT_CODES) == sorted(EXIT_CODES), "as onExitCodes.values has to be"


def test_each_class_has_the_code_of_the_contract() -> None:
    assert {kind: kind.exit_code for kind in CLASSES} == CLASSES
    assert set(CLASSES) == {kind for kind in EVERY if kind.__module__ == "job.errors"}


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_class_ends_with_a_code_of_the_table(kind: type[JobError | Stopped]) -> None:
    assert kind.exit_code in EXIT_CODES
    assert kind.exit_code != 0
    assert kind.title


def test_every_code_but_success_has_a_class() -> None:
    assert {kind.exit_code for kind in CLASSES} == set(EXIT_CODES) - {0}


def test_being_stopped_is_no_exception() -> None:
    assert not any(issubclass(kind, Exception) for kind in family(Stopped))


def test_answers_of_the_storage_are_no_end_of_a_run() -> None:
    assert not issubclass(NotFound, JobError)
    assert not issubclass(Conflict, JobError)


def test_a_problem_says_where_what_and_how() -> None:
    problem = Problem("FORGE_SEED", "is -1", "use 0 or more")
    assert str(problem) == "FORGE_SEED: is -1 (use 0 or more)"
    assert str(Problem("a.jsonl:3", "is empty")) == "a.jsonl:3: is empty"


def test_an_error_is_made_of_a_sentence_a_problem_or_several() -> None:
    one, two = Problem("a", "b"), Problem("c", "d", "e")
    assert str(JobError("it broke")) == "it broke"
    assert str(JobError(one)) == "a: b"
    assert JobError(one).problems == (one,)
    error = JobError(problem for problem in (one, two))
    assert error.problems == (one, two)
    assert str(error) == "2 problems:\n  - a: b\n  - c: d (e)"


def test_what_mends_all_of_them_is_no_problem_of_its_own() -> None:
    one, two = Problem("a", "b"), Problem("c", "d", "e")
    assert str(JobError(one, "undo it")) == "a: b; to mend it: undo it"
    lines = str(JobError([one, two], "undo it")).splitlines()
    assert lines == ["2 problems:", "  - a: b", "  - c: d (e);", "to mend it: undo it"]


def test_very_many_problems_are_cut() -> None:
    problems = [Problem(f"f:{n}", "bad") for n in range(60)]
    lines = describe(problems).splitlines()
    assert lines[0] == "60 problems:"
    assert lines[50] == "  - f:49: bad"
    assert lines[51:] == ["  … and 10 more"]
    assert len(describe(problems[:50]).splitlines()) == 51


def test_why_it_was_stopped() -> None:
    assert str(errors.Fenced("attempt 2 now owns it")) == "attempt 2 now owns it"
    assert errors.Preempted().reason == ""
