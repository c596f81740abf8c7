"""The adapter as people get it: PEFT's files, tokenizer, template, model card; verified in storage.

Uploaded, read back and compared before anyone is told; `run.json` names it only afterwards.

Its place is the same for every attempt, so each file is put under a condition: that it still is
what it was before we made sure that the run is ours. An attempt that was frozen here and wakes
up after a newer one has published changes nothing any more.
"""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from job.card import CardFacts, hub_name, model_card
from job.checkpoint import MANIFEST_NAME, Manifest, Rejected, download_folder
from job.checkpoint.manifest import entry_of, files_of, sha256_file
from job.errors import JobError, Problem
from job.ledger import Adapter, Ledger
from job.storage import Conflict, NotFound, NotSupported
from job.storage.base import Storage

_log = logging.getLogger(__name__)

ADAPTER_KEY = "adapter/"
CANDIDATE_KEY = "candidate/"
_TRIES = 3


def save_adapter(model: Any, tokenizer: Any, facts: CardFacts, folder: Path) -> None:
    """Write the adapter folder. The base model goes by the name that users know, and by its commit,
    not by our cache's path."""
    shutil.rmtree(folder, ignore_errors=True)
    name, revision = hub_name(facts.base_model, facts.revision)
    for config in model.peft_config.values():
        config.base_model_name_or_path = name
        config.revision = revision or None
    model.save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
    (folder / "README.md").write_text(model_card(facts), encoding="utf-8")


def publish(
    storage: Storage, ledger: Ledger, folder: Path, *, step: int, promoted: bool, scratch: Path
) -> Adapter:
    """Upload the folder, read it back, verify it; what the record is to say of it.

    Raises `Fenced` before it overwrites anything of a newer attempt, and `JobError` if what
    storage gives back is not what was sent, several times in a row.
    """
    key = ADAPTER_KEY if promoted else CANDIDATE_KEY
    manifest = Manifest(
        step=step,
        files={path.relative_to(folder).as_posix(): entry_of(path) for path in files_of(folder)},
    )
    (folder / MANIFEST_NAME).write_bytes(manifest.serialize())
    manifest_sha256 = sha256_file(folder / MANIFEST_NAME)
    for left in reversed(range(_TRIES)):
        for name in (*manifest.files, MANIFEST_NAME):
            put(storage, ledger, key + name, partial(storage.upload, key + name, folder / name))
        try:
            verify(storage, key, manifest_sha256, scratch)
            break
        except Rejected as reason:
            if not left:
                hint = "what was read back is not what was sent: look at the store and the network"
                raise JobError(Problem(f"{storage.uri}/{key}", str(reason), hint)) from reason
            _log.warning("the adapter did not arrive as it was sent, and is sent again: %s", reason)
    _log.info("adapter verified at %s/%s", storage.uri, key)
    return Adapter(key=key, manifest_sha256=manifest_sha256, bytes=manifest.total_bytes, step=step)


def verify(storage: Storage, key: str, manifest_sha256: str, scratch: Path) -> Manifest:
    """Read a stored adapter back, whole. Raises `Rejected`."""
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        return download_folder(storage, key, manifest_sha256, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_leftovers(storage: Storage, key: str, folder: Path) -> None:
    """What attempts that were killed while they published have left beside the adapter. Only once
    the record names it: until then a newer attempt may be at work there."""
    ours = {key + path.relative_to(folder).as_posix() for path in files_of(folder)}
    found = {info.key for info in storage.list(key)}
    storage.delete(sorted(found - ours - {key + MANIFEST_NAME}))


class Send(Protocol):
    def __call__(self, *, if_match: str | None = None, if_none_match: bool = False) -> object:
        """Put an object under that condition. Raises `Conflict`."""
        ...


def put(storage: Storage, ledger: Ledger, key: str, send: Send) -> None:
    """Put an object that any attempt may put, unless a newer attempt has claimed the run.

    Raises `Fenced`. Again where only an answer was lost: the object has changed, and the run is
    still ours.
    """
    for _ in range(_TRIES):
        etag = _etag(storage, key)
        # In this order: who puts it after this look has claimed the run, or breaks the condition.
        conditional = ledger.confirm().conditional_writes
        try:
            _send(send, etag, conditional)
        except Conflict:
            continue
        return
    raise JobError(Problem(f"{storage.uri}/{key}", "is changed by somebody else all the time"))


def _send(send: Send, etag: str | None, conditional: bool) -> None:
    if conditional:
        try:
            send(if_match=etag, if_none_match=etag is None)
        except NotSupported as refused:
            _log.debug("no conditions for files in parts: %s", refused)
        else:
            return
    send()


def _etag(storage: Storage, key: str) -> str | None:
    try:
        return storage.stat(key).etag
    except NotFound:
        return None
