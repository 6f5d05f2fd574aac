"""tools/azure/submit/settings: conf/azure/default.yaml and the command line."""

from pathlib import Path

import pytest

from tools.azure.submit.settings import Input, load
from tunepress.core.errors import InputError

ROWS = "inputs={rows: {path: 'azureml://datastores/store/paths/rows.jsonl', place: data/inputs/rows.jsonl}}"

SAME_PLACE = (
    "inputs={rows: {path: a.jsonl, place: data/inputs/rows.jsonl}, other: {path: b.jsonl, place: data/inputs/./rows.jsonl}}"
)


@pytest.fixture(autouse=True)
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)


def test_the_command_line_overrides_the_file() -> None:
    job = load(["compute=gpu-cluster", "instance_count=2", "environment.lock=cpu", ROWS])
    assert (job.compute, job.instance_count, job.environment.lock) == ("gpu-cluster", 2, "cpu")
    assert job.environment.build == "docker"
    assert job.inputs == {"rows": Input("azureml://datastores/store/paths/rows.jsonl", "data/inputs/rows.jsonl")}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "azure.compute: is missing"),
        (["compte=a"], r"unknown key azure.compte; did you mean azure.compute\?"),
        (["compute=a", "environment.imag=b"], r"did you mean azure.environment.image\?"),
        (["compute=a", f"{ROWS[:-2]}, kind: uri_file}}}}"], "unknown key azure.inputs.rows.kind"),
        (["compute=a", "instance_count=two"], "azure.instance_count: Value 'two'"),
        (["compute=a", "instance_count=0"], "azure.instance_count: must be at least 1, got 0"),
        (["compute=a", "azure_arc=true"], "azure.instance_type: is missing, and Kubernetes would use its smallest nodes"),
        (["compute=a", "instance_type=gpu"], "azure.instance_type: only applies to Kubernetes"),
        (["compute=a", "hf_token=true"], "azure.keyvault_name: is missing"),
        (["compute=a", "environment.conda_file=lock"], "azure.environment.image: is missing, and conda_file needs one"),
        (["compute=a", "environment.lock=cuda11"], "must be one of cpu, cuda12, cuda13, got cuda11"),
        (["compute=a", ROWS.replace("rows:", "my-rows:")], "my-rows must consist of letters"),
        (["compute=a", f"{ROWS[:-2]}, mode: mount}}}}"], "must be one of ro_mount, download, got mount"),
        (["compute=a", f"{ROWS[:-2]}, type: file}}}}"], "azure.inputs.rows.type: must be one of uri_file"),
        (["compute=a", ROWS.replace("data/inputs", "/data")], "is not in the project"),
        (["compute=a", ROWS.replace("data/inputs", "../data")], "is not in the project"),
        (["compute=a", ROWS.replace("data/inputs/rows", "data/raw/tone")], "the project has a file data/raw/tone.jsonl"),
        (["compute"], "Error parsing override 'compute'"),
        (["compute=a,b"], "azure.compute: a,b is a sweep, and a job has one value"),
        (["compute=a", "instance_count=range(1,3)"], r"azure.instance_count: range\(1,3\) is a sweep"),
        (["compute=a", SAME_PLACE], "inputs.other.place: data/inputs/./rows.jsonl is also the place of inputs.rows"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        load(overrides)
    assert str(refused.value).startswith("conf/azure/default.yaml: ")
    assert "\n" not in str(refused.value)
