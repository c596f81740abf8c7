"""Where a benchmark of requests works: an embedded server, or a store of one's own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from job.demo.s3_server import S3Server
from job.storage import S3_SCHEME, open_storage


@contextmanager
def fresh_root(output: str | None) -> Iterator[str]:
    """On the embedded server, or below `output` (`s3://bucket/prefix`), which is emptied again."""
    name = f"fleet-{uuid.uuid4().hex[:8]}"
    if output:
        root = f"{output.rstrip('/')}/{name}"
        try:
            yield root
        finally:
            storage = open_storage(root)
            storage.delete([info.key for info in storage.list()])
        return
    with S3Server() as server:
        os.environ.update(server.env)
        server.create_bucket(name)
        yield f"{S3_SCHEME}{name}"
