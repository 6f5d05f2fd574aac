"""compare: compares the ONNX model with the merged model that it was built from, row by row and token by token.

Both runtimes predict the tokens of the same reference completions. A full-precision build agrees to numerical noise, so this
finds a broken template, a wrong end of sequence or a bad merge, and measures what int4 changes without the noise of sampling.
What the ONNX model answers to some prompts is recorded for other machines, where tools.cli.verify compares it.
"""

import sys
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from tunepress.config.evaluate import Evaluate, Turns
from tunepress.core.cpu import free_cores
from tunepress.core.files import read_csv, read_jsonl, write_csv, write_json
from tunepress.core.paths import CHANGED, CONFORMANCE, MERGED, METRICS, ONNX, PREDICTIONS, PREPARED
from tunepress.core.stage import run
from tunepress.inference import conformance
from tunepress.inference.metrics import is_right, mcnemar
from tunepress.inference.scoring import Scorer, agreement, encode_request
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Turn, evaluated, evenly_spaced
from tunepress.text.tokenizer import truncate

SENTENCES = (  # written for this project; conformance.jsonl publishes them
    "The bus was late again this morning.",
    "I finally found the keys under the sofa.",
    "Could you send me the report before noon?",
    "Nobody told us that the meeting had moved.",
    "The soup is cold, but the bread is still warm.",
    "My sister is learning to play the cello.",
    "We should paint the kitchen before winter.",
    "The neighbours have a new puppy.",
    "It rained for three days and the cellar is wet.",
    "Thank you for watering the plants.",
    "The printer on the second floor is broken.",
    "I did not expect to see you here!",
    "How long does the train to the coast take?",
    "The museum is closed on Mondays.",
    "He forgot his umbrella in the restaurant.",
    "The children built a tower of cardboard boxes.",
    "Please turn off the lights when you leave.",
    "The tickets were cheaper than last year.",
    "Something in the attic made a strange noise.",
    "Her speech was short and everyone clapped.",
    "The parcel arrived with a dent in one corner.",
    "We missed the last ferry and slept in the car.",
    "Is there any milk left in the fridge?",
    "The apples in the garden are almost ripe.",
    "I have read this book four times already.",
    "The lift is slow, so most people take the stairs.",
    "Tomorrow the whole team will be in the office.",
    "The old bridge has been repaired at last.",
    "They cancelled the concert because of the storm.",
    "What time does the bakery open on Sundays?",
)


@dataclass
class Config:
    evaluate: Evaluate


def main(cfg: Config) -> str:
    """Writes metrics/compare.json, predictions/changed.csv and models/conformance.jsonl."""
    from tunepress.inference.onnx_model import OnnxModel
    from tunepress.inference.torch_model import TorchModel

    merged, onnx = read_csv(PREDICTIONS / "merged.csv"), read_csv(PREDICTIONS / "onnx.csv")
    changed = changed_rows(merged, onnx)
    metrics = {"rows": len(merged), "changed": len(changed), **paired_test(merged, onnx), **flipped(merged, onnx)}
    prompt = Prompt.load(MERGED)
    second = OnnxModel(ONNX, free_cores())  # loaded first, so that what it takes is not free for merged
    models = TorchModel(MERGED, cfg.evaluate.batch_size, prompt.eos_token_ids), second
    turns = evaluated(read_jsonl(PREPARED / f"{cfg.evaluate.split.value}.jsonl"), cfg.evaluate.turns is Turns.all)
    metrics |= compare_tokens(*models, turns, prompt.source_max_len)
    rows = [turn.prompt for turn in evenly_spaced(turns, len(SENTENCES))]
    conformance.record(CONFORMANCE, second, ONNX, rows if cfg.evaluate.conformance_rows else invented_prompts(ONNX))
    write_csv(CHANGED, changed, ["source", "prompt", "expected", "merged", "onnx"])
    write_json(METRICS / "compare.json", metrics)
    return (
        f"{len(changed)} of {len(merged)} rows answered differently, {metrics['top1_agreement']:.2%} of the tokens alike, "
        f"{metrics['tokenized_differently']} rows tokenized differently"
    )


