"""What counts the chunks that it gave, and can be asked for one before the last was written."""

from __future__ import annotations

from abc import abstractmethod


class Countable:
    """What an async iterator is, too, that wants to know which of its chunks were handed over.

    Unless told otherwise it takes a chunk for handed over when it is asked for the next one, as
    any reader can be expected to do.

    Attributes:
        ahead: Whether its reader asks ahead, and calls :meth:`offer` and :meth:`taken` itself.
    """

    # No protocol, no ABC: each stream is asked whether it is one, and that has to cost nothing.
    __slots__ = ("ahead",)

    ahead: bool

    @property
    @abstractmethod
    def may_ask_ahead(self) -> bool:
        """Whether asking what it iterates for the next chunk says nothing of the last one."""

    @abstractmethod
    def offer(self) -> None:
        """All that it gave is about to be written; this may take long, and is not its doing."""

    @abstractmethod
    def taken(self) -> None:
        """It was written, and the client was there."""
