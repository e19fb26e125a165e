"""The code in a page: its Python by file name, and its command lines with what they print."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """One page; each block of Python begins with ``# NAME.py``."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text()

    def blocks(self, language: str) -> list[str]:
        return [code for kind, code in _BLOCK.findall(self.text) if kind == language]

    def write_files(self, folder: Path) -> None:
        """Lay out what a reader who follows the page has on disk."""
        for code in self.blocks("python"):
            (folder / code.splitlines()[0].removeprefix("# ")).write_text(code)

    def commands(self) -> list[tuple[str, str]]:
        """Command lines and their output, where the page shows one."""
        parts = [part for block in self.blocks("console") for part in block.split("$ ")[1:]]
        return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]
