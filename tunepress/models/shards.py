"""The weights of a model folder as they lie in its safetensors files: where each tensor is, and a part of it read or written.

Files are read and written, not mapped: mapped pages count as the process's memory for as long as the mapping lasts.
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

SINGLE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"  # transformers' names; it prefers the first
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PREFIX = 8  # bytes before a safetensors file's header: its length, little-endian
BLOCK = 1 << 19  # elements of a part: all that is computed from it stays in the processor's cache, and C's heap keeps its memory
THREADS = 8  # at most: each holds some parts, and more of them would only wait for the disk

ReadRows = Callable[[int, int], torch.Tensor]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file.

    Attributes:
        file: where it lies.
        name: its name there.
        kind: safetensors' name of its type.
        shape: as torch has it.
        start: place of its first byte in the file.
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
        """Torch's type, where `check_type` finds no fault with it."""
        return DTYPES[self.kind]

    def check_type(self) -> None:
        """Raises InputError unless its values are floats that can be added to."""
        if self.kind not in DTYPES:
            raise InputError(f"{self.file}: {self.name} is of type {self.kind}, not {', '.join(DTYPES)}; take a float model")

    @property
    def rows(self) -> int:
        """Length of the first dimension."""
        return self.shape[0] if self.shape else 1

    @property
    def row_size(self) -> int:
        """Bytes of a row."""
        return self.size // max(self.rows, 1)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """All rows in parts of about BLOCK elements: the first row of each part, and the one after its last."""
        step = max(1, BLOCK // max(1, math.prod(self.shape[1:])))
        for first in range(0, self.rows, step):
            yield first, min(first + step, self.rows)

    def read(self, first: int = 0, last: int | None = None) -> torch.Tensor:
        """The rows from `first` to before `last`; without them all."""
        last = self.rows if last is None else last
        return self.read_bytes(first, last).view(self.dtype).view(last - first, *self.shape[1:])

    def read_bytes(self, first: int, last: int) -> torch.Tensor:
        """The same as bytes, whatever their type."""
        content = torch.empty((last - first) * self.row_size, dtype=torch.uint8)
        unread = content.numpy().data
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start + first * self.row_size)
            while unread:
                count = file.readinto(unread)
                if not count:
                    raise InputError(f"{self.file}: ends within {self.name}; it was changed while it was read")
                unread = unread[count:]
        return content

    def write(self, first: int, rows: torch.Tensor) -> None:
        """Overwrites as many rows as are given, from `first` on."""
        unwritten = rows.reshape(-1).view(torch.uint8).numpy().data
        with self.file.open("r+b", buffering=0) as file:
            file.seek(self.start + first * self.row_size)
            while unwritten:
                unwritten = unwritten[file.write(unwritten) :]


class Replacement(Protocol):
    """What takes the place of a tensor."""

    @property
    def like(self) -> StoredTensor:
        """A tensor of the same shape and type."""

    @property
    def divisible(self) -> bool:
        """Whether its rows can be made a few at a time."""

    def opened(self) -> ReadRows:
        """Reads what all rows need, and returns what makes the rows from a first one to before a last one."""


@dataclass(frozen=True)
class Shards:
    """The safetensors files of a model folder.

    Attributes:
        folder: where they lie.
        files: in the order of their names.
        tensors: by name.
    """

    folder: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def of(cls, folder: Path) -> "Shards":
        """Looks into the files of a folder that transformers would load.

        Raises:
            InputError: one of them is missing or cut short.
        """
        files = tuple(weight_files(folder))
        return cls(folder, files, {name: stored for file in files for name, stored in read_header(file).items()})

    def write(self, folder: Path, changes: Mapping[str, Replacement]) -> None:
        """Writes these files to `folder`, with other values in the place of some tensors.

        Layout, types and metadata stay. What is to be in the place of a tensor that there is not comes to a file of its own.

        Args:
            folder: an existing one.
            changes: by name of the tensor.
        """
        added = {name: change for name, change in changes.items() if name not in self.tensors}
        names = shard_names(len(self.files) + 1) if added else [file.name for file in self.files]
        # One part a core, and all torch does for it in that thread: while one waits for the disk, the others compute.
        with ThreadPoolExecutor(min(available_cores(), THREADS), initializer=torch.set_num_threads, initargs=(1,)) as pool:
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
    """A tensor as it is."""

    like: StoredTensor
    divisible: bool = True

    def opened(self) -> ReadRows:
        """Bytes: of these types too that torch cannot compute with."""
        return self.like.read_bytes


