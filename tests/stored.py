"""Samples made by hand, in a store as the data stage leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from job.dataset import Sample, Samples
from job.dataset.store import ROW, StoreWriter
from job.dataset.tokens.samples import Encoded


def stored(folder: Path, samples: Sequence[Sample]) -> Samples:
    rows = np.zeros(len(samples), dtype=ROW)
    rows["tokens"] = [len(sample.input_ids) for sample in samples]
    rows["supervised"] = [sample.supervised for sample in samples]
    with StoreWriter(folder) as writer:
        writer.append(Encoded.of(samples), rows)
        store = writer.complete(folder.name, None)
    return Samples(store, np.arange(len(samples)))
