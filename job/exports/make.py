"""The exports that are wanted and not there yet, one after another."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from job import publish
from job.card import CardFacts, merged_card
from job.checkpoint import MANIFEST_NAME, Rejected
from job.checkpoint.manifest import parse, sha256_file
from job.config import Settings
from job.errors import JobError
from job.exports import gguf, hub
from job.exports.check import GGUF, HUB, MERGED, source_of, wanted
from job.exports.gguf import GGUF_KEY
from job.exports.merged import MERGED_KEY, build
from job.ledger import Export, Ledger, RunRecord
from job.lifecycle import StopToken
from job.model import BaseModel
from job.storage import NotFound, Observer, Patience, Storage

_log = logging.getLogger(__name__)

_KEYS: Final = {MERGED: MERGED_KEY, GGUF: GGUF_KEY}
"""Places of what goes to storage; on the work volume it lies in folders of the same names."""


@dataclass(frozen=True, kw_only=True)
class ExportContext:
    """What exports are made from, and with."""

    settings: Settings
    storage: Storage
    ledger: Ledger
    stop: StopToken
    patiently: Patience
    observer: Observer
    """Of what storage or a mirror sends."""
    alive: Callable[[], None]
    """Called, from any thread, as anything else goes on: hours may pass."""
    model: BaseModel
    adapter: Path
    """The very folder that was published."""
    facts: CardFacts
    """Of the adapter's card."""
    step: int
    work_dir: Path
    own_dir: Path
    """The attempt's own."""
    done: set[str] = field(default_factory=set)
    """What of its folders was made from this adapter, by us: whatever else lies there isn't."""


def make(context: ExportContext) -> dict[str, Export]:
    """All exports that are wanted; those of earlier attempts, where they still are what we want.

    Raises what keeps one of them from being made; those before it are recorded by then.
    """
    makers = {MERGED: _merged, GGUF: _converted, HUB: _pushed}
    made = {}
    for name in wanted(context.settings):
        context.stop.check()
        origin = _origin(context, name)
        found = context.ledger.record.exports.get(name)
        if found and found.made_from == origin and _is_there(context, name, found):
            _log.info("%s was made by an earlier attempt: %s", name, found.place)
        else:
            found = makers[name](context, origin)
            _record(context, name, found)
            _log.info("%s is made: %s", name, found.place)
            _tidy(context, name)
        made[name] = found
    shutil.rmtree(context.own_dir / MERGED_KEY, ignore_errors=True)  # two of them may need it
    return made


def _origin(context: ExportContext, name: str) -> str:
    weights = sha256_file(context.adapter / "adapter_model.safetensors")
    if name == HUB:
        return f"{weights} for {context.settings.push_to_hub}"
    origin = f"{weights} on {context.settings.export_base_model or context.model.revision}"
    return f"{origin} as {context.settings.gguf_type}" if name == GGUF else origin


def _record(context: ExportContext, name: str, export: Export) -> None:
    def change(record: RunRecord) -> None:
        record.exports[name] = export
        record.current.advanced = True

    context.patiently(context.ledger.update, change)


def _tidy(context: ExportContext, name: str) -> None:
    """Only once it is recorded: until then a newer attempt may be at work there."""
    if (key := _KEYS.get(name)) is None:
        return
    folder = context.own_dir / key
    try:
        publish.remove_leftovers(context.storage, key, folder)
    except JobError as error:
        _log.warning("what earlier attempts have left stays in storage: %s", error)
    if name != MERGED:
        shutil.rmtree(folder, ignore_errors=True)


def _is_there(context: ExportContext, name: str, export: Export) -> bool:
    """Its bytes were read back when it was recorded: here it is enough that nobody removed it."""
    if name == HUB:
        return True
    try:
        data, _ = context.patiently(context.storage.read, export.place + MANIFEST_NAME)
        manifest = parse(data, export.digest)
    except (NotFound, Rejected):
        return False
    sizes = {info.key: info.size for info in context.storage.list(export.place)}
    return all(sizes.get(export.place + n) == entry.size for n, entry in manifest.files.items())


def _merged(context: ExportContext, origin: str) -> Export:
    _merged_folder(context)
    return _stored(context, MERGED, origin)


def _converted(context: ExportContext, origin: str) -> Export:
    folder = context.own_dir / GGUF_KEY
    gguf.build(context.settings, _merged_folder(context), folder, context.stop, context.alive)
    return _stored(context, GGUF, origin)


def _merged_folder(context: ExportContext) -> Path:
    """Merged by this attempt, now or for another export."""
    settings, folder = context.settings, context.own_dir / MERGED_KEY
    if MERGED not in context.done:
        source = source_of(
            settings, context.model, context.work_dir, context.observer, context.alive
        )
        base = settings.export_base_model
        trusts = settings.trusts_model and base is None
        card = merged_card(context.facts if base is None else context.facts.merged_into(base))
        build(
            source.model_dir(),
            context.adapter,
            folder,
            context.stop,
            card=card,
            trust_remote_code=trusts,
            alive=context.alive,
        )
        context.done.add(MERGED)
    return folder


def _stored(context: ExportContext, name: str, origin: str) -> Export:
    key = _KEYS[name]
    stored = context.patiently(
        publish.upload,
        context.storage,
        context.ledger,
        key,
        context.own_dir / key,
        step=context.step,
        scratch=context.own_dir / "verify",
        alive=context.alive,
    )
    return Export(place=key, made_from=origin, digest=stored.manifest_sha256, bytes=stored.bytes)


def _pushed(context: ExportContext, origin: str) -> Export:
    settings, folder = context.settings, context.adapter
    message = f"Forge Job run {settings.run_id}, step {context.step}"
    place, commit = context.patiently(hub.push, settings, folder, message)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Export(place=place, made_from=origin, digest=commit, bytes=size)
