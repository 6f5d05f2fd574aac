"""README.md, CONTRIBUTING.md and docs/: what they name exists, links resolve, and generated parts are current."""

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tools.docs import __main__ as docs
from tools.docs import benchmarks, markdown, messages, parameters, results
from tunepress.core.errors import InputError
from tunepress.core.params import read_yaml

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
LONGEST_README = 150  # lines
EXAMPLES = {  # paths that a reader creates, and folders of MLflow
    "data/config/",
    "data/model/",
    "data/tokenizer/",
    "conf/data/reviews.yaml",
    "conf/experiment/mine.jinja",
    "conf/experiment/mine.yaml",
    "data/inputs/rows.jsonl",
    "data/inputs/tone.jsonl",
    "data/raw/reviews.csv",
}
CREATED = {  # outputs that dvc.yaml does not name
    ".azure_job/job.yaml",
    ".checkpoints/",
    ".dvc/cache",
    ".dvc/config.local",
    ".dvc/tmp",
    ".search/int4/pareto.svg",
    "data/identified/files.json",
    "metrics/timings",
    "models/foundry-local",
}
TEMPLATES = {
    "conf/adapter/NAME.yaml",
    "conf/build/NAME.yaml",
    "benchmarks/results/NAME.json",
    "stages/NAME.py",
    "tunepress/config/GROUP.py",
    "conf/GROUP/",
}
FOREIGN = ("az", "curl", "docker", "dvc", "git", "gto", "kubectl", "nvidia-ctk", "pip", "apt-get")
FOREIGN_FLAGS = {"--fs-config", "--help", "--jobs", "--local", "--only-changed", "--queue", "--run-cache", "--temp", "--userns"}
FREE = (
    "build.extra_options.",
    "train.fsdp_config.",
    "train.lr_scheduler_kwargs.",
    "base_model.architecture.",
)  # keys with any name below
MARKED = re.compile(r"<!-- generated: [\w ]+ -->\n.*?<!-- end -->", re.DOTALL)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def written(page: Path) -> str:
    """A page without its generated parts."""
    return MARKED.sub("", page.read_text(encoding="utf-8"))


def code(page: Path) -> Iterator[str]:
    """The code of a page: each line of its blocks, with continuation lines joined, and each piece of code in its text."""
    text = written(page)
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from (line.removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines())
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from (span or other for span, other in re.findall(r"``\s(.+?)\s``|`([^`\n]+(?:\n[^`\n]+)?)`", prose))


def words_of(command: str) -> list[str]:
    try:
        return shlex.split(command, comments=True)
    except ValueError:  # a piece of a command
        return command.split()


def commands(page: Path) -> Iterator[list[str]]:
    """Commands of a page as words."""
    for line in code(page):
        for command in re.split(r"&&|;|\|", line):
            if words := words_of(command):
                yield words


every_page = pytest.mark.parametrize("page", PAGES, ids=page_id)


@every_page
def test_make_targets_and_variables_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    for words in commands(page):
        if "make" not in words:
            continue
        place = words.index("make")
        for word in words[place + 1 :]:
            name = word.partition("=")[0]
            if "=" in word:
                assert re.search(rf"\b{name}\b", makefile), f"{' '.join(words)}: no variable {name}"
            elif re.fullmatch(r"[a-z][a-z-]*", word):
                assert word in targets, f"{' '.join(words)}: no target {word}"


@every_page
def test_modules_exist_and_have_the_flags(page: Path) -> None:
    for words in commands(page):
        if "-m" not in words or "python" not in words[: words.index("-m")]:
            continue
        module, *arguments = words[words.index("-m") + 1 :]
        if module == "pytest":
            continue
        place = ROOT.joinpath(*module.split("."))
        if "NAME" in module:
            continue
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module
        sources = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py"), ROOT / "tunepress/core/stage.py"]
        known = {flag for source in [*sources, ROOT / "tunepress/core/stage.py"] for flag in flags_of(source)}
        wrapped = module == "tools.azure.share"  # hands the rest on to dvc
        for flag in (word for word in arguments if word.startswith("--")):
            assert wrapped or flag.partition("=")[0] in known, f"{module} {flag}"


@cache
def flags_of(source: Path) -> set[str]:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {text for text in strings if text.startswith("--")}


