"""`build`: what onnxruntime-genai's builder makes of the merged model, in its words."""

from dataclasses import dataclass


@dataclass
class Build:
    """Arguments and extra options of the builder of the same names; null leaves the choice to the builder."""

    precision: str
    execution_provider: str
    algo_config: str | None
    block_size: int | None
    accuracy_level: int | None
    is_symmetric: bool | None
    matmul_mixed_precision: str | None
    nodes_to_exclude: list[str]
