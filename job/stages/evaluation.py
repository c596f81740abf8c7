"""Held-out tool calls, judged by what the model generates: while it trains, and after."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from job.dataset import ChatFormat, PreparedData
from job.engines import Engine, LoadedModel
from job.errors import JobError
from job.evaluation.reading import Reading, read_turns
from job.ledger import put
from job.stages.context import Run
from job.storage import NotFound

if TYPE_CHECKING:
    from job.training import Judge

_log = logging.getLogger(__name__)

ANSWERS_KEY = "evaluation/answers.jsonl"
"""In a run's storage, while it is evaluated."""


def judge_of(
    run: Run, engine: Engine, loaded: LoadedModel, chat: ChatFormat, data: PreparedData
) -> Judge | None:
    """What generates while training is under way, if that is asked for."""
    from job.evaluation.evaluate import judge_adapter
    from job.training import Judge

    settings = run.settings
    if not settings.eval_generate_every:
        return None
    reading = read_turns(chat, data.evaluation_rows[: settings.eval_generate_rows])

    def rates() -> dict[str, float] | None:
        with engine.generating(loaded.model):
            found = judge_adapter(
                loaded.model,
                loaded.tokenizer,
                chat,
                reading,
                lambda: run.asked_to_stop,
                alive=run.metrics.micro_step_done,
                text_match=settings.eval_text_match,
            )
        if found is None:
            return None
        run.metrics.evaluated({"adapter": found})
        return {measure: result["rate"] for measure, result in found.items()}

    return Judge(rates, settings.eval_generate_every)


def evaluate_model(
    run: Run, engine: Engine, loaded: LoadedModel, chat: ChatFormat, reading: Reading
) -> dict[str, Any] | None:
    """Base against adapter on held-out tool calls; None where there are none."""
    from job.evaluation.evaluate import Bounds, evaluate

    settings, record = run.settings, run.ledger.record
    with engine.generating(loaded.model):
        evaluation = evaluate(
            loaded.model,
            loaded.tokenizer,
            chat,
            reading,
            run.stop,
            alive=run.metrics.micro_step_done,
            bounds=Bounds(settings.eval_max_seconds, settings.eval_text_match),
            keeper=_AnswersInStorage(run),
            made_with=f"{engine.name} {settings.base_model} {record.model.get('revision')}",
        )
    if evaluation is not None:
        run.metrics.evaluated(evaluation)
    return evaluation


@dataclass
class _AnswersInStorage:
    """Keeps the answers of an evaluation under way. Losing them costs time and nothing else, so a
    store that is out of reach doesn't hold the evaluation up."""

    run: Run
    earlier: bytes = b""
    """What was kept before this attempt."""

    def read(self) -> bytes | None:
        try:
            self.earlier = self.run.storage.read(ANSWERS_KEY)[0]
            return self.earlier
        except NotFound:
            return None
        except JobError as error:
            _log.warning("the answers of an earlier attempt are out of reach: %s", error)
            return None

    def write(self, content: bytes) -> None:
        send = partial(self.run.storage.write, ANSWERS_KEY, content)
        try:
            put(self.run.storage, self.run.ledger, ANSWERS_KEY, send)
            if content.count(b"\n") > self.earlier.count(b"\n"):
                self._tell()
        except JobError as error:
            _log.warning("the answers so far could not be kept: %s", error)

    def _tell(self) -> None:
        """The next attempt has less to do, though no step was made."""
        if not self.run.ledger.record.current.advanced:
            self.run.ledger.update(lambda record: setattr(record.current, "advanced", True))
