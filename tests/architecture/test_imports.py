"""What an import costs, and who may import what beyond the layers that import-linter holds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import streamkit

ROOT = Path(__file__).parents[2]
LOADED_BY = """
import sys
before = set(sys.modules)
import {module}
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}))
"""
ANYIO_AND_WHAT_IT_NEEDS = {"anyio", "exceptiongroup", "idna", "sniffio", "typing_extensions"}


def third_party_loaded_by(module: str) -> set[str]:
    script = LOADED_BY.format(module=module)
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split()) - sys.stdlib_module_names - {"streamkit"}


def test_import_streamkit_loads_nothing_and_its_names_anyio_and_nothing_heavier() -> None:
    assert third_party_loaded_by("streamkit") == set()

    loaded = third_party_loaded_by("streamkit.streams")

    assert loaded <= ANYIO_AND_WHAT_IT_NEEDS, "import the rest where it is used"


def test_a_name_that_streamkit_has_not_is_said_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'streamkit' has no attribute 'cancelable'"):
        streamkit.cancelable  # noqa: B018

    assert "cancellable" in dir(streamkit)


def test_the_pytest_plugin_loads_no_server_and_no_client() -> None:
    # It is imported by every pytest run on a machine that has streamkit, used or not.
    loaded = third_party_loaded_by("streamkit.testing.plugin")

    heavy = {"fastapi", "httpx", "prometheus_client", "pydantic", "sse_starlette", "uvicorn"}
    assert not loaded & heavy


def test_examples_use_public_names_only() -> None:
    private = [
        f"{path.relative_to(ROOT)}:{node.lineno} {name}"
        for folder in ("examples", "docs")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imported(node)
        if name.startswith("streamkit") and "._" in name
    ]

    assert not private, "a path with an underscore is no promise to users"


def imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), names=names):
            return [f"{module}.{alias.name}" for alias in names]
        case _:
            return []
