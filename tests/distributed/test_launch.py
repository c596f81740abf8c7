"""The launcher with real processes: variables, signals, and whose exit code is the pod's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from job.errors import JobError, SettingsError
from job.ranks import own_place
from job.ranks.launch import owner_seconds
from job.ranks.node import Node, wanted
from tests.distributed.workers import children

TWO = Node(1, 2, 0, "127.0.0.1", 29500)


SETTINGS = {"FORGE_RUN_ID": "r", "FORGE_DATASET_URI": "/d", "FORGE_OUTPUT_URI": "/o"}


def _launcher(
    worker: str, node: Node = TWO, follow_seconds: float = 10.0, **env: str
) -> subprocess.Popen[str]:
    """A launcher of workers that run `worker`; it prints its code and what it has to say."""
    code = f"""
        import sys
        from job.ranks import launch
        from job.ranks.node import Node
        launch._FOLLOW_SECONDS = {follow_seconds}
        print(launch.launch({node!r}, (sys.executable, "-c", {textwrap.dedent(worker)!r})))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | env,
    )


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0), "(0, '')"),
        ((75, 70), "(75, '')"),
        ((70, 75), "(70, '')"),
        ((69, 75), "(69, '')"),
        ((70, 78), "(78, 'worker 1 ended with 78: its log says why')"),
        ((70, 76), "(76, 'worker 1 ended with 76: its log says why')"),
        ((75, 76), "(76, 'worker 1 ended with 76: its log says why')"),
        ((0, 3), "(70, 'worker 1 ended with 3: its log says why')"),
    ],
)
def test_the_code_that_says_most_is_the_pods(codes: tuple[int, int], expected: str) -> None:
    worker = f"import os, sys; sys.exit({codes!r}[int(os.environ['RANK'])])"
    assert _launcher(worker).communicate(timeout=60)[0].strip() == expected


def test_elsewhere_than_at_rank_0_a_stop_that_all_agreed_on_is_what_it_looks_like() -> None:
    worker = "import os, sys; sys.exit((70, 75)[int(os.environ['LOCAL_RANK'])])"
    said = _launcher(worker, Node(2, 2, 1, "127.0.0.1", 29500)).communicate(timeout=60)[0]
    assert said.strip() == "(75, 'worker 1 ended with 75: its log says why')"


def test_a_first_worker_that_was_killed_is_spoken_for() -> None:
    worker = """
        import os, signal, sys
        if os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(70)
    """
    said = _launcher(worker).communicate(timeout=60)[0].strip()
    assert said == "(70, 'worker 0 was killed by SIGKILL')"


def test_a_first_worker_that_was_told_to_stop_does_not_speak_for_the_pod() -> None:
    """It waits for one that has ended with a reason of its own."""
    worker = """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        if os.environ["RANK"] == "0":
            time.sleep(60)
        sys.exit(78)
    """
    said = _launcher(worker).communicate(timeout=50)[0].strip()
    assert said == "(78, 'worker 1 ended with 78: its log says why')"


def test_a_first_worker_that_lingers_for_a_scrape_speaks_for_the_pod() -> None:
    """The other one has ended for the same reason, with the log instead of the message."""
    worker = """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(78))
        if os.environ["RANK"] == "0":
            time.sleep(60)
        sys.exit(78)
    """
    assert _launcher(worker).communicate(timeout=50)[0].strip() == "(78, '')"


def test_a_signal_reaches_every_worker(tmp_path: Path) -> None:
    worker = f"""
        import os, pathlib, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        pathlib.Path({str(tmp_path)!r}, os.environ["RANK"]).touch()
        time.sleep(60)
    """
    launcher = _launcher(worker)
    while len(list(tmp_path.iterdir())) < 2:
        assert launcher.poll() is None
    launcher.send_signal(signal.SIGTERM)
    assert launcher.communicate(timeout=50)[0].strip() == "(75, '')"


LEFT_FIRST = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    if os.environ["LOCAL_RANK"] == "1":
        sys.exit(70)
    time.sleep({seconds}[int(os.environ["LOCAL_RANK"])])
    sys.exit(70)
