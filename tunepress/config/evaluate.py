"""`evaluate`: how the candidates are measured."""

from dataclasses import dataclass
from enum import Enum


class Split(Enum):
    """Rows that `train` does not learn from, a file each in data/prepared."""

    test = "test"
    validation = "validation"


class Turns(Enum):
    """Which turns of a conversation are evaluated."""

    last = "last"
    all = "all"


class Baseline(Enum):
    """A cheaper method than fine-tuning."""

    majority = "majority"  # the most frequent label
    tfidf = "tfidf"  # logistic regression on TF-IDF
    nearest = "nearest"  # the answer of the most similar training row, for free text
    zero_shot = "zero_shot"  # the base model in its chat template
    few_shot = "few_shot"  # the same after n_shot training rows


class Guidance(Enum):
    """What an answer may be; the tokens of any other answer get no probability."""

    labels = "labels"  # of data.labels
    schema = "schema"  # JSON that matches data.json_schema


class Calibration(Enum):
    """How probabilities of labels are corrected."""

    temperature = "temperature"  # a number that divides their logarithms


@dataclass
class Evaluate:
    """Settings that every candidate shares, so that their figures can be compared."""

    split: Split
    turns: Turns  # of conversations, each from its true history
    batch_size: int
    confidence_level: float  # of the intervals in the results
    baselines: list[Baseline]  # those that apply to the rows are measured
    n_shot: int  # training rows before a question of few_shot
    guidance: Guidance | None  # of all candidates, of the baselines with the base model, and of the shipped model; null: none
    calibration: Calibration | None  # of merged and onnx, fitted on the validation rows; null: none
    abstain_below: float | None  # the probability of the most likely label below which the shipped model does not answer
    retained: str | None  # folder of texts (*.txt) and of questions with choices (*.jsonl), to measure what is forgotten
    tasks: list[
        str
    ]  # of lm-evaluation-harness or of YAML files in `retained`, measured like its files; needs `make setup-harness`
    metric: str | None  # package.module.function of (expected, answers), both list[str], that returns a number
    conformance_rows: bool  # whether models/conformance.jsonl has prompts of the split, which it publishes, or invented ones
