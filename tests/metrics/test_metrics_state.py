"""Times and ratios that are worked out from what happened, on a clock that the test moves."""

import itertools
import math

import pytest

from job.ledger.record import Progress
from job.metrics.history import POINTS, LossHistory
from job.metrics.state import RunState, Totals


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> RunState:
    return RunState(clock=clock, wall=clock)


def train(state: RunState, clock: Clock, first: int, last: int, seconds: float = 2.0) -> None:
    for step in range(first, last + 1):
        clock.now += seconds
        state.step_done(step, seconds, tokens=100, supervised_tokens=25, samples=8)


def test_eta_is_unknown_until_a_step_and_zero_at_the_end(state: RunState, clock: Clock) -> None:
    state.max_steps = 4
    state.enter("training")
    assert state.eta_seconds() is None
    train(state, clock, 1, 1)
    assert state.eta_seconds() == 6.0
    train(state, clock, 2, 4)
    assert state.eta_seconds() == 0.0


def test_the_last_sign_of_life_is_told_as_a_time_of_day(clock: Clock) -> None:
    state = RunState(clock=clock, wall=lambda: clock.now + 1e9)
    state.enter("training")
    clock.now += 30
    assert state.alive_at() == 1e9 + 1000, "before the first step, too"
    state.beat()
    clock.now += 7
    state.moved()
    assert state.alive_at() == 1e9 + 1030, "an upload is none in training"


def test_eta_counts_pauses_between_steps(state: RunState, clock: Clock) -> None:
    state.max_steps = 4
    state.enter("training")
    train(state, clock, 1, 1)
    clock.now += 4  # an evaluation
    train(state, clock, 2, 2)
    assert state.eta_seconds() == 2 * (2 + 4 + 2) / 2


def test_eta_after_a_resume_uses_the_pace_of_this_attempt(state: RunState, clock: Clock) -> None:
    state.max_steps = 100
    state.restore(90, Totals(), held_seconds=5000, resumes=1, wasted_steps=0)
    clock.now += 60  # the model loads
    state.enter("training")
    train(state, clock, 91, 92, seconds=3)
    assert state.eta_seconds() == 8 * 3


def test_eta_is_unknown_without_a_plan(state: RunState, clock: Clock) -> None:
    state.enter("training")
    train(state, clock, 1, 2)
    assert state.eta_seconds() is None


def test_at_risk_counts_from_when_the_durable_state_was_taken(
    state: RunState, clock: Clock
) -> None:
    assert state.at_risk_seconds() == 0
    state.enter("training")
    train(state, clock, 1, 5)
    assert state.at_risk_seconds() == 10
    state.taken(5)
    train(state, clock, 6, 8)  # while the upload is on its way
    assert (state.at_risk_seconds(), state.safe_to_preempt) == (16, False)
    state.committed(5, size=10)
    assert (state.at_risk_seconds(), state.safe_to_preempt) == (6, False)


def test_it_is_safe_to_preempt_when_the_last_step_is_durable(state: RunState, clock: Clock) -> None:
    safe = [state.safe_to_preempt]
    state.enter("training")
    safe.append(state.safe_to_preempt)
    train(state, clock, 1, 5)
    safe.append(state.safe_to_preempt)
    state.taken(5)
    safe.append(state.safe_to_preempt)
    state.committed(5, size=10)
    safe.append(state.safe_to_preempt)
    assert safe == [True, True, False, False, True]


def test_steps_without_a_checkpoint_stay_at_risk_after_training(
    state: RunState, clock: Clock
) -> None:
    state.enter("training")
    train(state, clock, 1, 2)
    state.enter("evaluation")
    assert (state.safe_to_preempt, state.at_risk_seconds()) == (False, 4)
    state.enter("finished")
    assert (state.safe_to_preempt, state.at_risk_seconds()) == (True, 0)


def test_a_superseded_checkpoint_is_forgotten(state: RunState, clock: Clock) -> None:
    state.enter("training")
    train(state, clock, 1, 1)
    state.taken(1)
    train(state, clock, 2, 2)
    state.taken(2)
    clock.now += 1
    state.committed(2, size=10)
    assert state.at_risk_seconds() == 1
    state.committed(1, size=10)  # late, and older: takes nothing back
    assert state.durable_step == 2


def test_goodput_is_the_share_of_held_time_in_steps_that_count(
    state: RunState, clock: Clock
) -> None:
    state.restore(10, Totals(productive_seconds=30), held_seconds=60, resumes=1, wasted_steps=3)
    clock.now += 20
    state.enter("training")
    train(state, clock, 11, 20)
    assert state.goodput_ratio() == pytest.approx((30 + 20) / (60 + 40))


def test_totals_go_on_after_a_resume(state: RunState, clock: Clock) -> None:
    state.restore(7, Totals(700, 70, 56, 14.0), held_seconds=20, resumes=1, wasted_steps=2)
    train(state, clock, 8, 8)
    assert state.totals == Totals(800, 95, 64, 16.0)
    assert state.supervised_token_ratio() == 95 / 800


def test_progress_has_no_nan(state: RunState) -> None:
    state.log({"loss": float("nan"), "eval_loss": float("inf"), "epoch": 0.5})
    progress = state.progress()
    assert (progress["loss"], progress["eval_loss"], progress["epoch"]) == (None, None, 0.5)


def test_progress_fits_the_record(state: RunState, clock: Clock) -> None:
    state.max_steps = 4
    state.enter("training")
    train(state, clock, 1, 2)
    state.log({"loss": 1.5})
    record = Progress(**state.progress())
    assert (record.phase, record.step, record.max_steps) == ("training", 2, 4)
    assert (record.loss, record.eta_seconds) == (1.5, 4.0)


@pytest.mark.parametrize("steps", [1, 60, 61, 1_000, 123_456])
def test_the_loss_history_covers_the_whole_run_evenly(steps: int) -> None:
    history = LossHistory()
    for step in range(1, steps + 1):
        history.add(step, 1 / step)
    points = history.points()
    at = [step for step, _ in points]
    assert min(steps, POINTS // 2) <= len(points) <= POINTS
    assert len({after - before for before, after in itertools.pairwise(at)}) <= 1
    assert at[-1] > steps - (at[1] - at[0] if len(at) > 1 else 1)
    assert at[0] <= (at[1] - at[0] if len(at) > 1 else 1)


def test_the_loss_history_goes_on_where_the_run_does() -> None:
    before, whole, resumed = LossHistory(), LossHistory(), LossHistory()
    for step in range(1, 401):
        whole.add(step, step / 8)
        before.add(step, step / 8 if step <= 200 else 99.0)
        before.add(step, math.nan)
    resumed.restore(before.points(), 200)
    for step in range(201, 401):
        resumed.add(step, step / 8)
    assert resumed.points() == whole.points()
