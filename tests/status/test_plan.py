"""`plan`: one text in, runs out, each of which a pod's environment takes as it is."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from job.__main__ import main
from job.config import load_settings
from job.errors import SettingsError
from job.plan import columns, ids, plan
from tests.settings import REQUIRED


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_named_runs_and_what_they_share(env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_SETTINGS", '{"lora_r": 16, "seed": 1}')
    runs = plan(
        '[{"name": "oslo", "dataset_uri": ["s3://b/a/", "s3://b/c/"]}, {"name": "x", "lora_r": 8}]',
        promote="best",
    )
    assert [run.run_id for run in runs] == ["run-1-oslo", "run-1-x"]
    assert columns(runs) == "dataset_uri,lora_r"
    found = []
    for item in (run.as_item() for run in runs):  # as a template fills them in
        env.setenv("FORGE_RUN_ID", item["run-id"])
        env.setenv("FORGE_SETTINGS", item["settings"])
        settings = load_settings()
        assert settings.output_uri == item["output-uri"]
        found.append((settings.dataset_uri, settings.lora_r, settings.seed, settings.promote))
    assert found == [
        (("s3://b/a/", "s3://b/c/"), 16, 1, "best"),
        (("s3://data/train.jsonl",), 8, 1, "best"),
    ]


def test_all_combinations_under_names_that_stay() -> None:
    text = '{"learning_rate": [1e-4, 2e-4], "lora_r": [8, 16, 32], "promote": ["never"]}'
    runs = plan(text, promote="best")
    assert {(run.settings["learning_rate"], run.settings["lora_r"]) for run in runs} == {
        (rate, r) for rate in ("0.0001", "0.0002") for r in ("8", "16", "32")
    }
    assert {run.settings["promote"] for run in runs} == {"never"}, "their own word counts"
    again = plan('[{"lora_r": 16, "promote": "never", "learning_rate": 0.0001}]')
    assert again[0].run_id in {run.run_id for run in runs}, "whatever the order, or what else is"


def test_one_value_in_two_spellings_is_one_run() -> None:
    [plain] = plan('[{"learning_rate": 0.0001, "lora_r": 8}]')
    assert plain.run_id == "run-1-bc1c3c60", "as ever: it is to be resumed"
    for text in (
        '{"learning_rate": " 1e-4", "lora_r": "8"}',
        '{"learning_rate": 1e-4, "lora_r": 8.0}',
    ):
        assert plan(f"[{text}]")[0].run_id == plain.run_id
    texts = (
        '{"hub_private": "TRUE", "num_train_epochs": 3}',
        '{"hub_private": true, "num_train_epochs": "3.0"}',
    )
    assert len({plan(f"[{text}]")[0].run_id for text in texts}) == 1
    with pytest.raises(SettingsError, match="is there 2 times"):
        plan('{"lora_r": [8, "8.0", 16]}')


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", r"the runs: are not JSON"),
        ("[1]", r"are neither objects nor lists of values"),
        ("[]", r"are 0; there may be 1 to 1000"),
        (json.dumps([{"seed": n} for n in range(1001)]), r"are 1,001; there may be 1 to 1000"),
        ('{"lora_r": 8}', r"lora_r: of an object each value is a list"),
        ('[{"lora_rr": 8}]', r"run 1: 'lora_rr' is not a setting \(did you mean lora_r\?\)"),
        ('[{"run_id": "x"}]', r"run 1: holds run_id"),
        ('[{"lora_r": {}}]', r"run 1: lora_r must be a"),
        ('[{"lora_r": null}]', r"run 1: lora_r must be a"),
        ('[{"name": 7}]', r"run 1: its name is no text"),
        ('[{"name": "Oslo_1"}]', r"run 1, FORGE_RUN_ID: must be a DNS-1123 label"),
        ('[{"lora_r": 8}, {"lora_r": true}]', r"run 2, FORGE_LORA_R: .*found 'true'"),
        ('[{"name": "a"}, {"name": "a", "seed": 2}]', r"run-1-a is there 2 times"),
        ('[{"lora_r": 8}, {"lora_r": 8}]', r"is there 2 times"),
        ('{"lora_r": [8], "lora_r": [16]}', r"the runs: lora_r is there 2 times"),
    ],
)
def test_what_cannot_be_planned_is_refused(text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        plan(text)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        plan('[{"lora_rr": 8}, {"lora_r": 0, "promote": "worst"}, {"seed": 1}]')
    assert [problem.where for problem in refused.value.problems] == [
        "run 1",
        "run 2, FORGE_LORA_R",
        "run 2, FORGE_PROMOTE",
    ]


def test_the_rule_that_was_asked_for_goes_before_the_environments(env: pytest.MonkeyPatch) -> None:
    """A fleet's `never` would be lost to what the chart says of single runs."""
    env.setenv("FORGE_PROMOTE", "newest")
    runs = plan('[{"seed": 1}, {"seed": 2, "promote": "best"}]', promote="never")
    found = []
    for item in (run.as_item() for run in runs):  # as a template fills them in
        env.setenv("FORGE_SETTINGS", item["settings"])
        found.append(load_settings().promote)
    assert found == ["never", "best"]
    env.setenv("FORGE_SETTINGS", '{"promote": "best"}')
    assert plan('[{"seed": 1}]', promote="never")[0].settings["promote"] == "best"
    env.delenv("FORGE_SETTINGS")
    assert "promote" not in plan('[{"seed": 1}]')[0].settings


