"""The step of a workflow that calls the promotion.

No Argo runs here: the step is judged by its own expression, over what the step before it prints.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from job.__main__ import main
from job.promotion.gate import PASSED
from job.storage import open_storage
from tests.k8s.chart import Manifest, example
from tests.k8s.custom import check
from tests.k8s.workflows import HOOK, filled, of_many, tasks_of, template_of
from tests.status.test_fleet_status import a_record, store

VERDICT = r"tasks\.verdict\.outputs\.parameters\.verdict"
CLAUSE = re.compile(rf"jsonpath\({VERDICT}, '\$\.(\w+)'\)(?:\.(\w+))? == (true|'(\w+)')")


def _fires(promote: Manifest, verdict: str) -> bool:
    """What `when` comes to: the part of Argo's language that it is written in. A `?` and a `:`
    would be cut in two by releases of Argo that look for a condition in them."""
    [expression] = re.findall(r"^\{\{=(.*)\}\}$", promote["when"])
    assert "?" not in expression
    found = json.loads(verdict)
    holds = []
    for clause in expression.split(" && "):
        matched = CLAUSE.fullmatch(clause)
        assert matched, clause
        value = found[matched[1]]  # jsonpath() of a key that isn't there is an error, as here
        value = value.get(matched[2]) if matched[2] else value
        holds.append(value == (matched[4] or True))
    return all(holds)


@pytest.mark.parametrize(
    ("gate", "named", "fires"),
    [
        (PASSED, "run", True),
        (PASSED, "another", False),  # FORGE_PROMOTE=never, or a better one is named
        (PASSED, None, False),
        ("not set", None, False),
        ("not set", "run", False),  # named by hand
        (None, "run", False),  # the record of an older release
    ],
)
def test_argo_calls_the_promotion_of_a_run_that_is_promoted_and_of_no_other(
    gate: str | None, named: str | None, fires: bool, tmp_path: Path
) -> None:
    found = example("argo-cluster-wide", f'scratch.mountPath="{tmp_path}"')
    workflow = next(m for m in found if m["metadata"]["name"] == "weather")
    storage = open_storage(str(tmp_path / "runs"))
    store(storage, a_record("run", "succeeded", results={} if gate is None else {"gate": gate}))
    if named:
        storage.write("promoted.json", json.dumps({"run_id": named}).encode())
    given = {"output-uri": storage.uri, "run-id": "run"}
    step = template_of(workflow, "verdict")
    words = [filled(word, given) for word in step["container"]["args"]]

    assert main(words) == 0

    [printed] = [p["valueFrom"] for p in step["outputs"]["parameters"] if "valueFrom" in p]
    promote = tasks_of(template_of(workflow, "run"))["promote"]
    assert _fires(promote, Path(printed["path"]).read_text()) is fires


def test_argo_calls_no_promotion_of_a_run_of_which_it_is_not_known() -> None:
    """The role of the step may read no `promoted.json`."""
    found = example("argo-cluster-wide")
    workflow = next(m for m in found if m["metadata"]["name"] == "weather")
    promote = tasks_of(template_of(workflow, "run"))["promote"]
    assert not _fires(promote, json.dumps({"promoted": None, "results": {"gate": PASSED}}))


# -- the promotion of one of many --------------------------------------------------------------


@pytest.mark.parametrize("form", ["sweep", "fleet"])
def test_a_run_of_many_is_promoted_by_the_rule_of_a_single_one(form: str) -> None:
    own, templates = of_many(form, "argo", HOOK)
    check(own)
    tasks = {name: tasks_of(templates[name]) for name in ("weather/run", "one", "promotion")}
    assert tasks["one"]["promotion"]["depends"] == "train"
    hook, single = tasks["promotion"]["promote"], tasks["weather/run"]["promote"]
    assert single["depends"] == "verdict && train.Succeeded"
    assert hook["depends"] == "verdict"
    for key in ("when", "templateRef", "arguments"):
        assert hook[key] == single[key]
    verdict, exported = templates["verdict"], templates["weather/verdict"]
    assert verdict["container"] == exported["container"]
    for parameter in exported["outputs"]["parameters"]:
        parameter.pop("globalName")  # of many runs' the last one's would stay
    assert verdict["outputs"] == exported["outputs"]


def test_no_hook_comes_after_that_of_a_run_that_is_named_since() -> None:
    """The verdict says which run is named, and nobody else asks before the hook has been called."""
    locks = [
        of_many(form, "argo", HOOK)[1]["promotion"]["synchronization"]
        for form in ("sweep", "fleet")
    ]
    assert locks[0] == locks[1] == {"mutexes": [{"name": "weather-promotion"}]}


@pytest.mark.parametrize("form", ["sweep", "fleet"])
def test_without_a_hook_no_run_of_many_has_a_step_more(form: str) -> None:
    _, templates = of_many(form)
    assert list(tasks_of(templates["one"])) == ["validate", "train"]
    assert not {"promotion", "verdict"} & templates.keys()
