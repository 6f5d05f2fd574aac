"""compare: holds the ONNX model against the merged model it was built from, row by row and token by token.

Both runtimes choose the tokens of the same reference completions: a full-precision build agrees to numerical noise, so
that a broken template, a wrong end of sequence or a bad merge shows here, and what int4 changes shows without a sample's noise.
"""

import sys
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from tqdm import tqdm

from tunepress.config.evaluate import Evaluate
from tunepress.core.cpu import free_cores
from tunepress.core.files import read_csv, read_jsonl, write_csv, write_json
from tunepress.core.paths import CHANGED, MERGED, METRICS, ONNX, PREDICTIONS, PREPARED
from tunepress.core.stage import run
from tunepress.inference.metrics import mcnemar
from tunepress.inference.scoring import Scorer, agreement, encode_request
from tunepress.text.prompt import Prompt
from tunepress.text.tokenizer import truncate


@dataclass
class Config:
    """What this stage reads of params.yaml."""

    evaluate: Evaluate


def main(cfg: Config) -> str:
    """Writes metrics/compare.json and predictions/changed.csv."""
    from tunepress.inference.onnx_model import OnnxModel
    from tunepress.inference.torch_model import TorchModel

    merged, onnx = read_csv(PREDICTIONS / "merged.csv"), read_csv(PREDICTIONS / "onnx.csv")
    changed = differing(merged, onnx)
    figures = {"rows": len(merged), "changed": len(changed), **paired_figures(merged, onnx)}
    prompt = Prompt.load(MERGED)
    models = TorchModel(MERGED, cfg.evaluate.batch_size, prompt.eos_token_ids), OnnxModel(ONNX, free_cores())
    rows = read_jsonl(PREPARED / f"{cfg.evaluate.split.value}.jsonl")
    figures |= agreement_figures(*models, rows, prompt.source_max_len)
    write_csv(CHANGED, changed, ["source", "prompt", "expected", "merged", "onnx"])
    write_json(METRICS / "compare.json", figures)
    return (
        f"{len(changed)} of {len(merged)} rows answered differently, {figures['top1_agreement']:.2%} of the tokens alike, "
        f"{figures['tokenized_differently']} rows tokenized differently"
    )


def differing(merged: list[dict[str, str]], onnx: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows that the two models answer differently, with both answers."""
    return [
        {**{name: one[name] for name in ("source", "prompt", "expected")}, "merged": one["predicted"], "onnx": other["predicted"]}
        for one, other in zip(merged, onnx, strict=True)
        if one["predicted"] != other["predicted"]
    ]


def paired_figures(merged: list[dict[str, str]], onnx: list[dict[str, str]]) -> dict[str, Any]:
    """The paired test between the two models' answers."""
    test = mcnemar(*([row["predicted"].split() == row["expected"].split() for row in rows] for rows in (merged, onnx)))
    return {
        "only_merged_right": test["only_first_right"],
        "only_onnx_right": test["only_second_right"],
        "p_value": test["p_value"],
    }


def agreement_figures(
    merged: Scorer, onnx: Scorer, rows: list[dict[str, Any]], source_max_len: int | None = None
) -> dict[str, Any]:
    """How alike the two choose the tokens of the rows' completions.

    Args:
        merged: the model that was built.
        onnx: what was made of it.
        rows: prepared rows.
        source_max_len: tokens of a row; what a completion has beyond them was not learned and does not count. None: all does.

    Returns:
        tokens: of the completions, ends included; top1_agreement: share of them for which both hold the same token most
        probable; mean_kl: nats a token of Kullback-Leibler divergence from merged; tokenized_differently: rows that the
        shipped tokenizer splits into other tokens than the one of training (the merged model's are used).
    """
    asked, shipped = (
        [encode_request(model, row["prompt"], [row["completion"]], None) for row in rows] for model in (merged, onnx)
    )
    different = [row for row, own, other in zip(rows, asked, shipped, strict=True) if own != other]
    if different:
        rest = f", as it does in {len(different) - 1} more rows" if len(different) > 1 else ""
        print(f"compare: {different[0]['source']}: the built model's tokenizer gives other tokens than training's{rest}")
    cut_asked = [(prompt, [truncate(completion, prompt, source_max_len)]) for prompt, (completion,) in asked]
    tokens, same, divergence = 0, 0, 0.0
    found = groupby(merged.logits(cut_asked), itemgetter(0))
    for number, chunks in tqdm(found, total=len(rows), desc="agreement", unit="row"):
        for (_, _, logits), (_, _, other) in zip(chunks, onnx.logits([cut_asked[number]]), strict=True):
            alike, nats = agreement(logits, other)
            tokens, same, divergence = tokens + len(logits), same + alike, divergence + nats
    return {
        "tokens": tokens,
        "top1_agreement": round(same / tokens, 4),
        "mean_kl": float(f"{divergence / tokens:.4g}"),
        "tokenized_differently": len(different),
    }


if __name__ == "__main__":
    run("compare", main, Config, sys.argv[1:])
