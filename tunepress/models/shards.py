"""The safetensors files of a model folder: the position of each tensor, and reading or writing a part of it.

The files are not memory-mapped, because mapped pages count as the process's memory as long as the mapping exists.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from tunepress.core.cpu import available_cores
from tunepress.core.errors import InputError
from tunepress.core.files import write_json

SINGLE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"  # transformers' names; it prefers the first one
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PREFIX = 8  # bytes before a safetensors file's header: its length, little-endian
BLOCK = 1 << 19  # elements: small enough for everything computed from a block to stay in the CPU's cache and the C heap
MAX_THREADS = 8  # each holds some blocks in memory, and more threads would only wait for the disk

ReadRows = Callable[[int, int], torch.Tensor]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file.

    Attributes:
        file: path of the file.
        name: of the tensor in the file.
        kind: safetensors' name of the type.
        shape: as in torch.
        start: position of the first byte in the file.
        size: in bytes.
    """

    file: Path
    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def dtype(self) -> torch.dtype:
        """Torch's type; only if `check_type` accepts it."""
        return DTYPES[self.kind]

    def check_type(self) -> None:
        """Raises InputError unless the type is one of DTYPES."""
        if self.kind not in DTYPES:
            raise InputError(f"{self.file}: {self.name} is of type {self.kind}, not {', '.join(DTYPES)}; use a float model")

    @property
    def rows(self) -> int:
        """Size of the first dimension; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def row_size(self) -> int:
        """Bytes per row."""
        return self.size // max(self.rows, 1)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yields the first and the end (exclusive) row of consecutive blocks of about BLOCK elements."""
        step = max(1, BLOCK // max(1, math.prod(self.shape[1:])))
        for first in range(0, self.rows, step):
            yield first, min(first + step, self.rows)

    def read(self, first: int = 0, last: int | None = None) -> torch.Tensor:
        """Reads the rows from `first` to `last` (exclusive); by default all."""
        last = self.rows if last is None else last
        return self.read_bytes(first, last).view(self.dtype).view(last - first, *self.shape[1:])

    def read_bytes(self, first: int, last: int) -> torch.Tensor:
        """Reads rows as bytes, whatever their type."""
        content = torch.empty((last - first) * self.row_size, dtype=torch.uint8)
        unread = content.numpy().data
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start + first * self.row_size)
            while unread:
                count = file.readinto(unread)
                if not count:
                    raise InputError(f"{self.file}: ends within {self.name}; the file was changed while it was read")
                unread = unread[count:]
        return content

    def write(self, first: int, rows: torch.Tensor) -> None:
        """Overwrites rows, beginning with row `first`."""
        unwritten = rows.reshape(-1).view(torch.uint8).numpy().data
        with self.file.open("r+b", buffering=0) as file:
            file.seek(self.start + first * self.row_size)
            while unwritten:
                unwritten = unwritten[file.write(unwritten) :]


class Replacement(Protocol):
    """Computes the new values of a tensor."""

    @property
    def original(self) -> StoredTensor:
        """A tensor of the same shape and type."""

    @property
    def divisible(self) -> bool:
        """Whether the rows can be computed in blocks."""

    def open(self) -> ReadRows:
        """Loads what all rows need, and returns the function that computes the rows from a first to a last one (exclusive)."""


