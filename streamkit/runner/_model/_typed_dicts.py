"""On Python 3.11 pydantic takes the TypedDict of typing_extensions alone: that one is made."""

from __future__ import annotations

import sys
import types
import typing
from typing import Annotated, Any, Final, NotRequired, Required, Union, get_args, get_origin

import typing_extensions

_MARKS: Final = (Required, NotRequired)


def supported(annotation: Any) -> Any:
    """Return what means the same to pydantic; the annotation itself where that is enough.

    A typed dict that contains itself is, inside itself, any ``dict``.
    """
    return annotation if sys.version_info >= (3, 12) else _rebuilt(annotation, ())


def _rebuilt(annotation: Any, within: tuple[Any, ...]) -> Any:
    if typing.is_typeddict(annotation):
        return _typed_dict(annotation, within)
    args = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extras = args
        rebuilt = _rebuilt(inner, within)
        return annotation if rebuilt is inner else Annotated[(rebuilt, *extras)]
    rebuilt_args = tuple(_rebuilt(arg, within) for arg in args)
    if all(new is old for new, old in zip(rebuilt_args, args, strict=True)):
        return annotation
    if origin is types.UnionType:
        return Union[rebuilt_args]  # noqa: UP007 - of a tuple
    if hasattr(annotation, "copy_with"):  # List[T], Union[T, None]
        return annotation.copy_with(rebuilt_args)
    return origin[rebuilt_args]


def _typed_dict(typed_dict: Any, within: tuple[Any, ...]) -> Any:
    if typed_dict in within:
        return dict[str, Any]
    hints = typing.get_type_hints(typed_dict, include_extras=True)
    fields: dict[str, Any] = {}
    for name, hint in hints.items():
        # Its keys are wrong where annotations are postponed: what a field says itself comes first.
        mark: Any = Required if name in typed_dict.__required_keys__ else NotRequired
        marked = hint if get_origin(hint) in _MARKS else mark[hint]
        kind = _rebuilt(get_args(marked)[0], (*within, typed_dict))
        fields[name] = get_origin(marked)[kind]
    make: Any = typing_extensions.TypedDict
    made = make(typed_dict.__name__, fields)
    made.__doc__ = typed_dict.__doc__
    made.__module__ = typed_dict.__module__
    if hasattr(typed_dict, "__pydantic_config__"):
        made.__pydantic_config__ = typed_dict.__pydantic_config__
    return made
