"""compare: holds the ONNX model against the merged model it was built from, row by row and token by token.

Both runtimes choose the tokens of the same reference completions: a full-precision build agrees to numerical noise, so
that a broken template, a wrong end of sequence or a bad merge shows here, and what int4 changes shows without a sample's noise.
"""

import sys
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from stages.lib.answers import paired
from stages.lib.edge.outputs import read_csv, read_jsonl, write_csv, write_json
from stages.lib.edge.paths import CHANGED, MERGED, METRICS, ONNX, PREDICTIONS, PREPARED
from stages.lib.edge.stage import run
from stages.lib.likelihood import Scorer, Tokens, agreement
from stages.lib.schema.evaluate import Evaluate


@dataclass
class Sections:
    """What this stage reads of params.yaml."""

    evaluate: Evaluate


def main(cfg: Sections) -> str:
    """Writes metrics/compare.json and predictions/changed.csv."""
    from stages.lib.onnx_model import OnnxModel
    from stages.lib.torch_model import TorchModel

    merged, onnx = read_csv(PREDICTIONS / "merged.csv"), read_csv(PREDICTIONS / "onnx.csv")
    changed = differing(merged, onnx)
    figures = {"rows": len(merged), "changed": len(changed), **paired_figures(merged, onnx)}
    models = TorchModel(MERGED, cfg.evaluate.batch_size), OnnxModel(ONNX)
    figures |= agreement_figures(*models, read_jsonl(PREPARED / f"{cfg.evaluate.split.value}.jsonl"))
    write_csv(CHANGED, changed, ["source", "prompt", "expected", "merged", "onnx"])
    write_json(METRICS / "compare.json", figures)
    return f"{len(changed)} of {len(merged)} rows answered differently, {figures['top1_agreement']:.2%} of the tokens alike"


def differing(merged: list[dict[str, str]], onnx: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows that the two models answer differently, with both answers."""
    return [
        {**{name: one[name] for name in ("source", "prompt", "expected")}, "merged": one["predicted"], "onnx": other["predicted"]}
        for one, other in zip(merged, onnx, strict=True)
        if one["predicted"] != other["predicted"]
    ]


def paired_figures(merged: list[dict[str, str]], onnx: list[dict[str, str]]) -> dict[str, Any]:
    """The paired test between the two models' answers."""
    test = paired(*([row["predicted"].split() == row["expected"].split() for row in rows] for rows in (merged, onnx)))
    return {
        "only_merged_right": test["only_first_right"],
        "only_onnx_right": test["only_second_right"],
        "p_value": test["p_value"],
    }


def agreement_figures(merged: Scorer, onnx: Scorer, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How alike the two choose the tokens of the rows' completions.

    Returns:
        tokens: of the completions, ends included; top1_agreement: share of them for which both hold the same token most
        probable; mean_kl: nats a token of Kullback-Leibler divergence from merged; tokenized_otherwise: rows that the
        shipped tokenizer cuts in other tokens than the one of training (the merged model's are used).
    """
    asked, shipped = ([encoded(model, row) for row in rows] for model in (merged, onnx))
    tokens, same, divergence = 0, 0, 0.0
    for number, (logits,) in tqdm(merged.logits(asked), total=len(rows), desc="agreement", unit="row"):
        ((_, (other,)),) = onnx.logits([asked[number]])
        alike, nats = agreement(logits, other)
        tokens, same, divergence = tokens + len(logits), same + alike, divergence + nats
    return {
        "tokens": tokens,
        "top1_agreement": round(same / tokens, 4),
        "mean_kl": float(f"{divergence / tokens:.4g}"),
        "tokenized_otherwise": sum(one != other for one, other in zip(asked, shipped, strict=True)),
    }


def encoded(model: Scorer, row: dict[str, Any]) -> tuple[Tokens, list[Tokens]]:
    """A row's prompt, and its completion as the only one, in the model's own tokens."""
    return model.encode_prompt(row["prompt"]), [model.encode_completion(row["completion"])]


if __name__ == "__main__":
    run("compare", main, Sections, sys.argv[1:])
