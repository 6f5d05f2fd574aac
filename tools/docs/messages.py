"""The error texts of the source, for docs/troubleshooting.md."""

import ast
import re
from pathlib import Path

FOLDERS = ("stages", "tools", "tunepress", "hydra_plugins")
SHORTEST = 15  # characters of a text that says something


def sections() -> str:
    """The texts of all errors that a user can cause, by the package that raises them, in alphabetical order."""
    parts = []
    for package, texts in by_package().items():
        lines = "\n".join(f"- {code(text)}" for text in sorted(texts, key=lambda text: text.lstrip("<").lower()))
        parts.append(f"### {package}\n\n{lines}")
    return "\n\n".join(parts)


def by_package() -> dict[str, set[str]]:
    packages: dict[str, set[str]] = {}
    for folder in FOLDERS:
        for path in sorted(Path(folder).rglob("*.py")):
            package = "/".join(path.with_suffix("").parts[:2])
            if texts := error_texts(ast.parse(path.read_text(encoding="utf-8"))):
                packages.setdefault(package, set()).update(texts)
    return packages


def error_texts(tree: ast.Module) -> set[str]:
    """What a module's errors say: texts of exceptions that it raises, and texts that its functions return as `str | None`."""
    texts: set[str] = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module)):
        assigned = {
            target.id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        returns_problem = (
            not isinstance(function, ast.Module) and function.returns and ast.unparse(function.returns) == "str | None"
        )
        for node in ast.walk(function):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                for argument in node.exc.args:
                    texts |= texts_of(assigned.get(argument.id, argument) if isinstance(argument, ast.Name) else argument)
            elif isinstance(node, ast.Return) and node.value and returns_problem:
                texts |= texts_of(node.value)
    return {text for text in texts if " " in text and len(re.sub("<[^>]*>", "", text).strip(" :;,()")) > SHORTEST}


def texts_of(node: ast.expr) -> set[str]:
    """The texts that an expression can be, with <name> for what one is filled with; none for what is not a literal."""
    if isinstance(node, ast.IfExp):
        return texts_of(node.body) | texts_of(node.orelse)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.JoinedStr):
        return {"".join(str(part.value) if isinstance(part, ast.Constant) else placeholder(part) for part in node.values)}
    return set()


def placeholder(node: ast.expr) -> str:
    value = node.value if isinstance(node, ast.FormattedValue) else node
    if isinstance(value, ast.Name):
        return f"<{value.id}>"
    if isinstance(value, ast.Attribute):
        return f"<{value.attr}>"
    return "<...>"


def code(text: str) -> str:
    """A text as code of Markdown, backquotes included."""
    flat = " ".join(text.split())
    return f"`` {flat} ``" if "`" in flat else f"`{flat}`"
