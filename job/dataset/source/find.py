"""Which data objects a URI names: an object, those below a prefix, a local file or folder."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from job.dataset.source.objects import SUFFIXES, Found
from job.dataset.source.own import without_own
from job.errors import AccessDenied, DataError, Problem, SettingsError
from job.storage import NotFound, Observer, Storage, open_storage, split_s3_uri
from job.validators import MayHoldPassword

SETTING: Final = "FORGE_DATASET_URI"
_NAMED: Final = 5

log = logging.getLogger(__name__)


class Buckets:
    """Opens each bucket once: a client takes a tenth of a second, and keeps its connection."""

    def __init__(self, observer: Observer | None = None) -> None:
        self._observer = observer
        self._opened: dict[str, Storage] = {}

    def locate(self, uri: str) -> tuple[Storage, str]:
        """The bucket of an S3 URI, and the key in it. Raises `SettingsError`."""
        bucket, key = split_s3_uri(uri)
        if bucket not in self._opened:
            self._opened[bucket] = open_storage(f"s3://{bucket}", self._observer)
        return self._opened[bucket], key


def find(uris: Sequence[str], buckets: Buckets, output_uri: str | None = None) -> list[Found]:
    """All of it, in the order of `uris`, below a prefix in key order; each object once. What runs
    have written to `output_uri` is left out.

    Raises `SettingsError` for what doesn't exist (all of it at once), `DataError` for a prefix or
    folder without data, and what the storage raises.
    """
    found: dict[str, Found] = {}
    missing: list[Problem] = []
    without_data: list[Problem] = []
    for uri in uris:
        try:
            for item in _find(uri, buckets, output_uri):
                if item.uri in found:
                    log.warning("%s is named twice by %s; it is read once", item.uri, SETTING)
                found.setdefault(item.uri, item)
        except SettingsError as error:
            missing += error.problems
        except DataError as error:
            without_data += error.problems
    if missing:
        raise SettingsError(missing + without_data)
    if without_data:
        raise DataError(without_data)
    return list(found.values())


def look_up(uri: str, buckets: Buckets) -> Found | None:
    """One data object as it is now; None if there is none."""
    if not uri.startswith("s3://"):
        try:
            with readable(uri):
                return _local_file(Path(uri))
        except (FileNotFoundError, NotADirectoryError):
            return None
    storage, key = buckets.locate(uri)
    try:
        info = storage.stat(key)
    except NotFound:
        return None
    return Found(uri, info.size, info.etag, info.version_id)


def below(uri: str, buckets: Buckets, output_uri: str | None = None) -> list[str]:
    """URIs of the data objects that a prefix or folder holds now; none if `uri` is neither."""
    if not uri.startswith("s3://"):
        folder = Path(uri)
        with readable(uri):
            names = _listed(folder) if folder.is_dir() else []
    else:
        storage, prefix = buckets.locate(uri)
        keys = [info.key for info in storage.list(prefix)] if _is_prefix(prefix) else []
        names = [f"{storage.uri}/{key}" for key in keys]
    return [name for name in without_own(uri, names, output_uri) if name.endswith(SUFFIXES)]


@contextmanager
def readable(uri: str) -> Iterator[None]:
    """Raise `AccessDenied` for a local file or folder that this user may not read, `SettingsError`
    for a name that no file can have."""
    try:
        yield
    except PermissionError as error:
        raise AccessDenied(Problem(SETTING, f"{uri}: may not be read")) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise SettingsError(Problem(SETTING, f"{uri}: the name is too long")) from error


def some(names: Sequence[str]) -> str:
    """The first few, for one line of a log."""
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def changed(uri: str) -> DataError:
    """An object that isn't what it was a moment ago."""
    return DataError(
        Problem(
            uri,
            "was changed or removed while it was being fetched",
            "finish writing the data before the run starts",
        )
    )


