"""What a client is told of inputs that do not fit: the path of each mistake, in Truss's form."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from streamkit.errors import BadPayload

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

# Whoever sent nonsense needs no list of all of it, and made up the names in the paths.
_MOST_LISTED: Final = 2000  # pydantic lists all or none, 4 µs each, and finds millions in 8 MB
LINES_SHOWN: Final = 20
_PATH_SHOWN: Final = 200
_MESSAGE_SHOWN: Final = 500

_ONE: Final = "Input Parsing Error:"
_MANY: Final = "Input Parsing Errors:"

Location: TypeAlias = tuple[int | str, ...]


def explain(error: ValidationError, value: object) -> BadPayload:
    """Return the error for a client that sent ``value``."""
    if error.error_count() > _MOST_LISTED:
        return BadPayload(f"{_MANY}\n  {error.error_count()} of them, too many to list.")
    problems = error.errors(include_url=False, include_context=False)
    shown = [
        (written(_as_sent(each, value)), each["msg"] or each["type"])
        for each in problems[:LINES_SHOWN]
    ]
    return refuse(shown, more=len(problems) - LINES_SHOWN)


def refuse(problems: Iterable[tuple[str, str]], *, more: int = 0) -> BadPayload:
    """Return the error that names these paths and what is wrong there."""
    lines = [_line(path, message) for path, message in problems]
    if more > 0:
        lines.append(f"  and {more} more.")
    return BadPayload("\n".join([_ONE if len(lines) == 1 else _MANY, *lines]))


def _line(path: str, message: str) -> str:
    return textwrap.indent(f"`{_cut(path, _PATH_SHOWN)}`: {_cut(message, _MESSAGE_SHOWN)}.", "  ")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def written(location: Iterable[int | str]) -> str:
    """``("items", 1, "v")`` is ``items[1].v``."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
        if len(path) > _PATH_SHOWN:
            break
    return path


def _as_sent(problem: ErrorDetails, value: object) -> Iterator[int | str]:
    """The location without the names of union branches, which only pydantic knows.

    They are what is not in the value that was sent, but for a field that is missing there; and
    the input of an error at such a branch is the value in front of it.
    """
    location: Location = problem["loc"]
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        found, inside = _look(value, part)
        if found:
            value = inside
            yield part
        elif isinstance(part, int) or part == "[key]" or (is_last and _is_field(problem, value)):
            yield part


def _is_field(problem: ErrorDetails, value: object) -> bool:
    return problem["type"].startswith("missing") or problem["input"] is not value


def _look(value: object, part: int | str) -> tuple[bool, object]:
    if isinstance(value, Mapping):
        fields = cast("Mapping[object, object]", value)
        return part in fields, fields.get(part)
    if isinstance(value, list) and isinstance(part, int):
        items = cast("list[object]", value)
        return True, items[part] if part < len(items) else None
    return False, None
