"""baselines: what cheaper methods reach on the rows of evaluate.split, to judge what the fine-tuning has gained.

- majority: the most frequent label of the training rows.
- tfidf: logistic regression on TF-IDF of words and of parts of words (scikit-learn).
- nearest: for free text, the answer of the training row whose prompt is most similar by TF-IDF.
- zero_shot: the base model, asked in its own chat template and told the labels; its answer is its most likely label.
- few_shot: the same after evaluate.n_shot training rows whose prompts are most similar.

The base model is not asked where the rows are in its chat template: there the candidate `base` is zero-shot.
"""

import json
import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from tunepress.config.evaluate import Baseline, Evaluate, Guidance, Turns
from tunepress.core.files import read_jsonl, size_mb, write_csv, write_json
from tunepress.core.paths import BASE, METRICS, PREDICTIONS, PREPARED, TRAINING_ROWS
from tunepress.core.stage import run
from tunepress.inference.guidance import answer_rule, grammar
from tunepress.inference.metrics import Metrics, answer_metrics, comparable
from tunepress.inference.scoring import score
from tunepress.inference.torch_model import TorchModel
from tunepress.models.hf_model import load_tokenizer
from tunepress.text.chat_template import ChatTemplate
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Turn, evaluated, last_turn

INSTRUCTION = "Answer with one of these and nothing else: {labels}."
JSON_INSTRUCTION = "Answer with JSON that matches this schema and nothing else: {schema}"
NO_NUMBERS = ("rows", "per_class", "fields")


@dataclass
class Config:
    evaluate: Evaluate


@dataclass(frozen=True)
class Answers:
    """What a baseline answered.

    Attributes:
        predicted: the answer to each turn.
        seconds_to_make: how long it was fitted or loaded.
        seconds: how long it answered.
        size_mb: of what answers.
    """

    predicted: list[str]
    seconds_to_make: float
    seconds: float
    size_mb: float


def main(cfg: Config) -> str:
    """Writes the metrics, the speeds and the answers of all baselines."""
    prompt = Prompt.load(PREPARED)
    turns = evaluated(read_jsonl(PREPARED / f"{cfg.evaluate.split.value}.jsonl"), cfg.evaluate.turns is Turns.all)
    training = [last_turn(row) for row in read_jsonl(TRAINING_ROWS)]
    guidance = cfg.evaluate.guidance
    baselines = Baselines(prompt, training, turns, cfg.evaluate.batch_size, cfg.evaluate.n_shot, guidance)
    answers = {name.value: baselines.answer(name) for name in cfg.evaluate.baselines if baselines.applies(name)}
    expected = [comparable(turn.expected, prompt) for turn in turns]
    metrics = {name: measure(expected, part.predicted, prompt, cfg.evaluate.confidence_level) for name, part in answers.items()}
    speeds = {
        name: {
            "seconds_to_make": round(part.seconds_to_make, 2),
            "ms_per_answer": round(1000 * part.seconds / len(turns), 2),
            "size_mb": round(part.size_mb, 2),
        }
        for name, part in answers.items()
    }
    rows = [
        {"source": turn.source, "expected": expected[number]} | {name: part.predicted[number] for name, part in answers.items()}
        for number, turn in enumerate(turns)
    ]
    write_csv(PREDICTIONS / "baselines.csv", rows, ["source", "expected", *answers])
    write_json(METRICS / "benchmark/baselines.json", speeds)
    write_json(METRICS / "baselines.json", metrics)
    scores = ", ".join(f"{name} {next(iter(figures.values())):.3f}" for name, figures in metrics.items())
    return f"{scores or 'none applies'} on {len(turns)} {cfg.evaluate.split.value} rows"


def measure(expected: list[str], predicted: list[str], prompt: Prompt, confidence_level: float) -> Metrics:
    """The score with its interval first, then the other metrics that are a single number."""
    metrics = answer_metrics(expected, predicted, prompt, confidence_level)
    return {name: value for name, value in metrics.items() if name not in NO_NUMBERS} | {"rows": metrics["rows"]}


