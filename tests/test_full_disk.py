"""A full disk is the same error wherever it is met: the volume's end and a quota's."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from job.config import load_settings
from job.dataset.store import _full_disk_named
from job.engines.hub import _hub_errors
from job.engines.loading import refusing
from job.errors import OutOfDisk
from job.model_name import ModelName
from job.stages.workdir import work_dir
from job.storage import disk_is_full
from job.storage.faults import work_disk_fault
from job.storage.local_files import root_fault
from job.training.train import _translated_errors

FULL = [errno.ENOSPC, errno.EDQUOT]


def system_error(number: int) -> OSError:
    """As `write` raises it: what can be mounted in a container has no quotas."""
    return OSError(number, os.strerror(number))


def training(folder: Path) -> AbstractContextManager[None]:
    neither: Any = None  # asked only where a GPU's memory is full
    return _translated_errors(folder, neither, neither)


@pytest.mark.parametrize("number", FULL, ids=errno.errorcode.get)
@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda _: _full_disk_named(), id="the tokens"),
        pytest.param(lambda _: _hub_errors(ModelName.parse("owner/name")), id="a hub's files"),
        pytest.param(refusing, id="loading the model"),
        pytest.param(training, id="training"),
    ],
)
def test_whoever_meets_it_says_so(
    place: Callable[[Path], AbstractContextManager[None]], number: int, tmp_path: Path
) -> None:
    with pytest.raises(OutOfDisk, match="FORGE_WORK_DIR: no space left") as error, place(tmp_path):
        raise system_error(number)
    assert error.value.exit_code == 70


@pytest.mark.parametrize("number", FULL, ids=errno.errorcode.get)
def test_a_work_folder_that_takes_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> NoReturn:
        raise system_error(number)

    settings = load_settings(
        run_id="run-1", dataset_uri="/data", output_uri="/runs", work_dir=tmp_path
    )
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutOfDisk, match="can't be written"), work_dir(settings):
        pass


@pytest.mark.parametrize("number", FULL, ids=errno.errorcode.get)
def test_both_kinds_of_storage_say_so(number: int) -> None:
    assert isinstance(work_disk_fault(system_error(number)), OutOfDisk)
    assert isinstance(root_fault(system_error(number), "/runs/key"), OutOfDisk)


@pytest.mark.parametrize("number", FULL, ids=errno.errorcode.get)
def test_a_library_that_wraps_the_systems_error_keeps_its_words(
    number: int, tmp_path: Path
) -> None:
    words = os.strerror(number)
    wrapped = SafetensorError(f"Error while serializing: I/O error: {words} (os error {number})")
    with pytest.raises(OutOfDisk), training(tmp_path):
        raise wrapped


def test_a_volume_on_which_nothing_more_fits(volume: Callable[[str], Path]) -> None:
    """As safetensors and torch say it: the words above are the former's own."""
    folder, weights = volume("size=64k"), {"weights": torch.zeros(1 << 16)}
    with pytest.raises(OutOfDisk), training(folder):
        save_file(weights, folder / "weights.safetensors")
    with pytest.raises(OutOfDisk), training(folder):
        torch.save(weights, folder / "optimizer.pt")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOENT])
def test_other_faults_are_not_a_full_disk(number: int, tmp_path: Path) -> None:
    assert not disk_is_full(system_error(number))
    assert not disk_is_full(ValueError("of a value"))
    with pytest.raises(OSError, match=re.escape(os.strerror(number))), training(tmp_path):
        raise system_error(number)
