"""From S3 to an adapter in S3, with a real model, a real server and real signals."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from prometheus_client.parser import text_string_to_metric_families
from safetensors.torch import load, load_file

from job import Progress, load_settings, run_job
from job.errors import Fenced
from job.ledger import Ledger, RunRecord, read_record
from job.storage import Storage, open_storage
from tests.e2e.jobs import preempted, run, started

TIMEOUT = 600


def record_of(storage: Storage) -> RunRecord:
    found = read_record(storage)
    assert found is not None
    return found[0]


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_a_preempted_run_equals_an_uninterrupted_one(
    job_env: dict[str, str], bucket: str, tiny_model: Path, tmp_path: Path
) -> None:
    termination_log = Path(job_env["FORGE_TERMINATION_LOG"])
    termination_log.touch()
    whole = run({**job_env, "FORGE_RUN_ID": "whole"}, tmp_path / "whole.log")
    assert whole.code == 0, whole.log
    assert termination_log.read_text().startswith("exit 0: succeeded: step ")

    with started(job_env, tmp_path / "first.log") as job:
        job.wait_until(lambda progress: progress.get("step", 0) >= 3)
        families = {f.name: f for f in text_string_to_metric_families(job.get("/metrics"))}
        assert job.get("/healthz").startswith("ok: training")
        job.signal(signal.SIGTERM)
        job.signal(signal.SIGTERM)  # a second one changes nothing
        first = job.ended()
    assert first.code == 75, first.log
    assert families["forge_global_step"].samples[0].value >= 3
    assert families["forge_train_loss"].samples[0].value > 0
    assert families["forge_tokens"].samples[0].value > 0
    assert termination_log.read_text().startswith("exit 75: preempted: ")
    storage = open_storage(f"{bucket}/out/run")
    record = record_of(storage)
    assert record.status == "preempted"
    assert record.adapter is None
    reached = record.checkpoints[-1].step
    assert reached >= 3
    assert record.attempts[0].exit_code == 75
    assert record.attempts[0].to_step == reached

    assert {info.key for info in storage.list("dataset/")} == {
        "dataset/mask-preview.html",  # the user sees what is trained while it is
        "dataset/report.json",
    }

    second = run(job_env, tmp_path / "second.log")
    assert second.code == 0, second.log
    assert "the tokenized data of an earlier attempt are here" in second.log
    record = record_of(storage)
    assert record.status == "succeeded"
    assert [a.exit_code for a in record.attempts] == [75, 0]
    assert record.attempts[1].from_step == reached
    assert record.attempts[1].lost_steps == 0

    ours, theirs = (_adapter(bucket, name, tmp_path) for name in ("run", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert _losses(bucket, "run") == _losses(bucket, "whole")
    _loads_in_plain_peft(ours.parent, tiny_model)
    _speaks_for_itself(ours.parent)

    third = run(job_env, tmp_path / "third.log")
    assert third.code == 0
    assert "the run is finished, its adapter is sound" in third.log
    assert record_of(storage).attempt == 2  # it claimed nothing
    more = {"FORGE_MAX_STEPS": "40", "FORGE_ALLOW_FINGERPRINT_CHANGE": "max_steps"}
    longer = run({**job_env, **more}, tmp_path / "longer.log")
    assert longer.code == 78, "to end well would say that it has trained 40 steps"
    assert "max_steps: was" in longer.log
    assert "the run is finished: use the old values, or another FORGE_RUN_ID" in longer.log
    assert record_of(storage).attempt == 2


def _adapter(bucket: str, name: str, tmp_path: Path) -> Path:
    storage = open_storage(f"{bucket}/out/{name}")
    folder = tmp_path / f"adapter-{name}"
    folder.mkdir()
    for info in storage.list("adapter/"):
        storage.download(info.key, folder / Path(info.key).name)
    return folder / "adapter_model.safetensors"


def _losses(bucket: str, name: str) -> list[tuple[int, float | None, float | None]]:
    data, _ = open_storage(f"{bucket}/out/{name}").read("report/metrics.jsonl")
    entries = [json.loads(line) for line in data.splitlines()]
    return [(e["step"], e.get("loss"), e.get("eval_loss")) for e in entries]


_PLAIN = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

assert not any(name == "job" or name.startswith("job.") for name in sys.modules)
base, adapter = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": "weather in Oslo"}], add_generation_prompt=True, tokenize=False
)
tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
with torch.no_grad():
    adapted = model(**tokens).logits[0, -1].tolist()
    with model.disable_adapter():
        plain = model(**tokens).logits[0, -1].tolist()
generated = model.generate(**tokens, max_new_tokens=4, do_sample=False)
print(json.dumps([prompt, adapted, plain, generated.shape[1] - tokens["input_ids"].shape[1]]))
"""


