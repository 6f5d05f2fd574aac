"""The error texts of the source, for docs/troubleshooting.md."""

import ast
from pathlib import Path

FOLDERS = ("stages", "tools", "tunepress", "hydra_plugins")
ERRORS = {"InputError", "ConfigCompositionException"}


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
    """What a module's errors say: texts of InputError(...), and texts that a function returns which returns `str | None`."""
    texts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
            texts.add(text_of(node.args[0]))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name in {"refusal", "problem"}:
            texts |= {text_of(node.value) for node in ast.walk(function) if isinstance(node, ast.Return) and node.value}
    return {text for text in texts if len(text.replace("<...>", "").strip(" :;,()")) > 15}


def text_of(node: ast.expr) -> str:
    """A text with <name> for what it is filled with, or nothing for what is not a literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else placeholder(part) for part in node.values)
    return ""


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
