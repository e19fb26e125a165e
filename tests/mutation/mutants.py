"""What can be broken in a source file: one small change each, found by its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

_COMPARED: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
# What these say, or hold, is nobody's promise.
_SKIPPED = {"__repr__", "__slots__", "__all__", "logger"}


class Mutant(NamedTuple):
    """One change: characters ``start`` to ``end`` of the source become ``text``."""

    line: int
    start: int
    end: int
    old: str
    text: str

    def apply(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]

    def __str__(self) -> str:
        return f"`{' '.join(self.old.split())}` → `{self.text}`".replace("|", "\\|")


def mutants_of(source: str) -> list[Mutant]:
    """Every change that there is, in the order of the file."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def at(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    found: set[Mutant] = set()
    for node in _walk(ast.parse(source)):
        for part, text in _changes(node):
            assert part.end_lineno is not None
            assert part.end_col_offset is not None
            start = at(part.lineno, part.col_offset)
            end = at(part.end_lineno, part.end_col_offset)
            found.add(Mutant(part.lineno, start, end, source[start:end], text))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.text))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if _is_skipped(child):
            continue
        yield child
        yield from _walk(child)


def _is_skipped(node: ast.AST) -> bool:
    match node:
        case ast.FunctionDef(name=name) | ast.Attribute(value=ast.Name(id=name)):
            return name in _SKIPPED
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name in _SKIPPED
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="logger")))):
            return True
        case ast.Expr(value=ast.Constant()) | ast.Assert() | ast.JoinedStr():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case _:
            return isinstance(node, ast.arguments)  # annotations and defaults


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            yield node, f"{ast.unparse(left)} {_COMPARED[type(op)]} {ast.unparse(right)}"
        case ast.BoolOp(op=op, values=values):
            word = " or " if isinstance(op, ast.And) else " and "
            yield node, f"({word.join(f'({ast.unparse(each)})' for each in values)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.Constant(value=bool() as value):
            yield node, str(not value)
        case ast.Constant(value=int() | float() as value):
            yield node, str(value + 1)
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield node, "return None"
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield node, "pass"
        case _:
            return
