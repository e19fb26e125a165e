"""`generate()` of transformers ends between two tokens when its request is cut short.

It is what most published models call, in `predict` or on a thread of their own, and none of them
gives it a criterion that asks. It takes such criteria as an argument, so one that asks is added.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from streamkit._core import CancelToken, current_token

_MODULE: Final = "transformers.generation.utils"
_CRITERIA: Final = "stopping_criteria"


def end_generate() -> None:
    """From now on it ends so, in this process; no effect where nobody has imported it. Idempotent.

    What is given to it otherwise stays as it is, and without a request it asks nobody.
    """
    module: Any = sys.modules.get(_MODULE)
    mixin = getattr(module, "GenerationMixin", None)
    generate = getattr(mixin, "generate", None)
    lists = getattr(module, "StoppingCriteriaList", None)
    if mixin is None or generate is None or lists is None or hasattr(generate, "asks"):
        return
    place = _place_of_criteria(generate)
    if place is not None:
        mixin.generate = _asking(generate, place, lists)


def _place_of_criteria(generate: Callable[..., object]) -> int | None:
    """Where among its positional arguments they stand, behind the model."""
    try:
        names = list(inspect.signature(generate).parameters)
    except (TypeError, ValueError):
        return None
    return names.index(_CRITERIA) - 1 if _CRITERIA in names else None


def _asking(generate: Callable[..., Any], place: int, lists: Any) -> Callable[..., Any]:
    @wraps(generate)
    def asking(model: Any, *args: Any, **options: Any) -> Any:
        token = current_token()
        if not token.cancellable:
            return generate(model, *args, **options)
        given = args[place] if len(args) > place else options.get(_CRITERIA)
        criteria = lists([*(given or ()), _Left(token)])
        if len(args) > place:
            return generate(model, *args[:place], criteria, *args[place + 1 :], **options)
        return generate(model, *args, **{**options, _CRITERIA: criteria})

    asking.asks = True  # type: ignore[attr-defined]
    return asking


class _Left:
    """The criterion. A plain truth value, for all rows: it is joined to what others say of each."""

    __slots__ = ("_token",)

    def __init__(self, token: CancelToken) -> None:
        self._token = token

    def __call__(self, input_ids: object, scores: object, **options: object) -> bool:
        return self._token.cancelled

    def __repr__(self) -> str:
        return f"<ends with {self._token!r}>"
