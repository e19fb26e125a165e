"""Each test that the page on security names is there, and each threat names one."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_each_test_that_is_named_is_there() -> None:
    there = {file: names_in(file) for file, _ in NAMED}

    assert [f"{file}::{name}" for file, name in NAMED if name not in there[file]] == []
    assert len(NAMED) > 50


def test_each_threat_names_the_test_that_holds_it() -> None:
    rows = [
        line for line in PAGE.splitlines() if line.startswith("| ") and "| held by |" not in line
    ]

    assert [row for row in rows if not re.search(r"`tests/[\w/]+\.py::\w+` \|$", row)] == []
    assert len(rows) > 30


def test_each_test_about_security_is_named() -> None:
    files = sorted((ROOT / "tests/security").glob("test_*.py"))
    written = {
        (f"tests/security/{file.name}", name)
        for file in files
        for name in names_in(f"tests/security/{file.name}")
        if name.startswith("test_")
    }

    assert written - set(NAMED) == set()