"""
"""Worker 1 fails; the others stay for so long, unless they are told to end."""


def test_rank_0_has_time_for_its_report_and_a_last_scrape() -> None:
    """Worker 2 has none: what it does after the end is of no use to anybody."""
    worker = LEFT_FIRST.format(seconds=[3, 0, 100])
    launcher = _launcher(worker, Node(1, 3, 0, "127.0.0.1", 29500), 0.2, **SETTINGS)
    assert launcher.communicate(timeout=50)[0].strip() == "(70, '')"


@pytest.mark.parametrize(
    ("number", "env"),
    [(1, SETTINGS), (0, {})],
    ids=["it is not rank 0", "there is no run without settings"],
)
def test_a_first_worker_that_has_nothing_to_report_is_told_like_the_others(
    number: int, env: dict[str, str]
) -> None:
    worker = LEFT_FIRST.format(seconds=[100, 0])
    launcher = _launcher(worker, Node(2, 2, number, "127.0.0.1", 29500), 0.2, **env)
    said = launcher.communicate(timeout=50)[0].strip()
    assert said == "(70, 'worker 1 ended with 70: its log says why')"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({}, 10 + 20 + 20),
        ({"FORGE_METRICS_LINGER_SECONDS": "45.5"}, 10 + 20 + 45.5),
        ({"FORGE_SETTINGS": '{"metrics_linger_seconds": 0}'}, 10 + 20),
        ({"FORGE_REPORT_TO": "tensorboard"}, 10 + 20 + 20 + 20),
        ({"FORGE_METRICS_LINGER_SECONDS": "long"}, 10),
    ],
)
def test_rank_0s_time_is_that_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, setting: dict[str, str], expected: float
) -> None:
    for name, value in (SETTINGS | setting).items():
        monkeypatch.setenv(name, value)
    assert owner_seconds() == expected


ALONE_SINCE = """
    import os, pathlib, signal, sys, time
    from job.ranks.released import release
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    over = pathlib.Path({over!r})
    if os.environ["RANK"] == "1":
        while not over.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    {said}
    over.touch()
    {then}
    time.sleep(3)
