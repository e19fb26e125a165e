"""Models of pydantic's first version, which the second still carries as `pydantic.v1`."""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any, get_args

from ._explain import LINES_SHOWN, refuse, written

_MODULE = "pydantic.v1.main"


class OldModel:
    """Validates by such a model class, as pydantic's ``TypeAdapter`` does by others."""

    __slots__ = ("_model",)

    def __init__(self, model: Any) -> None:
        self._model = model

    def validate_python(self, value: object) -> object:
        """Return an instance.

        Raises:
            BadPayload: It does not fit.
        """
        module: Any = sys.modules[_MODULE]
        try:
            return self._model.parse_obj(value)
        except module.ValidationError as error:
            problems = error.errors()
            shown = [(written(each["loc"]), each["msg"]) for each in problems[:LINES_SHOWN]]
            raise refuse(shown, more=len(problems) - LINES_SHOWN) from None

    def json_schema(self, *, by_alias: bool, ref_template: str, mode: str) -> dict[str, Any]:
        """Return its schema, what it refers to in ``$defs``; it has but one mode."""
        del mode
        schema: dict[str, Any] = self._model.schema(by_alias=by_alias, ref_template=ref_template)
        if "definitions" in schema:
            schema["$defs"] = schema.pop("definitions")
        return schema


def is_old_model(annotation: object) -> bool:
    """Whether it is such a class."""
    base = getattr(sys.modules.get(_MODULE), "BaseModel", None)
    return base is not None and inspect.isclass(annotation) and issubclass(annotation, base)


def has_old_models(annotation: object) -> bool:
    """Whether it is made of others: pydantic takes them, and fails when it validates."""
    return is_old_model(annotation) or any(map(has_old_models, get_args(annotation)))


def as_plain(value: Any) -> object | None:
    """What an instance is in JSON, by its own rules; None for anything else."""
    return json.loads(value.json()) if is_old_model(value.__class__) else None
