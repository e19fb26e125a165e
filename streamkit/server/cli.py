"""`streamkit`: which command it is; each command's own module says what it takes."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from streamkit import __version__

__all__ = ["main"]

_COMMANDS: Final = {
    "serve": ("streamkit.server._serve", "serve a model class or an engine over HTTP"),
    "check": ("streamkit.server._check", "say how a model class will be cancelled"),
    "engines": ("streamkit.server._engines", "list the engines, and what a cancel does to each"),
    "demo": ("streamkit.server.demo", "watch clients leave, and the engine stop"),
    # By name only: nothing imports the test kit; these two are all of it that a user runs.
    "chaos": ("streamkit.testing.chaos", "drop clients on any streaming server, and judge it"),
    "doctor": ("streamkit.testing.doctor", "say what a proxy does to streams, and what to set"),
}
_LIST: Final = "\n".join(f"  {name:8}{purpose}" for name, (_, purpose) in _COMMANDS.items())
_EPILOG: Final = f"""commands:
{_LIST}

`streamkit COMMAND --help` says more about each.

exit status: 0 done (for serve: after a drain), 1 it could not start or failed, 2 wrong usage
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="streamkit",
        usage="streamkit COMMAND …",
        description="When nobody is listening any more, the engine stops.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"streamkit {__version__}")
    parser.add_argument("command", nargs="?", choices=_COMMANDS, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help(sys.stderr)
        return 2
    # Only now: `--help` and `--version` need no web framework.
    module = importlib.import_module(_COMMANDS[given.command][0])
    status: int = module.main(given.arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