class Baselines:
    """The methods, which share the base model and the search for similar training rows.

    Args:
        prompt: how rows became text.
        training: the training rows.
        turns: to answer.
        batch_size: of the base model.
        n_shot: training rows before a question of few_shot.
        guidance: what the base model may answer; None: anything.
    """

    def __init__(
        self,
        prompt: Prompt,
        training: list[Turn],
        turns: list[Turn],
        batch_size: int,
        n_shot: int,
        guidance: Guidance | None = None,
    ) -> None:
        self._prompt, self._training, self._turns = prompt, training, turns
        self._labels, self._batch_size, self._n_shot, self._guidance = prompt.labels, batch_size, n_shot, guidance

    def applies(self, name: Baseline) -> bool:
        """Whether a baseline is possible: of some there are none for free text, for conversations, or without training rows."""
        if name in (Baseline.majority, Baseline.tfidf):
            return bool(self._labels and self._training)
        if name is Baseline.nearest:
            return bool(self._training) and not self._labels
        return not self._in_chat_markup and (name is Baseline.zero_shot or bool(self._training))

    @cached_property
    def _in_chat_markup(self) -> bool:
        """Whether the base model is asked in its chat template without this stage, so that the candidate base is zero-shot."""
        if self._prompt.prompt is None:
            return True
        tokens = load_tokenizer(BASE).added_tokens_decoder.values()
        return any(token.special and token.content in self._prompt.prompt for token in tokens)

    def answer(self, name: Baseline) -> Answers:
        methods: dict[Baseline, Callable[[], Answers]] = {
            Baseline.majority: self._majority,
            Baseline.tfidf: self._tfidf,
            Baseline.nearest: self._nearest,
            Baseline.zero_shot: lambda: self._ask([[] for _ in self._turns]),
            Baseline.few_shot: lambda: self._ask([near[::-1] for near in self._similar(self._n_shot)]),
        }
        return methods[name]()

    def _majority(self) -> Answers:
        ((label, _),) = Counter(turn.expected for turn in self._training).most_common(1)
        return Answers([label] * len(self._turns), 0.0, 0.0, 0.0)

    def _tfidf(self) -> Answers:
        start = time.perf_counter()
        classifier = make_pipeline(features(), LogisticRegression(C=10, max_iter=1000))
        classifier.fit([turn.prompt for turn in self._training], [turn.expected for turn in self._training])
        fitted = time.perf_counter()
        predicted = classifier.predict([turn.prompt for turn in self._turns])
        end = time.perf_counter()
        return Answers(list(map(str, predicted)), fitted - start, end - fitted, len(pickle.dumps(classifier)) / 1e6)

    def _nearest(self) -> Answers:
        start = time.perf_counter()
        _ = self._search
        fitted = time.perf_counter()
        predicted = [comparable(near[0].expected, self._prompt) for near in self._similar(1)]
        return Answers(predicted, fitted - start, time.perf_counter() - fitted, size_mb(TRAINING_ROWS))

    @cached_property
    def _search(self) -> tuple[Pipeline, NearestNeighbors]:
        """Finds training rows by the vectors of their prompts."""
        vectors = features()
        known = vectors.fit_transform([turn.prompt for turn in self._training])
        return vectors, NearestNeighbors(metric="cosine", algorithm="brute").fit(known)

    def _similar(self, count: int) -> list[list[Turn]]:
        """For each turn the training rows with the most similar prompts, the most similar first."""
        vectors, search = self._search
        prompts = vectors.transform([turn.prompt for turn in self._turns])
        numbers = search.kneighbors(prompts, min(count, len(self._training)), return_distance=False)
        return [[self._training[number] for number in row] for row in numbers.tolist()]

    @cached_property
    def _model(self) -> TorchModel:
        return TorchModel(BASE, self._batch_size)

    @cached_property
    def _template(self) -> ChatTemplate | None:
        return ChatTemplate.read(BASE)

    def _ask(self, examples: list[list[Turn]]) -> Answers:
        """Asks the base model, for each turn after examples."""
        start = time.perf_counter()
        model = self._model
        loaded = time.perf_counter()
        questions = [self._question(turn, shown) for turn, shown in zip(self._turns, examples, strict=True)]
        if self._labels:
            most_likely = score(model, questions, self._labels).logprobs.argmax(axis=1)
            predicted = [self._labels[choice] for choice in most_likely]
        else:
            texts = model.answers([turn.prompt for turn in questions], self._prompt.max_new_tokens, self._grammar)
            predicted = [comparable(text, self._prompt) for text in texts]
        return Answers(predicted, loaded - start, time.perf_counter() - loaded, size_mb(BASE))

    @property
    def _grammar(self) -> str | None:
        """Of the answers to questions in the base model's chat template, which has nothing around them."""
        return grammar(answer_rule(self._guidance, self._prompt)) if self._guidance else None

    def _question(self, turn: Turn, examples: list[Turn]) -> Turn:
        """A turn in the base model's own chat template, without the first examples if all do not fit its context."""
        while True:
            text = self._render([*examples, turn])
            length = len(self._model.encode_prompt(text)) + self._prompt.max_new_tokens
            if not examples or length <= (self._model.context_length or length):
                return Turn(turn.source, text, turn.expected, turn.expected)
            examples = examples[1:]

    @property
    def _instruction(self) -> str | None:
        if self._labels:
            return INSTRUCTION.format(labels=", ".join(self._labels))
        schema = self._prompt.json_schema
        return JSON_INSTRUCTION.format(schema=json.dumps(schema, ensure_ascii=False)) if schema else None

    def _render(self, turns: list[Turn]) -> str:
        """The prompts of turns with the expected answers of all but the last."""
        if self._template is None:
            return "".join(f"{turn.prompt}{turn.expected}\n\n" for turn in turns[:-1]) + turns[-1].prompt
        messages = []
        for turn in turns:
            messages += [{"role": "user", "content": turn.prompt.strip()}, {"role": "assistant", "content": turn.expected}]
        if instruction := self._instruction:
            messages[0]["content"] = f"{instruction}\n\n{messages[0]['content']}"
        return self._template.render(messages[:-1]).removeprefix(self._model.encoder.added_bos)


def features() -> Pipeline:
    """TF-IDF of words and pairs of words, and of 2 to 5 characters within words."""
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True)  # noqa: S106  (no password)
    return make_union(words, TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True))


if __name__ == "__main__":
    run("baselines", main, Config, sys.argv[1:])
