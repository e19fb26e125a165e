"""Processes that a model forks: workers of its own, which are no second server."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import suppress
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def disown_children(sock: socket.socket) -> None:
    """See to it that a forked process neither answers for this one nor hears in its place.

    A fork copies the handlers of signals, and shares the pipe that wakes the event loop: a worker
    that is terminated would go on, and the server may drain instead (measured). It would also hold
    the port after the server has ended.

    Args:
        sock: What the server listens on.
    """
    listener = sock.fileno()
    before = threading.local()

    # Held back over the fork: Python drops in the child what came before it has its own handlers.
    def hold_back() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def forget() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(OSError):
            os.close(listener)  # the socket object would wait for its loop to let go of it
        release()

    os.register_at_fork(before=hold_back, after_in_parent=release, after_in_child=forget)
