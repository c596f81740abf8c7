"""The callbacks: tell the observer, save by steps or time, stop at a boundary, stop early.

Stopping is exact. A checkpoint written between two micro-batches holds the state after the last
whole step, with the random state of that moment; one written while the evaluation of a step is
under way is marked, and the evaluation is made again before the next step. Either way a resumed
run does what an uninterrupted one would have done.

With several ranks each of these decisions is one exchange of a few numbers, made by all at the same
boundary: whichever rank was asked to stop, all do, and there.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from job.errors import Preempted
from job.lifecycle import StopToken
from job.ranks import ALONE, Ranks, StoppedTogether
from job.training.finite import FiniteSteps
from job.training.observer import Judge, Saved, Step, TrainingObserver
from job.training.randomness import keep_random_states, random_state, restore_random_state
from job.training.state import TrainingState

_GO_ON, _SAVE_AND_STOP, _STOP = range(3)
"""What a rank wants at a boundary; the highest holds. A failure goes before a preemption: what
there would be to save is somebody else's by then, or can't be saved."""


class TrainingOver(Exception):
    """Ends the loop where the Trainer has no way out: training was over before the next step."""


class EarlyStopping(EarlyStoppingCallback):  # type: ignore[misc]
    """Early stopping whose last state is saved. The best checkpoint is picked at publishing."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Not the base's: it warns that the best model isn't loaded, which the job does itself."""

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any
    ) -> None:
        super().on_evaluate(args, state, control, metrics, **kwargs)
        if control.should_training_stop:
            control.should_save = True


