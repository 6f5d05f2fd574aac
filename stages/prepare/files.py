"""Opens a file of rows: finds its kind, compression and encoding from its first bytes, and names what cannot be read."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import BadZipFile, ZipFile

from tunepress.core.errors import InputError, one_line
from tunepress.core.row_files import FORMATS, kind_problem, suffix_of

HEAD = 4096  # bytes that tell the kind of a file
GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK\x03\x04"
PARQUET_MAGIC = b"PAR1"
FOREIGN = {  # first bytes of what is not a file of rows, and what to do
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls); save it as .xlsx",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; decompress it, or compress it with gzip",
    b"\xfd7zXZ": "compressed with xz; decompress it, or compress it with gzip",
    b"BZh91AY&SY": "compressed with bzip2; decompress it, or compress it with gzip",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it",
    b"ARROW1": "an Arrow file; save it as Parquet",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"%PDF": "a PDF; save the rows as CSV or JSON lines",
    b"version https://git-lfs": "a pointer of Git LFS; run `git lfs pull`",
    b"<!doctype html": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
}
BOMS = {  # in this order, because that of UTF-16 begins that of UTF-32
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


@dataclass(frozen=True)
class RowFile:
    """A file of rows.

    Attributes:
        path: where it is.
        name: what errors call it; its suffix tells the kind.
        kind: one of the values of FORMATS.
        gzipped: whether it is compressed.
        encoding: of its text.
        details: what was detected and is not the plain default, to be reported; readers add to it.
    """

    path: Path
    name: str
    kind: str
    gzipped: bool
    encoding: str
    details: list[str] = field(default_factory=list)

    @property
    def suffix(self) -> str:
        return suffix_of(self.name)

    def open(self) -> BinaryIO:
        return cast(BinaryIO, gzip.open(self.path)) if self.gzipped else self.path.open("rb")

    def open_text(self, newline: str) -> io.TextIOWrapper:
        return io.TextIOWrapper(self.open(), encoding=self.encoding, newline=newline)

    def open_seekable(self) -> BinaryIO:
        """The file for a reader that needs to seek; decompressed in memory."""
        return io.BytesIO(gzip.decompress(self.path.read_bytes())) if self.gzipped else self.path.open("rb")


def inspect(path: Path, name: str | None = None) -> RowFile | None:
    """Finds out what a file is; None if it is empty.

    Args:
        path: the file.
        name: its name, if the path has another, as a download in a cache.

    Raises:
        InputError: it is not a file of rows.
    """
    name = name or str(path)
    if problem := kind_problem(name):
        raise InputError(f"{name}: {problem}")
    with path.open("rb") as file:
        gzipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    unknown = RowFile(path, name, FORMATS[suffix_of(name)], gzipped, "utf-8")
    with reading(unknown), unknown.open() as stream:
        head = stream.read(HEAD)
    if not head:
        return None
    kind, details = detected_kind(unknown, head), []
    if kind != unknown.kind:
        details.append(f"read as {kind}, which it is in spite of its name")
    encoding = "utf-8" if kind in ("parquet", "xlsx") else detected_encoding(name, head)
    if encoding in ("utf-16", "utf-32"):
        details.append(encoding.upper())
    return RowFile(path, name, kind, gzipped, encoding, details)


def detected_kind(file: RowFile, head: bytes) -> str:
    """The kind of a file: that of its first bytes, otherwise that of its name."""
    if foreign := next((cure for magic, cure in FOREIGN.items() if head.lower().startswith(magic.lower())), None):
        raise InputError(f"{file.name}: is {foreign}")
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    if not head.startswith(ZIP_MAGIC):
        return file.kind
    try:
        with reading(file), file.open_seekable() as stream, ZipFile(stream) as archive:
            if "xl/workbook.xml" in archive.namelist():
                return "xlsx"
    except BadZipFile as error:
        raise InputError(f"{file.name}: not readable as xlsx ({one_line(error)}); save the file again") from error
    raise InputError(f"{file.name}: is a zip archive; unpack it, or compress the file with gzip")


def detected_encoding(name: str, head: bytes) -> str:
    """The encoding of a text, from its byte order mark; UTF-8 without one."""
    encoding = next((encoding for bom, encoding in BOMS.items() if head.startswith(bom)), None)
    if encoding is None and (head[1:4:2] == b"\0\0" or head[0:3:2] == b"\0\0"):
        raise InputError(f"{name}: is UTF-16 without a byte order mark; save the file as UTF-8")
    return encoding or "utf-8"


@contextmanager
def reading(file: RowFile) -> Iterator[None]:
    """Translates errors of the decompression and of the encoding into an InputError."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{file.name}: not readable as gzip ({one_line(error)}); compress or copy it again") from error
    except UnicodeDecodeError as error:
        raise encoding_error(file, error) from error


def encoding_error(file: RowFile, error: UnicodeDecodeError) -> InputError:
    if not file.encoding.startswith("utf-8"):
        return InputError(f"{file.name}: not {file.encoding.upper()} ({error.reason}); save the file as UTF-8")
    with file.open() as stream:
        data = stream.read()
    try:
        data.decode()
    except UnicodeDecodeError as error_of_whole:
        line = data.count(b"\n", 0, error_of_whole.start) + 1
        return InputError(f"{file.name} line {line}: not UTF-8 (byte {error_of_whole.start}); save the file as UTF-8")
    return InputError(f"{file.name}: changed while it was read")
