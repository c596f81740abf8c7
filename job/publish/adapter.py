"""The adapter as people get it, with card, provenance and digests; verified in storage.

Uploaded, read back and compared before anyone is told; `run.json` names it only afterwards.

Its place is the same for every attempt, so each file is put as `job.ledger.put` does.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from job.card import CURVE_NAME, CardFacts, hub_name, model_card
from job.checkpoint import MANIFEST_NAME, Manifest, Rejected, StoredFolder, download_folder
from job.checkpoint.manifest import entry_of, files_of, sha256_file
from job.errors import JobError, Problem
from job.ledger import Adapter, Ledger, put
from job.redact import redact
from job.storage.base import Storage

_log = logging.getLogger(__name__)

ADAPTER_KEY = "adapter/"
CANDIDATE_KEY = "candidate/"
PROVENANCE_NAME = "provenance.intoto.json"
CHECKSUMS_NAME = "SHA256SUMS"
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
    (folder / "README.md").write_text(redact(model_card(facts)), encoding="utf-8")
    if facts.curve is not None:
        (folder / CURVE_NAME).write_bytes(facts.curve)


def seal(folder: Path, state: Callable[[Mapping[str, str]], Mapping[str, Any]]) -> None:
    """Add what speaks about the files: `state(file → SHA-256)` as the provenance, and the digests
    of all, that too, in the form that `sha256sum -c` reads."""
    for name in (PROVENANCE_NAME, CHECKSUMS_NAME):
        (folder / name).unlink(missing_ok=True)
    digests = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files_of(folder)}
    provenance = orjson.dumps(
        state(digests), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    )
    (folder / PROVENANCE_NAME).write_bytes(provenance)
    write_checksums(folder, digests | {PROVENANCE_NAME: sha256_file(folder / PROVENANCE_NAME)})


def write_checksums(folder: Path, digests: Mapping[str, str]) -> None:
    """`digests` (file → SHA-256) in the form that `sha256sum -c` reads."""
    lines = [f"{sha256}  {name}\n" for name, sha256 in sorted(digests.items())]
    (folder / CHECKSUMS_NAME).write_text("".join(lines), encoding="utf-8")


def publish(
    storage: Storage, ledger: Ledger, folder: Path, *, step: int, promoted: bool, scratch: Path
) -> Adapter:
    """The adapter's folder as `upload` does it; what the record is to say of it."""
    key = ADAPTER_KEY if promoted else CANDIDATE_KEY
    stored = upload(storage, ledger, key, folder, step=step, scratch=scratch)
    return Adapter(key=key, manifest_sha256=stored.manifest_sha256, bytes=stored.bytes, step=step)


def upload(
    storage: Storage,
    ledger: Ledger,
    key: str,
    folder: Path,
    *,
    step: int,
    scratch: Path,
    alive: Callable[[], None] = lambda: None,
) -> StoredFolder:
    """Upload a folder to a place that all attempts share, read it back, verify it. `alive` is
    called, from any thread, as files are hashed.

    Raises `Fenced` before it overwrites anything of a newer attempt, and `JobError` if what
    storage gives back is not what was sent, several times in a row.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in files_of(folder)}
    files = {name: entry_of(path, alive) for name, path in paths.items()}
    manifest = Manifest(step=step, files=files)
    (folder / MANIFEST_NAME).write_bytes(manifest.serialize())
    manifest_sha256 = sha256_file(folder / MANIFEST_NAME)
    for left in reversed(range(_TRIES)):
        for name in (*manifest.files, MANIFEST_NAME):
            put(storage, ledger, key + name, partial(storage.upload, key + name, folder / name))
        try:
            verify(storage, key, manifest_sha256, scratch, alive)
            break
        except Rejected as reason:
            if not left:
                hint = "what was read back is not what was sent: look at the store and the network"
                raise JobError(Problem(f"{storage.uri}/{key}", str(reason), hint)) from reason
            _log.warning(
                "what was uploaded did not arrive as it was sent, and is sent again: %s", reason
            )
    _log.info("verified: %s/%s", storage.uri, key)
    return StoredFolder(key, manifest_sha256, manifest.total_bytes)


def verify(
    storage: Storage,
    key: str,
    manifest_sha256: str,
    scratch: Path,
    alive: Callable[[], None] = lambda: None,
) -> Manifest:
    """Read a stored adapter back, whole. Raises `Rejected`."""
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        return download_folder(storage, key, manifest_sha256, scratch, alive)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_leftovers(storage: Storage, key: str, folder: Path) -> None:
    """What attempts that were killed while they published have left beside the adapter. Only once
    the record names it: until then a newer attempt may be at work there."""
    ours = {key + path.relative_to(folder).as_posix() for path in files_of(folder)}
    found = {info.key for info in storage.list(key)}
    storage.delete(sorted(found - ours - {key + MANIFEST_NAME}))
