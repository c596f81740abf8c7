"""The settings: each from its variable, all problems at once, no secret in any error."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from job.config import Settings, load_settings
from job.errors import SettingsError
from tests.settings import DEFAULTS, GIVEN, REQUIRED, problems


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


# -- every setting --------------------------------------------------------------------------------


@pytest.fixture
def trackers(tmp_path: Path, env: pytest.MonkeyPatch) -> None:
    """Installed, as far as anybody can see without importing them."""
    for name in ("wandb", "mlflow"):
        if name not in sys.modules:
            (tmp_path / f"{name}.py").touch()
    env.syspath_prepend(tmp_path)


def test_no_setting_is_without_a_test() -> None:
    assert set(GIVEN) == set(DEFAULTS) == set(Settings.model_fields)


def test_the_defaults_are_the_contract_s() -> None:
    assert vars(load_settings()) == DEFAULTS


@pytest.mark.usefixtures("trackers")
@pytest.mark.parametrize("name", GIVEN)
def test_each_setting_is_read_from_its_variable(name: str, env: pytest.MonkeyPatch) -> None:
    text, value = GIVEN[name]
    env.setenv(f"FORGE_{name.upper()}", text)
    found = getattr(load_settings(), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "name", [name for name in DEFAULTS if f"FORGE_{name.upper()}" not in REQUIRED]
)
def test_an_empty_value_counts_as_unset(name: str, env: pytest.MonkeyPatch) -> None:
    env.setenv(f"FORGE_{name.upper()}", "")
    assert getattr(load_settings(), name) == DEFAULTS[name]


def test_keywords_go_before_the_environment() -> None:
    assert load_settings(run_id="r-9", profile="fast_dev").run_id == "r-9"


def test_every_setting_says_what_it_means() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(load_settings(), "seed", 1)  # noqa: B010


# -- all problems at once -------------------------------------------------------------------------


def test_all_that_is_missing_is_said_at_once(env: pytest.MonkeyPatch) -> None:
    env.delenv("FORGE_RUN_ID")
    env.setenv("FORGE_DATASET_URI", "")
    env.delenv("FORGE_OUTPUT_URI")
    found = problems()
    assert set(found) == set(REQUIRED)
    assert all("is required and not set" in text for text in found.values())


def test_unknown_unparsable_and_missing_come_together(env: pytest.MonkeyPatch) -> None:
    env.delenv("FORGE_RUN_ID")
    env.setenv("FORGE_MAX_STPES", "5")
    env.setenv("FORGE_LORA_R", "many")
    env.setenv("FORGE_PROFILE", "fast")
    found = problems()
    assert set(found) == {"FORGE_RUN_ID", "FORGE_MAX_STPES", "FORGE_LORA_R", "FORGE_PROFILE"}
    assert "did you mean FORGE_MAX_STEPS?" in found["FORGE_MAX_STPES"]
    assert "found 'many'" in found["FORGE_LORA_R"]
    assert "'fast_dev', 'balanced' or 'max_quality'" in found["FORGE_PROFILE"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("FORGE_RUNID", "FORGE_RUN_ID"),
        ("FORGE_DATASET", "FORGE_DATASET_URI"),
        ("FORGE_METRIC_PORT", "FORGE_METRICS_PORT"),
        ("FORGE_LEARNINGRATE", "FORGE_LEARNING_RATE"),
    ],
)
def test_the_nearest_name_is_offered(wrong: str, right: str, env: pytest.MonkeyPatch) -> None:
    env.setenv(wrong, "9")
    assert problems()[wrong] == f"{wrong}: is not a setting (did you mean {right}?)"


def test_a_name_like_no_other_points_at_the_table(env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_XYZZY", "1")
    assert "see the settings table in README.md" in problems()["FORGE_XYZZY"]


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(SettingsError, match="FORGE_MAX_STPES: is not a setting"):
        load_settings(max_stpes=5)


@pytest.mark.parametrize("name", ["forge_lora_r", "Forge_Lora_R", "FORGE_lora_r"])
def test_a_name_that_is_not_in_capitals_is_none(name: str, env: pytest.MonkeyPatch) -> None:
    """It would outrank the right one."""
    env.setenv("FORGE_LORA_R", "8")
    env.setenv(name, "32")
    assert problems() == {name: f"{name}: is not in capitals (write FORGE_LORA_R)"}
    env.setenv("forge_sede", "1")
    assert "did you mean FORGE_SEED?" in problems()["forge_sede"]


def test_other_prefixes_are_none_of_ours(env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGED_SEED", "1")
    env.setenv("MY_FORGE_SEED", "1")
    assert load_settings().seed is None


# -- Kubernetes' own variables --------------------------------------------------------------------

SERVICE_LINKS = {
    "FORGE_X_SERVICE_HOST": "10.0.0.7",
    "FORGE_X_SERVICE_PORT": "80",
    "FORGE_X_SERVICE_PORT_HTTP": "80",
    "FORGE_X_PORT": "tcp://10.0.0.7:80",
    "FORGE_X_PORT_80_TCP": "tcp://10.0.0.7:80",
    "FORGE_X_PORT_80_TCP_PROTO": "tcp",
    "FORGE_X_PORT_80_TCP_PORT": "80",
    "FORGE_X_PORT_80_TCP_ADDR": "10.0.0.7",
    "FORGE_X_PORT_53_UDP": "udp://10.0.0.7:53",
    "FORGE_SERVICE_HOST": "10.0.0.7",
    "FORGE_PORT": "tcp://10.0.0.7:80",
    "FORGE_DNS_PORT": "udp://10.0.0.7:53",
}


def test_service_links_are_ignored(env: pytest.MonkeyPatch) -> None:
    for name, value in SERVICE_LINKS.items():
        env.setenv(name, value)
    assert load_settings().metrics_port == 9464


@pytest.mark.parametrize("address", ["tcp://10.0.0.7:9464", "udp://10.0.0.7:9464"])
def test_a_service_called_forge_metrics_is_explained(address: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_METRICS_PORT", address)
    text = problems()["FORGE_METRICS_PORT"]
    assert "set enableServiceLinks: false" in text
    assert address in text


# -- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "ftp://user:hunter2!@gw:9091",
        "user:hunter2!@gw:9091",
        "http://user:hunter2!@[gw",
        "http://user:hunter2!@",
        "//user:hunter2!@gw",
        "http:/user:hunter2!@gw",
        "http://user:hunter2!@gw℀:9091",
        "http://user:hunter2!/x@gw:9091",
        "http://user:hunter2!#x@gw:9091",
        "http://user:12/hunter2!@gw:9091",
        "gw?token=hunter2!",
    ],
)
def test_the_pushgateway_s_password_is_in_no_error(url: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_PUSHGATEWAY_URL", url)
    text = problems()["FORGE_PUSHGATEWAY_URL"]
    assert "hunter2" not in text
    assert "must be an http:// or https:// URL" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FORGE_DATASET_URI", "https://user:hunter2!@host/a.jsonl"),
        ("FORGE_DATASET_URI", "https://host/a.jsonl?X-Amz-Signature=hunter2!"),
        ("FORGE_OUTPUT_URI", "https://user:hunter2!@host/out"),
        ("FORGE_MODEL", "https://user:hunter2!@host/model"),
        ("FORGE_DATASET_URI", "s3://KEY:hunter2!@bucket/a.jsonl"),
        ("FORGE_DATASET_URI", "s3://bucket/a.jsonl,s3://KEY:hunter2!/x@bucket/a.jsonl"),
        ("FORGE_DATASET_URI", "https://KEY:hunter2!/x@host/a.jsonl"),
        ("FORGE_OUTPUT_URI", "s3://KEY:hunter2!@bucket/out"),
        ("FORGE_OUTPUT_URI", "s3://KEY:hunter2!/x@bucket/out"),
        ("FORGE_OUTPUT_URI", "gs://KEY:hunter2!/x@bucket/out"),
        ("FORGE_MODEL", "s3://KEY:hunter2!/x@bucket/model"),
        ("FORGE_EXPORT_BASE_MODEL", "s3://KEY:hunter2!@bucket/model"),
        ("FORGE_TRUST_REMOTE_CODE", "s3://KEY:hunter2!/x@bucket/model"),
    ],
)
def test_credentials_in_other_uris_are_in_no_error(
    name: str, value: str, env: pytest.MonkeyPatch
) -> None:
    env.setenv(name, value)
    assert "hunter2" not in problems()[name]


def test_what_is_public_holds_no_credentials(env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_PUSHGATEWAY_URL", "http://user:hunter2@gw:9091")
    public = load_settings().public()
    assert "hunter2" not in str(public)
    assert set(public) == set(DEFAULTS) - {"pushgateway_url"}
    assert (public["run_id"], public["dataset_uri"]) == ("run-1", ["s3://data/train.jsonl"])


# -- all in one variable ---------------------------------------------------------------------------


@pytest.mark.usefixtures("trackers")
@pytest.mark.parametrize(
    "name", [name for name in GIVEN if name not in ("run_id", "termination_log")]
)
def test_each_setting_is_read_from_the_object_too(name: str, env: pytest.MonkeyPatch) -> None:
    text, value = GIVEN[name]
    env.setenv(f"FORGE_{name.upper()}", "outranked")
    env.setenv("FORGE_SETTINGS", json.dumps({name: text}))
    assert getattr(load_settings(), name) == value


def test_an_object_of_settings_has_numbers_truths_and_lists(env: pytest.MonkeyPatch) -> None:
    given = {"lora_r": 8, "learning_rate": 1e-5, "hub_private": False, "export": ["merged_16bit"]}
    env.setenv("FORGE_SETTINGS", json.dumps({**given, "model": ""}))
    found = load_settings(lora_r=4)
    assert (found.lora_r, found.learning_rate, found.model) == (4, 1e-5, None)
    assert (found.hub_private, found.export) == (False, ("merged_16bit",))


@pytest.mark.parametrize(
    ("text", "where", "told"),
    [
        ("lora_r=8", "FORGE_SETTINGS", "is not JSON"),
        ("[]", "FORGE_SETTINGS", "is no JSON object"),
        ('{"lora_rank": 8}', "FORGE_SETTINGS", "'lora_rank' is not a setting"),
        ('{"learning_rat": 8}', "FORGE_SETTINGS", "did you mean learning_rate?"),
        ('{"run_id": "x"}', "FORGE_SETTINGS", "set FORGE_RUN_ID"),
        ('{"termination_log": "x"}', "FORGE_SETTINGS", "set FORGE_TERMINATION_LOG"),
        (
            '{"lora_r": [8]}',
            "FORGE_SETTINGS",
            "lora_r must be a string, a number, true, fal",
        ),
        ('{"lora_r": null}', "FORGE_SETTINGS", "found 'null' (write {"),
        ('{"lora_r": 0}', "FORGE_LORA_R", "greater than 0"),
    ],
)
def test_an_object_that_is_wrong(text: str, where: str, told: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_SETTINGS", text)
    env.setenv("FORGE_SEED", "x")  # reported together
    found = problems()
    assert told in found[where]
    assert "FORGE_SEED" in found
