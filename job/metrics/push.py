"""A last push of the metrics to a Pushgateway, for runs that end between two scrapes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from prometheus_client.exposition import basic_auth_handler, default_handler, push_to_gateway

from job.metrics.registry import Metrics
from job.redact import redact

_log = logging.getLogger(__name__)

_JOB: Final = "forge-job"


def push(url: str, metrics: Metrics, run_id: str, *, timeout_seconds: float = 5.0) -> bool:
    """Push under job `forge-job`, grouped by `run_id`, replacing the run's last push.

    `http://user:password@host` logs in with basic authentication. Never raises for a gateway that
    is down, hangs or refuses: it warns, without the credentials, and returns False, at the latest
    after twice `timeout_seconds`, however slowly the gateway drips its answer.
    """
    parts = urlsplit(url)
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    failures: list[str] = ["it did not answer in time"]

    def attempt() -> None:
        try:
            push_to_gateway(
                address,
                job=_JOB,
                registry=metrics.registry,
                grouping_key={"run_id": run_id},
                timeout=timeout_seconds,
                handler=_handler(parts.username, parts.password),
            )
        except (OSError, HTTPException, ValueError) as error:
            failures[:] = [str(error) or type(error).__name__]
        else:
            failures.clear()

    # The library's time limit is that of one read from the socket, not of the push.
    thread = threading.Thread(target=attempt, name="metrics-push", daemon=True)
    thread.start()
    thread.join(2 * timeout_seconds)
    if failures:
        _log.warning("metrics were not pushed to %s: %s", redact(address), redact(failures[0]))
        return False
    _log.info("metrics were pushed to %s", redact(address))
    return True


def _handler(username: str | None, password: str | None) -> Callable[..., Any]:
    if username is None:
        return default_handler
    return partial(basic_auth_handler, username=unquote(username), password=unquote(password or ""))
