"""Checkpoints in every interleaving: attempts that upload, commit, retain, restore and publish,
their storage calls ordered by hypothesis.

Held against what was promised after each single call by an observer that reads the store: what is
listed is whole, was committed once and by its own attempt, and stays unless retention or damage
takes it out; the newest sound one is restored; who has succeeded has a sound adapter.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis.stateful import run_state_machine_as_test

from job.checkpoint import MANIFEST_NAME
from tests.ledger.interleaved import take_over
from tests.ledger.model_machine import Act, Interleaving, model_settings
from tests.ledger.model_training import Training


@pytest.fixture(autouse=True)
def _by_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    take_over(monkeypatch)
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


_LOSSES = (None, None, 1.0, 2.0)


class CommitMachine(Interleaving):
    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory()

    def new_process(self, name: str) -> Training:
        return Training(name, self.store, self.observer, Path(self._temporary.name))

    @property
    def acts(self) -> list[Act]:
        rare = [self.later, self.note, self.leave, self.preempt, self.finish]
        return [*[self.train] * 4, self.annotate, *[self.heartbeat] * 2, *rare]

    def train(self, process: Training, amount: int) -> None:
        process.train(1 + amount % 2, _LOSSES[amount])

    def annotate(self, process: Training, amount: int) -> None:
        process.annotate(1.25 - amount / 4)

    def later(self, process: Training, _amount: int) -> None:
        self.marks += 1
        process.later(f"mark {self.marks}")

    def preempt(self, process: Training, _amount: int) -> None:
        process.preempt()

    def leave(self, process: Training, amount: int) -> None:
        """Training comes to a boundary at which it looks whether it was asked to stop."""
        if amount % 2:
            process.preempt()
        process.leave()

    def finish(self, process: Training, _amount: int) -> None:
        process.finish()

    def outside(self, what: int) -> None:
        record = self.observer.record
        if what > 26 and record is not None and record.checkpoints:
            self.damage(record.checkpoints[what % len(record.checkpoints)].key, what)
        else:
            super().outside(what)

    def damage(self, key: str, what: int) -> None:
        """By somebody who has no business there."""
        name = ("a", "b/c", MANIFEST_NAME)[what % 3]
        self.observer.damaged.add(key)
        if what % 2:
            self.store.objects.pop(key + name, None)
        else:
            self.store.objects[key + name] = b"damaged"

    # -- the end ----------------------------------------------------------------------------

    def at_rest(self) -> None:
        process = self.launch()
        assert isinstance(process, Training)
        self.let_run(process)
        if process.was_finished:
            return
        assert process.ready, "it can't claim and restore the run"
        self._goes_on(process)

    def _goes_on(self, process: Training) -> None:
        """It restored what there was, as was checked; now it commits and finishes."""
        process.train(1, None)
        self.let_run(process)
        assert self.observer.record is not None
        assert self.observer.record.durable_step == process.step
        process.finish()
        self.let_run(process)
        assert self.observer.record.status == "succeeded"

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self._temporary.cleanup()


@pytest.mark.slow
@pytest.mark.timeout(1200)  # its threads take turns, each when the machine has time for it
def test_what_is_listed_is_whole_and_stays() -> None:
    run_state_machine_as_test(CommitMachine, settings=model_settings(150, 60))