def changed_rows(merged: list[dict[str, str]], onnx: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows that the two models answer differently, with both answers."""
    return [
        {
            **{name: before[name] for name in ("source", "prompt", "expected")},
            "merged": before["predicted"],
            "onnx": after["predicted"],
        }
        for before, after in zip(merged, onnx, strict=True)
        if before["predicted"] != after["predicted"]
    ]


def paired_test(merged: list[dict[str, str]], onnx: list[dict[str, str]]) -> dict[str, Any]:
    """McNemar's test between the two models' answers."""
    test = mcnemar(list(map(is_right, merged)), list(map(is_right, onnx)))
    return {
        "only_merged_right": test["only_first_right"],
        "only_onnx_right": test["only_second_right"],
        "p_value": test["p_value"],
    }


def flipped(merged: list[dict[str, str]], onnx: list[dict[str, str]]) -> dict[str, float]:
    """The share of rows whose most likely label is another for onnx; nothing for free text."""
    if "top_label" not in merged[0]:
        return {}
    return {"flipped_share": round(fmean(a["top_label"] != b["top_label"] for a, b in zip(merged, onnx, strict=True)), 4)}


def compare_tokens(merged: Scorer, onnx: Scorer, turns: list[Turn], source_max_len: int | None = None) -> dict[str, Any]:
    """Compares how the two models predict the tokens of the turns' completions.

    Args:
        merged: the merged model.
        onnx: the model that was built from it.
        turns: of prepared rows.
        source_max_len: maximum number of tokens of a row; those beyond it were not learned and do not count. None: no maximum.

    Returns:
        tokens: number of tokens of the completions, including their ends; top1_agreement: share of the tokens for which both
        models predict the same token; mean_kl: Kullback-Leibler divergence from merged, in nats per token;
        tokenized_differently: number of rows that the shipped tokenizer splits into other tokens than the one in training (the
        merged model's tokens are used).
    """
    requests, onnx_requests = (
        [encode_request(model, turn.prompt, [turn.completion], None) for turn in turns] for model in (merged, onnx)
    )
    different = [turn for turn, first, second in zip(turns, requests, onnx_requests, strict=True) if first != second]
    if different:
        rest = f", and in {len(different) - 1} more rows" if len(different) > 1 else ""
        print(f"compare: {different[0].source}: the built model's tokenizer gives other tokens than in training{rest}")
    learned = [(prompt, [truncate(completion, prompt, source_max_len)]) for prompt, (completion,) in requests]
    tokens, agreeing, divergence = 0, 0, 0.0
    by_row = groupby(merged.logits(learned), itemgetter(0))
    for number, chunks in tqdm(by_row, total=len(turns), desc="agreement", unit="row"):
        for (_, _, logits), (_, _, onnx_logits) in zip(chunks, onnx.logits([learned[number]]), strict=True):
            same, nats = agreement(logits, onnx_logits)
            tokens, agreeing, divergence = tokens + len(logits), agreeing + same, divergence + nats
    return {
        "tokens": tokens,
        "top1_agreement": round(agreeing / tokens, 4),
        "mean_kl": float(f"{divergence / tokens:.4g}"),
        "tokenized_differently": len(different),
    }


def invented_prompts(folder: Path) -> list[str]:
    """SENTENCES as a model's prompts: each in every column of the template, or as the user's message of a conversation."""
    prompt = Prompt.load(folder)
    if prompt.prompt is None:
        return list(map(ChatPrompt(folder, prompt).render_text, SENTENCES))
    return [prompt.render_prompt(dict.fromkeys(prompt.columns, sentence)) for sentence in SENTENCES]


if __name__ == "__main__":
    run("compare", main, Config, sys.argv[1:])
