"""The answers of an evaluation under way, in real storage and under the run's fencing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from job.errors import Fenced
from job.ledger import Ledger
from job.stages.evaluation import ANSWERS_KEY, _AnswersInStorage
from job.storage import Storage


def claimed(storage: Storage) -> _AnswersInStorage:
    ledger = Ledger.claim(storage, "run-1", version="1", conditional_writes=True)
    return _AnswersInStorage(cast("Any", SimpleNamespace(storage=storage, ledger=ledger)))


def test_the_next_attempt_reads_what_the_last_has_kept(storage: Storage) -> None:
    first = claimed(storage)
    assert first.read() is None
    first.write(b"one")
    first.write(b"two")
    assert claimed(storage).read() == b"two"


def test_an_attempt_that_was_fenced_overwrites_nothing(storage: Storage) -> None:
    old = claimed(storage)
    old.write(b"old")
    claimed(storage).write(b"new")
    with pytest.raises(Fenced):
        old.write(b"older")
    assert storage.read(ANSWERS_KEY)[0] == b"new"


def test_only_more_answers_than_before_are_progress(storage: Storage) -> None:
    first = claimed(storage)
    first.read()
    first.write(b"head\none\n")
    assert first.run.ledger.record.current.advanced
    second = claimed(storage)
    second.read()
    second.write(b"head\none\n")  # as at a preemption before the first new answer
    assert not second.run.ledger.record.current.advanced
    second.write(b"head\none\ntwo\n")
    assert second.run.ledger.record.current.advanced