class JobCallback(TrainerCallback):  # type: ignore[misc]
    """One callback for everything, since the order of the events matters."""

    def __init__(
        self,
        observer: TrainingObserver,
        stop: StopToken,
        *,
        save_seconds: float,
        evaluates: bool,
        resumed: TrainingState,
        expected_loss: float | None = None,
        judge: Judge | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.trainer: Any = None
        """Set once the trainer is built, which needs its callbacks first."""
        self.totals = resumed
        self.pending_evaluation = resumed.evaluation_pending
        self._observer = observer
        self._stop = stop
        self._ranks = ranks
        self._save_seconds = save_seconds
        self._evaluates = evaluates
        self._evaluating = False
        self._eval_loss: tuple[int, float] | None = None
        self._expected_loss = expected_loss
        self._judge = judge
        self._saved_step = -1
        self._last_save = time.monotonic()
        # As the Trainer itself would save it after the last whole step. Not that of the next
        # step's begin: at the start of an epoch the Trainer restores it before it draws a seed.
        self._random: dict[str, Any] = {}
        self._measured: dict[str, float] = {}
        self._finite = FiniteSteps()

    # -- the loop ---------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved_step = state.global_step  # where it resumes, or nothing to save yet
        self._last_save = time.monotonic()
        self._observer.began(
            step=state.global_step,
            max_steps=state.max_steps,
            state=self.totals,
            history=state.log_history,
        )

    def first_micro_batch(self, loss: Any) -> None:
        """Of each step. Its loss says whether a resumed run does what the first one did, so it is
        noted after each checkpoint; reading it waits for the GPU, which is not done every step."""
        step = self.trainer.state.global_step
        if step != self._saved_step:
            return
        expected, self._expected_loss = self._expected_loss, None
        if expected is not None:
            self._observer.resumed(step=step, loss=float(loss), expected=expected)
        elif step:
            self._observer.continued(step=step, loss=float(loss))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.pending_evaluation:
            self._evaluate_what_was_cut_off(control)
        self._stop_if_asked(args, state)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._observer.alive()
        self._stop_if_asked(args, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        due = time.monotonic() - self._last_save >= self._save_seconds
        stop, due = self._count(state, due)
        last = state.global_step >= state.max_steps
        if last and self._evaluates:
            control.should_evaluate = True
        # When asked to stop, not here but in `on_save`: the step's loss is logged in between.
        if last or due or stop:
            control.should_save = True
        self._random = random_state()
        self.trainer.step_loss = None  # the next step has none yet
        self._evaluating = self.pending_evaluation = bool(control.should_evaluate)

    # -- evaluation -------------------------------------------------------------------------

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._observer.alive()
        if self._evaluating:
            self._stop_if_asked(args, state)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any
    ) -> None:
        self._generate(args, state)
        self._evaluating = self.pending_evaluation = False
        self._random = random_state()
        best = state.best_metric
        loss = metrics.get("eval_loss")
        if loss is None:
            return
        self._eval_loss = (state.global_step, loss)
        if best is None or loss < best:
            control.should_save = True  # the best one has to outlive this pod

    def _generate(self, args: Any, state: Any) -> None:
        """Belongs to the evaluation: cut off, both are made again, and its loss is not logged
        twice. Rank 0 generates, the others wait."""
        judge = self._judge
        last = state.global_step >= state.max_steps
        if judge is None or last or state.global_step % (judge.every * args.eval_steps):
            return
        before = random_state()
        rates = judge.rates() if self._ranks.rank == 0 else {}
        restore_random_state(before)
        made = self._ranks.broadcast(rates is not None, self._observer.alive)
        if not made:
            del state.log_history[-1]
            self._stop_if_asked(args, state)
        elif rates:
            self.trainer.log({f"eval_{measure}": rate for measure, rate in rates.items()})

    # -- telling and saving -----------------------------------------------------------------

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kw: Any
    ) -> None:
        logs = dict(logs or {})
        if "loss" in logs and self._measured and state.log_history:
            state.log_history[-1].update(self._measured)  # for the report, also after a resume
        # First told, then judged: whoever looks for the reason has to see the value that ended it.
        self._observer.logged(step=state.global_step, epoch=state.epoch or 0.0, logs=logs)
        skipped = self.trainer.accelerator.optimizer_step_was_skipped
        self._finite.check(state.global_step, logs, skipped=skipped)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        finished = bool(control.should_training_stop) or state.global_step >= state.max_steps
        self._hand_over(args, state, finished=finished)
        if not finished:
            self._stop_if_asked(args, state)

    def _hand_over(
        self, args: Any, state: Any, *, finished: bool, next_loss: float | None = None
    ) -> None:
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        saved = replace(self.totals, evaluation_pending=self.pending_evaluation, finished=finished)
        saved.save(folder)
        keep_random_states(folder, self._ranks)
        self._saved_step = state.global_step
        self._last_save = time.monotonic()
        evaluated = self._eval_loss
        eval_loss = evaluated[1] if evaluated and evaluated[0] == state.global_step else None
        write_seconds = self.trainer.write_seconds
        self._observer.saved(Saved(folder, state.global_step, eval_loss, write_seconds, next_loss))

    def _stop_if_asked(self, args: Any, state: Any) -> None:
        agreed = max(wish for (wish,) in self._ranks.all_gather(self._wish()))
        if agreed == _GO_ON:
            return
        if agreed == _SAVE_AND_STOP and state.global_step > self._saved_step:
            restore_random_state(self._random)
            first = self.trainer.step_loss
            self.trainer._save_checkpoint(self.trainer.model, trial=None)
            next_loss = None if first is None else float(first)
            self._hand_over(args, state, finished=False, next_loss=next_loss)
        if not self._stop.requested:
            self._stop.request(StoppedTogether(failed=agreed == _STOP))
        self._stop.check()

    def _wish(self) -> int:
        if not self._stop.requested:
            return _GO_ON
        return _SAVE_AND_STOP if isinstance(self._stop.cause, Preempted) else _STOP

    def _count(self, state: Any, due: bool) -> tuple[bool, bool]:
        """Whether any rank is to stop, and any is due to save, which the same exchange brings."""
        counts = self.trainer.batch_counts
        seconds = time.monotonic() - self.trainer.step_began
        every = self._ranks.all_gather(
            self._wish(), due, counts.tokens, counts.supervised_tokens, counts.samples
        )
        wishes, dues, tokens, supervised, samples = zip(*every, strict=True)
        added: dict[str, int] = {
            "tokens": sum(tokens),
            "supervised_tokens": sum(supervised),
            "samples": sum(samples),
        }
        totals = self.totals.plus(**added)
        self._measured = {"step_seconds": round(seconds, 4)} | added
        self.totals = replace(totals, train_seconds=totals.train_seconds + seconds)
        self._observer.stepped(
            Step(
                step=state.global_step,
                epoch=state.epoch or 0.0,
                seconds=seconds,
                micro_batches=counts.micro_batches,
                gpu_memory=_gpu_memory(),
                **added,
            )
        )
        return any(wishes), any(dues)

    def _evaluate_what_was_cut_off(self, control: Any) -> None:
        self._evaluating = True
        metrics = self.trainer._evaluate(trial=None, ignore_keys_for_eval=None)
        self.trainer._determine_best_metric(metrics=metrics, trial=None)
        control.should_save = False  # this very state was saved before it was evaluated
        if control.should_training_stop:
            self.trainer._save_checkpoint(self.trainer.model, trial=None)
            self._hand_over(self.trainer.args, self.trainer.state, finished=True)
            raise TrainingOver


def _gpu_memory() -> dict[str, int]:
    if not torch.cuda.is_available():
        return {}
    return {
        "allocated": torch.cuda.memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),
        "peak_allocated": torch.cuda.max_memory_allocated(),
    }
