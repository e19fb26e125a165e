"""Paths of the image that Truss builds, spelt out in a model: nobody makes them here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from streamkit.runner._model._target import Form, Target

from ._report import Code, Finding, Severity


def image_findings(target: Target, source: bytes) -> Iterator[Finding]:
    """Name the first of each that is not there on this machine."""
    if target.form is not Form.FOLDER:
        return
    folders = {"/app": target.root, "/packages": target.root / target.config.package_dirs[0]}
    for place, folder in folders.items():
        line = None if Path(place).exists() else _first_line(source, place)
        if line is not None:
            text = (
                f"{place} is a path of the image that Truss builds, and not there: "
                f"`ln -s {folder} {place}` makes it"
            )
            yield Finding(line, Severity.NOTE, Code.BY_HAND, text)


def _first_line(source: bytes, place: str) -> int | None:
    try:
        nodes = ast.walk(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # told as such
    lines = (
        node.lineno
        for node in nodes
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and (node.value == place or node.value.startswith(f"{place}/"))
    )
    return min(lines, default=None)