def test_what_all_ids_begin_with_is_missed_once(env: pytest.MonkeyPatch) -> None:
    env.delenv("FORGE_RUN_ID")
    with pytest.raises(SettingsError) as refused:
        plan('[{"seed": 1}, {"name": "x"}, {"lora_r": 0}]')
    found = [problem.where for problem in refused.value.problems]
    assert found == ["FORGE_RUN_ID", "run 3, FORGE_LORA_R"]


def test_the_command_writes_what_a_workflow_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", '{"seed": [1, 2]}', "--json", "--into", str(tmp_path / "plan")]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "plan" / "runs.json").read_text()) == printed
    assert [json.loads(item["settings"]) for item in printed] == [{"seed": "1"}, {"seed": "2"}]
    assert (tmp_path / "plan" / "columns").read_text() == "seed"
    ids = [f"{item['run-id']}\n" for item in printed]
    assert (tmp_path / "plan" / "ids").read_text() == "".join(ids)


def test_the_command_refuses_with_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", '[{"sed": 1}]', "--into", str(tmp_path / "plan")]) == 78
    assert "did you mean seed?" in capsys.readouterr().err
    assert not (tmp_path / "plan").exists()
    (tmp_path / "file").touch()
    assert main(["plan", '[{"seed": 1}]', "--into", str(tmp_path / "file" / "x")]) == 78


@pytest.mark.parametrize(
    ("rule", "settings", "told"),
    [
        ("best", {}, True),
        ("best", {"gate_min_gain": 0}, False),
        ("never", {}, False),
    ],
)
def test_what_no_gate_lets_through_is_told_before_it_is_trained(
    rule: str, settings: dict[str, int], told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", json.dumps([settings]), "--promote", rule]) == 0
    assert ("no gate is set" in capsys.readouterr().err) is told


def test_a_password_is_not_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", '[{"pushgateway_url": "http://me:hunter2@gateway:9091"}]']) == 0
    printed = capsys.readouterr().out
    assert "gateway:9091" in printed
    assert "hunter2" not in printed


def test_a_mistyped_grid_is_counted_and_not_made() -> None:
    """Its 10^60 combinations would never end."""
    text = json.dumps({name: list(range(10**6)) for name in "abcdefghij"})
    with pytest.raises(SettingsError, match=r"are 1,000,000(,000)+; there may be 1 to 1000"):
        plan(text)


@pytest.mark.parametrize("given", ["-", "@{file}"])
def test_more_than_an_argument_holds(
    given: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = json.dumps([{"name": f"n{n}", "dataset_uri": f"/d/{n:0200}/"} for n in range(900)])
    assert len(data) > 128 * 1024
    file = tmp_path / "runs.json"
    file.write_text(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data.encode())))
    assert main(["plan", given.format(file=file), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 900


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "@/none.json"]) == 78
    assert "the runs: /none.json can't be read: No such file" in capsys.readouterr().err


def test_ids_are_those_of_the_common_output(env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_OUTPUT_URI", "s3://b/runs/")
    text = json.dumps(
        [{"name": "a"}, {"name": "b", "output_uri": "s3://b/x"}, {"name": "c", "seed": 1}]
    )
    assert ids(plan(text)) == "run-1-a\nrun-1-c\n"
    env.delenv("FORGE_OUTPUT_URI")
    each = '[{"name": "a", "output_uri": "s3://b/x"}, {"name": "b", "output_uri": "s3://b/y"}]'
    assert ids(plan(each)) == "run-1-a\nrun-1-b\n"


@pytest.mark.parametrize(
    ("runs", "common"),
    [
        ([{"seed": 1}, {"seed": 2}], {"output_uri": "s3://b/y"}),
        ([{"seed": 1, "output_uri": "s3://b/y"}, {"seed": 2, "output_uri": "s3://b/z"}], {}),
    ],
)
def test_a_workflow_whose_summary_would_be_empty_is_refused(
    runs: list[dict[str, Any]],
    common: dict[str, str],
    env: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    env.setenv("FORGE_OUTPUT_URI", "s3://b/x")
    env.setenv("FORGE_SETTINGS", json.dumps(common))
    assert main(["plan", json.dumps(runs), "--into", str(tmp_path / "plan")]) == 78
    assert "FORGE_OUTPUT_URI: s3://b/x: the summary is of the runs" in capsys.readouterr().err
    assert not (tmp_path / "plan").exists()
    assert main(["plan", json.dumps(runs), "--json"]) == 0, "there is no summary"
    env.delenv("FORGE_OUTPUT_URI")
    assert main(["plan", json.dumps(runs), "--into", str(tmp_path / "plan")]) == 0
    assert len((tmp_path / "plan" / "ids").read_text().split()) == 2


def test_what_may_hold_a_password_is_no_column() -> None:
    """No record has it, so the table would be refused."""
    runs = plan('[{"pushgateway_url": "http://me:hunter2@gateway:9091", "seed": 1}]')
    assert columns(runs) == "seed"
