"""What the published sources of engines that cannot run here call things: facts, by place.

Each entry is a class or function with the parameters, fields and members that were read there.
``STUBS`` of a test say which of our stand-ins has to keep to which entry.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection
from typing import Any

Names = dict[str, Collection[str]]


def parameters(function: Any) -> set[str]:
    """What a caller may name."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    signature = inspect.signature(function)
    named = {name for name, one in signature.parameters.items() if one.kind not in kinds}
    return named - {"self"}


def members(a_class: type, without: Collection[str] = ()) -> set[str]:
    """What is public of a class: methods, properties, fields, and what its ``__init__`` sets."""
    found = {name for base in a_class.__mro__[:-1] for name in vars(base)}
    if dataclasses.is_dataclass(a_class):
        found |= {field.name for field in dataclasses.fields(a_class)}
    else:
        source = inspect.getsource(a_class.__init__)
        found |= {line.split()[0][5:].rstrip(":") for line in source.splitlines() if _sets(line)}
    return {name for name in found if not name.startswith("_")} - set(without)


def _sets(line: str) -> bool:
    return line.strip().startswith("self.") and " = " in line
