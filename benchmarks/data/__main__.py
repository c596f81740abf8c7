"""The data stage beside a floor and beside TRL, over the same files, in one run.

    python -m benchmarks.data
    python -m benchmarks.data --megabytes 100 --sides job,floor --repeat 3
    python -m benchmarks.data --profile --sides job
    python -m benchmarks.data --memory

Run it from the repository's root on a machine that does nothing else. Writes a JSON file and a
Markdown table beside it. What is measured, and how to read it, is in benchmarks/data/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.data.corpus import DIALECTS, SHAPES, Corpus, vocabulary, write
from benchmarks.data.figures import Run, disagreements, ratios, summary, targets
from benchmarks.data.sides import PROCESSES, SIDES
from benchmarks.data.table import markdown
from benchmarks.data.watched import Watched, run
from benchmarks.machine import machine_now, versions
from benchmarks.models import demo_model
from benchmarks.output import leave
from job.config import PREFIX
from tests.dataset.standin import CHATML

ROOT: Final = Path(__file__).resolve().parents[2]
MAX_LENGTH: Final = 2048
COMPARED: Final = 500
_MEMORY_MEGABYTES: Final = (100.0, 1000.0)


@dataclass(frozen=True)
class Case:
    """A file and the model folder whose template fits its dialect."""

    corpus: Corpus
    path: Path
    rows: int
    model: Path


class Bench:
    """Makes files and runs sides over them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._words = vocabulary()
        plain = demo_model()
        self._models = {"hermes": plain, "openai": _knowing_tools(plain, folder / "chatml")}

    def case(self, shape: str, dialect: str, megabytes: float) -> Case:
        corpus = Corpus(shape, dialect, megabytes, self._seed)
        path = self._folder / f"{corpus.name}.jsonl"
        _say(f"{corpus.name}: writing {megabytes:g} MB")
        return Case(corpus, path, write(corpus, self._words, path), self._models[dialect])

    def run(self, case: Case, side: str, profile: Path | None = None) -> Run:
        """Raises `SideFailed`."""
        scratch = self._folder / "scratch"
        scratch.mkdir()
        plan, record = self._folder / "plan.json", self._folder / "record.json"
        values = {
            "side": side,
            "rows": str(case.path),
            "model": str(case.model),
            "max_length": MAX_LENGTH,
            "folder": str(scratch),
            "record": str(record),
            "compare": COMPARED,
            "profile": str(profile) if profile else None,
        }
        plan.write_text(json.dumps(values))
        watched = self._process("sides", plan)
        found = json.loads(record.read_text())
        if side == "job":
            self._process("identical", plan)
            found |= json.loads(record.read_text())
        shutil.rmtree(scratch)
        _say(f"{case.corpus.name}: {side} took {found['seconds']:.1f} s")
        return Run(
            case=case.corpus.name,
            side=side,
            megabytes=case.path.stat().st_size / 1e6,
            rows=found["rows"],
            tokens=found.get("tokens"),
            seconds=found["seconds"],
            cpu_seconds=found["cpu_seconds"],
            parts=found["parts"],
            peak=max(watched.peak, found["high_water"]),
            peak_anonymous=watched.peak_anonymous,
            others=watched.others,
            compared=found.get("compared", 0),
            identical=found.get("identical", 0),
        )

    def _process(self, module: str, plan: Path) -> Watched:
        command = [sys.executable, "-m", f"benchmarks.data.{module}", str(plan)]
        return run(command, _environment(), self._folder / "log", ROOT)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 where the sides did not make the same tokens."""
    given = _arguments(argv)
    facts = machine_now() | {"threads": PROCESSES, "device": "cpu"}
    with tempfile.TemporaryDirectory(prefix="data-", dir=given.folder) as folder:
        bench = Bench(Path(folder), given.seed)
        cases, runs = _compared(bench, given)
        memory = _memory(bench, given)
    result = _result(given, cases, runs, memory) | {"machine": facts}
    leave(given.out, result, markdown(result))
    return 1 if result["disagreements"] else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--megabytes", type=float, default=1000.0, help="of each file (1000)")
    parser.add_argument("--shapes", type=_several(SHAPES), default=SHAPES)
    parser.add_argument("--dialects", type=_several(DIALECTS), default=DIALECTS[:1])
    parser.add_argument("--sides", type=_several(tuple(SIDES)), default=tuple(SIDES))
    parser.add_argument("--repeat", type=int, default=1, help="runs of each side (1)")
    parser.add_argument("--profile", action="store_true", help="one more run of the job, profiled")
    parser.add_argument(
        "--memory",
        type=float,
        nargs="*",
        metavar="MB",
        help="also the job alone over files of these sizes (100 1000)",
    )
    parser.add_argument("--seed", type=int, default=Corpus.seed)
    parser.add_argument("--folder", type=Path, help="for the files (the system's temporary folder)")
    default = ROOT / "benchmarks" / "results" / "data.json"
    parser.add_argument("--out", type=Path, default=default, help=f"({default.relative_to(ROOT)})")
    given = parser.parse_args(argv)
    sizes = _MEMORY_MEGABYTES if given.memory == [] else given.memory or ()
    if min([given.megabytes, *sizes]) <= 0 or given.repeat < 1:
        parser.error("--megabytes, --memory, --repeat: must be positive")
    given.memory = sizes
    return given


def _several(known: Sequence[str]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := sorted(set(names) - set(known)):
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
        return names

    return parse


def _compared(bench: Bench, given: argparse.Namespace) -> tuple[list[Case], list[Run]]:
    cases, runs = [], []
    for shape in given.shapes:
        for dialect in given.dialects:
            case = bench.case(shape, dialect, given.megabytes)
            cases.append(case)
            for number in range(given.repeat):
                # Who is first changes, so that a drift of the machine's speed cancels.
                sides = given.sides if number % 2 == 0 else given.sides[::-1]
                runs += [bench.run(case, side) for side in sides]
            if given.profile:
                out = given.out.with_name(f"{given.out.stem}-{case.corpus.name}-profile.txt")
                out.parent.mkdir(parents=True, exist_ok=True)
                bench.run(case, "job", out.resolve())
            case.path.unlink()
    return cases, runs


def _memory(bench: Bench, given: argparse.Namespace) -> list[Run]:
    runs = []
    for megabytes in given.memory:
        for shape in given.shapes:
            case = bench.case(shape, given.dialects[0], megabytes)
            runs.append(bench.run(case, "job"))
            case.path.unlink()
    return runs


def _result(
    given: argparse.Namespace, cases: Sequence[Case], runs: Sequence[Run], memory: Sequence[Run]
) -> dict[str, Any]:
    medians = summary(runs)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "setup": {
            "megabytes": given.megabytes,
            "seed": given.seed,
            "repeat": given.repeat,
            "max_length": MAX_LENGTH,
            "trl_processes": PROCESSES,
        },
        "versions": _versions(),
        "cases": {case.corpus.name: _made(case, runs) for case in cases},
        "median": medians,
        "ratios": {case: ratios(sides) for case, sides in medians.items()},
        "targets": targets(medians),
        "disagreements": disagreements(runs) + disagreements(memory),
        "runs": [asdict(run) for run in runs],
        "memory": [asdict(run) for run in memory],
    }


def _made(case: Case, runs: Sequence[Run]) -> dict[str, Any]:
    name = case.corpus.name
    job = next((run for run in runs if (run.case, run.side) == (name, "job")), None)
    one = next(run for run in runs if run.case == name)
    return {
        "rows": case.rows,
        "bytes": round(one.megabytes * 1e6),
        "tokens": job.tokens if job else one.tokens,
        "compared": job.compared if job else 0,
        "identical": job.identical if job else 0,
    }


def _versions() -> dict[str, str]:
    mattering = ("Python", "transformers", "trl")
    more = ("tokenizers", "datasets", "pyarrow", "orjson", "jsonschema-rs", "numpy")
    known = versions()
    return {name: known[name] for name in mattering} | {name: version(name) for name in more}


def _environment() -> dict[str, str]:
    """Without a setting of whoever runs this, which must not reach the job."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "RAYON_NUM_THREADS": str(PROCESSES),
        "TOKENIZERS_PARALLELISM": "true",
    }


def _knowing_tools(model: Path, folder: Path) -> Path:
    """The same tokenizer with a template that renders tools and calls."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / name, folder)
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    return folder


def _say(text: str) -> None:
    print(f"data: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
