"""Where a source file can be broken in one place: comparisons, constants, negations, and so on."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
# Types are for the reader, and these calls are for whoever looks for a fault.
UNTESTED_CALLS = ("logger.", "_logger.", "log.")


@dataclass(frozen=True, slots=True)
class Site:
    """One place that can be broken, and how.

    Attributes:
        line: its number, from 1.
        kind: of mutation.
        start: where the text begins in the file, in bytes.
        end: where it ends.
        old: the text.
        new: what stands there instead.
    """

    line: int
    kind: str
    start: int
    end: int
    old: str
    new: str

    def apply(self, source: str) -> str:
        """The file with this one place broken."""
        raw = source.encode()
        return (raw[: self.start] + self.new.encode() + raw[self.end :]).decode()


def sites_of(source: str) -> list[Site]:
    """All places of a file, in their order."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = []
    for node, kind, new in _Finder().find(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        old = source.encode()[start:end].decode()
        found.append(Site(node.lineno, kind, start, end, old, new))
    return sorted(found, key=lambda site: (site.start, site.end, site.kind, site.new))


Found = tuple["ast.expr | ast.stmt", str, str]


class _Finder:
    """Walks a tree and says what can be broken; not annotations, docstrings and f-strings."""

    def find(self, tree: ast.AST) -> Iterator[Found]:
        for name, value in ast.iter_fields(tree):
            if name in {"annotation", "returns"}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.JoinedStr) or not isinstance(child, ast.AST):
                    continue
                if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                    continue
                if isinstance(child, ast.stmt | ast.expr):
                    yield from self._at(child)
                yield from self.find(child)

    def _at(self, node: ast.stmt | ast.expr) -> Iterator[Found]:
        yield from _operators(node)
        yield from _constants(node)
        yield from _statements(node)


def _operators(node: ast.AST) -> Iterator[Found]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            changed = ast.Compare(node.left, [COMPARISONS[type(op)]()], node.comparators)
            yield node, "comparison", f"({ast.unparse(changed)})"
        case ast.BoolOp(op=op):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield node, "and/or", f"({ast.unparse(ast.BoolOp(other, node.values))})"
        case ast.UnaryOp(op=ast.Not()):
            yield node, "negation", f"({ast.unparse(node.operand)})"
        case ast.BinOp(op=op) if type(op) in ARITHMETIC and not _is_of_texts_or_types(node):
            changed_op = ast.BinOp(node.left, ARITHMETIC[type(op)](), node.right)
            yield node, "arithmetic", f"({ast.unparse(changed_op)})"
        case _:
            return


def _constants(node: ast.AST) -> Iterator[Found]:
    match node:
        case ast.Constant(value=bool() as value):
            yield node, "constant", str(not value)
        case ast.Constant(value=int() as number):
            yield node, "constant", str(number + 1)
        case ast.Constant(value=float() as real):
            yield node, "constant", repr(real * 2 if real else 1.0)
        case _:
            return


def _statements(node: ast.AST) -> Iterator[Found]:
    match node:
        case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(test, ast.UnaryOp):
            yield test, "negation", f"(not ({ast.unparse(test)}))"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield value, "return", "None"
        case ast.Expr(value=ast.Call() | ast.Await() as call):
            if not ast.unparse(call).startswith(UNTESTED_CALLS):
                yield node, "dropped statement", "pass"
        case ast.AugAssign():
            yield node, "dropped statement", "pass"
        case _:
            return


def _is_of_texts_or_types(node: ast.BinOp) -> bool:
    sides = (node.left, node.right)
    return any(
        isinstance(side, ast.JoinedStr | ast.List | ast.Tuple)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in sides
    )