@every_page
def test_flags_without_a_module_exist(page: Path) -> None:
    known = {
        flag
        for folder in ("benchmarks", "stages", "tools", "tunepress")
        for source in (ROOT / folder).rglob("*.py")
        for flag in flags_of(source)
    }
    for words in commands(page):
        if words[0].startswith("--"):
            flags = words
        else:
            flags = [flag for word in words if word.startswith("ARGS=") for flag in word.removeprefix("ARGS=").split()]
        for flag in flags:
            if flag.startswith("--"):
                assert flag.partition("=")[0] in known | FOREIGN_FLAGS, f"{' '.join(words)}: no flag {flag}"


@every_page
def test_recipes_and_searches_exist(page: Path) -> None:
    for words in commands(page):
        for word in words:
            variable, _, name = word.partition("=")
            if variable in {"EXPERIMENT", "SEARCH"} and name.islower():
                assert (ROOT / "conf" / variable.lower() / f"{name}.yaml").exists(), word


@every_page
def test_keys_and_choices_exist(page: Path) -> None:
    for words in commands(page):
        if words[0] in FOREIGN and words[0] != "dvc":
            continue
        for word in words:
            key, equals, value = word.removeprefix("+").partition("=")
            group = key.partition(".")[0]
            if not re.fullmatch(r"[a-z_]+(\.\w+)*", key) or group not in groups():
                continue
            if not equals:
                assert key == group or is_key(key) or is_file_like(key), f"{word}: no such key"
            elif "." in key:
                assert is_key(key), f"{word}: no such key"
            elif key in folders() and re.fullmatch(r"[a-z0-9_]+", value) and value != "mine":
                assert (ROOT / "conf" / key / f"{value}.yaml").exists() or value == "reviews", f"{word}: no such choice"


@cache
def folders() -> set[str]:
    return {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}


@cache
def groups() -> set[str]:
    return {key.partition(".")[0] for key in keys()} | folders()


@cache
def keys() -> set[str]:
    page = (ROOT / "docs/parameters.md").read_text(encoding="utf-8")
    return azure_keys() | set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))


def azure_keys() -> set[str]:
    """The settings of `make azure-submit`."""
    tree = read_yaml(ROOT / "conf/azure/default.yaml")
    return {f"{group}.{key}" for group, keys in tree.items() if isinstance(keys, dict) for key in keys}


def is_key(key: str) -> bool:
    return key in keys() or any(name.startswith(f"{key}.") for name in keys()) or key.startswith(FREE) or key == "gate.passed"


def is_file_like(name: str) -> bool:
    return name.endswith((".json", ".jsonl", ".py", ".yaml", ".csv", ".html"))


@every_page
def test_paths_exist(page: Path) -> None:
    top = {path.name for path in ROOT.iterdir()} | {"models", "predictions", "report", ".checkpoints", ".search", ".azure_job"}
    for words in commands(page):
        if words[0] in FOREIGN:
            continue
        for word in words:
            name = re.sub(r"[,;:]+$", "", word.partition("=")[2] or word).strip("[]()")
            if not re.fullmatch(r"[\w./-]+", name) or "/" not in name or name.partition("/")[0] not in top:
                continue
            assert exists(name), f"{' '.join(words)}: {name} does not exist"


def exists(name: str) -> bool:
    return (
        (ROOT / name).exists()
        or name in EXAMPLES | CREATED | TEMPLATES
        or any(name.startswith(output.rstrip("/")) or output.startswith(name) for output in outputs())
    )


@cache
def outputs() -> set[str]:
    """The outputs of dvc.yaml, up to the first variable part of their names."""
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    names = set()
    for stage in stages.values():
        for kind in ("outs", "metrics", "plots"):
            for entry in stage.get(kind, []):
                name = entry if isinstance(entry, str) else next(iter(entry))
                names.add(name.partition("${")[0])
    return names | {"metrics/evaluate", "metrics/benchmark"}


