"""The ledger in every interleaving: attempts at one run whose storage calls hypothesis orders.

Held against what was promised after each single call by an observer that reads the store: attempts
are numbered one by one, each has one holder, who was replaced writes nothing more and finds out,
what was acknowledged stays in the record.
"""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.ledger.interleaved import take_over
from tests.ledger.model_machine import Act, Interleaving, model_settings
from tests.ledger.model_process import Process


@pytest.fixture(autouse=True)
def _by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    take_over(monkeypatch)


class LedgerMachine(Interleaving):
    @property
    def acts(self) -> list[Act]:
        return [self.note, self.note, self.heartbeat, self.heartbeat, self.confirm, self.close]

    def confirm(self, process: Process, _amount: int) -> None:
        process.confirm()

    def close(self, process: Process, _amount: int) -> None:
        process.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)  # as in tests/checkpoint/test_commit_model.py
def test_no_update_is_lost_and_nobody_owns_the_run_twice() -> None:
    run_state_machine_as_test(LedgerMachine, settings=model_settings(300, 40))
