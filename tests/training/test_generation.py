"""Held-out turns generated in the middle of training: seen in the log, and without a trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.dataset import ChatFormat, Row
from job.engines import LoadedModel, ReferenceEngine
from job.errors import Preempted
from job.evaluation.evaluate import judge_adapter
from job.evaluation.reading import Reading, read_turns
from job.lifecycle import StopToken
from job.training import Judge, TrainingData
from tests.tiny import rows
from tests.training.runs import Outcome, run

Judging = Callable[[LoadedModel, StopToken], Judge]
SHORT: dict[str, Any] = {"max_steps": 6, "eval_steps": 2, "save_steps": 1000}
RATES = {"eval_exact", "eval_right_tool", "eval_valid_arguments", "eval_well_formed"}


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reading, "max_new_tokens", 6)


@pytest.fixture
def judging(model: Path) -> Callable[..., Judging]:
    """At every validation; asks for a stop at the n-th generated token."""
    chat = ChatFormat.load(model)
    held_out = [Row("x", i + 1, tuple(row["messages"])) for i, row in enumerate(rows(3))]
    reading = read_turns(chat, held_out)

    def made(stop_at: int | None = None, every: int = 1) -> Judging:
        def bound(loaded: LoadedModel, stop: StopToken) -> Judge:
            tokens = 0

            def alive() -> None:
                nonlocal tokens
                tokens += 1
                if tokens == stop_at:
                    stop.request(Preempted("test"))

            def rates() -> dict[str, float] | None:
                with ReferenceEngine().generating(loaded.model):
                    found = judge_adapter(
                        loaded.model,
                        loaded.tokenizer,
                        chat,
                        reading,
                        lambda: stop.requested,
                        alive=alive,
                    )
                if found is None:
                    return None
                return {name: measure["rate"] for name, measure in found.items()}

            return Judge(rates, every)

        return bound

    return made


def told(outcome: Outcome) -> list[dict[str, Any]]:
    """The history but for what a clock says, and TRL's count of tokens, which a resume begins
    anew."""
    assert outcome.result is not None
    clocked = ("runtime", "per_second", "step_seconds", "num_tokens")
    return [
        {name: value for name, value in entry.items() if not name.endswith(clocked)}
        for entry in outcome.result.history
    ]


def generated(outcome: Outcome) -> list[int]:
    return [entry["step"] for entry in told(outcome) if entry.keys() >= RATES]


def test_it_changes_nothing_and_survives_a_preemption(
    model: Path, data: TrainingData, tmp_path: Path, judging: Callable[..., Judging]
) -> None:
    plain = run(model, data, tmp_path / "plain", **SHORT)
    whole = run(model, data, tmp_path / "whole", judging=judging(), **SHORT)
    assert whole.adapter == plain.adapter
    assert whole.seen.losses == plain.seen.losses
    assert whole.seen.eval_losses == plain.seen.eval_losses
    assert generated(whole) == [2, 4], "not after the last step: the whole evaluation is next"
    assert [entry for entry in told(whole) if not entry.keys() >= RATES] == told(plain)

    # The answers have 6 tokens each: 9 is in the middle of the second generation.
    stopped = run(model, data, tmp_path / "cut", judging=judging(stop_at=9), **SHORT)
    assert stopped.result is None
    newest = stopped.seen.saves[-1]
    assert newest.step == 4
    resumed = run(
        model, data, tmp_path / "cut", resume_from=newest.folder, judging=judging(), **SHORT
    )
    assert resumed.adapter == plain.adapter
    assert told(resumed) == told(whole)


def test_some_validations_generate(
    model: Path, data: TrainingData, tmp_path: Path, judging: Callable[..., Judging]
) -> None:
    outcome = run(model, data, tmp_path, judging=judging(every=2), **(SHORT | {"eval_steps": 1}))
    assert generated(outcome) == [2, 4]
    assert list(outcome.seen.eval_losses) == [1, 2, 3, 4, 5, 6]
