"""What the names in a source file mean, as far as that can be told without importing anything."""

from __future__ import annotations

import ast
import builtins
import sys
import typing
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Final, TypeAlias

from streamkit.streams import REQUEST, RequestKind

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

_REQUESTS: Final = frozenset(
    {"starlette.requests.Request", "fastapi.Request", "fastapi.requests.Request"}
)
_TYPING: Final = frozenset({"typing", "typing_extensions"})
_ALIASES: Final = 20  # of one another, before they are taken for a circle
_OR: Final = ast.BitOr()
KNOWN: Final = sys.stdlib_module_names | {"fastapi", "pydantic", "starlette", "streamkit"}


@dataclass(frozen=True, slots=True)
class Symbol:
    """Something that a name stands for, by its dotted path; of this file: ``.Name``."""

    path: str
    bases: tuple[object, ...] = ()

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # whoever looks for a protocol finds none
            raise AttributeError(name)
        return _meaning(f"{self.path}.{name}")


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for what an expression says; looked into as a ``type`` statement is."""

    expression: ast.expr

    @property
    def __value__(self) -> ast.expr:
        return self.expression


def _meaning(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(typing, name, Symbol(path)) if module in _TYPING else Symbol(path)


def _covers(leaf: object) -> bool:
    return isinstance(leaf, Symbol) and (
        leaf.path in _REQUESTS or any(_covers(base) for base in leaf.bases)
    )


def _may_cover(leaf: object) -> bool:
    if not isinstance(leaf, Symbol):
        return False
    if leaf.path.startswith(".") and leaf.path.count(".") == 1:
        return any(_may_cover(base) for base in leaf.bases)
    return leaf.path.partition(".")[0] not in KNOWN


CERTAIN: Final = RequestKind(_covers, REQUEST.words)
"""An annotation that is a request at run time."""

POSSIBLE: Final = RequestKind(_may_cover, frozenset())
"""An annotation that comes from where this check does not look."""


@dataclass(slots=True)
class Names:
    """The names that one file binds at its top level, and what it imports anywhere.

    Names that exist for type checkers alone are left out, as they are at run time.
    """

    tree: ast.Module
    bound: dict[str, object] = field(default_factory=dict[str, object])
    classes: dict[str, ast.ClassDef] = field(default_factory=dict[str, ast.ClassDef])
    functions: dict[str, Function] = field(default_factory=dict[str, Function])
    _inside: dict[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        for statement in statements(self.tree.body):
            self._bind(statement, self.bound)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._inside |= _imported(node)

    def namespace(self, owner: ast.ClassDef) -> Mapping[str, object]:
        """Where the annotations of a class's methods mean something."""
        inside: dict[str, object] = {}
        for statement in statements(owner.body):
            self._bind(statement, inside)
        return ChainMap(self.bound, dict(vars(builtins)), inside)

    def path(self, node: ast.expr) -> str:
        """Return the dotted path that an expression stands for, "" if that cannot be told."""
        meaning = self._resolve(node)
        return meaning.path if isinstance(meaning, Symbol) else ""

    def is_known(self, node: ast.expr) -> bool:
        """Whether a name is of this file, or of a package that this check knows."""
        path = self.path(node)
        return path.partition(".")[0] in {"", *KNOWN}

    def symbol(self, node: ast.expr) -> object:
        """Return what a base class or a decorator stands for, without its arguments."""
        while isinstance(node, ast.Subscript | ast.Call):
            node = node.value if isinstance(node, ast.Subscript) else node.func
        return self._resolve(node) or Symbol(f"?.{ast.unparse(node)}")

    def _resolve(self, node: ast.expr, aliases: int = 0) -> object:
        if aliases > _ALIASES:
            return None
        match node:
            case ast.Name(id=name):
                found = self.bound.get(name) or self._inside.get(name)
                if found is None and hasattr(builtins, name):
                    return Symbol(f"builtins.{name}")
                if isinstance(found, Alias):
                    return self._resolve(found.expression, aliases + 1)
                return found
            case ast.Attribute(value=value, attr=name):
                return getattr(self._resolve(value, aliases), name, None)
            case _:
                return None

    def _bind(self, statement: ast.stmt, into: dict[str, object]) -> None:
        match statement:
            case ast.Import() | ast.ImportFrom():
                into |= _imported(statement)
            case ast.ClassDef(name=name, bases=bases):
                into[name] = Symbol(f".{name}", tuple(self.symbol(base) for base in bases))
                if into is self.bound:
                    self.classes[name] = statement
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                into[name] = Symbol(f".{name}")
                if into is self.bound:
                    self.functions[name] = statement
            case _:
                for name, value in assigned(statement):
                    if not (name in into and _mentions(value, name)):  # `Request = Request | None`
                        into[name] = self._value(value)

    def _value(self, value: ast.expr) -> object:
        match value:
            case ast.Call(func=function, args=[_, of]) if self._resolve(function) is typing.NewType:
                return Alias(of)
            case ast.Call(func=function, keywords=[ast.keyword(arg="bound", value=bound)]) if (
                self._resolve(function) is typing.TypeVar
            ):
                return Alias(bound)
            case ast.Call(func=function, args=[_, first, *others]) if (
                self._resolve(function) is typing.TypeVar
            ):  # its constraints, as a union
                return Alias(reduce(lambda one, other: ast.BinOp(one, _OR, other), others, first))
            case ast.Call():
                maker = self.symbol(value)
                return Symbol(f"{maker.path}()") if isinstance(maker, Symbol) else object()
            case _:
                return Alias(value)


def _mentions(value: ast.expr, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(value))


def _imported(node: ast.Import | ast.ImportFrom) -> dict[str, object]:
    if isinstance(node, ast.ImportFrom):
        module = "." * node.level * 2 + (node.module or "")
        return {each.asname or each.name: _meaning(f"{module}.{each.name}") for each in node.names}
    names: dict[str, object] = {}
    for each in node.names:
        top = each.name.partition(".")[0]
        names[each.asname or top] = Symbol(each.name if each.asname else top)
    return names


# -- what a file or a class does when it is executed -----------------------------------------------


def statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement that runs on import: of branches too, but not what is for type checkers."""
    for statement in body:
        match statement:
            case ast.If(test=test, body=then, orelse=orelse):
                if not _is_for_type_checkers(test):
                    yield from statements(then)
                yield from statements(orelse)
            case ast.Try(body=tried, handlers=handlers, orelse=orelse, finalbody=final):
                # First what is for the case that it fails, so that the usual one wins.
                for handler in handlers:
                    yield from statements(handler.body)
                for part in (tried, orelse, final):
                    yield from statements(part)
            case ast.With(body=inside):
                yield from statements(inside)
            case _:
                yield statement


def _is_for_type_checkers(test: ast.expr) -> bool:
    match test:
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
        case _:
            return False


def assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """The plain names that a statement gives a value, with that."""
    match statement:
        case ast.Assign(targets=targets, value=value):
            yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
        case ast.stmt() if type(statement).__name__ == "TypeAlias":  # new in Python 3.12
            yield statement.name.id, statement.value  # type: ignore[attr-defined]
        case _:
            return
