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


def test_the_command_line_goes_before_the_file() -> None:
    job = load(["compute=gpu-cluster", "instance_count=2", "environment.lock=cpu", ROWS])
    assert (job.compute, job.instance_count, job.environment.lock) == ("gpu-cluster", 2, "cpu")
    assert job.environment.build == "docker"
    assert job.inputs == {"rows": Input("azureml://datastores/store/paths/rows.jsonl", "data/inputs/rows.jsonl")}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "azure.compute: none is named"),
        (["compte=a"], r"unknown key azure.compte; did you mean azure.compute\?"),
        (["compute=a", "environment.imag=b"], r"did you mean azure.environment.image\?"),
        (["compute=a", f"{ROWS[:-2]}, kind: uri_file}}}}"], "unknown key azure.inputs.rows.kind"),
        (["compute=a", "instance_count=two"], "azure.instance_count: Value 'two'"),
        (["compute=a", "instance_count=0"], "azure.instance_count: 0 nodes"),
        (["compute=a", "azure_arc=true"], "azure.instance_type: Kubernetes gives its smallest nodes"),
        (["compute=a", "instance_type=gpu"], "azure.instance_type: only Kubernetes has them"),
        (["compute=a", "hf_token=true"], "azure.keyvault_name: hf_token is true"),
        (["compute=a", "environment.conda_file=lock"], "azure.environment.image: conda_file needs an image"),
        (["compute=a", "environment.lock=cuda11"], "cuda11 is none of cpu, cuda12, cuda13"),
        (["compute=a", ROWS.replace("rows:", "my-rows:")], "my-rows is no name for an input"),
        (["compute=a", f"{ROWS[:-2]}, mode: mount}}}}"], "mount is none of ro_mount, download"),
        (["compute=a", f"{ROWS[:-2]}, type: file}}}}"], "azure.inputs.rows.type: file is none of uri_file"),
        (["compute=a", ROWS.replace("data/inputs", "/data")], "is not in the project"),
        (["compute=a", ROWS.replace("data/inputs", "../data")], "is not in the project"),
        (["compute=a", ROWS.replace("data/inputs/rows", "data/raw/tone")], "the project has a file data/raw/tone.jsonl"),
        (["compute"], "Error parsing override 'compute'"),
        (["compute=a,b"], "azure.compute: a,b is a sweep, and a job has one value"),
        (["compute=a", "instance_count=range(1,3)"], r"azure.instance_count: range\(1,3\) is a sweep"),
        (["compute=a", SAME_PLACE], "inputs.other.place: data/inputs/./rows.jsonl is the place of inputs.rows too"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        load(overrides)
    assert str(refused.value).startswith("conf/azure/default.yaml: ")
    assert "\n" not in str(refused.value)
