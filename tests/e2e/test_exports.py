"""Exports of a whole run: none is lost, none is made twice, and no run ends well without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from job.ledger import read_record
from job.storage import open_storage
from tests.e2e import jobs
from tests.e2e.jobs import run
from tests.engines.hub import COMMIT, serving
from tests.exports import converter
from tests.tiny import build_model, llama_2_tokenizer
from tests.zygote import Zygote

TIMEOUT = 600
CONVERTER = converter.found()
"""Where there is none the export to GGUF is left out."""


def _hub_env(url: str, folder: Path) -> dict[str, str]:
    """What the hub's client reads when it is imported."""
    return {
        "HF_ENDPOINT": url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "home"),
    }


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_only_what_is_missing_is_made_again(
    job_env: dict[str, str], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(f"{bucket}/out/run")
    made = (
        {"merged_16bit": "merged/", "gguf": "gguf/"} if CONVERTER else {"merged_16bit": "merged/"}
    )
    with serving() as hub, Zygote(_hub_env(hub.url, tmp_path)) as server:
        monkeypatch.setattr(jobs, "fork_server", server)
        hub.user = {"name": "me", "auth": {"accessToken": {"role": "write"}}}
        env = {
            **job_env,
            "FORGE_MAX_STEPS": "3",
            "FORGE_EXPORT": ",".join(made),
            "FORGE_MODEL": str(build_model(tmp_path / "model", llama_2_tokenizer())),
            **({"FORGE_GGUF_CONVERTER": str(CONVERTER)} if CONVERTER else {}),
            "FORGE_PUSH_TO_HUB": "me/adapter",
            "HF_TOKEN": "hf_secret_of_the_test",
            **_hub_env(hub.url, tmp_path),
        }
        hub.refused = "/commit/main"
        first = run(env, tmp_path / "first.log")
        assert first.code == 77, first.log
        found = read_record(storage)
        assert found is not None
        assert (found[0].status, set(found[0].exports)) == ("failed", set(made))
        hub.refused = None
        second = run(env, tmp_path / "second.log")
        assert second.code == 0, second.log
        third = run(env, tmp_path / "third.log")
        assert third.code == 0, third.log
    for name, place in made.items():
        assert f"{name} is made: {place}" in first.log
        assert f"{name} was made by an earlier attempt: {place}" in second.log
    found = read_record(storage)
    assert found is not None
    record = found[0]
    assert record.exports["hub"].digest == COMMIT
    assert record.progress.loss is not None, "an attempt that had nothing to train has the last"
    exports = {**made, "hub": f"{hub.url}/me/adapter"}
    assert record.results["exports"] == exports
    report = json.loads(storage.read("report/report.json")[0])
    assert report["results"]["exports"] == exports
    (commit,) = hub.commits
    assert commit.files["manifest.json"] == storage.read("adapter/manifest.json")[0]
    keys = {info.key for info in storage.list("merged/")}
    assert {"merged/config.json", "merged/model.safetensors", "merged/tokenizer.json"} <= keys
    card = ModelCard(storage.read("merged/README.md")[0].decode())
    said = yaml.safe_load(str(card.data))
    assert (said["library_name"], said["pipeline_tag"]) == ("transformers", "text-generation")
    assert "../adapter/README.md" in card.text
    if CONVERTER:
        names = {info.key for info in storage.list("gguf/")}
        assert names == {
            f"gguf/{name}" for name in ("run-bf16.gguf", "SHA256SUMS", "manifest.json")
        }
        assert storage.read("gguf/run-bf16.gguf")[0].startswith(b"GGUF")
    assert "hf_secret_of_the_test" not in first.log + second.log
