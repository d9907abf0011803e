"""What stands in for the standard library does what that does."""

from __future__ import annotations

import contextlib
import copy
import enum
import functools
import pickle
import signal
import subprocess
import sys
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchprobe import _lean

ROOT = Path(__file__).resolve().parents[2]


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


class TheirConstants(enum.Enum):
    """The model."""

    ONE = "one"
    TWO = "two"


class OurConstants(_lean.Enum):
    """The same, made quickly."""

    ONE = "one"
    TWO = "two"


@pytest.mark.parametrize("kind", [TheirConstants, OurConstants])
def test_constants(kind: Any) -> None:
    one, two = kind
    assert (one, two) == (kind.ONE, kind.TWO)
    assert one is kind("one") is kind(one) is kind["ONE"]
    assert (one.name, one.value) == ("ONE", "one")
    assert one != two
    assert one != "one"
    assert len({one, two, kind.ONE}) == len(kind) == 2
    assert isinstance(one, kind)
    assert one in kind
    assert repr(one) == f"<{kind.__name__}.ONE: 'one'>"
    assert str(one) == f"{kind.__name__}.ONE"
    assert pickle.loads(pickle.dumps(one)) is copy.deepcopy(one) is copy.copy(one) is one  # noqa: S301
    assert kind.__doc__
    wrongs: list[object] = ["ONE", "", None, []]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=f"is not a valid {kind.__name__}"):
            kind(wrong)
    with pytest.raises(KeyError):
        kind["one"]
    with pytest.raises(AttributeError):
        kind.ONE = two
    with pytest.raises(AttributeError):
        one.value = "two"
    assert kind.ONE.value == "one"


RAISED = [None, ValueError("x"), KeyError("x"), StopIteration("x"), KeyboardInterrupt()]


def outcome(manager: Any, raised: BaseException | None) -> list[object]:
    """What becomes of an exception in a block."""
    done: list[object] = []
    try:
        with manager(done) as given:
            done.append(given)
            if raised is not None:
                raise raised
        done.append("behind")
    except BaseException as error:
        done += [type(error), str(error), error is raised, error.__cause__ is raised]
    return done


def passing(done: list[object]) -> Iterator[str]:
    try:
        yield "given"
    finally:
        done.append("ended")


def bare(_done: list[object]) -> Iterator[str]:
    yield "given"


def catching(done: list[object]) -> Iterator[str]:
    try:
        yield "given"
    except (ValueError, StopIteration):
        done.append("caught")


def changing(_done: list[object]) -> Iterator[str]:
    try:
        yield "given"
    except (ValueError, StopIteration) as error:
        raise KeyError("another") from error


def never(_done: list[object]) -> Iterator[str]:
    yield from ()


def twice(_done: list[object]) -> Iterator[str]:
    with contextlib.suppress(ValueError):
        yield "given"
    yield "again"


def ending(_done: list[object]) -> Iterator[str]:
    yield "given"
    raise OSError("at the end")


@pytest.mark.parametrize("raised", RAISED, ids=repr)
@pytest.mark.parametrize(
    "function", [passing, bare, catching, changing, never, twice, ending], ids=lambda f: f.__name__
)
def test_blocks(function: Any, raised: BaseException | None) -> None:
    theirs = outcome(contextlib.contextmanager(function), raised)
    assert outcome(_lean.contextmanager(function), raised) == theirs


def test_a_block_has_no_part_in_a_traceback() -> None:
    try:
        with _lean.contextmanager(bare)([]):
            raise ValueError("x")
    except ValueError as error:
        traceback = error.__traceback__
    assert traceback is not None
    assert traceback.tb_next is None


@pytest.mark.parametrize("raised", RAISED, ids=repr)
@pytest.mark.parametrize("kinds", [(), (ValueError,), (LookupError, StopIteration)])
def test_suppress(kinds: tuple[type[Exception], ...], raised: BaseException | None) -> None:
    theirs = outcome(lambda _: contextlib.suppress(*kinds), raised)
    assert outcome(lambda _: _lean.suppress(*kinds), raised) == theirs


@pytest.mark.parametrize("library", [functools, _lean], ids=["theirs", "ours"])
def test_what_is_kept(library: Any) -> None:
    calls: list[object] = []

    class Kept:
        """With a value that takes long."""

        @library.cached_property  # type: ignore[untyped-decorator]
        def value(self) -> str:
            """Documented."""
            calls.append(self)
            return "value"

    one, other = Kept(), Kept()
    assert (one.value, one.value, other.value) == ("value",) * 3
    assert calls == [one, other]
    assert Kept.value.__doc__ == "Documented."
    del one.value
    assert one.value == "value"
    assert len(calls) == 3

    @library.cache  # type: ignore[untyped-decorator]
    def failing_once(number: int) -> int:
        calls.append(number)
        if calls == [5]:
            raise OSError
        return number + 1

    calls.clear()
    with pytest.raises(OSError):
        failing_once(5)
    assert [failing_once(n) for n in (5, 5, 6)] == [6, 6, 7]
    assert calls == [5, 5, 6]
    failing_once.cache_clear()
    assert failing_once(5) == 6
    assert calls == [5, 5, 6, 5]


def test_tally() -> None:
    assert _lean.tally("abcab") == Counter("abcab")
    assert list(_lean.tally("bab")) == ["b", "a"]
    assert _lean.tally(()) == {}


def test_signals_are_the_same() -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL", "SIG_IGN", "default_int_handler"):
        assert getattr(_lean.signal, name) == getattr(signal, name)
    before = signal.getsignal(signal.SIGHUP)
    try:
        _lean.signal.signal(signal.SIGHUP, _lean.signal.SIG_IGN)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert _lean.signal.getsignal(signal.SIGHUP) is _lean.signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_start_loads_none_of_them() -> None:
    """Nothing that the usual command needs until its probes count brings them back."""
    code = (
        "import sys\n"
        "import batchprobe.__main__, batchprobe.options, batchprobe.run\n"
        "import batchprobe.abi.event, batchprobe.abi.multi, batchprobe.arch.x86_64\n"
        "import batchprobe.guardian, batchprobe.kernel.armed, batchprobe.leftovers\n"
        "dear = {'typing', 're', 'contextlib', 'functools', 'enum', 'collections', 'operator',"
        " 'signal', 'ctypes', 'json', 'subprocess', 'inspect', 'typer', 'rich'}\n"
        "print(sorted(dear & set(sys.modules)))"
    )
    # -S: what a site adds is not ours.
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
