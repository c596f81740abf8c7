"""The last word about a run that has ended: no attempt holds it, so no `Ledger` can write it."""

from __future__ import annotations

import logging
from functools import partial

from job.ledger.ledger import RECORD_KEY, serialize
from job.ledger.record import RunRecord, now
from job.storage import Conflict, Storage, etag_of, probe, send_if_unchanged

_log = logging.getLogger(__name__)


def settle_promotion(storage: Storage, record: RunRecord, etag: str) -> bool:
    """Record that the run's promotion is settled, unless its record isn't `etag`'s any more: then
    somebody else took the run up since, and settles it.

    Returns whether it was written. Raises what storage raises.
    """
    settled = record.model_copy(update={"promotion_settled": True, "updated_at": now()})
    conditional = probe(storage)
    try:
        if not conditional and etag_of(storage, RECORD_KEY) != etag:
            raise Conflict(f"{storage.uri}/{RECORD_KEY}")  # a look is all that such a store offers
        send = partial(storage.write, RECORD_KEY, serialize(settled))
        send_if_unchanged(send, etag, conditional=conditional)
    except Conflict:
        _log.info("%s/%s was changed by somebody else meanwhile", storage.uri, RECORD_KEY)
        return False
    return True
