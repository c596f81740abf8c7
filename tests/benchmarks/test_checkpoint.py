"""The checkpoint benchmark: its arithmetic, and each side and part on something small."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from benchmarks.checkpoint import swaps, transfers
from benchmarks.checkpoint.__main__ import main
from benchmarks.checkpoint.figures import costs_by_side, durable_ratio, markdown, whole_cost
from benchmarks.checkpoint.sides import NAMES, sides
from job.storage import open_storage


def window(side: str, stall: float, *pairs: tuple[float, float]) -> dict[str, object]:
    return {
        "side": side,
        "stall": stall,
        "write": 0.1,
        "pairs": list(pairs),
        "steps_a_slice": 2,
        "finished": True,
    }


def test_the_whole_cost_is_stall_and_slowdown() -> None:
    assert whole_cost(window("ours", 0.2, (1.5, 1.0), (1.1, 1.0))) == pytest.approx(0.2 + 1.2)
    assert whole_cost(window("bare", 0.2)) == 0.2


def test_sides_are_compared_by_their_medians() -> None:
    found = costs_by_side([window("a", s) for s in (1, 9, 2)] + [window("b", 4)])
    assert (found["a"]["cost"], found["a"]["checkpoints"], found["b"]["stall"]) == (2, 3, 4)


def test_a_stop_is_held_against_the_same_way_with_the_fastest_upload() -> None:
    assert durable_ratio({"durable": 3.0, "upload": 1.0}, 0.5) == 3 / 2.5


def test_verdicts_are_worked_out() -> None:
    def part(ours: float) -> dict[str, object]:
        costs = {"bare": 1.0, "rival": 3.0, "ours": ours}
        by_side = {
            name: {"cost": cost, "stall": cost, "behind": 4, "unfinished": 0, "checkpoints": 1}
            for name, cost in costs.items()
        }
        machine = {"cpu": "A", "cores": 2, "load_before": 0.0}
        return {"date": "today", "machine": machine, "cost": {"33": by_side}}

    assert "ours to a bare save: 1.20 (at most 1.3): met" in markdown(part(1.2))
    assert "ours to a bare save: 1.40 (at most 1.3): MISSED" in markdown(part(1.4))


def test_every_side_brings_the_folder_where_it_says(bucket: str, tmp_path: Path) -> None:
    by_name = sides(bucket.removeprefix("s3://"))
    assert tuple(by_name) == NAMES
    for number, (name, side) in enumerate(by_name.items(), 1):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        (folder / "state").write_text(name)
        side.saved(folder, number)
        for _ in range(3000):
            if side.idle():
                break
            time.sleep(0.01)
        assert side.idle()
        assert not folder.exists()
    found = {i.key for i in open_storage(bucket).list() if i.key.endswith("/state")}
    assert found == {"naive/2/state", "rival/3/state", "ours/checkpoints/00000004-001/state"}


def test_restores_uploads_and_swaps_are_measured(bucket: str, tmp_path: Path) -> None:
    name = bucket.removeprefix("s3://")
    folder = transfers.make_folder(tmp_path / "folder", 3_000_000)
    assert transfers.restores(name, folder, tmp_path / "scratch").keys() == {"ours", "raw"}
    found = transfers.uploads(name, folder, tmp_path / "no-tools")
    assert isinstance(found["ours (boto3, hashed, with a manifest)"], float)
    assert {"AWS CRT", "s5cmd", "aws s3 cp"} < found.keys()
    assert 0 < swaps.swaps(name, 3)["share_of_a_step_of_1_s"] < 1


def test_the_command_says_on_which_machine_it_ran(tmp_path: Path) -> None:
    out = tmp_path / "checkpoint.json"
    with patch.dict(os.environ):  # it sets some
        assert main(["--parts", "restore", "--sizes", "1", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert {"cpu", "cores", "load_before"} <= result["machine"].keys()
    assert "boto3" in result["versions"]
    assert "1 MB: " in out.with_suffix(".md").read_text()
