"""Objects whose place is the same for every attempt: put only while the run is ours.

Each is put under the condition that it still is what it was before we made sure of that. An
attempt that was frozen here and wakes up after a newer one was at work changes nothing any more.
"""

from __future__ import annotations

from job.errors import JobError, Problem
from job.ledger.ledger import Ledger
from job.storage import Conflict, Send, Storage, etag_of, send_if_unchanged

_TRIES = 3


def put(storage: Storage, ledger: Ledger, key: str, send: Send[object]) -> None:
    """Put an object that any attempt may put, unless a newer attempt has claimed the run.

    Raises `Fenced`. Again where only an answer was lost: the object has changed, and the run is
    still ours.
    """
    for _ in range(_TRIES):
        etag = etag_of(storage, key)
        # In this order: who puts it after this look has claimed the run, or breaks the condition.
        conditional = ledger.confirm().conditional_writes
        try:
            send_if_unchanged(send, etag, conditional=conditional)
        except Conflict:
            continue
        return
    raise JobError(Problem(f"{storage.uri}/{key}", "keeps being changed by another process"))