"""
"""Rank 0 needs no more than these seconds for what it does after training."""


@pytest.mark.parametrize(
    ("said", "then", "expected"),
    [
        ("release()", "", "(0, '')"),
        ("", "", "(70, 'worker 1 was killed by SIGKILL')"),
        ("release()", "os.kill(os.getpid(), 9)", "(70, 'worker 0 was killed by SIGKILL')"),
        ("release()", "sys.exit(80)", "(80, '')"),
    ],
)
def test_once_training_is_over_rank_0_is_the_run(
    tmp_path: Path, said: str, then: str, expected: str
) -> None:
    """Nobody ends its evaluation because another one is gone, and the pod ends as it does."""
    worker = ALONE_SINCE.format(over=str(tmp_path / "over"), said=said, then=then)
    launcher = _launcher(worker, follow_seconds=0.2)
    assert launcher.communicate(timeout=50)[0].strip() == expected


def test_a_worker_that_takes_no_notice_of_being_told_is_killed() -> None:
    """A frozen one would hold its GPU for ever."""
    worker = """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.environ["RANK"] == "1":
            time.sleep(1000)
        sys.exit(70)
    """
    launcher = _launcher(worker, TWO, 0.2, **SETTINGS, FORGE_GRACE_SECONDS="1")
    assert launcher.communicate(timeout=50)[0].strip() == "(70, '')"


# -- a signal while workers start ---------------------------------------------------------------


def _signalled(launcher: subprocess.Popen[str], ready: Callable[[], bool]) -> str:
    while not ready():
        assert launcher.poll() is None
        time.sleep(0.01)
    launcher.send_signal(signal.SIGTERM)
    return launcher.communicate(timeout=50)[0].strip()


def test_workers_that_a_signal_catches_while_they_start_were_preempted(tmp_path: Path) -> None:
    worker = f"""
        import os, pathlib, time
        pathlib.Path({str(tmp_path)!r}, os.environ["RANK"]).touch()
        time.sleep(60)
    """
    said = _signalled(_launcher(worker), lambda: len(list(tmp_path.iterdir())) == 2)
    assert said == "(75, 'preempted: the signal came while worker 0 started')"


def test_a_failure_beside_that_is_still_the_pods(tmp_path: Path) -> None:
    worker = f"""
        import os, pathlib, signal, sys, time
        if os.environ["RANK"] == "1":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(78))
        pathlib.Path({str(tmp_path)!r}, os.environ["RANK"]).touch()
        time.sleep(60)
    """
    said = _signalled(_launcher(worker), lambda: len(list(tmp_path.iterdir())) == 2)
    assert said == "(78, 'worker 1 ended with 78: its log says why')"


def test_a_worker_that_somebody_else_ends_was_not_preempted() -> None:
    worker = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    said = _launcher(worker).communicate(timeout=60)[0].strip()
    assert said == "(70, 'worker 0 was killed by SIGTERM')"


SECOND_NODE = {
    "PET_NNODES": "2",
    "PET_NODE_RANK": "1",
    "PET_NPROC_PER_NODE": "2",
    "PET_MASTER_ADDR": "127.0.0.1",
    "PET_MASTER_PORT": "1",
}
"""Nobody is there to meet: its workers wait, should they come so far."""


def _job(log: Path, **env: str) -> subprocess.Popen[str]:
    log.touch()
    return subprocess.Popen(
        [sys.executable, "-m", "job"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FORGE_TERMINATION_LOG": str(log), **env},
    )


def test_a_pod_that_goes_while_its_workers_start_is_preempted(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    job = _job(log, **SETTINGS, **SECOND_NODE)
    _signalled(job, lambda: len(children(job.pid)) == 2)
    assert (job.returncode, log.read_text()[:18]) == (75, "exit 75: preempted")


def test_so_is_one_that_still_counts_its_cards(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time; time.sleep(60)")
    log = tmp_path / "termination-log"
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    job = _job(log, PET_NPROC_PER_NODE="auto", PYTHONPATH=path)
    _signalled(job, lambda: len(children(job.pid)) == 1)
    assert (job.returncode, log.read_text()) == (75, "exit 75: preempted: received SIGTERM\n")


# -- what is launched -----------------------------------------------------------------------------


def test_a_single_process_and_a_worker_of_torchrun_launch_nothing() -> None:
    assert wanted({}) is None
    assert wanted({"PET_NNODES": "1", "PET_NPROC_PER_NODE": "1"}) is None
    assert wanted({"PET_NPROC_PER_NODE": "2", "LOCAL_RANK": "1"}) is None


def test_single_pods_on_one_machine_are_not_in_each_others_way() -> None:
    """As on the network of the host: nobody else has to know the port."""
    ports = {node.port for _ in range(3) if (node := wanted({"PET_NPROC_PER_NODE": "2"}))}
    assert len(ports) > 1
    given = wanted({"PET_NPROC_PER_NODE": "2", "PET_MASTER_PORT": "1234"})
    assert given is not None
    assert given.port == 1234


def test_the_port_of_a_single_pod_is_its_own_until_rank_0_listens() -> None:
    """It does only once torch is imported; each connection of the host may be given any port."""
    node = wanted({"PET_NPROC_PER_NODE": "2"})
    assert node is not None
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", node.port))
    with socket.create_server(("127.0.0.1", node.port)):  # with SO_REUSEADDR, as gloo's store
        pass


def test_workers_share_the_cores_unless_somebody_has_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(9)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert TWO.environment(1)["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert TWO.environment(1)["OMP_NUM_THREADS"] == "7"


def test_a_worker_finds_its_place_in_what_the_launcher_sets() -> None:
    node = wanted(
        {
            "PET_NNODES": "3",
            "PET_NPROC_PER_NODE": "4",
            "PET_NODE_RANK": "2",
            "PET_MASTER_ADDR": "run-node-0-0.run",
            "PET_MASTER_PORT": "1234",
        }
    )
    assert node == Node(3, 4, 2, "run-node-0-0.run", 1234)
    place = own_place(node.environment(1))
    assert place is not None
    assert (place.rank, place.size, place.local_rank, place.node) == (9, 12, 1, 2)
    assert not place.leads_node


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"PET_NNODES": "2", "PET_NODE_RANK": "0"}, "PET_MASTER_ADDR"),
        ({"PET_NNODES": "1:4"}, "PET_NNODES"),
        ({"PET_NNODES": "0"}, "PET_NNODES"),
        ({"PET_NPROC_PER_NODE": "0"}, "PET_NPROC_PER_NODE"),
        ({"PET_NPROC_PER_NODE": "-2"}, "PET_NPROC_PER_NODE"),
        ({"PET_NNODES": "-1", "PET_NPROC_PER_NODE": "-1"}, "PET_NNODES"),
        (
            {"PET_NNODES": "2", "PET_NODE_RANK": "2", "PET_MASTER_ADDR": "x"},
            "PET_NODE_RANK",
        ),
        ({"PET_NNODES": "2", "PET_MASTER_ADDR": "x"}, "PET_NODE_RANK"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(environ: dict[str, str], name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        wanted(environ)
    assert [problem.where for problem in caught.value.problems] == [name]


def test_half_of_torchruns_variables_is_refused() -> None:
    with pytest.raises(SettingsError, match="WORLD_SIZE"):
        own_place({"WORLD_SIZE": "2", "RANK": "0"})


@pytest.mark.parametrize(
    ("rank", "size", "local_rank", "local_size"),
    [(5, 2, 0, 1), (-1, 2, 0, 1), (0, 0, 0, 0), (0, 2, 0, 0), (0, 2, 1, 1), (0, 2, 0, 4)],
)
def test_a_place_that_is_none_is_refused(
    rank: int, size: int, local_rank: int, local_size: int
) -> None:
    environ = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": local_rank}
    environ |= {"LOCAL_WORLD_SIZE": local_size, "MASTER_PORT": 1}
    with pytest.raises(SettingsError, match="there is no such place"):
        own_place({"MASTER_ADDR": "x", **{name: str(value) for name, value in environ.items()}})


def test_cards_that_cannot_be_counted_are_not_one_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcuda.so.1 is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(JobError, match="can't be counted: ImportError: libcuda") as failed:
        wanted({"PET_NPROC_PER_NODE": "auto"})
    assert failed.value.exit_code == 70
