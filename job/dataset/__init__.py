"""The data stage: fetch, check, render and mask, split. Free of torch and `datasets`.

files = fetch(uris, work_dir)
data = prepare(files, ChatFormat.load(model_dir), PrepareOptions.from_settings(settings), folder)
"""

from __future__ import annotations

from job.dataset.chat import ChatFormat
from job.dataset.encode import Rendered, Sample
from job.dataset.fetch import DataFile, DataObject, fetch
from job.dataset.options import PrepareOptions
from job.dataset.prepare import PreparedData, check_only, prepare
from job.dataset.report import DataRejected, DataReport
from job.dataset.row import Message, RejectedRow, Row, RowProblem, RowRefused
from job.dataset.rows import read_rows
from job.dataset.store import Samples

__all__ = [
    "ChatFormat",
    "DataFile",
    "DataObject",
    "DataRejected",
    "DataReport",
    "Message",
    "PrepareOptions",
    "PreparedData",
    "RejectedRow",
    "Rendered",
    "Row",
    "RowProblem",
    "RowRefused",
    "Sample",
    "Samples",
    "check_only",
    "fetch",
    "prepare",
    "read_rows",
]
