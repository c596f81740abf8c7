"""What a checkpoint costs training: the stall, and the slowdown of the steps that follow.

    python -m benchmarks.checkpoint.cost plan.json

One process, one model, one loop; at each checkpoint another side is in turn, so that a drift of
the machine's speed meets all alike. The cost of a checkpoint is the time from the end of the step
before it to the end of its window (at least `window` steps, and until its upload has ended), less
as many quiet steps.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.checkpoint.sides import NAMES, sides
from job.engines import ReferenceEngine
from job.profiles import PROFILES

TOKENS = 128
ROWS = 1
LONGEST_WINDOW = 200
QUIET_STEPS = 3


def main(plan: dict[str, Any]) -> None:
    torch.manual_seed(0)
    loop = _Loop(Path(plan["model"]), Path(plan["work"]), plan["padding_bytes"])
    by_name = sides(plan["bucket"])
    for _ in range(4):
        loop.step()
    windows: list[dict[str, Any]] = []
    number = 0
    for _ in range(plan["rounds"]):
        for name in NAMES:
            number += 1
            quiet = median(loop.step() for _ in range(QUIET_STEPS))
            windows.append(_window(loop, by_name[name], name, number, quiet, plan["window"]))
            print(json.dumps(windows[-1]), file=sys.stderr, flush=True)
    Path(plan["record"]).write_text(json.dumps(windows))


def _window(
    loop: _Loop, side: Any, name: str, number: int, quiet: float, least: int
) -> dict[str, Any]:
    began = time.perf_counter()
    folder = loop.save(number)
    written = time.perf_counter()
    side.saved(folder, number)
    stalled = time.perf_counter()
    steps = [loop.step() for _ in range(least)]
    while not side.idle() and len(steps) < LONGEST_WINDOW:
        steps.append(loop.step())
    return {
        "side": name,
        "quiet": quiet,
        "write": written - began,
        "stall": stalled - began,
        "steps": steps,
        "finished": side.idle(),
    }


class _Loop:
    """Forward, backward and update of a real QLoRA model, and its checkpoint."""

    def __init__(self, model: Path, work: Path, padding_bytes: int) -> None:
        engine = ReferenceEngine()
        # As the job: emulated, bf16 takes many times as long.
        self._bf16 = engine.training_arguments()["bf16"]
        loaded = engine.load(model, PROFILES["balanced"])
        self._model = loaded.model
        self._model.train()
        self._tokenizer = loaded.tokenizer
        trained = [p for p in self._model.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.data = parameter.data.float()
        from bitsandbytes.optim import AdamW8bit

        self._optimizer = AdamW8bit(trained, lr=1e-4)
        self._ids = torch.randint(10, 40_000, (ROWS, TOKENS))
        self._work = work
        self._padding = os.urandom(1 << 20) * (padding_bytes >> 20)

    def step(self) -> float:
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bf16):
            self._model(input_ids=self._ids, labels=self._ids).loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return time.perf_counter() - began

    def save(self, number: int) -> Path:
        folder = self._work / f"checkpoint-{number}"
        self._model.save_pretrained(str(folder))
        self._tokenizer.save_pretrained(str(folder))
        torch.save(self._optimizer.state_dict(), folder / "optimizer.pt")
        if self._padding:
            (folder / "padding.bin").write_bytes(self._padding)
        return folder


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
