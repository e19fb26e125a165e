"""The bridge from a cancel token to anyio's scopes; only here a cancel becomes a value."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import anyio

from ._token import CancelToken


@contextmanager
def cancel_scope(token: CancelToken) -> Generator[anyio.CancelScope]:
    """Run a block that ends when the token is cancelled.

    Raises:
        StreamCancelled: The block was cut short by the token. A block that comes to its end in
            spite of the cancel keeps its result.

    Cancellation:
        Inside, every await raises the event loop's own cancellation until the block is left.
    """
    with anyio.CancelScope() as scope:
        listener = token.add_listener(lambda cancellation: scope.cancel(str(cancellation)))
        try:
            yield scope
        finally:
            listener.remove()
    if scope.cancelled_caught:
        token.raise_if_cancelled()


def shield_if_cancelled() -> AbstractContextManager[object]:
    """Shield a block where a scope around it is cancelled, and would cut it at its first await.

    Elsewhere no scope is opened: code in the block that leaves a scope it has entered before (a
    generator that is closed inside a task group of its own) could not leave it in ours.
    """
    if anyio.current_effective_deadline() == -math.inf:
        return anyio.CancelScope(shield=True)
    return nullcontext()
