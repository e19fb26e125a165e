"""Processes of an engine or a model end with this one, also where it is killed and cannot end them.

vLLM's engine core goes on when its parent was killed (vllm-project/vllm#55510), and keeps the GPU:
the next server finds no memory.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
from typing import IO, Final

# A shell of its own outlives us by nature: its input ends with us, whatever ended us. Not
# PR_SET_PDEATHSIG: only a child can ask for that, and the signal comes with the end of the thread
# that forked, which in a server is one of many.
_LAST_WORD: Final = "while read -r line; do pids=$line; done; kill -9 $pids"


class Orphans:
    """Has whatever `multiprocessing` started here killed when this process is no more."""

    __slots__ = ("_guard", "_told")

    def __init__(self) -> None:
        self._guard: subprocess.Popen[str] | None = None
        self._told: list[int] = []
        os.register_at_fork(after_in_child=self._let_go)

    def note(self) -> None:
        """Tell the guard who there is, if that has changed; it is started with the first one."""
        there = sorted(child.pid for child in multiprocessing.active_children() if child.pid)
        if there == self._told:
            return
        self._told = there
        if (line := self._line()) is None:
            return
        try:
            line.write(" ".join(map(str, there)) + "\n")
            line.flush()
        except OSError:  # somebody ended it: there will be another
            self._guard, self._told = None, []

    def _line(self) -> IO[str] | None:
        shell = shutil.which("sh")
        if self._guard is None and shell is not None:
            self._guard = subprocess.Popen(  # noqa: S603 - a constant
                [shell, "-c", _LAST_WORD],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # what is sent to our group is not for it
            )
        return None if self._guard is None else self._guard.stdin

    def _let_go(self) -> None:
        """In a forked process: it must not keep the guard waiting."""
        if self._guard is not None and self._guard.stdin is not None:
            os.close(self._guard.stdin.fileno())
