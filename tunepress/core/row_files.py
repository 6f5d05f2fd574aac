"""Files of rows: which kinds there are, and which files a path, a folder or a pattern names."""

from glob import glob, has_magic
from pathlib import Path, PurePath

from tunepress.core.errors import InputError

FORMATS = {  # by suffix; each may also be gzipped, as in .jsonl.gz
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
GZIP = ".gz"
SAVED_DATASET = ("dataset_dict.json", "state.json")  # in a folder that `save_to_disk` of the datasets library has written


def suffix_of(name: str) -> str:
    """The suffix of a file's name that tells its kind, without that of gzip."""
    path = PurePath(name.lower())
    return (path.with_suffix("") if path.suffix == GZIP else path).suffix


def kind_problem(name: str) -> str | None:
    """Why a file with this name cannot have rows; None if it can."""
    suffix = suffix_of(name)
    return None if suffix in FORMATS else f"unknown kind of file {suffix!r}; known: {', '.join(FORMATS)}, each also gzipped (.gz)"


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of the datasets library."""
    return any((path / name).is_file() for name in SAVED_DATASET)


def is_pattern(file: str) -> bool:
    """Whether a name is a pattern, such as rows/*.jsonl, and not an existing file whose name has such characters."""
    return has_magic(file) and not Path(file).exists()


def find_files(file: str) -> list[Path]:
    """The files that a path names, in the order of their names: itself, those of a folder, or those that match a pattern.

    A folder of `save_to_disk` is itself.

    Raises:
        InputError: there are none.
    """
    path = Path(file)
    if path.is_file() or is_saved_dataset(path):
        return [path]
    if path.is_dir():
        paths = sorted(path.iterdir())
        files = [path for path in paths if path.is_file() and suffix_of(path.name) in FORMATS and path.name[0] not in "._"]
        if not files:
            raise InputError(f"{file}: no files of rows are in this folder; known kinds: {', '.join(FORMATS)}")
        return files
    if not is_pattern(file):
        raise InputError(f"{file}: no such file (data.files)")
    files = sorted(path for path in map(Path, glob(file, recursive=True)) if path.is_file())  # noqa: PTH207  (may be absolute)
    if not files:
        raise InputError(f"{file}: no file matches this pattern (data.files)")
    return files
