"""An attention to try with `train_gpu --attn sdpa_by_example_varlen`: torch's own kernel for joined examples, on a GPU.

transformers' sdpa masks the examples of a joined row out of each other, at a cost of the square of the row's tokens, and
flash_attention_2 needs another package. torch has a kernel that takes the boundaries and avoids both.
"""

from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from stages.train.trainer import BY_EXAMPLE

VARLEN = f"{BY_EXAMPLE}_varlen"  # begins so, because stages.train's collator then passes the boundaries


def attention_varlen(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each example of a joined row, in bfloat16 or float16: [1, tokens, heads, head_dim] and no weights.

    `query` is [1, heads, tokens, head_dim], key and value have their own number of heads. `cu_seq_lens_q`, int32, is where the
    examples begin and the last one ends; the mask follows from it. A token sees `sliding_window` tokens, itself included. The
    kernel has no dropout.
    """
    queries, keys, values = (states[0].transpose(0, 1) for states in (query, key, value))
    seen = -1 if sliding_window is None or max_length_q <= sliding_window else sliding_window - 1
    attended = varlen_attn(
        queries,
        keys,
        values,
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(seen, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(attended, torch.Tensor)
    return attended[None], None


AttentionInterface.register(VARLEN, attention_varlen)
