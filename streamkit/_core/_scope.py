"""The bridge from a cancel token to anyio's scopes; only here a cancel becomes a value."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

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
