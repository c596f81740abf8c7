"""What the tests of the whole data stage share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from job.config import Settings
from job.dataset import ChatFormat, DataFile, PreparedData, PrepareOptions, Sample
from tests.dataset.standin import chat_row, tokenizer, turn

BAD = b'{"messages": []}'
ROWS = [chat_row(f"question {n}", f"answer {n}") for n in range(60)]


Prepare = Callable[[list[DataFile], ChatFormat, PrepareOptions], PreparedData]


def options(**changes: Any) -> PrepareOptions:
    """Those of a run that sets nothing, but for `changes` and short sequences."""
    settings = Settings(run_id="run-1", dataset_uri="/d.jsonl", output_uri="/out")
    return replace(PrepareOptions.from_settings(settings), **({"max_seq_length": 512} | changes))


def texts(samples: Sequence[Sample]) -> set[str]:
    return {tokenizer().decode(sample.input_ids.tolist()) for sample in samples}


def long_row(turns: int) -> dict[str, Any]:
    messages = []
    for n in range(turns):
        messages += [turn("user", f"question {n}"), turn("assistant", "word " * 20)]
    return {"messages": messages}
