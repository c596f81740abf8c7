"""The merged model as a GGUF file, by llama.cpp's converter and read by its library."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from job.config import Settings
from job.errors import JobError, Preempted, SettingsError
from job.exports import check, gguf
from job.lifecycle import StopToken
from job.model import look_at
from tests.exports import converter
from tests.tiny import build_model, llama_2_tokenizer


def settings(model: Path, **values: Any) -> Settings:
    given = {"run_id": "r", "dataset_uri": ("/d",), "output_uri": "/o", "model": str(model)}
    return Settings(**(given | {"model_family": "smollm2", "export": ("gguf",)} | values))


def refused(given: Settings, work_dir: Path) -> list[str]:
    with pytest.raises(SettingsError) as error:
        check(given, look_at(given, work_dir), work_dir)
    assert error.value.exit_code == 78
    return [f"{problem.where}: {problem.found}" for problem in error.value.problems]


@pytest.fixture(scope="module")
def script() -> Path:
    found = converter.found()
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(converter.MISSING)
        pytest.skip(converter.MISSING)
    pytest.importorskip("sentencepiece", reason="the converter needs it")
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("llama-2"), llama_2_tokenizer())


def test_it_is_the_model_that_was_merged(script: Path, model: Path, tmp_path: Path) -> None:
    import numpy as np
    from gguf import GGUFReader
    from safetensors.numpy import load_file

    given = settings(model, gguf_converter=script, gguf_type="f16")
    assert check(given, look_at(given, tmp_path), tmp_path) == "gguf"
    gguf.build(given, model, tmp_path / "gguf", StopToken())
    subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=tmp_path / "gguf", check=True)
    read = GGUFReader(tmp_path / "gguf" / "r-f16.gguf")
    weights = load_file(model / "model.safetensors")
    written = {tensor.name: tensor.data for tensor in read.tensors}
    assert len(written) == len(weights)
    expected = weights["model.embed_tokens.weight"].astype(np.float16)
    assert np.array_equal(written["token_embd.weight"], expected)
    template = read.fields["tokenizer.chat_template"].contents()
    assert template == (model / "chat_template.jinja").read_text()


def test_a_tokenizer_that_the_converter_does_not_know_is_refused_at_once(
    script: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (problem,) = refused(settings(tiny_model, gguf_converter=script), tmp_path)
    assert problem.startswith("FORGE_EXPORT: converting to GGUF failed: NotImplementedError: BPE")


def test_no_converter_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused(settings(tiny_model), tmp_path) == [
        "FORGE_GGUF_CONVERTER: there is no convert_hf_to_gguf.py on PATH"
    ]
    elsewhere = settings(tiny_model, gguf_converter=tmp_path / "gone.py")
    assert refused(elsewhere, tmp_path) == [
        f"FORGE_GGUF_CONVERTER: there is no file {tmp_path / 'gone.py'}"
    ]


def test_one_on_the_path_is_found(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = written(tmp_path / "convert_hf_to_gguf.py", "raise SystemExit('what is a Llama?')")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gguf.converter(settings(tiny_model)) == own
    (problem,) = refused(settings(tiny_model), tmp_path)
    assert problem == "FORGE_EXPORT: converting to GGUF failed: what is a Llama?"


def test_a_converter_that_leaves_no_model_is_not_believed(tiny_model: Path, tmp_path: Path) -> None:
    own = written(tmp_path / "own.py", "")
    given = settings(tiny_model, gguf_converter=own)
    with pytest.raises(JobError, match=r"has left no model in r-bf16\.gguf"):
        gguf.build(given, tiny_model, tmp_path / "gguf", StopToken())


def test_it_ends_when_asked_to(tiny_model: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    text = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(200)"
    own = written(tmp_path / "own.py", text)
    stop = StopToken()

    def ask() -> None:
        while not started.exists():
            pass
        stop.request(Preempted("node goes away"))

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(Preempted):
        gguf.build(settings(tiny_model, gguf_converter=own), tiny_model, tmp_path / "gguf", stop)


@pytest.mark.parametrize("sign", ["file.write(b'tensor'); file.flush()", "print(file=sys.stderr)"])
def test_its_output_is_a_sign_of_life(tiny_model: Path, tmp_path: Path, sign: str) -> None:
    """The converter goes on only once the sign before was seen."""
    seen = tmp_path / "seen"
    text = f"""
import pathlib, sys, time
seen, until = pathlib.Path({str(seen)!r}), time.monotonic() + 60
with open(sys.argv[sys.argv.index("--outfile") + 1], "wb") as file:
    for number in range(1, 4):
        {sign}
        sys.stderr.flush()
        while not seen.exists() or seen.stat().st_size < number:
            assert time.monotonic() < until, f"sign {{number}} was not seen"
            time.sleep(0.02)
"""
    own = written(tmp_path / "own.py", text)

    def alive() -> None:
        with seen.open("ab") as file:
            file.write(b".")

    given = settings(tiny_model, gguf_converter=own)
    with pytest.raises(JobError, match="has left no model"):  # after the third sign
        gguf.build(given, tiny_model, tmp_path / "gguf", StopToken(), alive)


def test_one_that_hangs_gives_no_sign_of_life(tiny_model: Path, tmp_path: Path) -> None:
    own = written(tmp_path / "own.py", "import time; time.sleep(200)")
    asked, signs = iter(range(10)), []

    class Patient(StopToken):
        def check(self) -> None:
            if next(asked, None) is None:
                self.request(Preempted("ten looks"))
            super().check()

    given = settings(tiny_model, gguf_converter=own)
    with pytest.raises(Preempted):
        gguf.build(given, tiny_model, tmp_path / "gguf", Patient(), lambda: signs.append(1))
    assert signs == []


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path
