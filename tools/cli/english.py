"""The word list of `make lint`: finds phrases and names of variables that are not plain English.

It reads all of a Markdown file, the comments and strings of a Python file, and the comments of other files.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

PHRASES = {  # what to avoid, and what to write
    r"(?<!there )(?<!what )\b(is|are|was|were) no (?!longer|more|less|fewer|later|such|one\b|way)\w+": "is not a ...",
    r"\b(is|are) none of\b": "is not one of",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bwants\b": "needs",
    r"\b(stands?|stood|lies|lie|lay) (in|at|on|there|beside|behind|under|between|apart)\b": "is in",
    r"\bor else\b|[,;:] else\b(?! if)": "otherwise",
    r"\banew\b": "again",
    r"\blikeliest\b": "most likely",
    r"\bbut for\b": "except",
    r"\bheeds?\b": "respects",
    r"\bthe like\b": "similar",
    r"[,;] for (it|they|there|then) (is|are|has|have)\b": "because ...",
    r"\b(goes|go|went) before\b": "takes precedence over",
    r"\bbehind (it|them|this|that|which|the (report|key|value|prompt|answer))\b": "after",
}
NAMES = {"asked", "found", "given", "one", "said", "there", "told", "wanted"}  # a variable is named after what it holds
CURES = list(PHRASES.values())
PATTERN = re.compile("|".join(f"(?P<phrase_{number}>{phrase})" for number, phrase in enumerate(PHRASES)), re.IGNORECASE)
UNCHECKED = ("data/", "LICENSE", "tools/cli/english.py", "tests/tools/cli/test_english.py")  # beginnings of paths
GENERATED = re.compile(r"<!-- generated: .*?<!-- end -->", re.DOTALL)
SUFFIXES = {".md", ".py", ".yaml", ".jinja", ".toml", ".in", ".Dockerfile", ""}


def main() -> None:
    """Prints each finding as path:line and exits with 1 if there are any."""
    findings = [
        f"{path}:{line}: {phrase!r}: write {cure!r}"
        for path in tracked_files()
        if path.suffix in SUFFIXES and not str(path).startswith(UNCHECKED)
        for line, phrase, cure in check(path.read_text(encoding="utf-8"), path.suffix)
    ]
    if findings:
        sys.exit("\n".join(findings))


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--deduplicate", "-co", "--exclude-standard"], check=True, capture_output=True, text=True
    )
    return [path for path in map(Path, listed.stdout.splitlines()) if path.is_file()]


def check(text: str, suffix: str) -> Iterator[tuple[int, str, str]]:
    """The line, the phrase and what to write instead, for each phrase or name of the lists."""
    for first_line, prose in passages(text, suffix):
        for match in PATTERN.finditer(prose):
            cure = CURES[int((match.lastgroup or "").removeprefix("phrase_"))]
            yield first_line + prose.count("\n", 0, match.start()), match.group(), cure
    for node in ast.walk(ast.parse(text)) if suffix == ".py" else ():
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in NAMES:
            yield node.lineno, node.id, "the name of what it holds"
        elif isinstance(node, ast.arg) and node.arg in NAMES:
            yield node.lineno, node.arg, "the name of what it holds"


def passages(text: str, suffix: str) -> Iterator[tuple[int, str]]:
    """The parts of a file that are written for people, each with its first line."""
    if suffix in {".md", ".jinja"}:  # what is generated is checked in the files that it comes from
        yield 1, GENERATED.sub(lambda match: "\n" * match.group().count("\n"), text)
    elif suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in {tokenize.COMMENT, tokenize.STRING}:
                yield token.start[0], token.string
    else:
        for number, line in enumerate(text.splitlines(), 1):
            yield number, line.partition("#")[2]


if __name__ == "__main__":
    main()
