"""Two real ranks over gloo against one process: the same steps, and the same after any stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from job.training import TrainingData
from tests.distributed.rank import COMPARED
from tests.ports import own_port
from tests.training.runs import Outcome, made_data, run

_SECONDS = 240


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return made_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def ranks(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks saw of all trainings."""
    folder = tmp_path_factory.mktemp("ranks")
    with own_port() as port:
        _train_on_both(tiny_model, folder, port)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def _train_on_both(model: Path, folder: Path, port: int) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.distributed.rank", str(model), str(folder)],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(_SECONDS) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _losses(seen: dict[str, Any], name: str = "losses") -> dict[int, float]:
    return {int(step): loss for step, loss in seen[name].items()}


def _is_the_same(ranks: list[dict[str, Any]], name: str, alone: Outcome) -> None:
    for rank in ranks:
        assert _losses(rank[name]) == pytest.approx(alone.seen.losses, rel=1e-4)
        assert _losses(rank[name], "eval_losses") == pytest.approx(alone.seen.eval_losses, rel=1e-4)
        assert rank[name]["adapter"] == ranks[0][name]["adapter"]
    assert alone.result is not None
    totals, seen = alone.result.totals, ranks[0][name]
    assert (seen["tokens"], seen["supervised_tokens"], seen["samples"]) == (
        totals.tokens,
        totals.supervised_tokens,
        totals.samples,
    )


def test_two_ranks_make_the_steps_of_one_process(
    ranks: list[dict[str, Any]], tiny_model: Path, data: TrainingData, tmp_path: Path
) -> None:
    """Over the end of an epoch, where the second rank has no conversations left."""
    alone = run(tiny_model, data, tmp_path, **COMPARED)
    _is_the_same(ranks, "equal", alone)


def test_a_last_micro_batch_in_parts_is_trained_on_once(
    ranks: list[dict[str, Any]], tiny_model: Path, data: TrainingData, tmp_path: Path
) -> None:
    alone = run(
        tiny_model,
        data,
        tmp_path,
        **COMPARED,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
    )
    _is_the_same(ranks, "uneven", alone)


@pytest.mark.parametrize("name", ["in_step", "in_evaluation", "in_generation"])
def test_a_stop_of_either_rank_stops_both_and_resumes_bit_by_bit(
    ranks: list[dict[str, Any]], name: str
) -> None:
    assert not any(rank[name]["finished"] for rank in ranks)
    assert ranks[0][name]["saved"] == ranks[1][name]["saved"]
    for rank in ranks:
        resumed = rank[f"{name}_resumed"]
        assert resumed["finished"]
        assert resumed["adapter"] == ranks[0]["whole"]["adapter"]
        whole = _losses(ranks[0]["whole"])
        assert _losses(resumed) == {s: whole[s] for s in whole if s > rank[name]["saved"]}
        assert resumed["samples"] == ranks[0]["whole"]["samples"]


def test_turns_generated_by_rank_0_are_told_once(ranks: list[dict[str, Any]]) -> None:
    """The other rank waited for them; cut off by its signal, they are generated after the resume,
    and leave no trace in the adapter, which the test above compares."""
    assert [entry["step"] for entry in ranks[0]["in_generation_resumed"]["rates"]] == [5]
    assert ranks[1]["in_generation_resumed"]["rates"] == []
    assert [ranks[rank]["in_generation"]["saved"] for rank in range(2)] == [5, 5]


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("settings", 78, "rank 1: trains with other settings, or in another precision, than rank"),
        ("data", 70, "rank 1: trains with other tokenized data than rank 0"),
        ("weights", 70, "rank 1: trains with other base weights than rank 0"),
    ],
)
def test_ranks_that_differ_refuse_to_train_on_both(
    ranks: list[dict[str, Any]], what: str, code: int, said: str
) -> None:
    for rank in ranks:
        assert rank[f"other_{what}"]["code"] == code
        assert said in rank[f"other_{what}"]["text"]
