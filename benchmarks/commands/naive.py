"""What somebody would write in place of our commands, in a few lines.

python -m benchmarks.commands.naive status s3://bucket/runs/one
python -m benchmarks.commands.naive all s3://bucket/runs
python -m benchmarks.commands.naive validate s3://bucket/data/rows.jsonl MODEL_FOLDER
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import urlsplit

import boto3


def main(argv: list[str]) -> None:
    what, uri, *more = argv
    bucket, key = urlsplit(uri).netloc, urlsplit(uri).path.strip("/")
    s3 = boto3.client("s3")
    if what == "status":
        print(_said(_read(s3, bucket, f"{key}/run.json")))
    elif what == "all":
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{key}/")
        for page in pages:
            for found in page.get("Contents", []):
                if found["Key"].endswith("/run.json"):
                    print(_said(_read(s3, bucket, found["Key"])))
    else:
        _validate(_read(s3, bucket, key), *more)


def _read(s3: Any, bucket: str, key: str) -> bytes:
    content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def _said(content: bytes) -> str:
    record = json.loads(content)
    return f"{record['run_id']} {record['status']} {record['progress']['step']}"


def _validate(content: bytes, model: str) -> None:
    """Renders each row, and counts its tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    lengths = []
    for line in content.decode().splitlines():
        row = json.loads(line)
        text = tokenizer.apply_chat_template(
            row["messages"], tools=row.get("tools"), tokenize=False
        )
        lengths.append(len(tokenizer(text)["input_ids"]))
    print(f"{len(lengths)} rows, the longest has {max(lengths)} tokens")


if __name__ == "__main__":
    main(sys.argv[1:])
