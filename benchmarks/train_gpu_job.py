"""What one process of `train_gpu` is told, apart from the rest so that telling it loads no model code."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """What a process has to do, in the working folder it was started in.

    Attributes:
        contender: a name of train_gpu's CONTENDERS, or `device`, which makes the model.
        shape: a name of SHAPES.
        steps: of the optimizer.
        warmup: how many of them are not timed.
        batch: sequences of a step.
        compile: train.torch_compile.
        liger: train.use_liger_kernel.
        attn: train.attn_implementation.
    """

    contender: str
    shape: str
    steps: int
    warmup: int
    batch: int
    compile: bool
    liger: bool
    attn: str

    @property
    def plain(self) -> bool:
        """Whether the Trainer is transformers' own."""
        return self.contender.startswith("trainer-")