def _find(uri: str, buckets: Buckets, output_uri: str | None) -> Iterator[Found]:
    if not uri.startswith("s3://"):
        yield from _find_local(uri, output_uri)
        return
    try:
        yield from _find_in_s3(uri, buckets, output_uri)
    except MayHoldPassword as error:  # of a command's argument
        raise SettingsError(Problem(SETTING, str(error))) from None
    except ValueError as error:  # a key with '..' or '//' in it
        raise SettingsError(Problem(SETTING, f"{uri}: {error}")) from None
    except SettingsError as error:
        raise SettingsError(
            Problem(SETTING, f"{uri}: {problem.found}", problem.hint) for problem in error.problems
        ) from error


def _find_in_s3(uri: str, buckets: Buckets, output_uri: str | None) -> Iterator[Found]:
    storage, key = buckets.locate(uri)
    if not _is_prefix(key):
        if (found := look_up(uri, buckets)) is None:
            hint = "check the key; a prefix must end in '/'"
            raise SettingsError(Problem("", "does not exist", hint))
        yield found
        return
    names = [f"{storage.uri}/{info.key}" for info in storage.list(key)]
    for name in _with_data(uri, without_own(uri, names, output_uri)):
        if (found := look_up(name, buckets)) is None:
            raise changed(name)
        yield found


def _is_prefix(key: str) -> bool:
    return not key or key.endswith("/")


def _find_local(uri: str, output_uri: str | None) -> Iterator[Found]:
    path = Path(uri)
    with readable(uri):
        if path.is_dir():
            for name in _with_data(uri, without_own(uri, _listed(path), output_uri)):
                yield _listed_file(Path(name))
        elif not path.exists():
            raise SettingsError(Problem(SETTING, f"{uri}: does not exist"))
        elif not (path.is_file() and uri.endswith(SUFFIXES)):
            raise SettingsError(
                Problem(SETTING, f"{uri}: is not a {', '.join(SUFFIXES)} file or a folder of them")
            )
        else:
            yield _local_file(path)


def _listed(folder: Path) -> list[str]:
    return [str(folder / name) for name in sorted(_files(folder))]


def _files(folder: Path) -> Iterator[str]:
    """Relative names of all files, and of links to nothing. Kubernetes keeps what it mounts in
    '..data', under links: to files, and to folders, each of which is looked into once."""

    def fail(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        found = Path(parent).stat()
        if (place := (found.st_dev, found.st_ino)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".."))
        for name in files:
            path = Path(parent, name)
            if path.is_file() or (path.is_symlink() and not path.exists()):
                yield path.relative_to(folder).as_posix()


def _listed_file(path: Path) -> Found:
    """Raises `SettingsError` where it is a link to nothing."""
    try:
        return _local_file(path)
    except FileNotFoundError as error:
        hint = "mend the link, or remove it"
        raise SettingsError(Problem(SETTING, f"{path}: is a link to nothing", hint)) from error


def _local_file(path: Path) -> Found:
    """Raises `SettingsError` for a name that can't be written down."""
    name = os.fsencode(path)
    try:
        name.decode()
    except UnicodeDecodeError as error:
        told = name.decode(errors="backslashreplace")
        problem = Problem(SETTING, f"{told}: the name is not UTF-8", "rename the file")
        raise SettingsError(problem) from error
    return Found(str(path), path.stat().st_size)


def _with_data(uri: str, names: Sequence[str]) -> list[str]:
    """Those that can be read as data; the others are named in one line of the log."""
    data = [name for name in names if name.endswith(SUFFIXES)]
    others = [name for name in names if not name.endswith(SUFFIXES)]
    if not data:
        held = f"{len(others)} other objects" if others else "nothing at all"
        raise DataError(
            Problem(uri, f"holds no {', '.join(SUFFIXES)} object, but {held}", f"set {SETTING}")
        )
    if others:
        told = some([name.removeprefix(uri).lstrip("/") for name in others])
        log.info("%s: %d objects are no data and are ignored: %s", uri, len(others), told)
    return data
