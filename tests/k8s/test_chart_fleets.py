"""Many runs: entries of `runs` as Jobs, and the Argo templates of sweeps and fleets.

No Argo runs here. Its templates are checked against its models, every name that they refer to is
looked for, and the steps' commands are run as a workflow would: with parameters filled in, and
each step's outputs as the next one's inputs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from job.__main__ import main
from job.config import Settings, load_settings
from job.storage import open_storage
from tests.k8s.chart import CHART, VALUES, Manifest, env_of, example, only, pod_of, run
from tests.k8s.custom import check
from tests.k8s.workflows import filled, of_many, tasks_of
from tests.status.test_fleet_status import a_record, exact, store

# -- Jobs --------------------------------------------------------------------------------------


def _jobs(*sets: str) -> dict[str, Manifest]:
    """By the name of their entry; hooks left out."""
    jobs = [m for m in example("fleet", *sets) if m["kind"] == "Job"]
    trained = [job for job in jobs if "annotations" in job["metadata"]]
    trained = [j for j in trained if "helm.sh/hook" not in j["metadata"]["annotations"]]
    return {job["metadata"]["name"].split("-")[1]: job for job in trained}


def _env(job: Manifest) -> dict[str, str]:
    return env_of(pod_of(job)["containers"][0])


def test_each_entry_is_a_job_with_its_own_values_on_the_releases() -> None:
    jobs = _jobs()
    assert list(jobs) == ["lagos", "lima", "oslo"] or list(jobs) == ["oslo", "lagos", "lima"]
    oslo, lagos = _env(jobs["oslo"]), _env(jobs["lagos"])
    assert oslo["FORGE_DATASET_URI"] == "s3://bucket/data/oslo/"
    assert lagos["FORGE_DATASET_URI"] == "s3://bucket/data/lagos/,s3://bucket/data/shared.jsonl"
    assert (oslo["FORGE_PROFILE"], lagos["FORGE_PROFILE"]) == ("balanced", "max_quality")
    assert (oslo["FORGE_LORA_R"], lagos["FORGE_LORA_R"]) == ("16", "64")
    assert (oslo["FORGE_EVAL_GENERATE_EVERY"], lagos["FORGE_EVAL_GENERATE_EVERY"]) == ("2", "0")
    assert oslo["FORGE_PROMOTE"] == lagos["FORGE_PROMOTE"] == "never", "the release's"
    memory = [pod_of(j)["containers"][0]["resources"]["limits"]["memory"] for j in jobs.values()]
    assert sorted(memory) == ["24Gi", "24Gi", "48Gi"]


def test_each_is_found_by_its_run_and_by_its_release() -> None:
    for name, job in _jobs().items():
        labels = job["spec"]["template"]["metadata"]["labels"]
        assert job["metadata"]["name"].startswith(f"weather-{name}-")
        assert labels["forge-job/run-id"] == job["metadata"]["name"] == _env(job)["FORGE_RUN_ID"]
        assert labels["app.kubernetes.io/instance"] == "weather", "what monitors select by"


def test_kueue_is_told_of_each() -> None:
    told = {name: job["metadata"]["labels"] for name, job in _jobs().items()}
    assert {labels["kueue.x-k8s.io/queue-name"] for labels in told.values()} == {"team-weather"}
    classes = {name: labels["kueue.x-k8s.io/priority-class"] for name, labels in told.items()}
    assert classes == {"oslo": "experiment", "lagos": "experiment", "lima": "release"}


def test_another_entry_leaves_the_others_alone() -> None:
    before = {name: job["metadata"]["name"] for name, job in _jobs().items()}
    oslo = {"name": "oslo", "datasetUri": "s3://bucket/data/oslo/"}
    more = {"name": "quito", "datasetUri": "s3://bucket/data/quito/"}
    after = {n: j["metadata"]["name"] for n, j in _jobs(f"runs={json.dumps([more, oslo])}").items()}
    assert after["oslo"] == before["oslo"]
    changed = _jobs(f"runs={json.dumps([{**oslo, 'settings': {'seed': 2}}])}")
    assert changed["oslo"]["metadata"]["name"] != before["oslo"], "another run"


def test_each_is_validated_before_the_release_and_by_its_test() -> None:
    manifests = example("fleet")
    hooks = [m for m in manifests if "helm.sh/hook" in m["metadata"].get("annotations", {})]
    names = sorted(re.sub("-[0-9a-f]{8}-", "-", m["metadata"]["name"]) for m in hooks)
    entries = ("lagos", "lima", "oslo")
    assert names == sorted(f"weather-{e}-{kind}" for e in entries for kind in ("test", "validate"))
    found = {_hook_env(m)["FORGE_DATASET_URI"] for m in hooks}
    assert found == {_env(job)["FORGE_DATASET_URI"] for job in _jobs().values()}


def _hook_env(manifest: Manifest) -> dict[str, str]:
    return env_of(pod_of(manifest)["containers"][0])


def _notes(*options: str) -> str:
    values = f"--values={VALUES / 'fleet.yaml'}"
    shown = run(
        "helm", "install", "weather", str(CHART), "-n=ml", values, "--dry-run=client", *options
    )
    return shown.stdout.partition("NOTES:")[2]


def test_the_notes_list_the_runs_and_their_table() -> None:
    notes = _notes()
    assert "3 runs, a Job each:" in notes
    for job in _jobs().values():
        assert f"  {job['metadata']['name']}  {_env(job)['FORGE_DATASET_URI']}" in notes
    [ids] = re.findall(r"forge-job status s3://bucket/runs --all --run-ids (\S+)\n", notes)
    assert set(ids.split(",")) == {job["metadata"]["name"] for job in _jobs().values()}
    assert "delete job <run id>" in notes


def test_the_notes_have_a_table_for_each_output() -> None:
    runs = [
        {"name": name, "datasetUri": "s3://bucket/data/", "outputUri": f"s3://bucket/{folder}"}
        for name, folder in (("oslo", "north/"), ("turku", "north"), ("lima", "south"))
    ]
    notes = _notes("--set-json", f"runs={json.dumps(runs)}", "--set=outputUri=")
    tables = dict(re.findall(r"forge-job status (\S+) --all --run-ids (\S+)", notes))
    names = {o: [i.split("-")[1] for i in ids.split(",")] for o, ids in tables.items()}
    assert names == {"s3://bucket/north": ["oslo", "turku"], "s3://bucket/south": ["lima"]}


# -- Argo --------------------------------------------------------------------------------------


@pytest.fixture(params=["sweep", "fleet"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("values", ["argo", "argo-cluster-wide"])
def test_argo_knows_every_field(form: str, values: str) -> None:
    own, _ = of_many(form, values)
    check(own)


@pytest.mark.parametrize("values", ["argo", "argo-cluster-wide"])
def test_every_name_that_a_template_refers_to_is_there(form: str, values: str) -> None:
    own, templates = of_many(form, values)
    known = {p["name"] for p in own["spec"]["arguments"]["parameters"]}
    assert own["spec"]["entrypoint"] in templates
    assert _inputs(templates[form]) == known, "workflow's arguments reach the entrypoint by name"
    for template in own["spec"]["templates"]:
        for scope, name in re.findall(
            r"\{\{(?:=?)(inputs\.parameters|item)[.\[]'?([\w-]+)", json.dumps(template)
        ):
            assert scope == "item" or name in _inputs(template)
        tasks = {task["name"]: task for task in template.get("dag", {}).get("tasks", ())}
        for task in tasks.values():
            called = templates[_called(task)]
            assert {p["name"] for p in task["arguments"]["parameters"]} == _inputs(called)
            assert set(re.findall(r"\b(?<!\.)\w+", task.get("depends", ""))) <= tasks.keys()
            if (reference := task.get("templateRef")) and reference["name"] == "weather":
                wide = own["kind"] == "ClusterWorkflowTemplate"
                assert reference.get("clusterScope", False) is wide
        for task, name in re.findall(
            r"\{\{tasks\.(\w+)\.outputs\.parameters\.([\w-]+)", json.dumps(template)
        ):
            outputs = templates[_called(tasks[task])]["outputs"]["parameters"]
            assert name in {p["name"] for p in outputs}


def _inputs(template: Manifest) -> set[str]:
    return {p["name"] for p in template["inputs"]["parameters"]}


def _called(task: Manifest) -> str:
    reference = task.get("templateRef")
    return f"{reference['name']}/{reference['template']}" if reference else str(task["template"])


def test_volumes_that_the_steps_mount_are_the_workflows(form: str) -> None:
    """Those of the template that is referred to stay behind with it."""
    own, templates = of_many(form)
    volumes = {volume["name"] for volume in own["spec"]["volumes"]}
    for template in templates.values():
        for mount in template.get("container", {}).get("volumeMounts", ()):
            assert mount["name"] in volumes


def test_so_many_run_at_once_and_one_that_fails_leaves_the_others_alone(form: str) -> None:
    _, templates = of_many(form, "argo", "argo.parallelism=7")
    many = templates[form]
    assert many["parallelism"] == 7
    assert many["dag"]["failFast"] is False
    tasks = {task["name"]: task for task in many["dag"]["tasks"]}
    assert "runs.Failed" in tasks["summary"]["depends"], "the table is for what went wrong, too"
    assert many["dag"]["target"].split() == ["runs", "summary"]
    for step in ("plan", "summary", "weather/validate"):
        assert "nvidia.com/gpu" not in json.dumps(templates[step])


def test_kueue_is_told_of_the_pods_that_train() -> None:
    _, templates = of_many("sweep", "argo", 'kueue={"queueName":"q","priorityClass":"experiment"}')
    labels = templates["weather/train"]["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "q"
    assert labels["kueue.x-k8s.io/priority-class"] == "experiment"
    plain = of_many("sweep")[1]["weather/train"]["metadata"]["labels"]
    assert not [label for label in plain if label.startswith("kueue")]


# -- what a workflow would do ------------------------------------------------------------------


def _arguments(task: Manifest, parameters: dict[str, str], **others: str) -> dict[str, str]:
    given = task["arguments"]["parameters"]
    return {p["name"]: filled(p["value"], parameters, **others) for p in given}


class _Workflow:
    """The steps of a submission, as far as they are commands of this project."""

    def __init__(
        self, form: str, scratch: Path, monkeypatch: pytest.MonkeyPatch, *more: str
    ) -> None:
        sets = (f'scratch.mountPath="{scratch}"', *more)
        own, self.templates = of_many(form, "argo", *sets)
        self.form, self._patch = form, monkeypatch
        self._defaults = {p["name"]: p.get("value") for p in own["spec"]["arguments"]["parameters"]}

    def submitted(self, **given: str) -> list[Settings]:
        """The settings that each run's pod would find, and what the summary takes."""
        self._tasks = {t["name"]: t for t in self.templates[self.form]["dag"]["tasks"]}
        self.parameters = self._defaults | {k.replace("_", "-"): v for k, v in given.items()}
        assert None not in self.parameters.values(), "required ones are given"
        planned = self._run("plan", _arguments(self._tasks["plan"], self.parameters))
        self.planned = planned
        return [self._settings(item) for item in json.loads(planned["runs"])]

    def summary(self) -> str:
        others = {f"tasks.plan.outputs.parameters.{n}": v for n, v in self.planned.items()}
        arguments = _arguments(self._tasks["summary"], self.parameters, **others)
        return self._run("summary", arguments)["summary"]

    def _settings(self, item: dict[str, str]) -> Settings:
        others = {f"item.{name}": value for name, value in item.items()}
        inputs = _arguments(self._tasks["runs"], self.parameters, **others)
        arguments = _arguments(tasks_of(self.templates["one"])["train"], inputs)
        with self._patch.context() as patched:
            _environment(self.templates["weather/train"], arguments, patched)
            settings = load_settings()
        assert arguments["output-uri"] == settings.output_uri, "where a verdict is looked for"
        return settings

    def _run(self, name: str, arguments: dict[str, str]) -> dict[str, str]:
        """A step's outputs. Raises `SystemExit` where the command fails."""
        template = self.templates[name]
        with self._patch.context() as patched:
            _environment(template, arguments, patched)
            command = [filled(word, arguments) for word in template["container"]["args"]]
            if code := main(command):
                raise SystemExit(code)
        outputs = template["outputs"]["parameters"]
        return {p["name"]: Path(p["valueFrom"]["path"]).read_text() for p in outputs}


