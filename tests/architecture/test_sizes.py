"""A file is read in one sitting, a function on one screen."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "streamkit").rglob("*.py"))
FILE_LIMIT = 400
FUNCTION_LIMIT = 60  # with signature and docstring; 40 is where to start thinking


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_one_idea_and_its_functions_are_short(path: Path) -> None:
    source = path.read_text()
    too_long = [
        f"{node.name} (line {node.lineno}): {lines(node)} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines(node) > FUNCTION_LIMIT
    ]

    assert len(source.splitlines()) <= FILE_LIMIT
    assert not too_long


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
