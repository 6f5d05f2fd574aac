"""The tasks that a server answers: the model's own, and those of adapters on the same weights."""

from dataclasses import dataclass
from pathlib import Path

from tools.serve.workers.messages import Tuning
from tunepress.core.errors import InputError
from tunepress.core.files import sha256
from tunepress.core.paths import ADAPTER_FILE
from tunepress.inference.calibration import abstention_bound
from tunepress.inference.genai_config import GenaiConfig
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.prompt import Prompt

DEFAULT_MAX_TOKENS = 16  # OpenAI's for /v1/completions, for a model whose prompt.json says nothing
WEIGHTS = "model.onnx.data"


@dataclass(frozen=True)
class Task:
    """A fine-tuning and how it is asked.

    Attributes:
        name: for clients.
        created: when it was built, in seconds since 1970.
        prompt: with which it was trained.
        chat_prompt: renders chat messages.
        abstain_below: the probability of the most likely label below which a text gets none; 0: each gets one.
        eos_tokens: texts of the tokens that end an answer.
        tuning: what it changes in the model.
    """

    name: str
    created: int
    prompt: Prompt
    chat_prompt: ChatPrompt
    abstain_below: float
    eos_tokens: list[str]
    tuning: Tuning

    @classmethod
    def read(cls, name: str, folder: Path, abstain_below: float | None) -> "Task":
        """The task of a model folder.

        Args:
            name: for clients.
            folder: of the model.
            abstain_below: of the server; None: that of the run.

        Raises:
            InputError: it is not a model's folder.
        """
        config, prompt = GenaiConfig.read(folder), Prompt.load(folder)
        chat_prompt = ChatPrompt(folder, prompt)
        created = int(config.path.stat().st_mtime)
        bound = abstention_bound(abstain_below, prompt, chat_prompt)
        return cls(name, created, prompt, chat_prompt, bound, config.eos_tokens, Tuning(temperature=prompt.temperature))

    @property
    def longest_row(self) -> int:
        """Maximum number of tokens of a training row."""
        return self.prompt.source_max_len + self.prompt.max_new_tokens

    @property
    def max_tokens(self) -> int:
        """The maximum length of an answer if the request has none: that of the longest answer in training."""
        return self.prompt.max_new_tokens or DEFAULT_MAX_TOKENS


def read_adapter(name: str, folder: Path, model: Path, abstain_below: float | None) -> Task:
    """The task of another model folder, whose adapter is used on the weights of `model`.

    Args:
        name: for clients.
        folder: from a build with build.adapters=separate.
        model: folder of the served model.
        abstain_below: of the server; None: that of the run.

    Raises:
        InputError: the folder has no adapter of its own, or one for other weights.
    """
    file = folder / ADAPTER_FILE
    if not file.exists():
        raise InputError(f"{folder}: has no {ADAPTER_FILE}; build it with build.adapters=separate")
    task = Task.read(name, folder, abstain_below)
    if GenaiConfig.read(folder).eos_token_ids != GenaiConfig.read(model).eos_token_ids or _other_weights(folder, model):
        raise InputError(f"{folder}: its adapter is for other weights than those of {model}; build both from the same base model")
    tuning = Tuning(str(file.resolve()), file.stat().st_mtime_ns, task.prompt.temperature)
    return Task(**{**vars(task), "tuning": tuning})


def _other_weights(folder: Path, model: Path) -> bool:
    """Whether a folder has the weights too, and others."""
    mine, served = folder / WEIGHTS, model / WEIGHTS
    if not (mine.exists() and served.exists()) or mine.samefile(served):
        return False
    return mine.stat().st_size != served.stat().st_size or sha256(mine) != sha256(served)
