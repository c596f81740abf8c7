"""Where a model comes from: a hub, a mounted folder, or an `s3://` mirror. Free of torch.

The tokenizer comes first and alone, so that the data are checked before gigabytes of weights
are fetched for a run that they would have refused.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import AccessDenied, OutOfDisk, Problem, SettingsError, Unavailable
from job.storage import Conflict, open_storage
from job.storage.base import ObjectInfo, Storage

_log = logging.getLogger(__name__)

_TOKENIZER_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_MODEL_FILES = (*_TOKENIZER_FILES, "*.safetensors", "*.safetensors.index.json")
_OTHER_FILES = ("*/*", "consolidated*")
"""Never fetched from a hub: the same weights again, in other formats."""

_HINT = "give a hub id, an absolute path or an s3:// prefix of a Hugging Face model folder"


@dataclass(frozen=True)
class ModelSource:
    """A model by name, and where its files are put."""

    name: str
    """`owner/name`, `owner/name@revision`, an absolute path, or `s3://bucket/prefix`."""
    cache_dir: Path

    def tokenizer_dir(self) -> Path:
        """A folder with at least the tokenizer, its template and the model's config.

        Raises `SettingsError` where there is no such model, `AccessDenied`, `Unavailable`,
        `OutOfDisk`.
        """
        return self._folder(_TOKENIZER_FILES)

    def model_dir(self) -> Path:
        """A folder with everything, every shard of the weights too.

        Raises as `tokenizer_dir` does.
        """
        folder = self._folder(_MODEL_FILES)
        if missing := _missing_weights(folder):
            if self._is_on_a_hub:
                self._ask_hub()
            raise self._not_a_model(f"holds no {missing}")
        return folder

    @property
    def _is_on_a_hub(self) -> bool:
        return not self.name.startswith(("s3://", "/"))

    def _folder(self, patterns: tuple[str, ...]) -> Path:
        if self.name.startswith("s3://"):
            folder = self._from_s3(patterns)
        elif self._is_on_a_hub:
            folder = self._from_hub(patterns)
        else:
            folder = Path(self.name)
        if not (folder / "config.json").is_file():
            raise self._not_a_model("holds no config.json" if folder.is_dir() else "does not exist")
        if "model_type" not in _config(folder):
            raise self._not_a_model("has a config.json that describes no model")
        return folder

    def _from_s3(self, patterns: tuple[str, ...]) -> Path:
        uri = self.name.rstrip("/")
        storage = open_storage(uri)
        # A folder for each mirror: files of two models must not meet.
        folder = self.cache_dir / "model" / hashlib.sha256(uri.encode()).hexdigest()[:16]
        for info in storage.list():
            if "/" not in info.key and any(Path(info.key).match(p) for p in patterns):
                self._download_once(storage, info, folder / info.key)
        return folder

    def _download_once(self, storage: Storage, info: ObjectInfo, path: Path) -> None:
        # The ETag beside the file, written after it: weights of the same size may differ.
        mark = path.parent / ".etags" / info.key
        if path.is_file() and mark.is_file() and mark.read_text() == info.etag:
            return
        _log.info("model file %s (%.1f MB)", info.key, info.size / 1e6)
        try:
            storage.download(info.key, path, etag=info.etag)
        except Conflict as error:
            found = f"{self.name}/{info.key} was changed while it was fetched"
            raise Unavailable(Problem("FORGE_MODEL", found)) from error
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(info.etag)

    def _from_hub(self, patterns: tuple[str, ...]) -> Path:
        from huggingface_hub import snapshot_download

        repository, _, revision = self.name.partition("@")
        with self._hub_errors():
            folder = snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(patterns),
                ignore_patterns=list(_OTHER_FILES),
                cache_dir=os.environ.get("HF_HUB_CACHE") or self.cache_dir / "hub",
            )
        return Path(folder)

    def _ask_hub(self) -> None:
        """Raise why files may be missing: out of reach, a hub's cache is given as it is."""
        from huggingface_hub import HfApi

        repository, _, revision = self.name.partition("@")
        with self._hub_errors():
            HfApi().model_info(repository, revision=revision or None, timeout=30)

    @contextmanager
    def _hub_errors(self) -> Iterator[None]:
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
            raise AccessDenied(Problem("FORGE_MODEL", f"{self.name} is gated", hint)) from error
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
            hint = "check the name; a private model needs HF_TOKEN"
            found = f"the hub has no {self.name}"
            raise SettingsError(Problem("FORGE_MODEL", found, hint)) from error
        except (httpx.HTTPError, OSError) as error:
            # Without a cache to fall back on, the library's own error hides the answer behind it.
            answer = error if isinstance(error, HfHubHTTPError) else error.__cause__
            if isinstance(answer, HfHubHTTPError) and answer.response.status_code in (401, 403):
                found = f"the hub refuses {self.name}"
                raise AccessDenied(Problem("FORGE_MODEL", found, "check HF_TOKEN")) from error
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise OutOfDisk(Problem("FORGE_WORK_DIR", "no space left")) from error
            hint = "mount the model and give its absolute path, or mirror it to s3://"
            found = f"{self.name} can't be fetched from the hub: {error}"
            raise Unavailable(Problem("FORGE_MODEL", found, hint)) from error

    def _not_a_model(self, found: str) -> SettingsError:
        return SettingsError(Problem("FORGE_MODEL", f"{self.name} {found}", _HINT))


def position_limit(folder: Path) -> int | None:
    """Tokens that the model in `folder` has positions for; None if its config doesn't say."""
    config = _config(folder)
    text = config.get("text_config")  # models that also see keep the language part apart
    limit = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    return limit if isinstance(limit, int) else None


def _config(folder: Path) -> dict[str, Any]:
    """What config.json says; nothing if it is no JSON object."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def _missing_weights(folder: Path) -> str | None:
    """The first file of weights that isn't there, by the index where there are several."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return None if any(folder.glob("*.safetensors")) else "*.safetensors weights"
    try:
        shards = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"sound {index.name}"
    return next((name for name in sorted(shards) if not (folder / name).is_file()), None)
