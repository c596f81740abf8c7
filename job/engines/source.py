"""Where a model comes from: a hub, a mounted folder, or an `s3://` mirror. Free of torch.

The tokenizer comes first and alone, so that the data are checked before gigabytes of weights
are fetched for a run that they would have refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

from job.engines import hub
from job.engines.mirror import Mirror, check_place, fill
from job.errors import Problem, SettingsError
from job.model_name import ModelName
from job.storage import Observer

_TOKENIZER_FILES: Final = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
)
_MODEL_FILES: Final = (*_TOKENIZER_FILES, "*.safetensors")
_CODE_FILES: Final = ("*.py",)
_CARD_FILES: Final = ("README.md",)
"""For the licence. It is no part of the model's identity: no weight depends on it."""

_SMALL_BYTES: Final = 64 << 20
"""Files up to this size are part of a folder's identity with all their bytes, larger ones with
their size and their first 16 MiB: that is where safetensors keeps names and shapes."""
_HEAD_BYTES: Final = 16 << 20

_HINT: Final = "give a hub id, an absolute path or an s3:// prefix of a Hugging Face model folder"


class ModelSource:
    """A model by name, and where its files are put.

    `name` is what `ModelName` takes apart. `revision` pins a hub's model to the commit that an
    earlier attempt has recorded. The model's own code is fetched only `with_code`. `observer` is
    told what an `s3://` mirror sends, `alive` is called while a hub sends something.
    """

    def __init__(
        self,
        name: str,
        cache_dir: Path,
        revision: str | None = None,
        *,
        with_code: bool = False,
        observer: Observer | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.named = ModelName.parse(name)
        self._cache_dir = cache_dir
        self._revision = revision if self.named.kind == "hub" else None
        self._code = _CODE_FILES if with_code else ()
        self._observer = observer
        self._alive = alive
        self._mirror: Mirror | None = None

    @property
    def revision(self) -> str:
        """What `name` stands for: the commit on a hub, else a hash over the files. Known once a
        folder was asked for."""
        if self._revision is None:
            raise AssertionError("the model's files were not asked for yet")
        return self._revision

    def tokenizer_dir(self) -> Path:
        """A folder with at least the tokenizer, its template and the model's config.

        Raises `SettingsError` where there is no such model, `AccessDenied`, `Unavailable`,
        `OutOfDisk`.
        """
        return self._folder((*_TOKENIZER_FILES, *_CARD_FILES, *self._code))

    def model_dir(self) -> Path:
        """A folder with everything, every shard of the weights too.

        Raises as `tokenizer_dir` does.
        """
        folder = self._folder((*_MODEL_FILES, *self._code))
        if missing := _missing_weights(folder, _names_in(folder)):
            if self.named.kind == "hub":
                # Out of reach, the library gives what its cache has: then that is the fault.
                hub.names(self.named)
            raise self._not_a_model(f"holds no {missing}")
        return folder

    def refuse_out_of_reach(self) -> None:
        """Fetch the tokenizer, and look for the weights where they lie, without one of them.

        Raises what `model_dir` would.
        """
        folder = self.tokenizer_dir()
        there = _names_in(folder)
        if self._mirror is not None:
            there = self._mirror.names(lambda name: _matches(name, _MODEL_FILES))
        elif self.named.kind == "hub" and _missing_weights(folder, there):
            there = hub.names(self.named, self._revision)
        if missing := _missing_weights(folder, there):
            raise self._not_a_model(f"holds no {missing}")

    def _folder(self, patterns: tuple[str, ...]) -> Path:
        if self.named.kind == "mirror":
            folder = self._from_mirror(patterns)
        elif self.named.kind == "hub":
            folder = hub.snapshot(
                self.named, self._revision, patterns, self._cache_dir, self._alive
            )
            self._revision = folder.name
        else:
            folder = Path(self.named.name)
            _refuse_unreadable(folder)
        if not (folder / "config.json").is_file():
            raise self._not_a_model("holds no config.json" if folder.is_dir() else "does not exist")
        if "model_type" not in read_config(folder):
            raise self._not_a_model("has a config.json that describes no model")
        self._revision = self._revision or _identity(folder)
        return folder

    def _from_mirror(self, patterns: tuple[str, ...]) -> Path:
        self._mirror = self._mirror or Mirror(self.named.name, self._observer)
        self._revision = self._mirror.identity
        # A folder for each mirror: files of two models must not meet.
        name = hashlib.sha256(self.named.name.rstrip("/").encode()).hexdigest()[:16]
        folder = self._cache_dir / "model" / name
        self._mirror.fetch(lambda key: _matches(key, patterns), folder)
        return folder

    def _not_a_model(self, found: str) -> SettingsError:
        return SettingsError(Problem("FORGE_MODEL", f"{self.named} {found}", _HINT))


def mirror(name: str, uri: str) -> int:
    """Fill the mirror at `uri` with the whole model `name`, its own code included; its bytes.

    On its way it lies in `FORGE_WORK_DIR`, where that is set: a mirror that was cut off goes on
    there. Raises as `ModelSource.model_dir` does, and the storage's errors.
    """
    if not uri.startswith(("s3://", "/")):
        found, hint = f"{uri} is no place for a mirror", "give s3://bucket/prefix"
        raise SettingsError(Problem("mirror", found, hint))
    patterns = (*_MODEL_FILES, *_CODE_FILES, *_CARD_FILES)
    # Before the model is brought.
    check_place(uri, lambda key: "/" not in key and _matches(key, patterns))
    with contextlib.ExitStack() as stack:
        work_dir = os.environ.get("FORGE_WORK_DIR") or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="forge-mirror-")
        )
        source = ModelSource(name, Path(work_dir), with_code=True)
        source.tokenizer_dir()  # brings the model's card too
        folder = source.model_dir()
        names = [path.name for path in folder.iterdir() if _matches(path.name, patterns)]
        return fill(uri, folder, name, source.revision, names).total_bytes


def position_limit(folder: Path) -> int | None:
    """Tokens that the model in `folder` has positions for; None if its config doesn't say."""
    limit = text_config(folder).get("max_position_embeddings")
    return limit if isinstance(limit, int) else None


def text_config(folder: Path) -> dict[str, Any]:
    """What config.json says of the language model: those that also see keep that part apart."""
    config = read_config(folder)
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json says; nothing if it is no JSON object."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(Path(name).match(pattern) for pattern in patterns)


def _refuse_unreadable(folder: Path) -> None:
    """Of a mounted folder, whose files may be another user's."""
    try:
        for path in (folder / "config.json", *folder.iterdir()):
            if _matches(path.name, (*_MODEL_FILES, *_CODE_FILES)):
                path.open("rb").close()
    except PermissionError as error:
        found = f"{error.filename} can't be read by user {os.geteuid()}"
        hint = "let everyone read the mounted model (chmod -R a+rX)"
        raise SettingsError(Problem("FORGE_MODEL", found, hint)) from error
    except OSError:
        return  # what is missing is said by whoever needs it


def _identity(folder: Path) -> str:
    """Of a folder that no hub and no mirror speaks for."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and _matches(path.name, (*_MODEL_FILES, *_CODE_FILES)):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                digest.update(file.read(size if size <= _SMALL_BYTES else _HEAD_BYTES))
    return digest.hexdigest()


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def _missing_weights(folder: Path, there: Collection[str]) -> str | None:
    """The first file of weights that isn't `there`, by the index where there are several."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        found = any(name.endswith(".safetensors") for name in there)
        return None if found else "*.safetensors weights"
    try:
        shards = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"sound {index.name}"
    return next((name for name in sorted(shards) if name not in there), None)
