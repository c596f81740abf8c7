"""The base model before its weights are there: tokenizer, template, config and what pins it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.config import Settings
from job.dataset import ChatFormat
from job.engines import ModelSource, position_limit, read_config, text_config
from job.errors import Problem, SettingsError
from job.families import licence
from job.families.licence import Licence
from job.ledger import RunRecord
from job.storage import Observer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseModel:
    """What a CPU can know of the model that `FORGE_MODEL` names."""

    source: ModelSource
    chat: ChatFormat
    config: dict[str, Any]
    """The language model's part of config.json."""
    position_limit: int | None
    licence: Licence | None = None

    @property
    def revision(self) -> str:
        return self.source.revision

    def adopt_template(self, tokenizer: Any) -> None:
        """Where the family's template stands in for the model's own, `tokenizer` gets it: it is
        published with the adapter, which has to be served with it."""
        if self.chat.replacement is not None:
            tokenizer.chat_template = self.chat.replacement

    def adopt_end(self, tokenizer: Any, also_ends: Collection[int]) -> None:
        """Where what the template ends a turn with is neither the tokenizer's end of a text nor one
        of `also_ends`, which generation_config.json adds, `tokenizer` gets it: a base model trained
        for chat would otherwise never stop, neither judged nor served."""
        ends = sorted(self.chat.turn_ends)
        known = {tokenizer.eos_token_id, *also_ends}
        if ends and known.isdisjoint(tokenizer.convert_tokens_to_ids(ends)):
            _log.warning(
                "the template ends a turn with %s, at which the model would not stop (%s): it is "
                "the end of a text for the adapter's tokenizer",
                ends[0],
                tokenizer.eos_token,
            )
            tokenizer.eos_token = ends[0]


def look_at(
    settings: Settings,
    cache_dir: Path,
    revision: str | None = None,
    *,
    observer: Observer | None = None,
    alive: Callable[[], None] = lambda: None,
) -> BaseModel:
    """Fetch what is needed to make tokens; `observer` and `alive` are told whenever the model's
    files arrive, the weights too. Raises as `ModelSource.tokenizer_dir` and `ChatFormat.load`
    do, and `SettingsError` for weights that neither engine trains on."""
    source = ModelSource(
        settings.base_model,
        cache_dir,
        revision,
        with_code=settings.trusts_model,
        observer=observer,
        alive=alive,
    )
    folder = source.tokenizer_dir()
    refuse_other_quantization(folder, settings.base_model)
    chat = ChatFormat.load(folder, settings.family.chat_template())
    _log.info("the model is %s at %s", source.named, source.revision[:12])
    if chat.replacement is not None:
        _log.info("the model's own template hides tools or <think>: the family's is used")
    if note := other_family(settings, chat):
        _log.warning(note)
    return BaseModel(
        source,
        chat,
        text_config(folder),
        position_limit(folder),
        licence.of_model(folder, settings.base_model, settings.family),
    )


def refuse_other_quantization(folder: Path, name: str) -> None:
    """Raise `SettingsError` for weights that are quantized, and not to 4 bits by bitsandbytes: what
    Unsloth can load of those it trains on as it is."""
    quantized = read_config(folder).get("quantization_config") or {}
    if quantized and not quantized.get("load_in_4bit"):
        method = quantized.get("quant_method", "some method")
        found = f"{name} has weights quantized with {method}, not in 4 bits by bitsandbytes"
        hint = "name the model that they were made from: it is quantized as it is loaded"
        raise SettingsError(Problem("FORGE_MODEL", found, hint))


def other_family(settings: Settings, chat: ChatFormat) -> str:
    """What there is to say if the template is not one of the family's; else nothing.

    No error: the template decides what is trained, and it is the model's own.
    """
    family = settings.family
    opens = chat.opening.endswith(family.response_marker)
    if opens and family.end_of_turn in chat.turn_ends:
        return ""
    return (
        f"FORGE_MODEL_FAMILY is {settings.model_family}, but {settings.base_model} has another "
        "family's chat template; the model's own is followed"
    )


def recorded_revision(record: RunRecord, settings: Settings) -> str | None:
    """The commit that a run with checkpoints began with; a hub's branch may have moved since."""
    fingerprint = record.fingerprint
    if not record.checkpoints or fingerprint.get("model") != settings.base_model:
        return None
    revision = fingerprint.get("model_revision")
    return str(revision) if revision else None
