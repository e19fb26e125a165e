"""Every exception that streamkit raises on purpose, sorted by who has to act on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamkit._core import Cancellation

__all__ = [
    "BadPayload",
    "EngineFailed",
    "MissingPackage",
    "ModelDefinitionError",
    "ModelLoadFailed",
    "RequestRefused",
    "StreamCancelled",
    "StreamkitError",
    "TargetNotFound",
    "ThreadInterrupted",
    "UnsupportedOption",
    "UsageBug",
]


class StreamkitError(Exception):
    """Base of everything below; never raised itself."""


class RequestRefused(StreamkitError):
    """The client has to come back later: there is no room for its request now.

    Attributes:
        retry_after: Seconds after which trying again makes sense.
        status: The HTTP status that fits: 429 for "too many", 503 for "not now".
    """

    def __init__(self, message: str, *, retry_after: float, status: int = 429) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status


class UnsupportedOption(StreamkitError, ValueError):
    """The client has to do without something, for the engine does not have it.

    Attributes:
        option: What that is, as ``Capabilities.takes`` spells it.
    """

    def __init__(self, option: str, engine: str) -> None:
        super().__init__(f"{option} is not supported by engine {engine}")
        self.option = option


class StreamCancelled(StreamkitError):
    """The work was cut short by its cancel token; nobody has to act.

    Raised where the work would otherwise look complete, so that a broken stream never ends cleanly.

    Attributes:
        cancellation: Who cancelled, when, in which phase.
    """

    def __init__(self, cancellation: Cancellation) -> None:
        super().__init__(cancellation)  # as text only when somebody asks: most are never shown
        self.cancellation = cancellation

    def __str__(self) -> str:
        return str(self.cancellation)


class EngineFailed(StreamkitError):
    """The operator has to look: the engine broke. ``__cause__`` is the engine's own error."""


class MissingPackage(StreamkitError):
    """An optional package was asked for and is not installed; the message says how to get it."""


class UsageBug(StreamkitError, TypeError):
    """The caller's code is wrong: a signature, an argument or an order of calls."""


class ModelDefinitionError(UsageBug):
    """A model class cannot be served as it is: names class, method, parameter and the way out."""


class TargetNotFound(StreamkitError):
    """The user named a model that is not there: no such module, file, folder or class."""


class ModelLoadFailed(StreamkitError):
    """The user's model did not load. ``__cause__`` is its own error, if it was one."""


class BadPayload(StreamkitError):
    """The client has to send another body; the message is what it is answered with status 400."""


class ThreadInterrupted(BaseException):
    """Raised inside sync code that opted in with ``interrupt=True``, when its token is cancelled.

    No :class:`StreamkitError` and no ``Exception``: it has to get past the ``except Exception`` of
    model code, as ``KeyboardInterrupt`` does. Whoever called that code gets ``StreamCancelled``.
    """
