"""The adapter as people get it: PEFT's files, tokenizer, template, model card; verified in storage.

Uploaded, read back and compared before anyone is told; `run.json` names it only afterwards.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from job.card import CardFacts, model_card
from job.checkpoint import download_folder, upload_folder
from job.ledger import Adapter
from job.storage.base import Storage

_log = logging.getLogger(__name__)

ADAPTER_KEY = "adapter/"
CANDIDATE_KEY = "candidate/"


def save_adapter(
    model: Any, tokenizer: Any, base_model: str, facts: CardFacts, folder: Path
) -> None:
    """Write the adapter folder. `base_model` is the name that users know, not our cache's path."""
    shutil.rmtree(folder, ignore_errors=True)
    for config in model.peft_config.values():
        config.base_model_name_or_path = base_model
    model.save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
    (folder / "README.md").write_text(model_card(facts), encoding="utf-8")


def publish(storage: Storage, folder: Path, *, step: int, promoted: bool, scratch: Path) -> Adapter:
    """Upload the folder, read it back, verify it; what the record is to say of it.

    Raises `Rejected` if what storage gives back is not what was sent.
    """
    key = ADAPTER_KEY if promoted else CANDIDATE_KEY
    # A leftover of an attempt that was killed here may have other files.
    storage.delete([info.key for info in storage.list(key)])
    stored = upload_folder(storage, key, folder, step)
    verify(storage, stored.key, stored.manifest_sha256, scratch)
    _log.info("adapter verified at %s/%s", storage.uri, key)
    return Adapter(
        key=stored.key, manifest_sha256=stored.manifest_sha256, bytes=stored.bytes, step=step
    )


def verify(storage: Storage, key: str, manifest_sha256: str, scratch: Path) -> None:
    """Read a stored adapter back, whole. Raises `Rejected`."""
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        download_folder(storage, key, manifest_sha256, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