def _environment(
    template: Manifest, arguments: dict[str, str], patched: pytest.MonkeyPatch
) -> None:
    for name, value in env_of(template["container"]).items():
        patched.setenv(name, filled(value, arguments))


def test_a_sweeps_runs_share_everything_but_what_is_combined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = _Workflow("sweep", tmp_path, monkeypatch)
    found = workflow.submitted(
        runs='{"learning_rate": [1e-4, 2e-4], "lora_r": [8, 16]}',
        settings='{"gate_min_gain": 0.05, "seed": 7}',
        run_id="tools",
    )
    assert {(s.learning_rate, s.lora_r) for s in found} == {
        (rate, r) for rate in (1e-4, 2e-4) for r in (8, 16)
    }
    assert {(s.gate_min_gain, s.seed, s.promote) for s in found} == {(0.05, 7, "best")}
    assert {s.output_uri for s in found} == {"s3://bucket/runs"}
    assert len({s.run_id for s in found}) == 4
    assert all(s.run_id.startswith("tools-") for s in found)
    again = workflow.submitted(runs='[{"lora_r": 8, "learning_rate": 0.0001}]', run_id="tools")
    assert again[0].run_id in {s.run_id for s in found}, "resumes, and doesn't train twice"


def test_a_fleets_runs_each_have_their_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = _Workflow("fleet", tmp_path, monkeypatch)
    runs = [
        {"name": "oslo", "dataset_uri": "s3://b/oslo/"},
        {"name": "lima", "dataset_uri": ["s3://b/lima/", "s3://b/x.jsonl"], "promote": "newest",
         "output_uri": "s3://b/of-lima"},
    ]  # fmt: skip
    oslo, lima = workflow.submitted(runs=json.dumps(runs), profile="fast_dev")
    assert (oslo.run_id, lima.run_id) == ("workflow-7x2kq-oslo", "workflow-7x2kq-lima")
    assert (oslo.dataset_uri, oslo.promote) == (("s3://b/oslo/",), "never")
    assert lima.dataset_uri == ("s3://b/lima/", "s3://b/x.jsonl")
    assert (lima.output_uri, lima.promote, lima.profile) == ("s3://b/of-lima", "newest", "fast_dev")


