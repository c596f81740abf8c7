"""The data stage: fetch, check, render and mask, split. Free of torch and `datasets`.

files = fetch(uris, work_dir)
data = prepare(files, ChatFormat.load(model_dir), PrepareOptions.from_settings(settings), folder)
"""

from __future__ import annotations

from job.dataset.options import PrepareOptions
from job.dataset.prepare import PreparedData, check_only, is_prepared, prepare
from job.dataset.review.report import DataRejected, DataReport
from job.dataset.rows.read import read_rows
from job.dataset.rows.row import Message, RejectedRow, Row, RowProblem, RowRefused
from job.dataset.rows.tools import Toolbox, ToolReader, declared
from job.dataset.source.fetch import DataFile, DataObject, fetch
from job.dataset.split import groups_of
from job.dataset.store import Samples
from job.dataset.tokens.chat import ChatFormat
from job.dataset.tokens.samples import Rendered, Sample
from job.dataset.turns import distinct_turns

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
    "ToolReader",
    "Toolbox",
    "check_only",
    "declared",
    "distinct_turns",
    "fetch",
    "groups_of",
    "is_prepared",
    "prepare",
    "read_rows",
]
