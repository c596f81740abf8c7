"""Models of a hub: a snapshot at one commit, and its faults in the job's words."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from job.errors import AccessDenied, OutOfDisk, Problem, SettingsError, Unavailable
from job.model_name import ModelName
from job.storage import disk_is_full

_log = logging.getLogger(__name__)

_OTHER_FILES = ("*/*", "consolidated*")
"""Never fetched: the same weights again, in other formats."""


def snapshot(
    model: ModelName,
    revision: str | None,
    patterns: Sequence[str],
    cache_dir: Path,
    alive: Callable[[], None] = lambda: None,
) -> Path:
    """The folder with those files of the model, fetched where they aren't there yet.

    The folder's name is the commit. `revision`, where given, goes before the name's own: it is
    the commit that the name stood for when the run began. `alive` is called, from any thread, as
    bytes arrive. Raises `SettingsError` where there is no such model, `AccessDenied`,
    `Unavailable`, `OutOfDisk`.
    """
    from huggingface_hub import snapshot_download

    with _hub_errors(model):
        folder = snapshot_download(
            model.name,
            revision=revision or model.revision,
            allow_patterns=list(patterns),
            ignore_patterns=list(_OTHER_FILES),
            cache_dir=os.environ.get("HF_HUB_CACHE") or cache_dir / "hub",
            tqdm_class=_telling(alive),
        )
    return Path(folder)


def _telling(alive: Callable[[], None]) -> type[Any]:
    """The library's own bar, which it moves with each chunk that has arrived."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            alive()
            moved: bool | None = super().update(n)
            return moved

    return Bar


def names(model: ModelName, revision: str | None = None) -> set[str]:
    """Of the model's files, as the hub has them now and not as a cache does. Raises as `snapshot`
    does."""
    from huggingface_hub import HfApi

    with _hub_errors(model):
        info = HfApi().model_info(model.name, revision=revision or model.revision, timeout=30)
    found = (file.rfilename for file in info.siblings or ())
    return {name for name in found if not any(fnmatch(name, other) for other in _OTHER_FILES)}


@contextmanager
def _hub_errors(model: ModelName) -> Iterator[None]:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import httpx

    try:
        yield
    except GatedRepoError as error:
        hint = "accept its licence on the hub and set HF_TOKEN"
        raise AccessDenied(Problem("FORGE_MODEL", f"{model} is gated", hint)) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        hint = "check the name; a private model needs HF_TOKEN"
        found = f"the hub has no {model}"
        raise SettingsError(Problem("FORGE_MODEL", found, hint)) from error
    except (httpx.HTTPError, OSError) as error:
        # Without a cache to fall back on, the library's own error hides the answer behind it.
        answer = error if isinstance(error, HfHubHTTPError) else error.__cause__
        if isinstance(answer, HfHubHTTPError) and answer.response.status_code in (401, 403):
            found = f"the hub refuses {model}"
            raise AccessDenied(Problem("FORGE_MODEL", found, "check HF_TOKEN")) from error
        if disk_is_full(error):
            raise OutOfDisk(Problem("FORGE_WORK_DIR", "no space left")) from error
        hint = "mount the model and give its absolute path, or mirror it to s3://"
        found = f"{model} can't be fetched from the hub: {error}"
        raise Unavailable(Problem("FORGE_MODEL", found, hint)) from error
