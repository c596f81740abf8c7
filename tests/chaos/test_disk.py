"""A work volume that fills up at each write, and one that can't be written: nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.observer import result_of
from tests.chaos.runs import Ground, Reference

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KIBIBYTES = [16, 64, 160, 256, 384, 512, 640, 768, 1024, 1536]
"""From where nothing fits to where nearly all does: a run of this size needs about 1.5 MiB."""


def test_a_volume_that_fills_up_at_any_write(
    place: Ground, references: Callable[[str], Reference], volume: Callable[[str], Path]
) -> None:
    run_id, codes = "full", []
    observer = place.observer(run_id)
    for size in KIBIBYTES:
        log = place.folder / f"{run_id}-{size}.log"
        folder = volume(f"size={size}k")
        env = place.settings(run_id, "dropout", FORGE_WORK_DIR=str(folder), TMPDIR=str(folder))
        codes.append(place.run(env, log))
        text = log.read_text()
        assert codes[-1] in (0, 70), text
        if codes[-1] == 70:
            assert "FORGE_WORK_DIR" in text, text
            assert "unexpected error" not in text, text
        observer.look()
    assert codes[0] == 70, "it fits in nothing"
    log = place.folder / f"{run_id}-enough.log"
    assert place.run(place.settings(run_id, "dropout"), log) == 0, log.read_text()
    observer.look()
    assert observer.violations == []
    assert result_of(observer.storage) == references("dropout").result


def test_a_volume_that_can_not_be_written(place: Ground, volume: Callable[[str], Path]) -> None:
    log = place.folder / "read-only.log"
    env = place.settings("read-only", "dropout", FORGE_WORK_DIR=str(volume("ro")))
    assert place.run(env, log) == 78, log.read_text()
    assert "FORGE_WORK_DIR" in log.read_text()