@every_page
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", written(page)):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("training.md", " M parameters"),
        ("training.md", " GB free memory"),
        ("azure-rows.md", "this run continues with the known version"),
        ("azure-rows.md", "no answer within"),
        ("evaluation.md", "the bound of"),
        ("troubleshooting.md", "HYDRA_FULL_ERROR=1 shows the traceback"),
    ],
)
def test_what_a_page_quotes_is_what_the_code_prints(page: str, text: str) -> None:
    assert text in (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert any(
        text in source.read_text(encoding="utf-8")
        for folder in ("stages", "tools", "tunepress")
        for source in (ROOT / folder).rglob("*.py")
    )


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert {f"({page.name})" for page in ROOT.glob("docs/*.md") if page.name != "README.md"} <= set(
        re.findall(r"\([\w-]+\.md\)", index)
    )


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


@every_page
def test_generated_parts_are_current(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if page == ROOT / "README.md" and docs.generated(page) != page.read_text(encoding="utf-8"):
        monkeypatch.setattr(results, "read", committed)
    assert docs.generated(page) == page.read_text(encoding="utf-8"), "run `make docs`"


def committed(path: Path) -> dict[str, Any]:
    """A metrics file as it is committed: a run on another machine changes the one in the working tree."""
    shown = subprocess.run(["git", "show", f"HEAD:{path.as_posix()}"], capture_output=True, text=True, cwd=ROOT, check=True)
    metrics: dict[str, Any] = json.loads(shown.stdout)
    return metrics


def test_every_part_is_used() -> None:
    used = {name for page in PAGES for name in re.findall(r"<!-- generated: ([\w ]+) -->", page.read_text(encoding="utf-8"))}
    assert used - {"NAME"} == set(docs.PARTS)


def test_every_result_of_a_benchmark_is_in_a_table() -> None:
    modules = [(ROOT / f"tools/docs/{name}.py").read_text(encoding="utf-8") for name in ("benchmarks", "int4", "serving")]
    read = re.findall(r'read\("(\w+)"\)', "".join(modules))
    results = {re.sub("^full_size_.*", "full_size", path.stem) for path in ROOT.glob("benchmarks/results/*.json")}
    assert results == {*read, "full_size"}


def test_a_wrong_marker_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: weather -->\n<!-- end -->\n", encoding="utf-8")
    with pytest.raises(InputError, match="unknown part 'weather'; one of results"):
        docs.generated(page)


def test_missing_metrics_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^metrics/summary.json: .*; run `make repro`$"):
        results.table()
    with pytest.raises(InputError, match=r"^benchmarks/results/train.json: .* run `python -m benchmarks.train`"):
        benchmarks.train()


def test_the_readme_s_table_has_the_metrics_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/summary.json").write_text(
        '{"accuracy": 0.9458, "drop": 0.0084, "base": 0.2792, "baseline": 0.7833, "kl": 0.00666, "size_mb": 90.48}',
        encoding="utf-8",
    )
    (tmp_path / "metrics/speed.json").write_text('{"tokens_s": 144.1}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for text in ("| 0.783 |", "| 0.279 |", "| 0.954 |", "| **0.946** | 90 MB | 144 |", "0.0067"):
        assert text in results.table()


def test_every_key_has_a_meaning() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| (.*) \|$", (ROOT / "docs/parameters.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert not [key for key, meaning in rows if not meaning.strip()]


def test_a_key_has_the_comment_of_conf(tmp_path: Path) -> None:
    file = tmp_path / "default.yaml"
    file.write_text('# Head\na: "x # y" # first\nb: # second\n  c: 1\n  d: [1, 2] # third\ne: null\n', encoding="utf-8")
    assert parameters.comments(file) == {"a": "first", "b": "second", "b.d": "third"}
    assert parameters.heading(file) == "Head"


def test_messages_are_collected_from_the_source() -> None:
    source = """
raise InputError(f"{path}: not found; run `make repro` ({error.reason}, {1 + 1})")
def check(train) -> None:
    message = f"train.optim: unknown {name!r}, one of" if train else "train: must not be empty"
    raise RequestError(400, message, "train")
def problem(train) -> str | None:
    return "train.fsdp: needs several processes" if train else None
def name() -> str:
    return "not a message for the user at all"
"""
    assert messages.error_texts(ast.parse(source)) == {
        "<path>: not found; run `make repro` (<reason>, <...>)",
        "train.fsdp: needs several processes",
        "train.optim: unknown <name>, one of",
        "train: must not be empty",
    }


def test_a_table_escapes_bars() -> None:
    assert markdown.table(["a"], [["b|c"]]) == "| a |\n| --- |\n| b\\|c |"
