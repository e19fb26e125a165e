"""A value as an annotation says: validated by pydantic where pydantic can."""

from __future__ import annotations

import collections.abc
import inspect
import math
from typing import Any, Final, ForwardRef, TypeAlias, cast, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from ._explain import explain, refuse
from ._old_models import OldModel, has_old_models, is_old_model
from ._typed_dicts import supported

JsonSchema: TypeAlias = dict[str, Any]
REFS: Final = "#/components/schemas/{model}"  # where OpenAPI keeps what schemas have in common

_SAYS_NOTHING: Final = (inspect.Parameter.empty, Any, object, None, type(None))
# pydantic has schemas for these, too. Iterators it wraps in an object of its own, whose errors
# come when the model iterates; the others no payload can be.
_NO_DATA: Final[tuple[object, ...]] = (
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
    collections.abc.Awaitable,
    collections.abc.Callable,  # pyright: ignore[reportUnknownMemberType]
    collections.abc.Coroutine,
    collections.abc.Generator,
    collections.abc.Iterable,
    collections.abc.Iterator,
    type,
)


class Validator:
    """What one parameter takes, by its annotation.

    Attributes:
        is_model: The annotation is a pydantic model class, the one kind that Truss validates.
        why_inactive: Why values pass as they are; None if they are validated.
    """

    __slots__ = ("_adapter", "is_model", "why_inactive")

    def __init__(self, annotation: object) -> None:
        self.is_model: bool = inspect.isclass(annotation) and issubclass(annotation, BaseModel)
        self.why_inactive: str | None = _why_not(annotation)
        self._adapter: TypeAdapter[Any] | OldModel | None = None
        if self.why_inactive is None:
            self._adapter, self.why_inactive = _adapter(annotation)

    @property
    def active(self) -> bool:
        """Whether values are validated at all."""
        return self._adapter is not None

    def __call__(self, value: object) -> object:
        """Return ``value`` as the annotation has it, by pydantic's lax rules, as Truss does.

        Raises:
            BadPayload: It does not fit.
            Exception: What a validator of the user's raises that is neither ``ValueError`` nor
                ``AssertionError``: the model has failed, not the client.
        """
        if self._adapter is None:
            return value
        try:
            return _validated(self._adapter, value)
        except UnicodeEncodeError:
            # By pydantic, when a validator of the user's says what it got, and got such text.
            raise refuse([("", "half of a surrogate pair is no text")]) from None

    def schema(self, ref_template: str = REFS, *, answer: bool = False) -> JsonSchema | None:
        """Return the JSON schema of what is taken, or None where there is none.

        Args:
            ref_template: How a schema names another, which then stands in its ``$defs``.
            answer: Whether it is for what ``dump_json`` writes of such a value instead.
        """
        if self._adapter is None:
            return None
        try:
            schema = self._adapter.json_schema(
                by_alias=not answer,
                ref_template=ref_template,
                mode="serialization" if answer else "validation",
            )
        except PydanticInvalidForJsonSchema:
            return None
        return _without_infinities(schema)


def _without_infinities(node: Any) -> Any:
    """A schema without the defaults and limits that no JSON can say."""
    if isinstance(node, dict):
        items = cast("dict[str, Any]", node).items()
        return {key: _without_infinities(value) for key, value in items if not _is_endless(value)}
    if isinstance(node, list):
        return [_without_infinities(each) for each in cast("list[Any]", node)]
    return node


def _is_endless(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_is_endless, cast("list[object]", value)))
    return isinstance(value, float) and not math.isfinite(value)


def _validated(adapter: TypeAdapter[Any] | OldModel, value: object) -> object:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise explain(error, value) from None


def _why_not(annotation: object) -> str | None:
    """Why pydantic is not even asked."""
    if any(annotation is nothing for nothing in _SAYS_NOTHING):
        return "the annotation says nothing of the data"
    if isinstance(annotation, (str, ForwardRef)):
        return f"the annotation {annotation!r} does not resolve"
    # pydantic takes a dict for one of its own schemas, and a function for one to call.
    if isinstance(annotation, dict) or inspect.isroutine(annotation):
        return f"the annotation is no type: {annotation!r:.80}"
    if (no_data := _no_data(annotation)) is not None:
        return f"{no_data!r:.80} is nothing that a body can hold"
    return None


def _no_data(annotation: object) -> object | None:
    origin = get_origin(annotation)
    kind = annotation if origin is None else origin
    if any(kind is each for each in _NO_DATA):  # by identity: an array equals nothing, and raises
        return annotation
    return next((found for arg in get_args(annotation) if (found := _no_data(arg))), None)


def _adapter(annotation: object) -> tuple[TypeAdapter[Any] | OldModel | None, str | None]:
    if is_old_model(annotation):
        return OldModel(annotation), None
    if has_old_models(annotation):
        return None, f"models of pydantic.v1 are validated by themselves alone: {annotation!r:.80}"
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(supported(annotation))
        # A name in a model that does not resolve would be told at the first use.
        if not getattr(adapter, "pydantic_complete", True):  # since pydantic 2.10
            adapter.rebuild(raise_errors=True)
        _ = adapter.validator  # before, this looked
    except Exception as error:  # noqa: BLE001 - also what a class's own hooks raise, or lack
        said = str(error).partition("\n")[0] or type(error).__name__
        return None, f"pydantic cannot validate {annotation!r:.80}: {said}"
    return adapter, None