def write_tensor(place: StoredTensor, change: Replacement, pool: Executor) -> None:
    """Writes a tensor to its place: in parts on all cores, or at once with as many threads as torch has."""
    rows = change.opened()

    def write(block: tuple[int, int]) -> None:
        place.write(block[0], rows(*block))

    if change.divisible:
        for _ in pool.map(write, place.blocks()):  # raises what a part has raised
            pass
    else:
        write((0, place.rows))


def write_tensors(file: Path, tensors: Mapping[str, Replacement], pool: Executor) -> None:
    """Writes a safetensors file with these tensors alone."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, change in tensors.items():
        begin, end = end, end + change.like.size
        header[name] = {"dtype": change.like.kind, "shape": change.like.shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % PREFIX)  # the format wants the values aligned
    with file.open("wb") as content:
        content.write(len(encoded).to_bytes(PREFIX, "little") + encoded)
        content.truncate(content.tell() + end)
    for name, place in read_header(file).items():
        write_tensor(place, tensors[name], pool)


def write_index(folder: Path, names: list[str]) -> None:
    """Writes the index of a folder's files of these names."""
    stored = [one for name in names for one in read_header(folder / name).values()]
    weight_map = {one.name: one.file.name for one in sorted(stored, key=lambda one: one.name)}
    write_json(folder / INDEX, {"metadata": {"total_size": sum(one.size for one in stored)}, "weight_map": weight_map})


def shard_names(total: int) -> list[str]:
    """The names that transformers gives to so many files."""
    return [f"model-{number:05}-of-{total:05}.safetensors" for number in range(1, total + 1)]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would load.

    Raises:
        InputError: there are none, or one that the index names is missing.
    """
    if (folder / SINGLE_FILE).exists():
        return [folder / SINGLE_FILE]
    index = folder / INDEX
    if not index.exists():
        raise InputError(f"{folder}: has neither {SINGLE_FILE} nor {INDEX}; fetch the model again")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: is no index of weights ({type(error).__name__}: {error}); fetch the model again") from error
    missing = [name for name in names if not (folder / name).exists()]
    if missing or not names:
        raise InputError(f"{index}: names {missing[0] if missing else 'no file'}, which is missing; fetch the model again")
    return [folder / name for name in names]


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name, in the order in which they lie there.

    Raises:
        InputError: the file is cut short, or no such file.
    """
    try:
        with safe_open(file, framework="pt"):  # checks the header, and the length of the file against it
            pass
    except SafetensorError as error:
        raise InputError(f"{file}: is cut short or damaged ({error}); bring it here again") from error
    end = data_start(file)
    with file.open("rb") as content:
        header = json.loads(content.read(end)[PREFIX:])
    header.pop("__metadata__", None)
    tensors = []
    for name, one in header.items():
        begin, stop = one["data_offsets"]
        tensors.append(StoredTensor(file, name, one["dtype"], tuple(one["shape"]), end + begin, stop - begin))
    return {stored.name: stored for stored in sorted(tensors, key=lambda stored: (stored.start, stored.name))}


def data_start(file: Path) -> int:
    """Bytes of a safetensors file before its first tensor."""
    with file.open("rb") as content:
        return PREFIX + int.from_bytes(content.read(PREFIX), "little")
