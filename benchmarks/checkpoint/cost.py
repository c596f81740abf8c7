"""What a checkpoint costs training: the stall, and the slowdown of the steps that follow.

    python -m benchmarks.checkpoint.cost plan.json

One process, one model, one loop; at each checkpoint another side is in turn. While an upload is
under way the store is stopped and woken up again, every few steps: a stopped store blocks the
upload, so that steps beside it and steps without it alternate within seconds. The slowdown is the
sum of their differences, and a drift of the machine's speed cancels out. Sides whose upload is over
when training goes on cost their stall.

The checkpoint is SmolLM2's, whole. A step passes through two of its thirty layers, so that there
are many of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.checkpoint.sides import NAMES, sides
from job.engines import ReferenceEngine
from job.profiles import PROFILES

TOKENS = 128
ROWS = 1
STEP_LAYERS = 2
SLICE_STEPS = 2
LONGEST_SECONDS = 150.0
"""A window that takes longer is cut off, and says so."""


def main(plan: dict[str, Any]) -> None:
    torch.manual_seed(0)
    loop = _Loop(Path(plan["model"]), Path(plan["work"]), plan["padding_bytes"])
    by_name = sides(plan["bucket"])
    for _ in range(10):
        loop.step()
    windows: list[dict[str, Any]] = []
    number = 0
    for _ in range(plan["rounds"]):
        for name in NAMES:
            number += 1
            windows.append(_window(loop, by_name[name], name, number, plan["store"]))
            print(json.dumps(windows[-1]), file=sys.stderr, flush=True)
            Path(plan["record"]).write_text(json.dumps(windows))


def _window(loop: _Loop, side: Any, name: str, number: int, store: int) -> dict[str, Any]:
    began = time.perf_counter()
    folder = loop.save(number)
    written = time.perf_counter()
    side.saved(folder, number)
    stalled = time.perf_counter()
    pairs: list[tuple[float, float]] = []
    while not side.idle() and time.perf_counter() - stalled < LONGEST_SECONDS:
        beside = mean(loop.step() for _ in range(SLICE_STEPS))
        os.kill(store, signal.SIGSTOP)
        try:
            loop.step()  # in which what the store has taken already comes to rest
            alone = mean(loop.step() for _ in range(SLICE_STEPS))
        finally:
            os.kill(store, signal.SIGCONT)
        pairs.append((beside, alone))
    finished = side.idle()
    while not side.idle():
        time.sleep(0.05)
    return {
        "side": name,
        "write": written - began,
        "stall": stalled - began,
        "pairs": pairs,
        "steps_a_slice": SLICE_STEPS,
        "finished": finished,
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
        self.step()  # of all layers, so that the optimizer's state is whole
        self._model.get_base_model().config.num_hidden_layers = STEP_LAYERS

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
