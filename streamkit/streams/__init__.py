"""Async iterators with an owner: what `cancellable` makes of generators, sync and async."""

from __future__ import annotations

from ._cancellable import OnCancel, cancellable
from ._drive import drive
from ._stream import BREATHE_EVERY, CLOSE_GRACE, Abortable, CancellableStream, close_orphans
from ._threaded import ThreadedGenerator

__all__ = [
    "BREATHE_EVERY",
    "CLOSE_GRACE",
    "Abortable",
    "CancellableStream",
    "OnCancel",
    "ThreadedGenerator",
    "cancellable",
    "close_orphans",
    "drive",
]
