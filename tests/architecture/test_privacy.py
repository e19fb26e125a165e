"""One underscore means: of this file. The classes of one file may be friends, others may not look.

pyright and ruff have a rule with this name which forbids friends too, so theirs are off.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "streamkit").rglob("*.py"))
# In Python's own manual.
DOCUMENTED = {
    "asyncio._enter_task",
    "asyncio._get_running_loop",
    "asyncio._leave_task",
    "os._exit",
    "sys._current_frames",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(tree: ast.AST) -> Iterator[str]:
    """Every name that the file gives to something: by def, assignment, annotation or slot."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Constant(value=str(name)):  # __slots__
                yield name
            case _:
                pass


def foreign(tree: ast.AST) -> Iterator[str]:
    ours = set(defined(tree)) | DOCUMENTED
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass  # a subclass may be in another file
            case ast.Attribute(attr=name) if is_private(name):
                if not {name, ast.unparse(node)} & ours:
                    yield f"line {node.lineno}: {ast.unparse(node)}"
            case ast.ImportFrom(module=module, names=names):
                private = [alias.name for alias in names if module and is_private(alias.name)]
                yield from (f"line {node.lineno}: from {module} import {name}" for name in private)
            case _:
                pass


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_uses_no_private_name_of_another(path: Path) -> None:
    assert not list(foreign(ast.parse(path.read_text())))
