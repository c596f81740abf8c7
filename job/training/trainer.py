"""The thin layer over `SFTTrainer`: counting, timing, and nothing of the loop itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from job.ranks import ALONE, Ranks
from job.training.repeats import first, leave_out, put_back, repeated
from job.training.resumed import own_intervals, own_schedule


@dataclass(frozen=True)
class BatchCounts:
    """Of all micro-batches of one optimizer step."""

    tokens: int = 0
    supervised_tokens: int = 0
    samples: int = 0
    micro_batches: int = 0


def job_trainer(base: type[Any], ranks: Ranks = ALONE) -> type[Any]:
    """A subclass of the engine's trainer (Unsloth's is made at run time, hence a function)."""
    if ranks.size > 1:
        base = _validating_as_one(_training_as_one(base, ranks), ranks)

    class JobTrainer(base):  # type: ignore[misc]
        """Counts what each step sees and times what each checkpoint costs."""

        batch_counts = BatchCounts()
        step_began = 0.0
        write_seconds = 0.0
        step_loss: Any = None
        """Of the first micro-batch of the step under way, on its device; None before it."""
        after_first: Callable[[Any], None] = staticmethod(lambda _loss: None)
        validation_changed = False
        """Since the checkpoint that it resumes from: no loss before says anything."""

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            self.step_began = time.monotonic()
            batches, num_items = super().get_batch_samples(*args, **kwargs)
            self.batch_counts = getattr(self, "counted", None) or count(batches)
            self.step_loss = None
            return batches, num_items

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            if self.step_loss is None:
                self.step_loss = loss.detach()
                self.after_first(self.step_loss)
            return loss

        def try_out(self, rows: list[dict[str, Any]]) -> None:
            """Forward and backward of one micro-batch of `rows`, as in a step, counted as none."""
            self.current_gradient_accumulation_steps = 1
            model = getattr(self, "model_wrapped", None) or self.model
            with self.accelerator.no_sync(model):  # a rank without memory would never answer
                super().training_step(model, self.data_collator(rows))

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            started = time.monotonic()
            super()._save_checkpoint(model, trial)
            self.write_seconds = time.monotonic() - started

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            with own_schedule(self.optimizer, self.lr_scheduler):
                super()._load_optimizer_and_scheduler(checkpoint)

        def _load_callback_state(self) -> None:
            with own_intervals(self, validation_changed=self.validation_changed):
                super()._load_callback_state()

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """The card is written once, with results, when the adapter is published."""

    return JobTrainer


def _training_as_one(base: type[Any], ranks: Ranks) -> type[Any]:
    """`base` for one of several ranks: an epoch's last step trains on nothing twice."""

    class RankTrainer(base):  # type: ignore[misc]
        repeat: Any = None
        """The micro-batch of this step that is there for the collectives alone."""
        weightless = False

        def get_batch_samples(self, iterator: Any, num_batches: int, *args: Any) -> Any:
            batches = list(islice(iterator, num_batches))
            self.repeat, labels, counted = None, None, batches
            if batches and self.accelerator.gradient_state.end_of_dataloader:
                size = self.args.train_batch_size
                kept = repeated(len(self.train_dataset), size, ranks.rank, ranks.size)
                counted = [*batches[:-1], first(batches[-1], kept)]
                labels = leave_out(batches[-1], kept)
                self.repeat = batches[-1] if kept == 0 else None
            found = super().get_batch_samples(iter(batches), len(batches), *args)
            self.counted = count(counted)
            if self.repeat is not None:
                put_back(self.repeat, labels)
            return found

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self.weightless = inputs is self.repeat
            try:
                return super().training_step(model, inputs, *args, **kwargs)
            finally:
                self.weightless = False

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            found = super().compute_loss(*args, **kwargs)
            if not self.weightless:
                return found
            return (found[0] * 0.0, *found[1:]) if isinstance(found, tuple) else found * 0.0

    return RankTrainer


def _validating_as_one(base: type[Any], ranks: Ranks) -> type[Any]:
    """`base` for one of several ranks: the validation loss is that of a single process, the mean
    of each micro-batch weighted by its conversations."""

    class RankTrainer(base):  # type: ignore[misc]
        def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if self.accelerator.gradient_state.end_of_dataloader:
                size = self.args.eval_batch_size
                kept = repeated(len(self.eval_dataset), size, ranks.rank, ranks.size)
                if kept:  # else accelerate leaves out what is gathered from here
                    leave_out(inputs, kept)
            # The Trainer would divide by the tokens of all ranks, those of repeats too, and then
            # take the mean over the conversations that are left.
            self.args.average_tokens_across_devices = False
            try:
                return super().prediction_step(model, inputs, *args, **kwargs)
            finally:
                self.args.average_tokens_across_devices = True

    return RankTrainer


def count(batches: list[dict[str, Any]]) -> BatchCounts:
    """Tokens, supervised tokens and conversations of collated batches, padded or padding-free."""
    tokens = supervised = samples = 0
    for batch in batches:
        supervised += int((batch["labels"] != -100).sum())
        if "attention_mask" in batch:
            tokens += int(batch["attention_mask"].sum())
            samples += batch["input_ids"].shape[0]
        else:  # one row, conversations one after another, each starting at position 0
            tokens += batch["input_ids"].numel()
            samples += int((batch["position_ids"] == 0).sum())
    return BatchCounts(tokens, supervised, samples, len(batches))
