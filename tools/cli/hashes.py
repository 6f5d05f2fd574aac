"""Prints the hash of each reproducible output in a dvc.lock, one per line.

    python -m tools.cli.hashes [DVC_LOCK]              # dvc.lock by default
    python -m tools.cli.hashes --against DVC_LOCK      # exit code 0: the hashes are the same; 1: they differ but should not;
                                                   # 3: they differ, and so does the rounding of this CPU
    python -m tools.cli.hashes --probe > .ci/cpu.json  # how this CPU rounds; commit it with dvc.lock

Outputs with times, which differ between runs, are left out: the benchmarks, the report and the model card.
"""

import argparse
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunepress.core.errors import InputError
from tunepress.core.params import read_yaml

if TYPE_CHECKING:
    from torch import Tensor

VARYING = ("metrics/benchmark", "metrics/speed.json", "models/MODEL_CARD.md", "report")
CPU = Path(".ci/cpu.json")  # the probe of the CPU that made the committed dvc.lock
REPRODUCED, CHANGED, OTHER_CPU = 0, 1, 3  # exit codes; argparse has 2

# The shapes of the matrices of the default base model and of its LoRA factors, [out, in].
LAYERS = [(576, 576), (192, 576), (1536, 576), (576, 1536)]
FACTORS = [(16, 576), (16, 1536), (192, 16), (576, 16), (1536, 16)]
HEAD = (49152, 576)
TOKENS = (1, 25, 200)  # in a generated step, a row, a batch


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.cli.hashes", description=__doc__.splitlines()[0])
    parser.add_argument("lock", nargs="?", type=Path, default=Path("dvc.lock"), help="file to read (default: dvc.lock)")
    parser.add_argument("--against", type=Path, metavar="DVC_LOCK", help="file with the expected hashes")
    parser.add_argument("--probe", action="store_true", help=f"print how this CPU rounds, for {CPU}")
    arguments = parser.parse_args()
    if arguments.probe:
        print(json.dumps(probe(), indent=2))
        return
    try:
        actual = hashes(arguments.lock)
        committed = hashes(arguments.against) if arguments.against else None
    except InputError as error:
        sys.exit(str(error))
    if committed is not None:
        sys.exit(compare(committed, actual))
    for path, digest in actual.items():
        print(digest, path)


def hashes(lock: Path) -> dict[str, str]:
    """The hashes of a dvc.lock by path, sorted.

    Raises:
        InputError: the file does not exist, or is not a dvc.lock.
    """
    if not lock.exists():
        raise InputError(f"{lock}: not found; run `make repro`")
    content: Any = read_yaml(lock)
    try:
        outputs = {out["path"]: out["md5"] for stage in content["stages"].values() for out in stage.get("outs", [])}
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{lock}: not written by DVC ({type(error).__name__}: {error}); restore it from git") from error
    return {path: digest for path, digest in sorted(outputs.items()) if not path.startswith(VARYING)}


def compare(committed: dict[str, str], actual: dict[str, str]) -> int:
    """Prints what differs, and whether the CPU may be the reason; returns the exit code."""
    changed = [path for path in sorted(committed.keys() | actual.keys()) if committed.get(path) != actual.get(path)]
    if not changed:
        print("the committed dvc.lock was reproduced to the byte")
        return REPRODUCED
    print(f"other bytes than those of the committed dvc.lock: {', '.join(changed)}")
    if not CPU.exists():
        sys.exit(f"{CPU}: not found; create it where dvc.lock is made, with `python -m tools.cli.hashes --probe > {CPU}`")
    stored, here = json.loads(CPU.read_text(encoding="utf-8")), probe()
    if stored.get("made_by") != here["made_by"]:
        print(f"{CPU} was made with other packages or another probe; make dvc.lock and {CPU} again")
        return CHANGED
    differing = [name for name in sorted(stored.keys() | here.keys()) if stored.get(name) != here.get(name)]
    if differing:
        print(f"this CPU rounds differently from the one that made the committed dvc.lock: {', '.join(differing)}")
        return OTHER_CPU
    print(f"this CPU rounds like the one that made it ({CPU}), so code, rows or packages have changed the hashes")
    return CHANGED


@functools.cache
def probe() -> dict[str, str]:
    """Hashes of fixed computations like those of the stages, with one thread and the kernels that tunepress pins.

    They only call torch and onnxruntime, because changes of this project must not look like another CPU.
    """
    import tunepress  # noqa: F401  (pins the kernels before torch is imported)

    import torch  # isort: skip

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kinds = (products, attention, activations, optimizer, factorizations, onnxruntime_products)
        return {"made_by": made_by(kinds)} | {kind.__name__: digest(kind()) for kind in kinds}
    finally:
        torch.set_num_threads(threads)


def made_by(kinds: Iterable[Callable[..., object]]) -> str:
    """The packages whose kernels are probed, and a hash of the computations; probes are only comparable if these are equal."""
    versions = [f"{package} {metadata.version(package).partition('+')[0]}" for package in ("numpy", "onnxruntime", "torch")]
    source = "".join(map(inspect.getsource, (*kinds, numbers)))
    return ", ".join([*versions, hashlib.sha256(source.encode()).hexdigest()[:12]])


