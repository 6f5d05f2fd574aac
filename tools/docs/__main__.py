"""Writes the generated parts of the documents, or compares them.

A generated part is between `<!-- generated: NAME -->` and `<!-- end -->`, where NAME is a key of PARTS.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from tools.docs import benchmarks, int4, messages, parameters, results, serving
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output

PARTS: dict[str, Callable[[], str]] = {
    "results": results.table,
    "parameters": parameters.sections,
    "recipes": parameters.recipes,
    "architectures": parameters.architecture_table,
    "messages": messages.sections,
    **benchmarks.PARTS,
    **int4.PARTS,
    **serving.PARTS,
}
MARKED = re.compile(r"(?P<begin><!-- generated: (?P<name>[\w ]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make docs", description="Write the generated parts of README.md and docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a part is stale")
    check = parser.parse_args().check
    try:
        stale = [path for path in pages() if path.read_text(encoding="utf-8") != generated(path)]
        if check and stale:
            raise InputError(f"{', '.join(map(str, stale))}: generated parts are stale; run `make docs`")
        for path in stale:
            text = generated(path)
            with atomic_output(path) as partial:
                partial.write_text(text, encoding="utf-8")
            print(f"{path}: written")
    except InputError as error:
        sys.exit(f"docs: {error}")


def pages() -> list[Path]:
    return [Path("README.md"), *sorted(Path("docs").glob("*.md"))]


def generated(path: Path) -> str:
    """The text of a page with its generated parts made again.

    Raises:
        InputError: a marker names a part that does not exist, or a part cannot be made.
    """

    def part(match: re.Match[str]) -> str:
        if match["name"] not in PARTS:
            raise InputError(f"{path}: unknown part {match['name']!r}; one of {', '.join(PARTS)}")
        return f"{match['begin']}{PARTS[match['name']]()}\n{match['end']}"

    return MARKED.sub(part, path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
