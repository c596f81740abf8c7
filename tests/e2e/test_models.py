"""Whole runs on models that are not simply a folder: a mirror, another template, its own code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from job.engines.source import mirror
from job.families import FAMILIES
from job.ledger import read_record
from job.storage import open_storage
from tests.dataset.standin_families import FAMILIES as STANDINS
from tests.dataset.standin_families import family_folder
from tests.e2e.jobs import preempted, run
from tests.tiny import build_model, tiny_tokenizer

R1 = STANDINS["deepseek-r1"]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def rows(count: int) -> str:
    """With thinking, in OpenAI's form, so that the template has to show all of it."""
    lines = []
    for number in range(count):
        call = {"name": "weather", "arguments": json.dumps({"city": f"City {number}"})}
        thought = f"<think>\nThe weather of city {number} is asked for.\n</think>\n\n"
        turns = [
            {"role": "user", "content": f"Weather in city {number}?"},
            {
                "role": "assistant",
                "content": thought,
                "tool_calls": [{"id": f"call{number:05d}", "type": "function", "function": call}],
            },
        ]
        lines.append(json.dumps({"messages": turns, "tools": [TOOL]}))
    return "\n".join([*lines, ""])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_deepseek_r1_from_a_mirror(job_env: dict[str, str], bucket: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer_dir = family_folder(tmp_path / "tokenizer", R1)
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dir))
    model = build_model(tmp_path / "r1", tokenizer)
    uri = f"{bucket}/models/r1"
    mirror(str(model), uri)
    open_storage(bucket).write("data/thoughts.jsonl", rows(30).encode())
    env = job_env | {
        "FORGE_MODEL": uri,
        "FORGE_MODEL_FAMILY": "deepseek-r1",
        "FORGE_DATASET_URI": f"{bucket}/data/thoughts.jsonl",
        "FORGE_MAX_STEPS": "3",
        "FORGE_EVAL_MAX_ROWS": "2",
    }
    refused = run(env | {"FORGE_MODEL_FAMILY": "llama-3"}, tmp_path / "refused.log")
    assert refused.code == 65, "the model's own template hides tools and thinking"

    ended = run(env | {"FORGE_RUN_ID": "family"}, tmp_path / "log")
    assert ended.code == 0, ended.log
    assert "the family's is used" in ended.log
    storage = open_storage(f"{bucket}/out/family")
    template, _ = storage.read("adapter/chat_template.jinja")
    assert template.decode() == FAMILIES["deepseek-r1"].chat_template()
    found = read_record(storage)
    assert found is not None
    source = read_manifest(uri)
    assert found[0].model["name"] == uri
    assert found[0].fingerprint["model_revision"] == found[0].model["revision"]
    assert source["source"] == str(model)
    card = storage.read("adapter/README.md")[0].decode()
    assert found[0].model["revision"] in card


def read_manifest(uri: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(open_storage(uri).read("manifest.json")[0])
    return manifest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_another_model_behind_the_same_name_is_not_resumed(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    uri = f"{bucket}/models/tiny"
    mirror(job_env["FORGE_MODEL"], uri)
    env = job_env | {"FORGE_MODEL": uri}
    preempted(env, tmp_path / "first.log", after_step=3)
    other = tmp_path / "other"
    shutil.copytree(job_env["FORGE_MODEL"], other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    mirror(str(other), uri)
    refused = run(env, tmp_path / "refused.log")
    assert refused.code == 78, refused.log
    assert "model_revision: was " in refused.log
    accepted = run(
        env | {"FORGE_ALLOW_FINGERPRINT_CHANGE": "model_revision"}, tmp_path / "accepted.log"
    )
    assert accepted.code == 0, accepted.log


@pytest.mark.slow
def test_a_models_own_code_does_not_run_unless_it_is_named(
    job_env: dict[str, str], tmp_path: Path
) -> None:
    """The code here ends the process with a code of its own: nobody could miss it."""
    model = tmp_path / "odd"
    shutil.copytree(job_env["FORGE_MODEL"], model)
    config = json.loads((model / "config.json").read_text()) | {
        "model_type": "odd",
        "auto_map": {
            "AutoConfig": "configuration_odd.Odd",
            "AutoModelForCausalLM": "modeling_odd.M",
        },
    }
    (model / "config.json").write_text(json.dumps(config))
    (model / "configuration_odd.py").write_text("import os\nos._exit(42)\n")
    (model / "modeling_odd.py").write_text("import os\nos._exit(42)\n")
    env = job_env | {"FORGE_MODEL": str(model), "FORGE_MAX_STEPS": "1"}
    refused = run(env, tmp_path / "refused.log")
    assert refused.code == 78, refused.log
    trusted = run(env | {"FORGE_TRUST_REMOTE_CODE": str(model)}, tmp_path / "trusted.log")
    assert trusted.code == 42, trusted.log


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_adapter_of_a_base_model_stops_at_the_end_of_a_turn(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    """Its tokenizer has a chat template, and another end of a text: a server would run on."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    model = build_model(tmp_path / "base", tokenizer)
    env = job_env | {"FORGE_MODEL": str(model), "FORGE_MAX_STEPS": "3", "FORGE_EVAL_MAX_ROWS": "2"}
    ended = run(env, tmp_path / "log")
    assert ended.code == 0, ended.log
    published, _ = open_storage(f"{bucket}/out/run").read("adapter/tokenizer_config.json")
    assert json.loads(published)["eos_token"] == "<|im_end|>"
    assert "ends a turn with <|im_end|>" in ended.log
