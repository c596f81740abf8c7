"""transformers' reporting integrations, kept from ending a run that they only watch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from transformers.integrations import MLflowCallback, get_reporting_integration_callbacks

from job import trackers

_log = logging.getLogger(__name__)

_EVENTS = (
    "on_train_begin",
    "on_log",
    "on_save",
    "on_evaluate",
    "on_predict",
    "on_train_end",
    "on_step_end",
)


def guard(trainer: Any, names: Sequence[str], run_uri: str) -> None:
    """A tracker that fails is left out from then on, with one warning; MLflow goes on in the run
    of earlier attempts."""
    kinds = tuple(get_reporting_integration_callbacks(list(names))) if names else ()
    for callback in list(trainer.callback_handler.callbacks):
        if isinstance(callback, kinds):
            if isinstance(callback, MLflowCallback):
                _go_on(callback, run_uri)
            _guard(callback)


def _go_on(mlflow: Any, run_uri: str) -> None:
    setup = mlflow.setup

    @wraps(setup)
    def go_on(*args: Any, **kwargs: Any) -> None:
        with trackers.mlflow_run(run_uri):
            setup(*args, **kwargs)
        mlflow._auto_end_run = False  # the job says how it ended, once it knows

    mlflow.setup = go_on


def _guard(tracker: Any) -> None:
    name = type(tracker).__name__.removesuffix("Callback")

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if failed:
                return None
            try:
                return method(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
                failed.append(error)
                _log.warning("%s fails and is left out from now on: %s", name, error)
                return None

        return call

    failed: list[Exception] = []
    for event in _EVENTS:
        setattr(tracker, event, guarded(getattr(tracker, event)))
