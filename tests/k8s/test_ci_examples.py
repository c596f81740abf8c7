"""The chart as the examples for CI call it, with what people write into their inputs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.k8s.chart import ROOT, AsGoReadsIt, env_of, named, pod_of, tool

EXAMPLES = ("github-actions.yml", "gitlab-ci.yml")
INPUTS = {"PROFILE": "fast_dev", "IMAGE": "registry.example/forge-job", "RUN_ID": "ci-1"}


def rendered(example: str, data: str) -> subprocess.CompletedProcess[str]:
    """By the example's own command line, which a shell reads."""
    text = (ROOT / "k8s" / "ci" / example).read_text(encoding="utf-8")
    [command] = re.findall(
        r"helm upgrade --install (.*?)\n *- ", text.replace("\\\n", ""), re.DOTALL
    )
    folder = Path(tool("helm")).parent
    return subprocess.run(
        ["/bin/sh", "-c", f"helm template {' '.join(command.split())}"],
        env={
            **INPUTS,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "DATASET_URI": data,
            "OUTPUT_URI": "s3://bucket/runs",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("example", EXAMPLES)
def test_several_data_sets_are_several(example: str) -> None:
    data = "s3://bucket/a/,s3://bucket/b.jsonl"
    done = rendered(example, data)
    assert done.returncode == 0, done.stderr
    job = named(list(yaml.load_all(done.stdout, AsGoReadsIt)), "Job", "ci-1")
    [container] = pod_of(job)["containers"]
    assert env_of(container)["FORGE_DATASET_URI"] == data


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_input_sets_no_other_value(example: str) -> None:
    done = rendered(example, "s3://bucket/a/,image.repository=registry.example/another")
    assert done.returncode != 0
    assert "image.repository=registry.example/another is neither" in done.stderr
