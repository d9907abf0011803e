# SPDX-License-Identifier: Apache-2.0
"""The language of conditions, its errors, and the decision lists made of it."""

from __future__ import annotations

import errno
import operator
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchprobe.actions.condition import (
    ACCEPT,
    ALL_BITS,
    MAX_COMPARISONS,
    REJECT,
    Comparison,
    ConditionError,
)
from batchprobe.actions.condition_parse import parse

OPERATORS: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TURNED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
MASKS = (1, 2, 3, 6)
PATHS = ("size", "skb.len", "comm[0]", "arg.result", "result", "result.len", "duration")
LATE = ("result", "result.len", "duration")

Values = Mapping[str, int]


def masked(value: int, mask: int) -> int:
    return value if mask == ALL_BITS else value & mask


def evaluate(comparisons: Sequence[Comparison], values: Values) -> bool:
    """Walk a decision list as the kernel does."""
    index = 0
    while index < len(comparisons):
        step = comparisons[index]
        assert isinstance(step.constant, int)
        value = masked(values[step.path], step.mask)
        holds = OPERATORS[step.operator](value, step.constant)
        following = step.on_true if holds else step.on_false
        assert following > index
        index = following
    assert index in (ACCEPT, REJECT)
    return index == ACCEPT


def only(text: str) -> Comparison:
    (comparison,) = parse(text).compiled()
    assert (comparison.on_true, comparison.on_false) == (ACCEPT, REJECT)
    return comparison


@pytest.mark.parametrize(
    ("text", "path", "comparison", "constant"),
    [
        ("size > 4096", "size", ">", 4096),
        ("  size\t>\n4096 ", "size", ">", 4096),
        ("4096 < size", "size", ">", 4096),
        ("4096 <= size", "size", ">=", 4096),
        ("4096>size", "size", "<", 4096),
        ("4096>=size", "size", "<=", 4096),
        ("1 != size", "size", "!=", 1),
        ("(size) == (1)", "size", "==", 1),
        ("buf", "buf", "!=", 0),
        ("((buf))", "buf", "!=", 0),
        ("!buf", "buf", "==", 0),
        ("!!buf", "buf", "!=", 0),
        ("not buf", "buf", "==", 0),
        ("not buf == 3", "buf", "!=", 3),
        ("not not buf", "buf", "!=", 0),
        ("!(a < 2)", "a", ">=", 2),
        ("!(a <= 2)", "a", ">", 2),
        ("!(a > 2)", "a", "<=", 2),
        ("!(2 > a)", "a", ">=", 2),
        ("!(a != 2)", "a", "==", 2),
        ("sk->__sk_common.skc_dport == 0", "sk.__sk_common.skc_dport", "==", 0),
        ("task.comm[0] == 'a'", "task.comm[0]", "==", ord("a")),
        ("a->b[3]->c > 1", "a.b[3].c", ">", 1),
        ("result < 0", "result", "<", 0),
        ("retval < 0", "result", "<", 0),
        ("0 > ret", "result", "<", 0),
        ("retval->len > 0", "result.len", ">", 0),
        ("arg.result < 0", "arg.result", "<", 0),
        ("resulting == 1", "resulting", "==", 1),
        ("reason == SKB_DROP_REASON_NO_SOCKET", "reason", "==", "SKB_DROP_REASON_NO_SOCKET"),
        ("SKB_DROP_REASON_NO_SOCKET < reason", "reason", ">", "SKB_DROP_REASON_NO_SOCKET"),
        ("TCP_CA_Open == icsk->ca_state", "icsk.ca_state", "==", "TCP_CA_Open"),
        ("type == fs_value_is_flag", "type", "==", "fs_value_is_flag"),
        ("FOO == BAR", "FOO", "==", "BAR"),
        ("5 == FOO", "FOO", "==", 5),
        ("FOO == 5", "FOO", "==", 5),
        ("FOO == retval", "result", "==", "FOO"),
    ],
)
def test_comparison(text: str, path: str, comparison: str, constant: int | str) -> None:
    found = only(text)
    assert (found.path, found.operator, found.constant) == (path, comparison, constant)
    assert found.mask == ALL_BITS