@pytest.mark.parametrize(("form", "rule"), [("sweep", "best"), ("fleet", "never")])
def test_the_rule_of_many_runs_is_no_matter_of_the_release(
    form: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own is for single runs: adapters of a fleet, each of other data, would follow one another
    in promoted.json."""
    workflow = _Workflow(form, tmp_path, monkeypatch, 'settings.promote="newest"')
    single = tasks_of(workflow.templates["weather/run"])["train"]["template"]
    container = workflow.templates[f"weather/{single}"]["container"]
    assert env_of(container)["FORGE_PROMOTE"] == "newest"
    runs = '[{"name": "a"}, {"name": "b", "promote": "newest"}]'
    assert [s.promote for s in workflow.submitted(runs=runs)] == [rule, "newest"]
    assert workflow.submitted(runs='[{"name": "a"}]', promote="best")[0].promote == "best"


def test_a_misspelled_setting_costs_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow = _Workflow("sweep", tmp_path, monkeypatch)
    with pytest.raises(SystemExit, match="78"):
        workflow.submitted(runs='[{"learning_rte": 1e-4}]')
    assert "did you mean learning_rate?" in capsys.readouterr().err


def test_the_last_step_is_the_table_of_this_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = _Workflow("sweep", tmp_path / "scratch", monkeypatch)
    output = tmp_path / "runs"
    found = workflow.submitted(runs='{"lora_r": [8, 16]}', run_id="tools", output_uri=str(output))
    for settings, rate in zip(found, (0.4, 0.9), strict=True):
        given: dict[str, Any] = {"results": exact(rate), "settings": settings.public()}
        store(open_storage(str(output)), a_record(settings.run_id, "succeeded", **given))
    store(open_storage(str(output)), a_record("other"))
    store(open_storage(str(output)), a_record("tools-2-1b", "succeeded"))
    open_storage(str(output)).write("promoted.json", f'{{"run_id": "{found[1].run_id}"}}'.encode())

    head, first, second, *rest = workflow.summary().splitlines()

    assert "LORA_R" in head
    assert first.split()[0] == found[1].run_id
    assert first.endswith("promoted")
    assert second.split()[0] == found[0].run_id
    assert rest[-1].startswith("2 runs: 2 succeeded"), "the other run is another's"


def test_the_table_has_a_line_for_each_run_that_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its data are bad, so it never began; here all are, and the workflow still has its table."""
    workflow = _Workflow("fleet", tmp_path / "scratch", monkeypatch)
    output = str(tmp_path / "runs")
    elsewhere = {"name": "rome", "dataset_uri": "/rome/", "output_uri": str(tmp_path / "others")}
    runs = [{"name": name, "dataset_uri": f"/{name}/"} for name in ("oslo", "lima")]
    workflow.submitted(runs=json.dumps([*runs, elsewhere]), run_id="cities", output_uri=output)

    _, first, second, *rest = summary = workflow.summary().splitlines()

    assert first.startswith("cities-lima  not started")
    assert second.startswith("cities-oslo  not started")
    assert rest[-1] == "2 runs: 2 not started; 0.0 GPU hours", "rome is in another table"
    assert capsys.readouterr().out.splitlines()[-len(summary) :] == summary, "in the pod's log too"


def test_an_entry_is_one_of_the_schemas_own() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    entry = schema["properties"]["runs"]["items"]["properties"]
    for name, rule in entry.items():
        if name != "name":
            assert rule == {"$ref": f"#/properties/{name}"}
            assert name in schema["properties"]
    assert only(example("first-run"), "Job"), "no entry, no change"
