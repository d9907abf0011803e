# SPDX-License-Identifier: Apache-2.0
"""The words of a condition: its tokens, and what its constants are worth."""

from __future__ import annotations

import re
from typing import NamedTuple

from batchprobe.actions.condition import ConditionError
from batchprobe.kernel.errnos import ERRNOS

__all__ = ["CHARACTER", "END", "NUMBER", "PATH", "TEXT", "Constant", "Token", "tokens"]

PATH, NUMBER, CHARACTER, TEXT, END = "path", "number", "character", "text", "end"

_TOKEN = re.compile(
    r"""(?P<path>[A-Za-z_]\w*(?:(?:\.|->)[A-Za-z_]\w*|\[(?:0|[1-9]\d*)\])*)
        |(?P<number>\d[\w.]*)
        |(?P<character>'(?:\\.|[^'\\])*'?)
        |(?P<text>"(?:\\.|[^"\\])*"?)
        |(?P<operator>&&|\|\||[=!]==|[=!<>]=|=[<>~]|<>|<<|>>|[-=<>!&|()+*/%^~?:,;])""",
    re.VERBOSE | re.ASCII,
)
_SPACE = re.compile(r"\s*")
_KEYWORDS = {"and": "&&", "or": "||", "not": "not"}
_STRANGE = {
    ".": "a name must follow the dot, as in skb.len",
    "[": "an index must be a number, as in comm[0]",
    "\u00b5": "unexpected '\u00b5': write us for microseconds",
    "\u03bc": "unexpected '\u03bc': write us for microseconds",
}
_BASES = {"x": (16, "hexadecimal"), "o": (8, "octal"), "b": (2, "binary")}
_DIGITS = "0123456789abcdef"
_DECIMAL = re.compile(r"(\d+)(?:\.(\d+))?([A-Za-z_]\w*)?", re.ASCII)
_SIZES = {"k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIMES = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_ESCAPES = {"0": 0, "n": 10, "r": 13, "t": 9, "\\": 92, "'": 39, '"': 34}
_WORDS = {"true": 1, "false": 0, "NULL": 0}
# A number that fits in 64 bits is shorter even in binary. int() refuses very long ones.
_MAX_LENGTH = 80
# Not errorcode, which has one name of each number: EOPNOTSUPP is missing there.


class Token(NamedTuple):
    """A token. `kind` is that of a word, or the operator itself; `text` is as the user wrote it."""

    kind: str
    text: str
    at: int


def tokens(condition: str) -> list[Token]:
    """All tokens, the last of which is END."""
    found = []
    at = _skip_space(condition, 0)
    while at < len(condition):
        match = _TOKEN.match(condition, at)
        if match is None:
            message = _STRANGE.get(condition[at], f"unexpected {condition[at]!r}")
            raise ConditionError(message, condition, at)
        text = match[0]
        # Never None: every part of the regex has a name.
        kind: str = match.lastgroup  # type: ignore[assignment]
        found.append(Token(_KEYWORDS.get(text, text if kind == "operator" else kind), text, at))
        at = _skip_space(condition, match.end())
    found.append(Token(END, "", len(condition.rstrip())))
    return found


def _skip_space(condition: str, at: int) -> int:
    # Never None: the regex matches the empty text.
    return _SPACE.match(condition, at).end()  # type: ignore[union-attr]


class Constant:
    """A constant: `value` is a number, or the name of an enumerator.

    `is_time` is true of a number with a unit of time, `is_plain` of one without any suffix.
    """

    __slots__ = ("is_plain", "is_time", "text", "value")

    def __init__(
        self, value: int | str, text: str, *, is_plain: bool = False, is_time: bool = False
    ) -> None:
        self.value = value
        self.text = text
        self.is_plain = is_plain
        self.is_time = is_time

    @classmethod
    def of_number(cls, token: Token, condition: str, *, minus: Token | None = None) -> Constant:
        """The value of a number with its suffix, and the sign before it."""
        at = (minus or token).at
        too_large = "the number does not fit in 64 bits"
        if len(token.text) > _MAX_LENGTH:
            raise ConditionError(too_large, condition, at)
        try:
            constant = _number(token.text)
        except ValueError as error:
            raise ConditionError(str(error), condition, token.at) from error
        if minus:
            constant.value = -int(constant.value)
            constant.text = f"-{token.text}"
        if not -(1 << 63) <= int(constant.value) < 1 << 64:
            raise ConditionError(too_large, condition, at)
        return constant

    @classmethod
    def of_character(cls, token: Token, condition: str) -> Constant:
        """The value of a character in single quotes."""
        inner = token.text[1:-1]
        value = None
        if inner[:1] == "\\":
            value = _ESCAPES.get(inner[1:])
        elif len(inner) == 1 and inner.isascii():
            value = ord(inner)
        if value is None or token.text[-1:] != "'":
            message = f"{token.text} is not one ASCII character in quotes: write 'a', '\\n' or 0x61"
            raise ConditionError(message, condition, token.at)
        return cls(value, token.text)

    @classmethod
    def of_word(cls, token: Token) -> Constant | None:
        """The value of an error's name, `true`, `false` or `NULL`; None for any other name."""
        value = _WORDS.get(token.text, ERRNOS.get(token.text))
        return None if value is None else cls(value, token.text)

    @classmethod
    def of_negative_word(cls, token: Token, condition: str) -> Constant:
        """The value of an error's name after a minus."""
        if token.text in ERRNOS:
            return cls(-ERRNOS[token.text], f"-{token.text}")
        from difflib import get_close_matches  # noqa: PLC0415  (only for this error)

        near = get_close_matches(token.text, ERRNOS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ": a minus needs a number or an error"
        raise ConditionError(f"{token.text} is not the name of an error{hint}", condition, token.at)


def _number(text: str) -> Constant:
    """The value of a number. The message of a ValueError says what is wrong with it."""
    if text[0] == "0" and text[1:2].lower() in _BASES:
        base, name = _BASES[text[1].lower()]
        return Constant(_integer(text, text[2:], base, name), text, is_plain=True)
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text} is not a number")
    whole, fraction, suffix = match[1], match[2] or "", match[3] or ""
    if suffix in _TIMES:
        value, rest = divmod(int(whole + fraction) * _TIMES[suffix], 10 ** len(fraction))
        if rest:
            raise ValueError(f"{text} is not a whole number of nanoseconds")
        return Constant(value, text, is_time=True)
    if suffix and suffix not in _SIZES:
        raise ValueError(
            f"unknown suffix {suffix!r}: write k, M or G after a size, ns, us, ms or s after a time"
        )
    if fraction:
        raise ValueError(f"{text} has a fraction: only a time may have one, such as 1.5ms")
    is_octal = len(whole) > 1 and whole[0] == "0"
    value = _integer(text, whole, 8, "octal, as its leading 0 says") if is_octal else int(whole)
    return Constant(value * _SIZES.get(suffix, 1), text, is_plain=not suffix)


def _integer(text: str, digits: str, base: int, name: str) -> int:
    # int() would take underscores too.
    if not digits or not set(digits.lower()) <= set(_DIGITS[:base]):
        raise ValueError(f"{text} is not a number: it would be {name}")
    return int(digits, base)