@dataclass(frozen=True)
class Shards:
    """The safetensors files of a model folder.

    Attributes:
        folder: that contains them.
        files: sorted by name.
        tensors: by name.
    """

    folder: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def of(cls, folder: Path) -> "Shards":
        """Reads the headers of the files that transformers would load from a folder.

        Raises:
            InputError: one of the files is missing or truncated.
        """
        files = tuple(weight_files(folder))
        return cls(folder, files, {name: stored for file in files for name, stored in read_header(file).items()})

    def write(self, folder: Path, changes: Mapping[str, Replacement]) -> None:
        """Writes these files to another folder with new values for some tensors.

        The layout, types and metadata stay the same. Tensors that are not in these files are written to an additional file.

        Args:
            folder: an existing folder.
            changes: by name of the tensor.
        """
        added = {name: change for name, change in changes.items() if name not in self.tensors}
        names = shard_names(len(self.files) + 1) if added else [file.name for file in self.files]
        # One block per core, and torch uses one thread for it: while one block waits for the disk, the others are computed.
        with ThreadPoolExecutor(min(available_cores(), MAX_THREADS), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for file, name in zip(self.files, names, strict=False):
                self._rewrite(file, folder / name, changes, pool)
            if added:
                write_tensors(folder / names[-1], added, pool)
        if added:
            write_index(folder, names)
        elif self.files[0].name != SINGLE_FILE:
            shutil.copyfile(self.folder / INDEX, folder / INDEX)

    def _rewrite(self, file: Path, target: Path, changes: Mapping[str, Replacement], pool: Executor) -> None:
        with file.open("rb") as content:
            target.write_bytes(content.read(data_start(file)))
        for stored in self.tensors.values():
            if stored.file == file:
                write_tensor(replace(stored, file=target), changes.get(stored.name) or Copy(stored), pool)


@dataclass(frozen=True)
class Copy:
    """Copies a tensor unchanged."""

    original: StoredTensor
    divisible: bool = True

    def open(self) -> ReadRows:
        """Copies bytes, because torch does not support every type of safetensors."""
        return self.original.read_bytes


def write_tensor(target: StoredTensor, change: Replacement, pool: Executor) -> None:
    """Writes a tensor: in blocks on all cores, or all at once with torch's threads if it is not divisible."""
    rows = change.open()

    def write(block: tuple[int, int]) -> None:
        target.write(block[0], rows(*block))

    if change.divisible:
        for _ in pool.map(write, target.blocks()):  # raises the errors of the blocks
            pass
    else:
        write((0, target.rows))


def write_tensors(file: Path, tensors: Mapping[str, Replacement], pool: Executor) -> None:
    """Writes a safetensors file with new tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, change in tensors.items():
        begin, end = end, end + change.original.size
        header[name] = {"dtype": change.original.kind, "shape": change.original.shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % PREFIX)  # the format requires aligned values
    with file.open("wb") as content:
        content.write(len(encoded).to_bytes(PREFIX, "little") + encoded)
        content.truncate(content.tell() + end)
    for name, stored in read_header(file).items():
        write_tensor(stored, tensors[name], pool)


def write_index(folder: Path, names: list[str]) -> None:
    """Writes the index of the files of these names in a folder."""
    tensors = [tensor for name in names for tensor in read_header(folder / name).values()]
    weight_map = {tensor.name: tensor.file.name for tensor in sorted(tensors, key=lambda tensor: tensor.name)}
    write_json(folder / INDEX, {"metadata": {"total_size": sum(tensor.size for tensor in tensors)}, "weight_map": weight_map})


def shard_names(total: int) -> list[str]:
    """The names that transformers gives to this number of files."""
    return [f"model-{number:05}-of-{total:05}.safetensors" for number in range(1, total + 1)]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would load.

    Raises:
        InputError: there are none, or a file in the index does not exist.
    """
    if (folder / SINGLE_FILE).exists():
        return [folder / SINGLE_FILE]
    index = folder / INDEX
    if not index.exists():
        raise InputError(f"{folder}: has neither {SINGLE_FILE} nor {INDEX}; fetch the model again")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: not an index of weights ({type(error).__name__}: {error}); fetch the model again") from error
    missing = [name for name in names if not (folder / name).exists()]
    if missing or not names:
        raise InputError(f"{index}: names {missing[0] if missing else 'no file'}, which is missing; fetch the model again")
    return [folder / name for name in names]


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name, in the order of their positions.

    Raises:
        InputError: the file is truncated, or is not a safetensors file.
    """
    try:
        with safe_open(file, framework="pt"):  # checks the header, and the length of the file against it
            pass
    except SafetensorError as error:
        raise InputError(f"{file}: is truncated or damaged ({error}); fetch the model again") from error
    end = data_start(file)
    with file.open("rb") as content:
        header = json.loads(content.read(end)[PREFIX:])
    header.pop("__metadata__", None)
    tensors = []
    for name, entry in header.items():
        begin, stop = entry["data_offsets"]
        tensors.append(StoredTensor(file, name, entry["dtype"], tuple(entry["shape"]), end + begin, stop - begin))
    return {tensor.name: tensor for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.name))}


def data_start(file: Path) -> int:
    """The position of the first tensor in a safetensors file, in bytes."""
    with file.open("rb") as content:
        return PREFIX + int.from_bytes(content.read(PREFIX), "little")
