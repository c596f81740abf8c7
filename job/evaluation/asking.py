"""Turns asked of a server, several at once, until all are answered or time is over.

What is judged when time is over must not depend on the answers: a model that rambles where it is
wrong takes longest there. So turns go out in a drawn order, and every one that went out counts.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

from job.errors import Problem, Unavailable
from job.evaluation.document import Answer, Turn
from job.lifecycle import StopToken

_TICK_SECONDS: Final = 0.2
_SEED: Final = 3407

Ask = Callable[[Turn], list[Answer]]
"""One turn of all models that are compared."""


@dataclass(frozen=True)
class Bounds:
    """What asking may cost."""

    concurrency: int = 8
    seconds: float = 0.0
    """After which no more turns are asked; 0 for no bound."""
    patience: float = math.inf
    """Seconds that those on their way may take from then on."""


def drawn(count: int) -> list[int]:
    """The numbers below `count` in an order that is drawn, always the same for the same count."""
    order = list(range(count))
    random.Random(_SEED).shuffle(order)  # noqa: S311 - no secret
    return order


def answers_to(
    turns: Sequence[Turn], ask: Ask, bounds: Bounds, stop: StopToken
) -> dict[int, list[Answer]]:
    """By the turns' numbers: to all of them, or to those that were asked before time was over;
    always some, where there are turns.

    Raises `Stopped`, what `ask` does, and `Unavailable` where patience is over, too.
    """
    began, left = time.monotonic(), iter(drawn(len(turns)))
    answers: dict[int, list[Answer]] = {}
    pending: dict[Future[list[Answer]], int] = {}

    def go_on() -> None:
        for number in islice(left, bounds.concurrency - len(pending)):
            pending[_started(partial(ask, turns[number]))] = number

    go_on()
    while pending:
        for future in wait(pending, _TICK_SECONDS, FIRST_COMPLETED).done:
            answers[pending.pop(future)] = future.result()
        stop.check()
        late = time.monotonic() - began - (bounds.seconds or math.inf)
        if late < 0:
            go_on()
        elif pending and late > bounds.patience:
            raise _overdue(len(pending), len(pending) + len(answers), bounds)
    return answers


def _overdue(unanswered: int, asked: int, bounds: Bounds) -> Unavailable:
    """Left out, they would make the rest look better than the whole; and wrong they are not."""
    found = f"{unanswered} of {asked} turns that were asked have no answer"
    return Unavailable(
        Problem(
            "--endpoint",
            f"{found} {bounds.patience:g} s after the end of --seconds {bounds.seconds:g}",
            "see that the server answers in time; a lower --concurrency may help",
        )
    )


def _started(work: Callable[[], list[Answer]]) -> Future[list[Answer]]:
    """In a daemon thread: a pool's threads would keep the process, once it is asked to go or time
    is over, for as long as a server takes over its answer."""
    future: Future[list[Answer]] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="evaluate", daemon=True).start()
    return future
