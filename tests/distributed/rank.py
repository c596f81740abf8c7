"""One of two ranks that train the tiny model several times; what each saw goes into a file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from safetensors.torch import load_file, save_file

from job.dataset import ChatFormat, Row
from job.engines import LoadedModel, ReferenceEngine
from job.errors import JobError
from job.evaluation.evaluate import judge_adapter
from job.evaluation.reading import Reading, read_turns
from job.lifecycle import StopToken
from job.ranks import own_place
from job.ranks.group import Group, join
from job.training import Judge
from tests.tiny import rows
from tests.training.runs import Outcome, made_data, run

EXACT: dict[str, Any] = {"gradient_accumulation_steps": 2, "max_steps": 8}
"""A sign of life a step, and at step 5 two in the validation, before turns are generated."""

COMPARED: dict[str, Any] = {"lora_dropout": 0.0, "max_steps": 5}
"""Over the end of an epoch."""

STOPS = (("in_step", 1, 4), ("in_evaluation", 0, 7), ("in_generation", 1, 9))
"""Which rank, and at which sign of life: one that waits for another gives some, too."""


class _Current(StopToken):
    """That of the training under way, which makes its own; a job has only one."""

    of_training: StopToken | None = None

    @property
    def requested(self) -> bool:
        return self.of_training is not None and self.of_training.requested


def _leave(cause: BaseException) -> NoReturn:
    print(f"left: {cause}", file=sys.stderr)
    os._exit(1)


def _said(outcome: Outcome) -> dict[str, Any]:
    totals = outcome.result.totals if outcome.result else None
    return {
        "losses": outcome.seen.losses,
        "eval_losses": outcome.seen.eval_losses,
        "rates": [e for e in outcome.result.history if "eval_exact" in e] if outcome.result else [],
        "adapter": outcome.adapter,
        "finished": outcome.result is not None,
        "saved": outcome.seen.saves[-1].step if outcome.seen.saves else None,
        "tokens": totals.tokens if totals else 0,
        "supervised_tokens": totals.supervised_tokens if totals else 0,
        "samples": totals.samples if totals else 0,
        "resumptions": outcome.seen.resumptions,
    }


def main(model: Path, folder: Path) -> dict[str, Any]:
    place = own_place(os.environ)
    assert place is not None
    token = _Current()
    group = join(place, token, _leave, join_seconds=120, timeout_seconds=60)
    group.form()
    data = made_data(folder / f"data-{place.rank}")
    own = folder / f"rank-{place.rank}"

    def train(name: str, **kwargs: Any) -> Outcome:
        given: dict[str, Any] = {"model": model, "data": data} | kwargs
        return run(**given, output=own / name, ranks=group)

    def judging(*, until_cut_off: bool) -> Callable[[LoadedModel, StopToken], Judge]:
        def made(loaded: LoadedModel, stop: StopToken) -> Judge:
            token.of_training = stop
            return _judge(model, loaded, stop, group, until_cut_off)

        return made

    whole = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    seen = {
        "equal": _said(train("equal", **COMPARED, gradient_accumulation_steps=2)),
        "uneven": _said(train("uneven", **COMPARED, **whole)),
        "whole": _said(train("whole", **EXACT)),
    }
    # Staggered: either rank alone is asked to stop.
    for name, stopped_rank, sign in STOPS:
        generates = name == "in_generation"
        first = train(
            name,
            stop_at=sign if place.rank == stopped_rank else None,
            judging=judging(until_cut_off=True) if generates else None,
            **EXACT,
        )
        token.of_training = None
        while group.others_asked:  # as the last life sign has it
            time.sleep(0.05)
        again = train(
            f"{name}-2",
            resume_from=_checkpoint(group, folder, first),
            judging=judging(until_cut_off=False) if generates else None,
            **EXACT,
        )
        seen |= {name: _said(first), f"{name}_resumed": _said(again)}
    own_part = data.evaluation if place.rank else data.train
    others: dict[str, dict[str, Any]] = {
        "settings": {"learning_rate": 1e-3 if place.rank else 1e-2},
        "data": {"data": replace(data, train=own_part)},
        "weights": {"model": _other_model(model, own) if place.rank else model},
    }
    for name, kwargs in others.items():
        seen[f"other_{name}"] = _refusal(partial(train, name, **kwargs))
    group.trained()
    group.close()
    return seen


def _other_model(model: Path, folder: Path) -> Path:
    """One weight differs, as in a mirror that somebody has filled anew."""
    other = Path(shutil.copytree(model, folder / "other-model"))
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1.0
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    return other


def _refusal(train: Callable[[], Any]) -> dict[str, Any]:
    try:
        train()
    except JobError as error:
        return {"code": error.exit_code, "text": str(error)}
    return {}


def _judge(
    model: Path, loaded: LoadedModel, stop: StopToken, group: Group, until_cut_off: bool
) -> Judge:
    """As `job.stages.evaluation` has it, again and again where another rank is to cut it off."""
    chat = ChatFormat.load(model)
    held_out = [Row("x", i + 1, tuple(row["messages"])) for i, row in enumerate(rows(3))]
    reading = read_turns(chat, held_out)

    def rates() -> dict[str, float] | None:
        while True:
            with ReferenceEngine().generating(loaded.model):
                found = judge_adapter(
                    loaded.model,
                    loaded.tokenizer,
                    chat,
                    reading,
                    lambda: stop.requested or group.others_asked,
                )
            if found is None:
                return None
            if not until_cut_off:
                return {name: measure["rate"] for name, measure in found.items()}

    return Judge(rates if group.rank == 0 else _not_here, every=1)


def _not_here() -> dict[str, float]:
    raise AssertionError("rank 0 generates, and no other")


def _checkpoint(group: Group, folder: Path, first: Outcome) -> Path:
    """Rank 0's, at both; the other ranks have nothing of their own left."""
    step = first.seen.saves[-1].step
    if group.rank == 0:
        group.tell(
            f"checkpoint-{folder}-{first.adapter}", {"path": str(first.seen.saves[-1].folder)}
        )
    else:
        assert not first.seen.saves[-1].folder.exists()
    every = group.all_gather(step)
    assert len(set(every)) == 1, every
    path = group.hear(f"checkpoint-{folder}-{first.adapter}")["path"]
    return Path(path)


if __name__ == "__main__":
    type.__setattr__(Reading, "max_new_tokens", 6)  # here alone: tests import this module, too
    found = main(Path(sys.argv[1]), Path(sys.argv[2]))
    Path(sys.argv[2], f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))
