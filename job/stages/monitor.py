"""What training says, passed on to metrics, log, progress bar, the caller and the uploader."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from job.checkpoint import Change, CheckpointUploader, Grace, Local
from job.ledger import Ledger, MicroBatch, RunRecord, held_seconds
from job.logs import LogContext, ProgressBar
from job.memory import GIB
from job.metrics import Metrics, Totals

if TYPE_CHECKING:
    from job.training import Fit, Saved, Step, TrainingState

_log = logging.getLogger(__name__)

_DRIFT = 0.01
"""Relative; the same micro-batch on another GPU, or with other kernels, stays well below it."""

_LEAST_LOSS = 0.01
"""Near 0 a relative difference says nothing."""

_LOG_SECONDS = 5.0
"""Between two log lines of training: a run of a day must not write a line for each step."""


@dataclass(frozen=True)
class Progress:
    """What the caller's `on_progress` is given, after each optimizer step's log."""

    step: int
    total_steps: int
    progress: float
    """Share of the steps done, 0 to 1."""
    loss: float | None
    epoch: float


OnProgress = Callable[[Progress], None]


class Monitor:
    """Keeps `job.training.TrainingObserver`."""

    def __init__(
        self,
        metrics: Metrics,
        ledger: Ledger,
        uploader: CheckpointUploader,
        grace: Grace,
        context: LogContext,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._metrics = metrics
        self._ledger = ledger
        self._uploader = uploader
        self._grace = grace
        self._context = context
        self._on_progress = on_progress
        self._max_steps = 0
        self._bar: ProgressBar | None = None
        self._last_line = 0.0
        self._once_begun: list[Change] = [_note_that_it_began]
        self.history: Sequence[Mapping[str, Any]] = ()
        """The Trainer's log over all attempts, for the report of a run that fails."""

    def once_begun(self, change: Change) -> None:
        """Of the record; made when training begins, with what it resumes from loaded."""
        self._once_begun.append(change)

    def fitted(self, fit: Fit) -> None:
        found = MicroBatch(**asdict(fit))
        _log.info(
            "micro-batches of %d conversations, %d a step%s",
            fit.per_device_train_batch_size,
            fit.gradient_accumulation_steps,
            f": the longest takes {fit.peak_bytes / GIB:.1f} GiB" if fit.peak_bytes else "",
        )
        self._uploader.later(lambda record: setattr(record, "micro_batch", found))

    def began(
        self,
        *,
        step: int,
        max_steps: int,
        state: TrainingState,
        history: Sequence[Mapping[str, Any]],
    ) -> None:
        for change in self._once_begun:
            self._uploader.later(change)
        record = self._ledger.record
        self._max_steps = max_steps
        self.history = history
        self._metrics.planned(max_steps)
        self._metrics.restore(
            step,
            Totals(state.tokens, state.supervised_tokens, state.samples, state.train_seconds),
            held_seconds=held_seconds(record, before_attempt=record.attempt),
            resumes=sum(attempt.resumed for attempt in record.attempts[:-1]) + (step > 0),
            wasted_steps=sum(attempt.lost_steps for attempt in record.attempts),
            losses=record.progress.losses,
        )
        newest: dict[str, Any] = {}  # what was logged last, until something else is
        for logs in history:
            newest.update(logs)
        self._metrics.logged(newest)
        self._context.update(step=step)
        self._bar = ProgressBar(max_steps, initial=step, enabled=self._context.interactive)
        _log.info("training starts at step %d of %d", step, max_steps)

    def alive(self) -> None:
        self._metrics.micro_step_done()

    def stepped(self, step: Step) -> None:
        self._context.update(step=step.step)
        self._metrics.step_done(
            step.step,
            step.seconds,
            tokens=step.tokens,
            supervised_tokens=step.supervised_tokens,
            samples=step.samples,
        )
        self._grace.micro_batch(step.seconds / max(1, step.micro_batches))
        if step.gpu_memory:
            self._metrics.gpu_memory(step.gpu_memory)

    def logged(self, *, step: int, epoch: float, logs: dict[str, float]) -> None:
        self._metrics.logged({**logs, "epoch": epoch}, step)
        loss = logs.get("loss")
        if (eval_loss := logs.get("eval_loss")) is not None:
            _log.info("validation loss %.4f after step %d", eval_loss, step)
            if math.isfinite(eval_loss):  # training ends next where it is not
                self._uploader.annotate(step, eval_loss=eval_loss)
        if loss is None:
            return
        if self._bar is not None:
            self._bar.update(step, loss=loss)
        self._say(step, loss, logs)
        if self._on_progress is not None:
            share = step / self._max_steps if self._max_steps else 0.0
            self._on_progress(Progress(step, self._max_steps, share, loss, epoch))

    def saved(self, saved: Saved) -> None:
        self._metrics.checkpoint_taken(saved.step, saved.write_seconds)
        self._metrics.checkpoint_stalled(saved.write_seconds)
        self._grace.written(saved.write_seconds)
        self._uploader.submit(Local(saved.folder, saved.step, saved.eval_loss, saved.next_loss))

    def continued(self, *, step: int, loss: float) -> None:
        self._uploader.annotate(step, next_loss=loss)

    def resumed(self, *, step: int, loss: float, expected: float) -> None:
        drift = abs(loss - expected) / max(abs(expected), _LEAST_LOSS)
        if drift > _DRIFT:
            _log.warning(
                "the first loss after step %d is %.6g, %.6g was recorded before the resume: data, "
                "weights or libraries are not what they were",
                step,
                loss,
                expected,
            )
        else:
            _log.info("the first loss after step %d is the recorded one within %.1e", step, drift)
        self._uploader.later(lambda record: setattr(record.current, "resume_drift", drift))

    def ended(self) -> None:
        """Training is over, one way or another."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

    def _say(self, step: int, loss: float, logs: dict[str, float]) -> None:
        now = time.monotonic()
        due = now - self._last_line >= _LOG_SECONDS or step == self._max_steps
        if due and not self._context.interactive:
            self._last_line = now
            fields = {"loss": loss, "learning_rate": logs.get("learning_rate")}
            _log.info("step %d/%d loss %.4f", step, self._max_steps, loss, extra={"fields": fields})


def _note_that_it_began(record: RunRecord) -> None:
    record.current.began = True
