# SPDX-License-Identifier: Apache-2.0
"""The grammar of a condition, and an error for each way to break it.

    size > 4096 && skb.len < 100    comparisons, joined as in C or by and, or, not
    sk->sk_protocol == 6            a field; . and -> mean the same, and follow pointers
    4096 < size                     the constant may come first
    buf                             alone: buf != 0
    flags & 6                       any of these bits
    (flags & 6) == 4                some bits, compared
    result == -ENOSPC               the result, also called retval and ret
    duration > 1.5ms                from entry to return; a number without a unit is nanoseconds
    arg.result > 0                  an argument that is called result
    reason == SKB_DROP_REASON_TCP_CSUM   an enumerator of the type that reason has

A constant is a number in decimal, hexadecimal, octal or binary, perhaps with k, M or G (of 1024), a
character, the name of an error, `true`, `false` or `NULL`. Any other name is an enumerator's.
"""

from __future__ import annotations

from typing import NoReturn

from batchprobe.actions.condition import (
    ALL_BITS,
    DURATION,
    MAX_COMPARISONS,
    RESULT,
    Condition,
    ConditionError,
    Group,
    Relation,
    negated,
)
from batchprobe.actions.condition_words import (
    CHARACTER,
    END,
    NUMBER,
    PATH,
    TEXT,
    Constant,
    Token,
    tokens,
)

__all__ = ["parse"]

_MAX_DEPTH = 32
# What each comparison becomes with its sides exchanged.
_TURNED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_MEANT = {
    "=": "==",
    "===": "==",
    "!==": "!=",
    "=<": "<=",
    "=>": ">=",
    "<>": "!=",
    "|": "||",
}
_ARITHMETIC = frozenset(("+", "-", "*", "/", "%", "^", "~", "<<", ">>"))
_RESULTS = (RESULT, "retval", "ret")


def parse(text: str) -> Condition:
    """Parse a condition. Raises ConditionError."""
    return _Parser(text).condition()


class _Operand:
    """One side of a comparison.

    It has a path, a constant, or both if it is a name that may mean either.
    """

    __slots__ = ("at", "constant", "in_parentheses", "mask", "path")

    def __init__(
        self,
        at: int,
        path: str | None,
        constant: Constant | None,
        *,
        mask: Constant | None = None,
    ) -> None:
        self.at = at
        self.path = path
        self.constant = constant
        self.mask = mask
        self.in_parentheses = False

    @property
    def looks_constant(self) -> bool:
        """Whether it is a constant, or spelled as enumerators are and arguments are not."""
        return self.path is None or (
            self.constant is not None and self.path.lstrip("_")[:1].isupper()
        )


