"""Async iterators with an owner: what `cancellable` makes of generators, sync and async."""

from __future__ import annotations

from ._annotations import REQUEST, RequestKind, namespace_of
from ._calls import call_in_thread
from ._cancellable import OnCancel, cancellable, makes_stream
from ._countable import Countable
from ._drive import drive
from ._insist import Step
from ._stream import BREATHE_EVERY, CLOSE_GRACE, Abortable, CancellableStream, close_orphans
from ._threaded import ThreadedGenerator
from ._workers import OneThread

__all__ = [
    "BREATHE_EVERY",
    "CLOSE_GRACE",
    "REQUEST",
    "Abortable",
    "CancellableStream",
    "Countable",
    "OnCancel",
    "OneThread",
    "RequestKind",
    "Step",
    "ThreadedGenerator",
    "call_in_thread",
    "cancellable",
    "close_orphans",
    "drive",
    "makes_stream",
    "namespace_of",
]
