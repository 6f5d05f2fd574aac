"""Uploads the model to the Hugging Face Hub in one commit: the card, the folder that its snippet names, conformance.jsonl."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from tools.package.files import model_files
from tunepress.core.errors import InputError, one_line
from tunepress.core.paths import CONFORMANCE, MODEL_CARD, ONNX
from tunepress.inference.conformance import beside, recorded_path
from tunepress.inference.genai_config import GenaiConfig
from tunepress.text.prompt import Prompt

CARD = "README.md"


def upload(api: HfApi, repo_id: str, model: Path, public: bool) -> str:
    """Uploads a model and returns the address of the commit.

    Files of an earlier upload that the model no longer has are deleted in the same commit; other files of the repo are kept.

    Args:
        api: the Hub.
        repo_id: owner and name, created if it does not exist.
        model: the folder, with the model card beside it.
        public: whether everybody may read the repo.

    Raises:
        InputError: the model is not complete, or the Hub cannot be reached or refuses it.
    """
    if repo_id.count("/") != 1:
        raise InputError(f"REPO={repo_id}: must be an owner and a name, such as me/tone")
    paths = files_to_upload(model)
    if not (api.token or get_token()):
        raise InputError("no token of the Hub; set HF_TOKEN to one with the permission to write, or run `hf auth login`")
    try:
        return commit(api, repo_id, paths, public)
    except HFValidationError as error:
        raise InputError(f"REPO={repo_id}: must be an owner and a name, such as me/tone") from error
    except HfHubHTTPError as error:
        raise InputError(f"{repo_id}: {refusal(error)}") from error
    except InputError:
        raise
    except Exception as error:  # errors of httpx, hf_xet, huggingface_hub and the operating system
        raise InputError(f"{repo_id}: the upload failed ({one_line(error)}); run the command again") from error


def files_to_upload(model: Path) -> dict[str, Path]:
    """The files by their path in the repo.

    Raises:
        InputError: the model or its card does not exist.
    """
    GenaiConfig.read(model)
    prompt = Prompt.load(model)
    card, conformance = beside(model, MODEL_CARD.name), recorded_path(model)
    if not card.exists():
        raise InputError(f"{card}: not found; run `dvc repro`")
    if (prompt.prompt or prompt.chat_template or "") not in card.read_text(encoding="utf-8"):
        raise InputError(f"{card}: does not show the prompt of {model}; run `dvc repro`")
    paths = {CARD: card, CONFORMANCE.name: conformance} if conformance.exists() else {CARD: card}
    return paths | {(ONNX.name / path).as_posix(): model / path for path in model_files(model)}


def commit(api: HfApi, repo_id: str, paths: dict[str, Path], public: bool) -> str:
    api.create_repo(repo_id, private=not public, exist_ok=True)
    info = api.model_info(repo_id)
    if not info.private and not public:
        raise InputError(f"{repo_id}: exists and is public; upload to it with ARGS=--public, or choose another REPO")
    stale = [file.rfilename for file in info.siblings or [] if is_managed(file.rfilename) and file.rfilename not in paths]
    operations = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in paths.items()),
        *(CommitOperationDelete(path_in_repo=name, is_folder=False) for name in stale),
    ]
    address: str = api.create_commit(repo_id, operations, commit_message="Upload the model with Tunepress").commit_url
    return address


def is_managed(name: str) -> bool:
    """Whether `upload` writes a file of this path."""
    return name in (CARD, CONFORMANCE.name) or name.startswith(f"{ONNX.name}/")


def refusal(error: HfHubHTTPError) -> str:
    """What the Hub's answer means for the user."""
    status = error.response.status_code if error.response is not None else None
    if status == 401:
        return "the Hub does not accept the token (401); set HF_TOKEN to one with the permission to write"
    if status in (403, 404):
        return f"the token may not write there ({status}); use one with the permission to write, or a REPO of your own"
    return f"the Hub refused the upload ({error.server_message or one_line(error)}); run the command again"
