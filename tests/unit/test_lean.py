"""Our own NamedTuple is what typing's is."""

from __future__ import annotations

import copy
import pickle
import sys
import typing
from typing import Any

import pytest

from batchprobe import _lean


class Theirs(typing.NamedTuple):
    """The model."""

    a: int
    b: str = "b"
    c: tuple[int, ...] = ()

    @property
    def double(self) -> int:
        """More than a field."""
        return 2 * self.a


class Ours(_lean.NamedTuple):
    """The same, made quickly."""

    a: int
    b: str = "b"
    c: tuple[int, ...] = ()

    @property
    def double(self) -> int:
        """More than a field."""
        return 2 * self.a


@pytest.mark.parametrize("kind", [Theirs, Ours])
def test_what_it_does(kind: Any) -> None:
    one = kind(1, c=(2,))
    assert one == (1, "b", (2,)) == kind(a=1, b="b", c=(2,))
    assert (one.a, one.b, one.c, one.double) == (1, "b", (2,), 2)
    assert hash(one) == hash((1, "b", (2,)))
    assert repr(one) == f"{kind.__name__}(a=1, b='b', c=(2,))"
    assert one._replace(b="x") == (1, "x", (2,))
    assert type(one._replace(b="x")) is kind
    assert one._asdict() == {"a": 1, "b": "b", "c": (2,)}
    assert kind._fields == ("a", "b", "c")
    assert kind._field_defaults == {"b": "b", "c": ()}
    assert kind.__doc__
    assert copy.copy(one) == pickle.loads(pickle.dumps(one)) == one  # noqa: S301
    assert not hasattr(one, "__dict__")
    with pytest.raises(AttributeError):
        one.a = 3
    # Neither has more than a tuple with a word of its own.
    assert sys.getsizeof(one) <= sys.getsizeof((1, "b", (2,))) + 8
    match one:
        case kind(a, _, _):
            assert a == 1
        case _:
            raise AssertionError


@pytest.mark.parametrize("kind", [Theirs, Ours])
@pytest.mark.parametrize(
    ("values", "named"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"a": 1}), ((1,), {"d": 1})]
)
def test_what_it_does_not_take(
    kind: type[Theirs], values: tuple[int, ...], named: dict[str, int]
) -> None:
    with pytest.raises(TypeError):
        kind(*values, **named)  # type: ignore[arg-type]
