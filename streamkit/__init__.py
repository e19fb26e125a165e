"""When nobody is listening any more, the engine stops."""

from __future__ import annotations

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