class _Parser:
    """Recursive descent. Each method takes the tokens of one rule, the loosest operator first."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._index = 0
        self._relations = 0
        self._depth = 0

    def condition(self) -> Condition:
        if self._token.kind == END:
            self._fail("the condition is empty", self._token.at)
        tree = self._as_tree(self._any())
        if self._token.kind != END:
            self._refuse_token()
        return Condition(tree)

    @property
    def _token(self) -> Token:
        return self._tokens[self._index]

    def _take(self, kind: str) -> Token | None:
        """The next token, if it is of this kind."""
        token = self._token
        if token.kind != kind:
            return None
        self._index += 1
        return token

    def _any(self) -> _Operand | Relation | Group:
        first = self._all()
        if self._token.kind != "||":
            return first
        parts = [self._as_tree(first)]
        while self._take("||"):
            parts.append(self._as_tree(self._all()))
        return Group(parts, every=False)

    def _all(self) -> _Operand | Relation | Group:
        first = self._not()
        if self._token.kind != "&&":
            return first
        parts = [self._as_tree(first)]
        while self._take("&&"):
            parts.append(self._as_tree(self._not()))
        return Group(parts, every=True)

    def _not(self) -> _Operand | Relation | Group:
        """The word binds as loosely as in Python: `not size == 3` is `size != 3`."""
        token = self._take("not")
        if token is None:
            return self._comparison()
        self._enter(token)
        tree = negated(self._as_tree(self._not()))
        self._depth -= 1
        return tree

    def _comparison(self) -> _Operand | Relation | Group:
        left = self._masked()
        operator = self._token
        if operator.kind not in _TURNED:
            return left
        self._index += 1
        if isinstance(left, _Operand) and left.mask and not left.in_parentheses:
            self._refuse_precedence(operator)
        right = self._unary()
        if self._token.kind == "&":
            self._refuse_precedence(operator)
        if not isinstance(left, _Operand) or not isinstance(right, _Operand):
            self._fail("only a path or (PATH & MASK) can be compared", operator.at)
        if self._token.kind in _TURNED:
            message = "comparisons cannot be chained: write 1 < PATH && PATH < 5"
            self._fail(message, self._token.at)
        return self._compare(left, operator, right)

    def _masked(self) -> _Operand | Relation | Group:
        left = self._unary()
        while operator := self._take("&"):
            right = self._unary()
            if not isinstance(left, _Operand) or not isinstance(right, _Operand):
                self._fail("& selects bits of a path: write && between conditions", operator.at)
            left = self._mask(left, operator, right)
        return left

    def _unary(self) -> _Operand | Relation | Group:
        token = self._take("!")
        if token is None:
            return self._operand()
        self._enter(token)
        tree = negated(self._as_tree(self._unary()))
        self._depth -= 1
        following = self._token
        if following.kind in _TURNED or following.kind == "&":
            message = f"! binds tighter than {following.text}: write !(PATH {following.text} ...)"
            self._fail(message, token.at)
        return tree

    def _operand(self) -> _Operand | Relation | Group:
        token = self._token
        if token.kind == "(":
            return self._parenthesis()
        if token.kind not in (PATH, NUMBER, CHARACTER, "-"):
            self._refuse_operand()
        self._index += 1
        if token.kind == "-":
            return self._negative(token)
        if token.kind == NUMBER:
            return _Operand(token.at, None, Constant.of_number(token, self._text))
        if token.kind == CHARACTER:
            return _Operand(token.at, None, Constant.of_character(token, self._text))
        return self._name(token)

    def _parenthesis(self) -> _Operand | Relation | Group:
        opening = self._token
        self._enter(opening)
        self._index += 1
        inner = self._any()
        if not self._take(")"):
            if self._token.kind == END:
                self._fail("this parenthesis is not closed: add )", opening.at)
            self._refuse_token()
        self._depth -= 1
        if isinstance(inner, _Operand):
            inner.in_parentheses = True
        return inner

    def _negative(self, minus: Token) -> _Operand:
        if number := self._take(NUMBER):
            return _Operand(minus.at, None, Constant.of_number(number, self._text, minus=minus))
        name = self._take(PATH)
        if name is None:
            self._fail("a minus needs a number or the name of an error after it", minus.at)
        return _Operand(minus.at, None, Constant.of_negative_word(name, self._text))

    def _name(self, token: Token) -> _Operand:
        path = token.text.replace("->", ".")
        root = path.partition(".")[0].partition("[")[0]
        if root == DURATION and path != root:
            self._fail("duration is a number: it has no fields", token.at + len(root))
        if root in _RESULTS:
            return _Operand(token.at, RESULT + path[len(root) :], None)
        if root != path or root == DURATION:
            return _Operand(token.at, path, None)
        if constant := Constant.of_word(token):
            return _Operand(token.at, None, constant)
        return _Operand(token.at, path, Constant(path, path))

    def _mask(self, left: _Operand, operator: Token, right: _Operand) -> _Operand:
        if left.mask or right.mask:
            self._fail("a path takes one mask: combine the bits into one number", operator.at)
        path, mask = (right, left) if left.path is None else (left, right)
        if path.path is None:
            self._fail("two constants: & selects bits of a path", operator.at)
        if mask.path is not None or mask.constant is None or mask.constant.is_time:
            self._fail("a mask must be a number", mask.at)
        if not mask.constant.value:
            self._fail("a mask of 0 selects no bits", mask.at)
        return _Operand(left.at, path.path, None, mask=mask.constant)

    def _compare(self, left: _Operand, operator: Token, right: _Operand) -> Relation:
        # Of two names the left one is the path, unless it is spelled as an enumerator.
        turned = left.path is None or (left.looks_constant and not right.looks_constant)
        path, constant = (right, left) if turned else (left, right)
        if path.path is None:
            self._fail("two constants are compared: one side must be a path", left.at)
        if constant.constant is None:
            self._fail("two paths are compared: one side must be a constant", right.at)
        if path.path != DURATION:
            if constant.constant.is_time:
                self._fail("only duration is compared with a time", constant.at)
        elif not _is_duration(constant.constant):
            message = "duration is compared with a time, such as 10us, or a number of nanoseconds"
            self._fail(message, constant.at)
        kind = _TURNED[operator.kind] if turned else operator.kind
        return self._relation(path.path, path.mask, kind, constant.constant, left.at)

    def _relation(
        self, path: str, mask: Constant | None, operator: str, constant: Constant, at: int
    ) -> Relation:
        self._relations += 1
        if self._relations > MAX_COMPARISONS:
            self._fail(f"at most {MAX_COMPARISONS} comparisons", at)
        return Relation(
            path,
            operator,
            constant.value,
            constant.text,
            mask=int(mask.value) & ALL_BITS if mask else ALL_BITS,
            mask_text=mask.text if mask else "",
        )

    def _as_tree(self, value: _Operand | Relation | Group) -> Relation | Group:
        """What is a condition by itself: a path is, and tests for any bit."""
        if not isinstance(value, _Operand):
            return value
        if value.path is None:
            self._fail("a constant alone decides nothing: compare a path with it", value.at)
        return self._relation(value.path, value.mask, "!=", Constant(0, "0"), value.at)

    def _enter(self, token: Token) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail(f"more than {_MAX_DEPTH} parentheses and negations are nested", token.at)

    def _refuse_operand(self) -> NoReturn:
        """The next token is not the path or constant that must be here."""
        token = self._token
        if token.kind == END:
            self._fail("a path or a constant is missing at the end", token.at)
        if token.kind == TEXT:
            self._fail("text cannot be compared in the kernel", token.at)
        if token.kind == "*":
            self._fail("unexpected '*': a path follows pointers by itself, as skb.len", token.at)
        self._fail(f"a path or a constant is missing before {token.text!r}", token.at)

    def _refuse_token(self) -> NoReturn:
        """The next token cannot follow a complete condition, path or constant."""
        token = self._token
        if token.kind in _MEANT:
            self._fail(f"unknown operator {token.text!r}: write {_MEANT[token.kind]}", token.at)
        if token.kind in (TEXT, "=~"):
            self._fail("text cannot be compared in the kernel", token.at)
        if token.kind in _ARITHMETIC:
            message = f"unexpected {token.text!r}: a condition compares, it does not calculate"
            self._fail(message, token.at)
        if token.kind == ")":
            self._fail("this parenthesis closes nothing: remove it, or add ( before", token.at)
        self._fail(f"&& or || is missing before {token.text!r}", token.at)

    def _refuse_precedence(self, operator: Token) -> NoReturn:
        message = (
            f"{operator.text} binds tighter than &: write (PATH & MASK) {operator.text} CONSTANT, "
            "or && between conditions"
        )
        self._fail(message, operator.at)

    def _fail(self, message: str, at: int) -> NoReturn:
        raise ConditionError(message, self._text, at)


def _is_duration(constant: Constant) -> bool:
    return (constant.is_time or constant.is_plain) and int(constant.value) >= 0
