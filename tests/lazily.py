"""A package that loads when a test first uses it: each worker collects all tests and runs few."""

from __future__ import annotations

import importlib
from typing import Any


class Lazily:
    """Stands for a package and loads at a public name; pytest looks for others."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)
