"""What counts the chunks that it gave, and can be asked for one before the last was written."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Countable(Protocol):
    """An async iterator that wants to know which of its chunks were handed over.

    Unless told otherwise it takes a chunk for handed over when it is asked for the next one, as
    any reader can be expected to do.

    Attributes:
        ahead: Whether its reader asks ahead, and calls :meth:`offer` and :meth:`taken` itself.
    """

    ahead: bool

    @property
    def may_ask_ahead(self) -> bool:
        """Whether asking what it iterates for the next chunk says nothing of the last one."""
        ...

    def offer(self) -> None:
        """All that it gave is about to be written; this may take long, and is not its doing."""

    def taken(self) -> None:
        """It was written, and the client was there."""
