"""Where a model comes from: a hub, a mounted folder, or an `s3://` mirror. Free of torch.

The tokenizer comes first and alone, so that the data are checked before gigabytes of weights
are fetched for a run that they would have refused.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from job.errors import AccessDenied, Problem, SettingsError, Unavailable
from job.storage import open_storage
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


@dataclass(frozen=True)
class ModelSource:
    """A model by name, and where its files are put."""

    name: str
    """`owner/name`, `owner/name@revision`, an absolute path, or `s3://bucket/prefix`."""
    cache_dir: Path

    def tokenizer_dir(self) -> Path:
        """A folder with at least the tokenizer, its template and the model's config.

        Raises `SettingsError` where there is no such model, `AccessDenied`, `Unavailable`.
        """
        return self._folder(_TOKENIZER_FILES)

    def model_dir(self) -> Path:
        """A folder with everything. Raises as `tokenizer_dir` does."""
        folder = self._folder(_MODEL_FILES)
        if not any(folder.glob("*.safetensors")):
            raise self._not_a_model("holds no *.safetensors weights")
        return folder

    def _folder(self, patterns: tuple[str, ...]) -> Path:
        if self.name.startswith("s3://"):
            folder = self._from_s3(patterns)
        elif self.name.startswith("/"):
            folder = Path(self.name)
        else:
            return self._from_hub(patterns)
        if not (folder / "config.json").is_file():
            raise self._not_a_model("holds no config.json" if folder.is_dir() else "does not exist")
        _check_config(folder / "config.json", self)
        return folder

    def _from_s3(self, patterns: tuple[str, ...]) -> Path:
        storage = open_storage(self.name.rstrip("/"))
        folder = self.cache_dir / "model"
        for info in storage.list():
            if "/" not in info.key and any(Path(info.key).match(p) for p in patterns):
                _download_once(storage, info, folder / info.key)
        return folder

    def _from_hub(self, patterns: tuple[str, ...]) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        repository, _, revision = self.name.partition("@")
        try:
            return Path(
                snapshot_download(
                    repository,
                    revision=revision or None,
                    allow_patterns=list(patterns),
                    cache_dir=os.environ.get("HF_HUB_CACHE") or self.cache_dir / "hub",
                )
            )
        except GatedRepoError as error:
            hint = "accept its licence on the hub and set HF_TOKEN"
            raise AccessDenied(Problem("FORGE_MODEL", f"{self.name} is gated", hint)) from error
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            hint = "check the name; a private model needs HF_TOKEN"
            raise SettingsError(
                Problem("FORGE_MODEL", f"the hub has no {self.name}", hint)
            ) from error
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            hint = "mount the model and give its absolute path, or mirror it to s3://"
            found = f"{self.name} can't be fetched from the hub: {error}"
            raise Unavailable(Problem("FORGE_MODEL", found, hint)) from error

    def _not_a_model(self, found: str) -> SettingsError:
        hint = "give a hub id, an absolute path or an s3:// prefix of a Hugging Face model folder"
        return SettingsError(Problem("FORGE_MODEL", f"{self.name} {found}", hint))


def _download_once(storage: Storage, info: ObjectInfo, path: Path) -> None:
    if path.is_file() and path.stat().st_size == info.size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _log.info("model file %s (%.1f MB)", info.key, info.size / 1e6)
    storage.download(info.key, path, etag=info.etag)


def _check_config(path: Path, source: ModelSource) -> None:
    try:
        config = json.loads(path.read_bytes())
        known = isinstance(config, dict) and "model_type" in config
    except ValueError:
        known = False
    if not known:
        raise source._not_a_model("has a config.json that describes no model")
