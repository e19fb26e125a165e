"""What a reader has not taken yet of an engine that waits: when there is enough, it does."""

from __future__ import annotations

from typing import Final

import anyio

from ._base import Chunk
from ._outbox import Outbox

UNREAD_LIMIT: Final = 16  # tokens; enough for a reader that is busy for a moment


class BoundedOutbox(Outbox):
    """An outbox whose writer can wait until the reader has taken something."""

    __slots__ = ("_room",)

    def __init__(self) -> None:
        super().__init__()
        self._room: anyio.Event | None = None

    @property
    def full(self) -> bool:
        """Whether the writer should wait."""
        return sum(unread.tokens for unread in self._choices.values()) >= UNREAD_LIMIT

    async def wait_room(self) -> None:
        """Wait for the reader.

        Cancellation:
            Stops waiting.
        """
        while self.full:
            self._room = anyio.Event()
            await self._room.wait()

    def take(self) -> Chunk:
        """Hand over what came first; there must be something."""
        chunk = super().take()
        self.make_room()
        return chunk

    def make_room(self) -> None:
        """Have the writer look again.

        Not where the outbox is cleared: a writer that is about to be interrupted should wait for
        that where it is, and not go on for a moment, to be struck in the middle of its cleanup.
        """
        if self._room is not None:
            self._room.set()
            self._room = None