def _loads_in_plain_peft(adapter: Path, base: Path) -> None:
    """In a process without our code, by PEFT alone: the same numbers as LoRA's own formula,
    W + alpha / r * B A (arXiv:2106.09685), applied to the base's weights here."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    command = [sys.executable, "-I", "-c", _PLAIN, str(base), str(adapter)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert ended.returncode == 0, ended.stderr
    prompt, adapted, plain, generated = json.loads(ended.stdout.splitlines()[-1])
    assert generated > 0
    weights = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    model = AutoModelForCausalLM.from_pretrained(str(base)).eval()
    parameters = dict(model.named_parameters())
    pairs = [name for name in weights if name.endswith(".lora_A.weight")]
    assert len(pairs) == 2 * 7, "two layers of seven linear ones"
    with torch.no_grad():
        for name in pairs:
            target = name.removeprefix("base_model.model.").replace(".lora_A", "")
            b = weights[name.replace("lora_A", "lora_B")].float()
            scale = config["lora_alpha"] / config["r"]
            parameters[target] += scale * b @ weights[name].float()
        tokens = AutoTokenizer.from_pretrained(str(base))(
            prompt, return_tensors="pt", add_special_tokens=False
        )
        expected = model(**tokens).logits[0, -1]
    torch.testing.assert_close(torch.tensor(adapted), expected, rtol=1e-3, atol=1e-3)
    assert (torch.tensor(plain) - expected).abs().max() > 0.1, "the adapter changes nothing"


def _speaks_for_itself(adapter: Path) -> None:
    """Digests, provenance and card of the folder as it lay in the bucket."""
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=adapter, check=True)
    stated = json.loads((adapter / "provenance.intoto.json").read_bytes())
    subjects = {one["name"]: one["digest"]["sha256"] for one in stated["subject"]}
    spoken_of = {path.name for path in adapter.iterdir()} - {
        "SHA256SUMS",
        "manifest.json",
        "provenance.intoto.json",
    }
    assert set(subjects) == spoken_of
    for name, sha256 in subjects.items():
        assert hashlib.sha256((adapter / name).read_bytes()).hexdigest() == sha256
    attempts = stated["predicate"]["buildDefinition"]["internalParameters"]["attempts"]
    assert [attempt.get("exitCode") for attempt in attempts] == [75, None]
    card = (adapter / "README.md").read_text(encoding="utf-8")
    assert "\nlibrary_name: peft\n" in f"\n{ModelCard(card).data}\n"
    assert (adapter / "chat_template.jinja").is_file(), "the file that the card serves with"


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_what_lies_in_s3_after_a_run(job_env: dict[str, str], bucket: str, tmp_path: Path) -> None:
    generating = {"FORGE_EVAL_STEPS": "4", "FORGE_EVAL_GENERATE_EVERY": "2"}
    generating["FORGE_EVAL_GENERATE_ROWS"] = "1"
    ended = run({**job_env, "FORGE_MAX_STEPS": "9", **generating}, tmp_path / "log")
    assert ended.code == 0, ended.log
    storage = open_storage(f"{bucket}/out/run")
    record = record_of(storage)
    keys = {info.key for info in storage.list()}
    assert {
        "run.json",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
        "adapter/tokenizer.json",
        "adapter/chat_template.jinja",
        "adapter/README.md",
        "adapter/SHA256SUMS",
        "adapter/provenance.intoto.json",
        "adapter/manifest.json",
        "report/report.html",
        "report/report.json",
        "report/metrics.jsonl",
        "dataset/report.json",
        "dataset/mask-preview.html",
    } <= keys
    assert not any(key.startswith(".probe/") for key in keys)
    assert record.model["name"] == job_env["FORGE_MODEL"]
    assert record.model["quantized"] == "on loading"
    assert record.fingerprint["model_revision"] == record.model["revision"]
    listed = {checkpoint.key for checkpoint in record.checkpoints}
    assert {key.rsplit("/", 1)[0] + "/" for key in keys if key.startswith("checkpoints/")} == listed
    assert record.effective_batch_size == 8
    assert record.progress.step == 9
    entries = map(json.loads, storage.read("report/metrics.jsonl")[0].splitlines())
    assert [entry["step"] for entry in entries if "eval_exact" in entry] == [8]
    assert record.results["evaluation"]["rows"] == 4
    config = json.loads(storage.read("adapter/adapter_config.json")[0])
    assert config["base_model_name_or_path"] == job_env["FORGE_MODEL"]
    events = ended.events()
    assert {event["run_id"] for event in events} == {"run"}
    assert events[-1]["step"] == 9
    assert "demo-secret" not in ended.log


@pytest.mark.usefixtures("forked_jobs")
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_a_failed_gate_uploads_a_candidate_and_stays_failed(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    env = {**job_env, "FORGE_MAX_STEPS": "2", "FORGE_GATE_MIN_EXACT": "1.0"}
    env["FORGE_EXPORT"] = "merged_16bit"
    ended = run(env, tmp_path / "log")
    assert ended.code == 80, ended.log
    storage = open_storage(f"{bucket}/out/run")
    assert record_of(storage).status == "gate_failed"
    keys = {info.key for info in storage.list()}
    assert "candidate/adapter_model.safetensors" in keys
    assert not any(key.startswith(("adapter/", "merged/")) for key in keys)
    assert "promoted.json" not in {info.key for info in open_storage(f"{bucket}/out").list()}
    again = run(env, tmp_path / "again.log")
    assert again.code == 80
    lowered = run({**env, "FORGE_GATE_MIN_EXACT": "0.0"}, tmp_path / "lowered.log")
    assert lowered.code == 78, "the adapter is a candidate, whatever the gate says now"
    assert "go back to FORGE_GATE_MIN_EXACT=1.0" in lowered.log
    assert record_of(storage).attempt == 1


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_the_same_run_as_a_call(
    job_env: dict[str, str], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in job_env.items():
        monkeypatch.setenv(name, value)
    seen: list[Progress] = []
    settings = load_settings(max_steps=3, metrics_port=0, gate_min_gain=-1, promote="best")
    result = run_job(settings, on_progress=seen.append)
    assert [progress.step for progress in seen] == [1, 2, 3]
    assert {progress.total_steps for progress in seen} == {3}
    assert seen[-1].progress == 1.0
    assert seen[-1].loss is not None
    assert seen[-1].epoch > 0
    assert result.adapter_uri.endswith("/out/run/adapter/")
    assert result.attempts == 1

    outputs = open_storage(f"{bucket}/out")
    promoted = json.loads(outputs.read("promoted.json")[0])
    assert promoted["adapter_uri"] == result.adapter_uri
    assert len(promoted["held_out_sha256"]) == 64
    assert promoted["exact"]["of"] > 0
    rolled_back = b'{"run_id": "the one before", "ended_at": "2020-01-01T00:00:00+00:00"}'
    outputs.write("promoted.json", rolled_back)
    assert run_job(settings).attempts == 1
    assert outputs.read("promoted.json")[0] == rolled_back, "the operator has the last word"

    storage = open_storage(f"{bucket}/out/run")
    killed = record_of(storage)  # between its last swap and the promotion
    assert killed.promotion_settled
    killed.promotion_settled = False
    storage.write("run.json", killed.model_dump_json().encode())
    assert run_job(settings).attempts == 1
    late = json.loads(outputs.read("promoted.json")[0])
    assert late["adapter_uri"] == result.adapter_uri
    assert record_of(storage).promotion_settled

    storage.write("adapter/adapter_model.safetensors", b"somebody's mistake")
    assert run_job(settings).attempts == 2
    anew = json.loads(outputs.read("promoted.json")[0])
    assert anew["ended_at"] > late["ended_at"], "published anew, promoted anew"
    assert record_of(storage).promotion_settled


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_an_attempt_that_was_replaced_just_before_its_end_promotes_nothing(
    job_env: dict[str, str], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in job_env.items():
        monkeypatch.setenv(name, value)

    def replaced(*_: object, **__: object) -> None:
        storage = open_storage(f"{bucket}/out/run")
        Ledger.claim(storage, "run", version="newer", conditional_writes=True)

    # The last thing before the last swap.
    monkeypatch.setattr("job.stages.publishing.send_report", replaced)
    with pytest.raises(Fenced):
        run_job(load_settings(max_steps=1, metrics_port=0, gate_min_gain=-1))
    assert "promoted.json" not in {info.key for info in open_storage(f"{bucket}/out").list()}


@pytest.mark.usefixtures("forked_jobs")
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_a_damaged_newest_checkpoint_is_passed_over(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    preempted(job_env, tmp_path / "first.log", after_step=11)
    storage = open_storage(f"{bucket}/out/run")
    newest, older = record_of(storage).checkpoints[-1], record_of(storage).checkpoints[-2]
    data, _ = storage.read(newest.key + "optimizer.pt")
    storage.write(newest.key + "optimizer.pt", data[:-1] + bytes([data[-1] ^ 1]))

    second = run(job_env, tmp_path / "second.log")

    assert second.code == 0, second.log
    assert "optimizer.pt has another SHA-256 than was committed" in second.log
    record = record_of(storage)
    assert record.attempts[1].from_step == older.step
    assert newest.key not in {checkpoint.key for checkpoint in record.checkpoints}


@pytest.mark.usefixtures("forked_jobs")
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_a_resume_with_other_settings_or_data_is_refused(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    preempted(job_env, tmp_path / "first.log", after_step=2)
    changed = run({**job_env, "FORGE_LORA_R": "4", "FORGE_SEED": "1"}, tmp_path / "changed.log")
    assert changed.code == 78
    assert "lora.r: was 8, is now 4" in changed.log
    assert "seed: was 3407, is now 1" in changed.log
    storage = open_storage(bucket)
    data, _ = storage.read("data/rows.jsonl")
    storage.write("data/rows.jsonl", data + data.splitlines(keepends=True)[0])
    other_data = run(job_env, tmp_path / "data.log")
    assert other_data.code == 65
    assert "FORGE_ALLOW_FINGERPRINT_CHANGE=data" in other_data.log
    assert record_of(open_storage(f"{bucket}/out/run")).checkpoints  # nothing was lost


@pytest.mark.usefixtures("forked_jobs")
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_early_stopping_publishes_the_best_weights(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    env = {
        **job_env,
        "FORGE_LEARNING_RATE": "0.3",  # can't improve the validation loss for long
        "FORGE_MAX_STEPS": "60",
        "FORGE_EVAL_STEPS": "2",
        "FORGE_EARLY_STOPPING_PATIENCE": "2",
        "FORGE_SAVE_TOTAL_LIMIT": "1",
    }
    ended = run(env, tmp_path / "log")
    assert ended.code == 0, ended.log
    storage = open_storage(f"{bucket}/out/run")
    record = record_of(storage)
    assert record.adapter is not None
    best = min(
        (c for c in record.checkpoints if c.eval_loss is not None), key=lambda c: c.eval_loss or 0.0
    )
    last = record.checkpoints[-1]
    assert best.step < last.step < 60  # it stopped early, and the best outlived the limit of one
    assert record.adapter.step == best.step
    published, _ = storage.read("adapter/adapter_model.safetensors")
    checkpointed, _ = storage.read(best.key + "adapter_model.safetensors")
    assert load(published).keys() == load(checkpointed).keys()
    assert all(torch.equal(load(published)[n], t) for n, t in load(checkpointed).items())
