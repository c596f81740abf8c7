"""One of two ranks that train the tiny model several times; what each saw goes into a file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from job.lifecycle import StopToken
from job.ranks import own_place
from job.ranks.group import Group, join
from tests.training.runs import Outcome, made_data, run

STEP_SIGNS = 2
"""Signs of life that a step gives: one after each micro-batch but the last."""


def _leave(cause: BaseException) -> NoReturn:
    print(f"left: {cause}", file=sys.stderr)
    os._exit(1)


def _said(outcome: Outcome) -> dict[str, Any]:
    totals = outcome.result.totals if outcome.result else None
    return {
        "losses": outcome.seen.losses,
        "eval_losses": outcome.seen.eval_losses,
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
    group = join(place, StopToken(), _leave, join_seconds=120, timeout_seconds=60)
    data = made_data(folder / f"data-{place.rank}")
    own = folder / f"rank-{place.rank}"
    halves: dict[str, Any] = {"gradient_accumulation_steps": 2}
    seen = {
        "equal": _said(run(model, data, own / "equal", ranks=group, lora_dropout=0.0, **halves)),
        "uneven": _said(
            run(
                model,
                data,
                own / "uneven",
                ranks=group,
                lora_dropout=0.0,
                per_device_train_batch_size=4,
                gradient_accumulation_steps=1,
            )
        ),
        "whole": _said(run(model, data, own / "whole", ranks=group, **halves)),
    }
    # Staggered: either rank alone is asked to stop, in the middle of a step or of an evaluation.
    for name, stopped_rank, sign in (("in_step", 1, 4), ("in_evaluation", 0, 7), ("late", 1, 13)):
        output = own / name
        stop_at = sign if place.rank == stopped_rank else None
        first = run(model, data, output, ranks=group, stop_at=stop_at, **halves)
        checkpoint = _checkpoint(group, folder, first)
        again = run(model, data, own / f"{name}-2", ranks=group, resume_from=checkpoint, **halves)
        seen |= {name: _said(first), f"{name}_resumed": _said(again)}
    group.trained()
    group.close()
    return seen


def _checkpoint(group: Group, folder: Path, first: Outcome) -> Path:
    """Rank 0's, at both; the other ranks have nothing of their own left."""
    step = first.seen.saves[-1].step
    if group.rank == 0:
        group.tell(
            f"checkpoint-{folder}-{first.adapter}", {"path": str(first.seen.saves[-1].folder)}
        )
    else:
        assert not first.seen.saves[-1].folder.exists()
    every = group.exchange(step)
    assert len(set(every)) == 1, every
    path = group.hear(f"checkpoint-{folder}-{first.adapter}")["path"]
    return Path(path)


if __name__ == "__main__":
    found = main(Path(sys.argv[1]), Path(sys.argv[2]))
    Path(sys.argv[2], f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))
