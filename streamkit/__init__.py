"""When nobody is listening any more, the engine stops."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ._core import (
        Cancellation,
        CancelSource,
        CancelToken,
        Phase,
        Reason,
        cancel_scope,
        current_token,
    )
    from .errors import EngineFailed, RequestRefused, StreamCancelled, StreamkitError, UsageBug
    from .streams import cancellable

__version__ = "0.1.0"

__all__ = [
    "CancelSource",
    "CancelToken",
    "Cancellation",
    "EngineFailed",
    "Phase",
    "Reason",
    "RequestRefused",
    "StreamCancelled",
    "StreamkitError",
    "UsageBug",
    "__version__",
    "cancel_scope",
    "cancellable",
    "current_token",
]

# Each name is loaded when it is first used, as anyio does it: command lines and tools that only
# look at a package should not pay for what it stands on.
_HOMES: Final = {
    "CancelSource": "streamkit._core",
    "CancelToken": "streamkit._core",
    "Cancellation": "streamkit._core",
    "EngineFailed": "streamkit.errors",
    "Phase": "streamkit._core",
    "Reason": "streamkit._core",
    "RequestRefused": "streamkit.errors",
    "StreamCancelled": "streamkit.errors",
    "StreamkitError": "streamkit.errors",
    "UsageBug": "streamkit.errors",
    "cancel_scope": "streamkit._core",
    "cancellable": "streamkit.streams",
    "current_token": "streamkit._core",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