def digest(results: "Iterable[Tensor]") -> str:
    """The SHA-256 of the bytes of all results."""
    total = hashlib.sha256()
    for result in results:
        total.update(result.detach().contiguous().numpy().tobytes())
    return total.hexdigest()


def numbers(*shape: int, divisor: int = 1024) -> "Tensor":
    """Multiples of a power of two, equal on every CPU."""
    import torch

    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(-2048, 2049, shape, generator=generator).float() / divisor


def products() -> "Iterator[Tensor]":
    """Linear layers, forward and backward."""
    for rows in TOKENS:
        for out_features, in_features in [*LAYERS, *FACTORS, *([HEAD] if rows == 1 else [])]:
            x, weight, gradient = numbers(rows, in_features), numbers(out_features, in_features), numbers(rows, out_features)
            yield from (x @ weight.t(), gradient @ weight, gradient.t() @ x)


def attention() -> "Iterator[Tensor]":
    """Causal attention, forward and backward."""
    from torch.nn.functional import scaled_dot_product_attention

    for length in TOKENS:
        query, key, value = (numbers(2, 9, length, 64 + part)[..., :64].contiguous().requires_grad_() for part in range(3))
        output = scaled_dot_product_attention(query, key, value, is_causal=True)
        output.square().sum().backward()
        yield output
        yield from (tensor.grad for tensor in (query, key, value) if tensor.grad is not None)


def activations() -> "Iterator[Tensor]":
    """Elementwise and row-wise functions, and their gradients."""
    import torch
    from torch.nn.functional import cross_entropy, gelu, silu

    def rms_norm(x: "Tensor") -> "Tensor":
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)

    def loss(x: "Tensor") -> "Tensor":
        return cross_entropy(x, torch.arange(len(x)))

    for function in (silu, gelu, torch.tanh, torch.sigmoid, torch.exp, torch.cos, torch.sin, rms_norm, loss):
        for width in (64, 576, 1536):
            x = numbers(50, width).requires_grad_()
            output = function(x)
            output.square().sum().backward()
            yield from (output, x.grad) if x.grad is not None else (output,)
    for width in (50, 576, *HEAD[:1]):
        yield from (numbers(25, width).softmax(-1), numbers(25, width).log_softmax(-1))


def optimizer() -> "Iterator[Tensor]":
    """Steps of AdamW with a clipped gradient."""
    import torch

    parameter = numbers(*LAYERS[0]).requires_grad_()
    adamw = torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.01)
    for step in range(3):
        parameter.grad = numbers(*LAYERS[0], divisor=1024 << step)
        yield torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        adamw.step()
    yield parameter


def factorizations() -> "Iterator[Tensor]":
    """The factorizations of gptq, in float64, and of some initial adapters."""
    import torch

    for width in (576, 1536):
        x = numbers(3000, width)
        hessian = (x.t() @ x).double()
        hessian.diagonal().add_(0.01 * hessian.diagonal().mean())
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        yield from (inverse, torch.linalg.cholesky(inverse, upper=True))
    yield from torch.linalg.qr(numbers(576, 192))
    yield from torch.linalg.svd(numbers(576, 64), full_matrices=False)


def onnxruntime_products() -> "Iterator[Tensor]":
    """An MLP as in the built model: a norm, int4 products with activations in int8 and in float32, and a softmax."""
    import onnxruntime
    import torch
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, values: "Tensor") -> Any:
        return numpy_helper.from_array(values.numpy(), name)

    def int4(source: str, name: str, out_features: int, in_features: int, level: int) -> Any:
        blocks = in_features // 32
        codes = numbers(out_features, blocks, 16, divisor=1).remainder(256).to(torch.uint8)
        constants.extend([constant(f"{name}_codes", codes), constant(f"{name}_scales", numbers(out_features, blocks) / 32)])
        attributes = {"K": in_features, "N": out_features, "bits": 4, "block_size": 32, "accuracy_level": level}
        inputs = [source, f"{name}_codes", f"{name}_scales"]
        return helper.make_node("MatMulNBits", inputs, [name], domain="com.microsoft", **attributes)

    for level in (1, 4):
        constants = [constant("norm", numbers(576)), constant("dense", numbers(576, 192))]
        nodes = [
            helper.make_node("SimplifiedLayerNormalization", ["x", "norm"], ["normed"], axis=-1, epsilon=1e-5),
            int4("normed", "up", 1536, 576, level),
            helper.make_node("Sigmoid", ["up"], ["gate"]),
            helper.make_node("Mul", ["up", "gate"], ["active"]),
            int4("active", "down", 576, 1536, level),
            helper.make_node("MatMul", ["down", "dense"], ["product"]),
            helper.make_node("Softmax", ["product"], ["softmax"], axis=-1),
        ]
        outputs = ["normed", "active", "down", "product", "softmax"]
        ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names] for names in (["x"], outputs)]
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(helper.make_graph(nodes, "mlp", *ends, constants), opset_imports=opsets, ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for rows in TOKENS:
            yield from map(torch.from_numpy, session.run(outputs, {"x": numbers(rows, 576).numpy()}))


if __name__ == "__main__":
    main()
