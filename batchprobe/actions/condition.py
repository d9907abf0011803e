# SPDX-License-Identifier: Apache-2.0
"""Conditions on a call, and the list of comparisons by which the kernel decides them.

`condition_parse` reads them from text. Nothing here knows a function or a type: a path stays text
until the types of a function say where its value is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = [
    "ACCEPT",
    "ALL_BITS",
    "DURATION",
    "MAX_COMPARISONS",
    "REJECT",
    "RESULT",
    "Comparison",
    "Condition",
    "ConditionError",
    "Group",
    "Relation",
    "negated",
]

MAX_COMPARISONS = 12
"""Comparisons of one condition. The kernel walks them in a loop of this length."""

ACCEPT = 254
REJECT = 255
"""Where a comparison leads that decides. Both fit in a byte and are larger than any index."""

ALL_BITS = (1 << 64) - 1
RESULT = "result"
DURATION = "duration"

_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


class ConditionError(ValueError):
    """A condition is malformed. Its text shows the condition, and a caret below the mistake.

    `at` is the index of the mistake in `condition`.
    """

    def __init__(self, message: str, condition: str, at: int) -> None:
        # White space and control characters take one column each, or the caret would be elsewhere.
        shown = "".join(each if each.isprintable() else " " for each in condition)
        super().__init__(f"{message}\n  {shown}\n  {' ' * at}^")
        self.message = message
        self.condition = condition
        self.at = at


class Comparison(NamedTuple):
    """One step of a decision: compare those bits of a value that are in `mask`.

    `on_true` and `on_false` are the index of the next comparison, or ACCEPT or REJECT. An index is
    always larger than that of the comparison it is in.
    """

    path: str
    operator: str
    mask: int
    constant: int | str
    """A number, or the name of an enumerator of the type that `path` has."""
    on_true: int
    on_false: int


class Relation:
    """A leaf of a condition: a path, perhaps masked, compared with a constant.

    `mask_text` and `constant_text` are how the user wrote them.
    """

    __slots__ = ("constant", "constant_text", "mask", "mask_text", "operator", "path")

    def __init__(
        self,
        path: str,
        operator: str,
        constant: int | str,
        constant_text: str,
        *,
        mask: int = ALL_BITS,
        mask_text: str = "",
    ) -> None:
        self.path = path
        self.operator = operator
        self.constant = constant
        self.constant_text = constant_text
        self.mask = mask
        self.mask_text = mask_text

    @property
    def root(self) -> str:
        """The first word of the path: an argument, RESULT or DURATION."""
        return self.path.partition(".")[0].partition("[")[0]

    def __str__(self) -> str:
        left = f"({self.path} & {self.mask_text})" if self.mask_text else self.path
        return f"{left} {self.operator} {self.constant_text}"


class Group:
    """Parts of a condition of which `every` one must hold, or else any."""

    __slots__ = ("every", "parts")

    def __init__(self, parts: Iterable[Relation | Group], *, every: bool) -> None:
        self.every = every
        flat: list[Relation | Group] = []
        for part in parts:
            if isinstance(part, Group) and part.every == every:
                flat += part.parts
            else:
                flat.append(part)
        self.parts: tuple[Relation | Group, ...] = tuple(flat)

    def __str__(self) -> str:
        parts = (f"({part})" if isinstance(part, Group) else str(part) for part in self.parts)
        return (" && " if self.every else " || ").join(parts)


def negated(tree: Relation | Group) -> Relation | Group:
    """What holds where this does not. No negation is left: the operators are turned instead."""
    if isinstance(tree, Group):
        return Group(map(negated, tree.parts), every=not tree.every)
    return Relation(
        tree.path,
        _OPPOSITE[tree.operator],
        tree.constant,
        tree.constant_text,
        mask=tree.mask,
        mask_text=tree.mask_text,
    )


class Condition:
    """A parsed condition. `str()` returns its normal spelling, which parses to an equal one."""

    __slots__ = ("_tree",)

    def __init__(self, tree: Relation | Group) -> None:
        self._tree = tree

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that begin at an argument, each once, in the order they are tested in.

        `arg.result` and the like, which name an argument explicitly, are as the user wrote them.
        """
        found = _relations(self._tree)
        return tuple(dict.fromkeys(each.path for each in found if not _needs_return(each)))

    @property
    def uses_result(self) -> bool:
        """Whether the result is tested, or a field reached through it."""
        return any(relation.root == RESULT for relation in _relations(self._tree))

    @property
    def uses_duration(self) -> bool:
        return any(relation.root == DURATION for relation in _relations(self._tree))

    def split(self) -> tuple[Condition | None, Condition | None]:
        """What can be decided at the entry of a call, and what only at its return.

        The condition holds if both hold. The second part may test arguments too, as in
        `size > 4096 || result < 0`; they have to be recorded at the entry.
        """
        tree = self._tree
        conjuncts = tree.parts if isinstance(tree, Group) and tree.every else (tree,)
        at_entry: list[Relation | Group] = []
        at_return: list[Relation | Group] = []
        for conjunct in conjuncts:
            late = any(map(_needs_return, _relations(conjunct)))
            (at_return if late else at_entry).append(conjunct)
        return _conjunction(at_entry), _conjunction(at_return)

    def compiled(self) -> tuple[Comparison, ...]:
        """The comparisons that decide it, from index 0 on, at most MAX_COMPARISONS.

        They stop as soon as the outcome is known.
        """
        return tuple(_compiled(self._tree, 0, ACCEPT, REJECT))

    def __str__(self) -> str:
        return str(self._tree)


def _conjunction(parts: list[Relation | Group]) -> Condition | None:
    if not parts:
        return None
    return Condition(parts[0] if len(parts) == 1 else Group(parts, every=True))


def _relations(tree: Relation | Group) -> Iterator[Relation]:
    if isinstance(tree, Relation):
        yield tree
        return
    for part in tree.parts:
        yield from _relations(part)


def _needs_return(relation: Relation) -> bool:
    return relation.root in (RESULT, DURATION)


def _compiled(
    tree: Relation | Group, first: int, on_true: int, on_false: int
) -> Iterator[Comparison]:
    """The comparisons of a tree whose first one has the index `first`."""
    if isinstance(tree, Relation):
        yield Comparison(tree.path, tree.operator, tree.mask, tree.constant, on_true, on_false)
        return
    for number, part in enumerate(tree.parts, 1):
        following = first + sum(1 for _ in _relations(part))
        if number == len(tree.parts):
            yield from _compiled(part, first, on_true, on_false)
        elif tree.every:
            yield from _compiled(part, first, following, on_false)
        else:
            yield from _compiled(part, first, on_true, following)
        first = following