@pytest.mark.parametrize(
    ("text", "mask", "comparison", "constant"),
    [
        ("flags & 6", 6, "!=", 0),
        ("6 & flags", 6, "!=", 0),
        ("(flags & 6)", 6, "!=", 0),
        ("!(flags & 6)", 6, "==", 0),
        ("not flags & 6", 6, "==", 0),
        ("(flags & 6) == 4", 6, "==", 4),
        ("((flags & 0x6)) > 4", 6, ">", 4),
        ("4 < (6 & flags)", 6, ">", 4),
        ("(flags & 6) == FLAG", 6, "==", "FLAG"),
        ("FLAG > (flags & 6)", 6, "<", "FLAG"),
        ("flags & -4", ALL_BITS - 3, "!=", 0),
    ],
)
def test_mask(text: str, mask: int, comparison: str, constant: int | str) -> None:
    assert only(text) == Comparison("flags", comparison, mask, constant, ACCEPT, REJECT)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-1", -1),
        ("- 1", -1),
        ("0x1F", 31),
        ("0XfF", 255),
        ("-0x10", -16),
        ("0o17", 15),
        ("017", 15),
        ("00", 0),
        ("0b101", 5),
        ("64k", 65536),
        ("64K", 65536),
        ("-2M", -2 << 20),
        ("3G", 3 << 30),
        ("'a'", 97),
        ("' '", 32),
        ("'\\n'", 10),
        ("'\\0'", 0),
        ("'\\''", 39),
        ("'\\\\'", 92),
        ("true", 1),
        ("false", 0),
        ("NULL", 0),
        ("-ENOSPC", -errno.ENOSPC),
        ("ENOSPC", errno.ENOSPC),
        ("-EAGAIN", -errno.EAGAIN),
        ("-EWOULDBLOCK", -errno.EAGAIN),
        ("-EOPNOTSUPP", -errno.EOPNOTSUPP),
        ("-ENOTSUP", -errno.EOPNOTSUPP),
        ("-EDEADLK", -errno.EDEADLK),
        ("-ERESTARTSYS", -512),
        ("18446744073709551615", ALL_BITS),
        ("-9223372036854775808", -(1 << 63)),
        ("0b" + "1" * 64, ALL_BITS),
    ],
)
def test_constant(text: str, value: int) -> None:
    assert only(f"size == {text}").constant == value
    assert only(f"{text} == size").constant == value


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("200ns", 200),
        ("10us", 10_000),
        ("5ms", 5_000_000),
        ("1.5s", 1_500_000_000),
        ("0.001us", 1),
        ("300", 300),
        ("0x10", 16),
    ],
)
def test_duration(text: str, nanoseconds: int) -> None:
    assert only(f"duration > {text}") == only(f"{text} < duration")
    assert only(f"duration > {text}").constant == nanoseconds
    assert only(f"(duration & 0xffff) > {text}").constant == nanoseconds


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("4096<size&&skb->len<100", "size > 4096 && skb.len < 100"),
        ("a or b and c", "a != 0 || (b != 0 && c != 0)"),
        ("(a || b) && c", "(a != 0 || b != 0) && c != 0"),
        ("(a && (b && c)) && d", "a != 0 && b != 0 && c != 0 && d != 0"),
        ("!(a > 64k || !(b & 0x6))", "a <= 64k && (b & 0x6) != 0"),
        ("not (a && b) || c", "a == 0 || b == 0 || c != 0"),
        ("not a && b", "a == 0 && b != 0"),
        ("retval == - ENOSPC and duration>1.5ms", "result == -ENOSPC && duration > 1.5ms"),
        ("NULL != buf", "buf != NULL"),
    ],
)
def test_normal_text(text: str, normal: str) -> None:
    assert str(parse(text)) == normal
    assert str(parse(normal)) == normal


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("", 0, "the condition is empty"),
        ("  ", 0, "the condition is empty"),
        ("size = 5", 5, "unknown operator '=': write =="),
        ("(size = 5)", 6, "unknown operator '=': write =="),
        ("size === 5", 5, "unknown operator '===': write =="),
        ("size !== 5", 5, "unknown operator '!==': write !="),
        ("size =< 5", 5, "unknown operator '=<': write <="),
        ("size => 5", 5, "unknown operator '=>': write >="),
        ("size <> 5", 5, "unknown operator '<>': write !="),
        ("a | b", 2, "unknown operator '|': write ||"),
        ("size >", 6, "a path or a constant is missing at the end"),
        ("size > 1 &&  ", 11, "a path or a constant is missing at the end"),
        ("size > && a", 7, "a path or a constant is missing before '&&'"),
        ("&& a", 0, "a path or a constant is missing before '&&'"),
        ("()", 1, "a path or a constant is missing before ')'"),
        ("a == not b", 5, "a path or a constant is missing before 'not'"),
        ("*skb > 1", 0, "a path follows pointers by itself"),
        ("(a > 1 && (b || c)", 0, "this parenthesis is not closed: add )"),
        ("a > 1) && b", 5, "this parenthesis closes nothing"),
        ("a > 1 b > 2", 6, "&& or || is missing before 'b'"),
        ("a > 1 AND b", 6, "&& or || is missing before 'AND'"),
        ("foo(a)", 3, "&& or || is missing before '('"),
        ("a + 4 > 5", 2, "unexpected '+': a condition compares"),
        ("a > 4 * 1024", 6, "unexpected '*': a condition compares"),
        ("a << 2", 2, "unexpected '<<': a condition compares"),
        ("1 < a < 5", 6, "comparisons cannot be chained"),
        ("(a > 1) == 1", 8, "only a path or (PATH & MASK) can be compared"),
        ("1 == !a", 2, "only a path or (PATH & MASK) can be compared"),
        ("!a == 3", 0, "! binds tighter than ==: write !(PATH == ...)"),
        ("b || !a & 3", 5, "! binds tighter than &: write !(PATH & ...)"),
        ("flags & 6 == 4", 10, "== binds tighter than &: write (PATH & MASK) == CONSTANT"),
        ("4 == flags & 6", 2, "== binds tighter than &: write (PATH & MASK) == CONSTANT"),
        ("a > 4 & b < 3", 2, "> binds tighter than &"),
        ("(a > 4) & b", 8, "& selects bits of a path: write &&"),
        ("a & !b", 2, "& selects bits of a path: write &&"),
        ("a & 6 & 4", 6, "a path takes one mask"),
        ("a & b", 4, "a mask must be a number"),
        ("a & skb.len", 4, "a mask must be a number"),
        ("duration & 1us", 11, "a mask must be a number"),
        ("a & 0", 4, "a mask of 0 selects no bits"),
        ("6 & 4", 2, "two constants"),
        ("1 == 2", 0, "two constants are compared"),
        ("a && 2", 5, "a constant alone decides nothing"),
        ("ENOSPC", 0, "a constant alone decides nothing"),
        ("skb.len > sk.len", 10, "two paths are compared"),
        ("len == skb.len", 7, "two paths are compared"),
        ("size > retval", 7, "two paths are compared"),
        ("duration > result", 11, "two paths are compared"),
        ("(a & 6) == (b & 6)", 12, "two paths are compared"),
        ('comm == "sh"', 8, "text cannot be compared in the kernel"),
        ('comm "sh"', 5, "text cannot be compared in the kernel"),
        ('a == "', 5, "text cannot be compared in the kernel"),
        ("comm =~ sh", 5, "text cannot be compared in the kernel"),
        ("a == 'ab'", 5, "'ab' is not one ASCII character"),
        ("a == ''", 5, "'' is not one ASCII character"),
        ("a == 'a", 5, "'a is not one ASCII character"),
        ("a == '\\q'", 5, "is not one ASCII character"),
        ("a == '\u00e9'", 5, "is not one ASCII character"),
        ("skb. == 1", 3, "a name must follow the dot"),
        ("comm[i] == 1", 4, "an index must be a number"),
        ("comm[-1] == 1", 4, "an index must be a number"),
        ("a == 1\u00b5s", 6, "write us for microseconds"),
        ("a @ 1", 2, "unexpected '@'"),
        ("f\u00fcr == 1", 1, "unexpected '\u00fc'"),
        ("a\0 == 1", 1, "unexpected '\\x00'"),
        ("a > 10m", 4, "unknown suffix 'm': write k, M or G"),
        ("a > 10UL", 4, "unknown suffix 'UL'"),
        ("a > 1_000", 4, "unknown suffix '_000'"),
        ("a > 1.5k", 4, "1.5k has a fraction: only a time may have one"),
        ("a > 1.5", 4, "1.5 has a fraction: only a time may have one"),
        ("a > 1.2.3", 4, "1.2.3 is not a number"),
        ("a > 0x", 4, "0x is not a number: it would be hexadecimal"),
        ("a > 0x1_0", 4, "0x1_0 is not a number: it would be hexadecimal"),
        ("a > 0b12", 4, "0b12 is not a number: it would be binary"),
        ("a > 0o8", 4, "0o8 is not a number: it would be octal"),
        ("a > 08", 4, "08 is not a number: it would be octal, as its leading 0 says"),
        ("a == 18446744073709551616", 5, "the number does not fit in 64 bits"),
        ("a == - 9223372036854775809", 5, "the number does not fit in 64 bits"),
        ("a == 17179869184G", 5, "the number does not fit in 64 bits"),
        ("a == " + "9" * 5000, 5, "the number does not fit in 64 bits"),
        ("a == -ENOSPACE", 6, "ENOSPACE is not the name of an error; did you mean ENOSPC?"),
        ("a == -other", 6, "other is not the name of an error"),
        ("a == -true", 6, "true is not the name of an error"),
        ("a == -'a'", 5, "a minus needs a number or the name of an error"),
        ("a == --1", 5, "a minus needs a number or the name of an error"),
        ("size > 10us", 7, "only duration is compared with a time"),
        ("1s < result", 0, "only duration is compared with a time"),
        ("arg.duration > 1s", 15, "only duration is compared with a time"),
        ("duration > 64k", 11, "duration is compared with a time"),
        ("duration > -5us", 11, "duration is compared with a time"),
        ("duration == NULL", 12, "duration is compared with a time"),
        ("SLOW < duration", 0, "duration is compared with a time"),
        ("(duration & 3) == SLOW", 18, "duration is compared with a time"),
        ("duration > 0.1ns", 11, "0.1ns is not a whole number of nanoseconds"),
        ("duration.len > 1", 8, "duration is a number: it has no fields"),
        ("(" * 33 + "a" + ")" * 33, 32, "more than 32 parentheses and negations are nested"),
        ("!" * 5000 + "a", 32, "more than 32 parentheses and negations are nested"),
        ("not " * 5000 + "a", 128, "more than 32 parentheses and negations are nested"),
        (" && ".join("a" * 13), 60, "at most 12 comparisons"),
    ],
)
def test_malformed(text: str, at: int, message: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse(text)
    error = caught.value
    assert message in error.message
    assert (error.condition, error.at) == (text, at)


def test_an_error_shows_the_place() -> None:
    with pytest.raises(ConditionError) as caught:
        parse("skb.len\t> 4 &&\nsize = 5")
    assert str(caught.value).splitlines() == [
        "unknown operator '=': write ==",
        "  skb.len > 4 && size = 5",
        "                      ^",
    ]


def test_nesting_and_length_up_to_their_limits() -> None:
    assert str(parse("(" * 32 + "a" + ")" * 32)) == "a != 0"
    assert str(parse("!" * 32 + "a")) == "a != 0"
    # What is closed again does not count.
    for nested in ("((((a))))", "!!!!a", "not not not not a"):
        assert str(parse(" && ".join([nested] * 12))) == " && ".join(["a != 0"] * 12)


def test_decision_list() -> None:
    steps = parse("(a || b) && !(c && d) && result").compiled()
    assert [(step.path, step.operator, step.on_true, step.on_false) for step in steps] == [
        ("a", "!=", 2, 1),
        ("b", "!=", 2, REJECT),
        ("c", "==", 4, 3),
        ("d", "==", 4, REJECT),
        ("result", "!=", ACCEPT, REJECT),
    ]


def test_paths() -> None:
    condition = parse("b->x && a > 1 && (b.x < 9 || retval) && arg.result && result.len")
    assert condition.paths == ("b.x", "a", "arg.result")
    assert condition.uses_result
    assert not condition.uses_duration
    assert parse("duration > 1s").uses_duration
    assert not parse("arg.result || arg.duration").uses_result
    assert not parse("arg.result || arg.duration").uses_duration
    assert parse("!(a || ret->len)").uses_result
    assert parse("ret[1]").uses_result
    assert parse("ret[1]").paths == ()


@pytest.mark.parametrize(
    ("text", "at_entry", "at_return"),
    [
        ("a > 1 && b", "a > 1 && b != 0", None),
        ("a || b", "a != 0 || b != 0", None),
        ("result", None, "result != 0"),
        ("duration > 1s && result.len", None, "duration > 1s && result.len != 0"),
        ("a && duration > 1s && (b || c)", "a != 0 && (b != 0 || c != 0)", "duration > 1s"),
        ("a || result", None, "a != 0 || result != 0"),
        ("a && (b || result)", "a != 0", "b != 0 || result != 0"),
        ("!(a || result < 0)", "a == 0", "result >= 0"),
        ("!(a && b) and ret", "a == 0 || b == 0", "result != 0"),
        ("arg.result && result", "arg.result != 0", "result != 0"),
    ],
)
def test_split(text: str, at_entry: str | None, at_return: str | None) -> None:
    parts = [None if part is None else str(part) for part in parse(text).split()]
    assert parts == [at_entry, at_return]


class Tree:
    """A random condition: one way to write it, and what it means, found without the parser."""

    def __init__(self, text: str, holds: Callable[[Values], bool], size: int) -> None:
        self.text = text
        self.holds = holds
        self.size = size

    def __repr__(self) -> str:
        return f"Tree({self.text!r})"


@st.composite
def leaves(draw: st.DrawFn) -> Tree:
    path = draw(st.sampled_from(PATHS))
    sign = draw(st.sampled_from(sorted(OPERATORS)))
    constant = draw(st.integers(0 if path == "duration" else -3, 4))
    mask = draw(st.sampled_from((ALL_BITS, *MASKS)))
    spelling = draw(st.sampled_from((path, path.replace(".", "->"), f"({path})")))
    if mask != ALL_BITS:
        spelling = f"({spelling} & {mask:#x})"

    if draw(st.integers(0, 4)) == 0:
        return Tree(spelling, lambda values: masked(values[path], mask) != 0, 1)

    def holds(values: Values) -> bool:
        return OPERATORS[sign](masked(values[path], mask), constant)

    if draw(st.booleans()):
        return Tree(f"{constant} {TURNED[sign]} {spelling}", holds, 1)
    return Tree(f"{spelling} {sign} {constant}", holds, 1)


@st.composite
def joined(draw: st.DrawFn, parts: st.SearchStrategy[Tree]) -> Tree:
    trees = draw(st.lists(parts, min_size=1, max_size=4))
    if len(trees) == 1:
        (tree,) = trees
        return Tree(
            draw(st.sampled_from(("!({})", "not ({})"))).format(tree.text), _not(tree), tree.size
        )
    every = draw(st.booleans())
    sign = draw(st.sampled_from((" && ", " and ") if every else (" || ", "||", " or ")))
    decide = all if every else any
    return Tree(
        sign.join(f"({tree.text})" for tree in trees),
        lambda values: decide(tree.holds(values) for tree in trees),
        sum(tree.size for tree in trees),
    )


def _not(tree: Tree) -> Callable[[Values], bool]:
    return lambda values: not tree.holds(values)


TREES = st.recursive(leaves(), joined, max_leaves=MAX_COMPARISONS).filter(
    lambda tree: tree.size <= MAX_COMPARISONS
)
# Small numbers, so that they often equal a constant.
VALUES = st.lists(
    st.fixed_dictionaries({path: st.integers(-4, 5) for path in PATHS}), min_size=5, max_size=20
)


@settings(deadline=None)
@given(TREES, VALUES)
def test_a_decision_list_decides_as_the_condition_says(tree: Tree, values: list[Values]) -> None:
    steps = parse(tree.text).compiled()
    assert len(steps) == tree.size
    for each in values:
        assert evaluate(steps, each) == tree.holds(each)


@settings(deadline=None)
@given(TREES)
def test_a_decision_list_only_goes_forwards_and_reaches_every_step(tree: Tree) -> None:
    steps = parse(tree.text).compiled()
    reached = {0}
    for index, step in enumerate(steps):
        for following in (step.on_true, step.on_false):
            assert index < following < len(steps) or following in (ACCEPT, REJECT)
            reached.add(following)
    assert reached == {*range(len(steps)), ACCEPT, REJECT}


@settings(deadline=None)
@given(TREES, VALUES)
def test_both_parts_of_a_split_decide_what_the_whole_does(tree: Tree, values: list[Values]) -> None:
    at_entry, at_return = parse(tree.text).split()
    if at_entry is not None:
        assert not {step.path for step in at_entry.compiled()} & {*LATE}
        assert not at_entry.uses_result
        assert not at_entry.uses_duration
    if at_return is not None:
        assert at_return.uses_result or at_return.uses_duration
    for each in values:
        parts = [evaluate(part.compiled(), each) for part in (at_entry, at_return) if part]
        assert parts
        assert all(parts) == tree.holds(each)


@settings(deadline=None)
@given(TREES)
def test_the_normal_text_means_the_same(tree: Tree) -> None:
    condition = parse(tree.text)
    again = parse(str(condition))
    assert again.compiled() == condition.compiled()
    assert str(again) == str(condition)


WORDS = "&& || == != <= not and size skb->len FOO result duration 4096 0x10 64k 1.5us 'a' -ENOSPC"
PIECES = st.lists(
    st.sampled_from(("()", " ", "\n", *"()!&|=<>-+*'\".[]0", *WORDS.split())), max_size=12
).map("".join)


@settings(deadline=None, max_examples=500)
@given(PIECES | st.text(max_size=40))
def test_any_text_is_a_condition_or_an_error(text: str) -> None:
    try:
        condition = parse(text)
    except ConditionError as error:
        assert 0 <= error.at <= len(text)
        *_, shown, caret = str(error).split("\n")
        assert len(shown) == len(text) + 2
        assert caret == " " * (error.at + 2) + "^"
    else:
        assert str(parse(str(condition))) == str(condition)
