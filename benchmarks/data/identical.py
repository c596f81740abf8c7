"""Whether the job's ids, which it joins from pieces, are those of the whole text.

    python -m benchmarks.data.identical plan.json

`plan.json` is that of the job's side, whose folder still holds the tokens that it stored. A
process of its own, so that the memory of that side is the job's alone.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson

from benchmarks.data.plain import Plain
from benchmarks.data.sides import STORE, Plan
from job.dataset.store import Store


@dataclass(frozen=True)
class Compared:
    compared: int
    """Rows, evenly over the length of the file."""
    identical: int


def compare(path: Path, model: Path, folder: Path, rows: int) -> Compared:
    """Encode so many rows as a whole, and hold the stored ids against them."""
    store = Store.open(folder, json.loads((folder / "complete.json").read_text())["key"])
    assert store is not None, "the job has just completed it"
    places = np.unique(np.linspace(0, len(store.rows) - 1, rows).astype(int))
    wanted = {int(store.rows["line"][place]): int(place) for place in places}
    with path.open("rb") as file:
        lines = {number: line for number, line in enumerate(file, 1) if number in wanted}
    whole = Plain(model).ids([*lines.values()])
    same = [
        store.sample(wanted[number]).input_ids.tolist() == ids
        for number, ids in zip(lines, whole, strict=True)
    ]
    return Compared(len(same), sum(same))


def main(plan: Plan) -> None:
    found = compare(plan.rows, plan.model, plan.folder / STORE, plan.compare)
    plan.record.write_bytes(orjson.dumps(asdict(found)))


if __name__ == "__main__":
    main(Plan.parse(json.loads(Path(sys.argv[1]).read_text())))
