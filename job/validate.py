"""`validate`: everything about a run that can be checked without a GPU and without torch.

The checks go in the order in which a run would meet the faults, and all of them are made: the
exit code is the one the run would have died with, the list shows what else there is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from job.config import Settings
from job.dataset import ChatFormat, DataFile, PrepareOptions, check_only, fetch, prepare
from job.engines.source import ModelSource, position_limit
from job.errors import JobError, Unavailable
from job.storage import open_storage, probe


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    result: Literal["ok", "failed", "not checked"]
    detail: str
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def validate(settings: Settings) -> list[Check]:
    """Check storage, tokenizer and data of a run whose settings are sound already."""
    with tempfile.TemporaryDirectory(prefix="forge-validate-") as folder:
        return _checks(settings, Path(folder))


def render(checks: list[Check]) -> str:
    """A table for people."""
    width = max(len(check.name) for check in checks)
    return "\n".join(
        f"{check.name:<{width}}  {check.result:<11}  " + check.detail.replace("\n", f"\n{'':15}")
        for check in checks
    )


def _checks(settings: Settings, work_dir: Path) -> list[Check]:
    chats: list[tuple[ChatFormat, int | None]] = []
    files: list[DataFile] = []

    def storage() -> str:
        conditional = probe(open_storage(settings.run_uri))
        return f"{settings.run_uri} takes writes" + (
            " and honours conditions" if conditional else ", but ignores conditions: weak fencing"
        )

    def tokenizer() -> str:
        source = ModelSource(settings.base_model, work_dir)
        folder = source.tokenizer_dir()
        chats.append((ChatFormat.load(folder), position_limit(folder)))
        return f"{settings.base_model} has a tokenizer and a chat template"

    def fetched() -> str:
        files.extend(fetch(settings.dataset_uri, work_dir / "data"))
        return f"{len(files)} file(s), {sum(file.source.size for file in files) / 1e6:.1f} MB"

    def rows() -> str:
        if chats:
            chat, limit = chats[0]
            options = PrepareOptions.from_settings(settings, limit)
            return prepare(files, chat, options, work_dir / "prepared").report.headline()
        options = PrepareOptions.from_settings(settings)
        return check_only(files, options).headline() + "; lengths and masks were not checked"

    settled = Check("settings", "ok", f"profile {settings.profile}, run {settings.run_id}")
    checks = [
        settled,
        _check("storage", storage),
        _check("tokenizer", tokenizer, may_be_out_of_reach=True),
        _check("data set", fetched),
    ]
    if files:
        checks.append(_check("rows", rows))
    return checks


def _check(name: str, look: Callable[[], str], *, may_be_out_of_reach: bool = False) -> Check:
    try:
        return Check(name, "ok", look())
    except JobError as error:
        if may_be_out_of_reach and isinstance(error, Unavailable):
            return Check(name, "not checked", str(error))
        return Check(name, "failed", f"{error.title}: {error}", error.exit_code)
