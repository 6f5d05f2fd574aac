"""Writes conf/base_model/NAME.yaml for a model of the Hugging Face Hub at its current commit, and says whether it is supported.

    python -m tools.cli.base_model Qwen/Qwen3-0.6B

If a file of conf/base_model already names the repository, only its commit and licence change.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from omegaconf import OmegaConf

from tunepress.core.errors import InputError, one_line
from tunepress.core.files import atomic_output
from tunepress.core.params import read_yaml
from tunepress.models import architectures

FOLDER = Path("conf/base_model")
UNKNOWN = "other"  # licence
GB = 1_000_000_000


@dataclass(frozen=True)
class Repository:
    """A model repository at one commit.

    Attributes:
        repo_id: its name on the Hub.
        revision: the commit.
        license: as the model card says; UNKNOWN if it says nothing.
        config: its config.json.
        weight_bytes: of its safetensors files.
        chat_template: whether its tokenizer has one.
    """

    repo_id: str
    revision: str
    license: str
    config: dict[str, Any]
    weight_bytes: int
    chat_template: bool

    @classmethod
    def read(cls, repo_id: str, revision: str) -> "Repository":
        """Asks the Hub.

        Raises:
            InputError: the Hub cannot be reached, or has no such repository, commit or file.
        """
        try:
            info = HfApi().model_info(repo_id, revision=revision, files_metadata=True)
            sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
            commit = str(info.sha)

            def read_json(name: str) -> dict[str, Any]:
                content: dict[str, Any] = json.loads(Path(hf_hub_download(repo_id, name, revision=commit)).read_text("utf-8"))
                return content

            tokenizer = read_json("tokenizer_config.json") if "tokenizer_config.json" in sizes else {}
            config = read_json("config.json") if "config.json" in sizes else {}
        except GatedRepoError as error:
            raise InputError(f"{repo_id}: needs its licence accepted on the Hub, and HF_TOKEN set to your token") from error
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
            raise InputError(f"{repo_id}: the Hub has no such model or revision {revision}; check the spelling") from error
        except Exception as error:  # errors of httpx, huggingface_hub, the operating system and JSON
            raise InputError(f"{repo_id}: could not be read from the Hub ({one_line(error)})") from error
        return cls(
            repo_id,
            commit,
            str((info.card_data or {}).get("license") or UNKNOWN),
            config,
            sum(size for name, size in sizes.items() if re.fullmatch(r"(?!consolidated)[^/]+\.safetensors", name)),
            "chat_template.jinja" in sizes or "chat_template" in tokenizer,
        )

    def check(self) -> None:
        """Raises InputError if a stage cannot handle the model."""
        if not self.weight_bytes:
            raise InputError(f"{self.repo_id}: has no safetensors files; choose a repository with them")
        if reason := architectures.unsupported_reason(self.config):
            raise InputError(f"{self.repo_id}: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make base-model", description="Add a model of the Hub to conf/base_model.")
    parser.add_argument("repo_id", help="its name, such as Qwen/Qwen3-0.6B")
    parser.add_argument("--revision", default="main", help="a branch, tag or commit (main); the commit is written")
    parser.add_argument("--name", help="of the file; default: from the repository")
    arguments = parser.parse_args()
    try:
        repository = Repository.read(arguments.repo_id, arguments.revision)
        repository.check()
        path = write(repository, arguments.name)
    except InputError as error:
        sys.exit(f"base-model: {error}")
    chat = "with" if repository.chat_template else "without"
    print(
        f"{repository.repo_id}: {repository.config['architectures'][0]}, {repository.weight_bytes / GB:.1f} GB of weights, "
        f"{chat} a chat template, licence {repository.license}, commit {repository.revision}"
    )
    print(f"{path}: written; use it with `dvc exp run -S base_model={path.stem}`")


def write(repository: Repository, name: str | None) -> Path:
    """Writes or updates the file of a repository and returns its path.

    Raises:
        InputError: the name is not valid, or belongs to another model.
    """
    known = next((path for path in sorted(FOLDER.glob("*.yaml")) if repo_of(path) == repository.repo_id), None)
    if known and name in (None, known.stem):
        return save(known, updated(known.read_text(encoding="utf-8"), repository))
    name = name or re.sub(r"\W+", "_", repository.repo_id.rpartition("/")[2]).strip("_").lower()
    path = FOLDER / f"{name}.yaml"
    if not re.fullmatch(r"\w+", name, re.ASCII):
        raise InputError(f"--name {name}: must consist of letters, digits and underscores")
    if path.exists():
        raise InputError(f"{path}: is another model; set NAME=... to choose another name")
    return save(path, new(repository))


def repo_of(path: Path) -> str | None:
    """The repository that a file names."""
    repo_id: str | None = read_yaml(path).get("repo_id")
    return repo_id


def new(repository: Repository) -> str:
    fields = {
        "name": repository.repo_id.rpartition("/")[2],
        "license": repository.license,
        "source": "huggingface",
        "repo_id": repository.repo_id,
        "revision": repository.revision,
    }
    return f"# {fields['name']} from the Hugging Face Hub at one commit.\n{OmegaConf.to_yaml(fields)}"


def updated(text: str, repository: Repository) -> str:
    """A file with another commit and licence."""
    for key in ("revision",) if repository.license == UNKNOWN else ("license", "revision"):
        line = OmegaConf.to_yaml({key: getattr(repository, key)}).strip()
        text = re.sub(rf"^{key}:.*$", line.replace("\\", r"\\"), text, flags=re.MULTILINE)
    return text


def save(path: Path, text: str) -> Path:
    with atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
