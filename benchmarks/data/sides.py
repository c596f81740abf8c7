"""One side of the comparison, in a process of its own.

    python -m benchmarks.data.sides plan.json

`plan.json` names the side, the rows and the model folder, and where to write the record: see
`benchmarks.data`. Only the preparation is timed. What is imported for it, the tokenizer's file and
TRL's model are loaded before the clock starts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from benchmarks.data.watched import usage

if TYPE_CHECKING:
    from job.dataset import PrepareOptions

PROCESSES: Final = 2
"""Of TRL's preparation; as many threads has the tokenizer on all sides."""
_PREPARED: Final = "prepared"
STORE: Final = Path(_PREPARED) / "store"
"""In the folder of the job's side."""


@dataclass(frozen=True)
class Plan:
    """What to do."""

    side: str
    rows: Path
    """JSON lines."""
    model: Path
    """A folder with tokenizer and chat template."""
    max_length: int
    """Tokens."""
    folder: Path
    """Empty, for what the side writes."""
    record: Path
    compare: int = 0
    """How many rows of the job's side `benchmarks.data.identical` looks at."""
    profile: Path | None = None
    """Where to write what the job's time goes into; it takes longer then."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Plan:
        read = dict(values)
        for name in ("rows", "model", "folder", "record", "profile"):
            read[name] = Path(values[name]) if values[name] else None
        return cls(**read)


class Clock:
    """Wall and CPU time of what is measured, the processes it starts included. Seconds."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.cpu = 0.0
        self.high_water = 0
        """Bytes that this process had at most, up to the end of the last part."""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began, cpu = time.perf_counter(), _cpu_seconds()
        yield
        self.parts[name] = time.perf_counter() - began
        self.cpu += _cpu_seconds() - cpu
        self.high_water = usage(os.getpid())["VmHWM"]


def job(plan: Plan, clock: Clock) -> dict[str, Any]:
    """All that the job does before it trains, from the file to the samples."""
    from benchmarks.data.profiled import profiled
    from job.dataset import ChatFormat, fetch, prepare

    chat = ChatFormat.load(plan.model)
    options = _options(plan)
    with profiled(plan.profile):
        with clock.part("fetch"):
            files = fetch([str(plan.rows)], plan.folder)
        with clock.part("prepare"):
            data = prepare(files, chat, options, plan.folder / _PREPARED)
    return {
        "rows": data.report.rows,
        "tokens": int(data.train.store.rows["tokens"].sum()),
        "counts": data.report.results,
        "warnings": {kind: warned.count for kind, warned in data.report.warnings.items()},
    }


def job_checks(plan: Plan, clock: Clock) -> dict[str, Any]:
    """The job's checks alone, without a tokenizer."""
    from job.dataset import check_only, fetch

    files = fetch([str(plan.rows)], plan.folder)
    with clock.part("check"):
        report = check_only(files, _options(plan))
    return {"rows": report.rows, "counts": report.results}


def _options(plan: Plan) -> PrepareOptions:
    """Those of a run that sets nothing else."""
    from job.config import Settings
    from job.dataset import PrepareOptions

    rows, length = str(plan.rows), plan.max_length
    settings = Settings(run_id="data", dataset_uri=rows, output_uri="/out", max_seq_length=length)
    return PrepareOptions.from_settings(settings)


def floor(plan: Plan, clock: Clock) -> dict[str, Any]:
    """Parse, render, encode, and keep nothing."""
    from benchmarks.data.plain import Plain, batches

    plain = Plain(plan.model)
    rows = tokens = 0
    with clock.part("encode"):
        for lines in batches(plan.rows):
            found = plain.ids(lines)
            rows, tokens = rows + len(found), tokens + sum(map(len, found))
    return {"rows": rows, "tokens": tokens}


def trl(plan: Plan, clock: Clock) -> dict[str, Any]:
    """What one writes with TRL: `load_dataset`, and `SFTTrainer`'s own preparation."""
    os.environ["HF_DATASETS_CACHE"] = str(plan.folder / "cache")
    import datasets
    import pyarrow.compute
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(plan.model)
    arguments = SFTConfig(
        output_dir=str(plan.folder / "output"),
        max_length=plan.max_length,
        dataset_num_proc=PROCESSES,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )

    class Timed(SFTTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, *args: Any, **kwargs: Any) -> Any:
            with clock.part("prepare"):
                return super()._prepare_dataset(*args, **kwargs)

    model = _smallest_model(tokenizer)
    with clock.part("load"):
        rows = datasets.load_dataset("json", data_files=str(plan.rows), split="train")
    trainer = Timed(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    column = trainer.train_dataset.with_format("arrow")[:]["input_ids"]
    tokens = pyarrow.compute.sum(pyarrow.compute.list_value_length(column)).as_py()
    return {"rows": len(rows), "tokens": tokens}


def _smallest_model(tokenizer: Any) -> Any:
    """`SFTTrainer` asks for one; its preparation doesn't touch it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


SIDES: Final[dict[str, Callable[[Plan, Clock], dict[str, Any]]]] = {
    "job": job,
    "job_checks": job_checks,
    "floor": floor,
    "trl": trl,
}


def _cpu_seconds() -> float:
    """Of this process and of those it started and waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main(plan: Plan) -> None:
    clock = Clock()
    found = SIDES[plan.side](plan, clock)
    record = found | {
        "seconds": sum(clock.parts.values()),
        "parts": clock.parts,
        "cpu_seconds": clock.cpu,
        "high_water": clock.high_water,
    }
    plan.record.write_bytes(orjson.dumps(record))


if __name__ == "__main__":
    main(Plan.parse(json.loads(Path(sys.argv[1]).read_text())))
