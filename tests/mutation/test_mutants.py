"""The mutants themselves: each is Python, and is another program."""

import ast
from pathlib import Path

import pytest

from .mutants import mutants_of

SOURCE = '''
"""A docstring of 1 word."""

def decide(a: int = 1, /) -> bool:
    """And another."""
    if a < 2 and not a is None:
        act("ä", True)
    logger.info("1")
    return a == 1
'''


def test_a_mutant_is_one_change_and_leaves_alone_what_nobody_promised() -> None:
    assert [str(mutant) for mutant in mutants_of(SOURCE)] == [
        "`a < 2` → `a <= 2`",
        "`a < 2 and not a is None` → `((a < 2) or (not a is None))`",
        "`2` → `3`",
        "`not a is None` → `(a is None)`",
        "`a is None` → `a is not None`",
        '`act("ä", True)` → `pass`',
        "`True` → `False`",
        "`return a == 1` → `return None`",
        "`a == 1` → `a != 1`",
        "`1` → `2`",
    ]


@pytest.mark.parametrize("path", ["streamkit/_core/_token.py", "streamkit/asgi/_gather.py"])
def test_each_mutant_of_the_core_is_another_program_that_can_be_read(path: str) -> None:
    source = (Path(__file__).parents[2] / path).read_text()

    for mutant in mutants_of(source):
        assert ast.dump(ast.parse(mutant.apply(source))) != ast.dump(ast.parse(source)), mutant
