"""tools/azure/submit/validation: Azure ML's own schema, and what it lets pass. Nothing here has a network."""

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from azure.ai.ml import load_job

from tests.clone import Clone
from tests.command import run_module
from tools.azure.submit.validation import validate
from tunepress.core.errors import InputError

JOB: dict[str, Any] = {
    "type": "command",
    "code": "code",
    "command": "python ${{inputs.rows}} ${{ outputs.results }}",
    "inputs": {"rows": {"type": "uri_file", "path": "azureml://datastores/store/paths/rows.jsonl"}},
    "outputs": {"results": {"type": "uri_folder"}},
    "environment": {"build": {"path": "context", "dockerfile_path": "Dockerfile"}},
    "compute": "azureml:gpu-cluster",
    "resources": {"instance_count": 2},
    "distribution": {"type": "pytorch", "process_count_per_instance": 1},
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the job names, and no way out."""
    for name in ("code/project.tar", "context/Dockerfile", "rows.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("content")
    (tmp_path / "empty").mkdir()
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def written(folder: Path, change: dict[str, Any]) -> Path:
    """The job with some keys, dotted, set to other values; None takes a key out."""
    job = deepcopy(JOB)
    for key, value in change.items():
        *sections, last = key.split(".")
        place = job
        for section in sections:
            place = place[section]
        place[last] = value
        if value is None:
            del place[last]
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def test_a_job_that_is_right_passes(tmp_path: Path) -> None:
    assert validate(written(tmp_path, {})).compute == "gpu-cluster"
    validate(written(tmp_path, {"inputs.rows.path": "rows.jsonl", "environment": "azureml:curated:1"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": "${{inputs.rwos}}"}, r"command: \$\{\{inputs.rwos\}\} is not among the inputs"),
        ({"command": "${{outputs.result}}"}, r"command: \$\{\{outputs.result\}\} is not among the outputs"),
        ({"environment.build.dockerfile_path": "docker/File"}, "environment.build: no context/docker/File"),
        ({"compute": None}, "compute: is missing"),
        ({"compute": "azureml:"}, "compute: is missing"),
        ({"code": "cod"}, "code: cod is not a folder with files"),
        ({"code": "empty"}, "code: empty is not a folder with files"),
        ({"inputs.rows.path": "row.jsonl"}, r"inputs.rows.path: row.jsonl is neither a file"),
        ({"environment": {"image": "a", "conda_file": "conda.yaml"}}, "environment.conda_file: conda.yaml not found"),
    ],
)
def test_what_the_schema_lets_pass_is_found(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^job.yaml: {message}"):
        validate(written(tmp_path, change))


@pytest.mark.parametrize(
    "change",
    [{"command": "${{inputs.rwos}}"}, {"environment.build.dockerfile_path": "docker/File"}, {"compute": None}, {"code": "empty"}],
)
def test_the_schema_does_let_it_pass(change: dict[str, Any], tmp_path: Path) -> None:
    """Otherwise our own checks would not be needed."""
    load_job(written(tmp_path, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resources.instance_count": "two"}, "resources.instance_count: Not a valid integer."),
        ({"timeout": 3}, "timeout: Unknown field."),
        ({"distribution.type": "pytroch"}, "distribution.type: Value 'pytroch' passed is not in set"),
    ],
)
def test_what_the_schema_refuses_is_told_in_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        validate(written(tmp_path, change))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["HF_TOKEN", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_CLIENT_SECRET", "AWS_SECRET_ACCESS_KEY"])
def test_a_secret_of_the_environment_is_refused_in_a_job(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "secret-of-the-tests")
    validate(written(tmp_path, {}))
    with pytest.raises(InputError, match=f"the value of {name}") as refused:
        validate(written(tmp_path, {"command": "python --token secret-of-the-tests"}))
    assert "secret-of-the-tests" not in str(refused.value)


# the command


@pytest.fixture(scope="module")
def clone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A project with a DVC remote, in which the azure packages find no network."""
    clone = Clone.of(root, tmp_path_factory.mktemp("dry") / "clone")
    clone.run("dvc", "remote", "add", "--default", "azure", "azure://dvc/store")
    clone.run("dvc", "remote", "modify", "azure", "account_name", "account")
    clone.commit()
    clone.environment |= {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    return clone


def dry_run(clone: Clone, *arguments: str, code: int = 0) -> str:
    done = run_module("tools.azure.submit", "--dry-run", *arguments, folder=clone.folder, environment=clone.environment)
    assert done.returncode == code, done.stderr
    return (done.stdout + done.stderr).strip()


@pytest.mark.slow
def test_a_dry_run_writes_the_job_and_asks_nobody(clone: Clone) -> None:
    command = (sys.executable, "-m", "tools.azure.submit", "--dry-run", "compute=gpu-cluster", "--experiment", "smoke")
    output = clone.run(*command, "-S", "train.max_steps=2", "instance_count=2").strip()
    assert output.startswith("azure-submit: job smoke-")
    assert output.endswith("on 2 nodes of gpu-cluster, .azure_job/job.yaml")
    assert len(output.splitlines()) == 1
    job = yaml.safe_load((clone.folder / ".azure_job/job.yaml").read_text())
    assert "-S +experiment=smoke -S train.max_steps=2" in job["command"]
    assert clone.run("git", "status", "--porcelain") == ""
    subprocess.run(["bash", "-n", "-c", job["command"]], check=True)


def test_a_refused_job_leaves_the_earlier_one(clone: Clone) -> None:
    dry_run(clone, "compute=gpu-cluster")
    before = (clone.folder / ".azure_job/job.yaml").read_text()
    for options, message in {
        "--experiment=smok": "Could not find 'experiment/smok'",
        "-Strain.learning_rat=1": "did you mean train.learning_rate?",
        "-Sdata.files=[${{inputs.rows}}]": "${{inputs.rows}} is not among the inputs",
        "instance_count=2 -Strain.load_best_model_at_end=true": "only the first node has the best checkpoint",
    }.items():
        output = dry_run(clone, "compute=other", *options.split(), code=1)
        assert output.startswith("azure-submit: ")
        assert message in output
    assert (clone.folder / ".azure_job/job.yaml").read_text() == before


def test_a_experiment_that_is_not_in_git_is_refused(clone: Clone) -> None:
    recipe = clone.folder / "conf/experiment/mine.yaml"
    recipe.write_text("# @package _global_\nseed: 5\n")
    for option in ("--experiment=mine", "-S+experiment=mine"):
        output = dry_run(clone, "compute=gpu-cluster", option, code=1)
        assert output.startswith("azure-submit: conf/experiment/mine.yaml: is not in git, and the job runs the commit")
    recipe.unlink()


def test_a_file_that_is_not_in_git_is_named_and_one_that_has_changed_is_refused(clone: Clone) -> None:
    recipe, readme = clone.folder / "conf/experiment/mine.yaml", clone.folder / "README.md"
    recipe.touch()
    assert "not in git, so the job does not have: conf/experiment/mine.yaml" in dry_run(clone, "compute=gpu-cluster")
    recipe.unlink()
    original = readme.read_text()
    readme.write_text("changed")
    assert "azure-submit: README.md: changed since the last commit" in dry_run(clone, "compute=gpu-cluster", code=1)
    readme.write_text(original)
