"""Work behind the training thread's back, at its convenience."""

from __future__ import annotations

import logging
import os
import threading

_log = logging.getLogger(__name__)

_LOWEST_PRIORITY = 19


def step_back() -> None:
    """This thread, and those that it starts from now on, leave the processors to the training.

    An upload takes longer where training keeps all cores busy, and costs it nothing; once
    training has stopped to be preempted, there is nobody left to step back for. Linux gives each
    thread a priority of its own (setpriority(2), "C library/kernel differences").
    """
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
    except OSError as error:
        _log.debug("uploads run at full priority: %s", error)
