"""What a start needs of some standard modules, without them: they take longer than an attach.

`typing` brings `re` and more with it, 0.1 s under emulation; `contextlib`, `functools`, `enum` and
`collections`, which need one another, and the enums of `signal` another 0.05 s of 0.35. Each name
here is that of the standard library to type checkers, and does what that does, in less of it.
What annotations alone name is imported for type checkers only: `if TYPE_CHECKING:`, a name that all
of them take for true.
"""

from __future__ import annotations

__all__ = [
    "TYPE_CHECKING",
    "Enum",
    "NamedTuple",
    "cache",
    "cached_property",
    "contextmanager",
    "signal",
    "suppress",
    "tally",
]

TYPE_CHECKING = False

if TYPE_CHECKING:
    import signal
    from collections.abc import Hashable, Iterable
    from contextlib import contextmanager, suppress
    from enum import Enum
    from functools import cache, cached_property
    from typing import NamedTuple, TypeVar

    _T = TypeVar("_T", bound=Hashable)
else:
    import _signal as signal  # the same functions; numbers where `signal` has enums
    from _operator import itemgetter

    _new_tuple = tuple.__new__

    class _Fields(type):
        """Makes of a class with annotated fields what typing.NamedTuple would."""

        def __new__(cls, name, bases, body):
            fields = tuple(body.get("__annotations__", ()))
            body["_field_defaults"] = {field: body[field] for field in fields if field in body}
            defaults = tuple(body["_field_defaults"].values())
            required = len(fields) - len(defaults)
            # What is added to as many values; lists of thousands are made of these.
            body["_rest"] = {required + at: defaults[at:] for at in range(len(defaults) + 1)}
            body.update((field, property(itemgetter(at))) for at, field in enumerate(fields))
            return super().__new__(
                cls,
                name,
                bases,
                {**body, "__slots__": (), "_fields": fields, "__match_args__": fields},
            )

    class NamedTuple(tuple, metaclass=_Fields):
        """A tuple with named fields; those with a default come last."""

        def __new__(cls, *values, **named):
            if not named and (rest := cls._rest.get(len(values))) is not None:
                return _new_tuple(cls, values + rest)
            fields = cls._fields
            if len(values) > len(fields):
                raise TypeError(f"{cls.__name__} has {len(fields)} fields: {len(values)} given")
            given = dict(zip(fields, values, strict=False))
            if wrong := (given.keys() & named.keys()) or (named.keys() - set(fields)):
                raise TypeError(f"{cls.__name__}: {', '.join(wrong)} given twice, or no field")
            given = {**cls._field_defaults, **given, **named}
            if lacking := [field for field in fields if field not in given]:
                raise TypeError(f"{cls.__name__} lacks {', '.join(lacking)}")
            return _new_tuple(cls, [given[field] for field in fields])

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            fields = ", ".join(f"{field}={value!r}" for field, value in self._asdict().items())
            return f"{type(self).__name__}({fields})"

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **changes):
            return type(self)(**{**self._asdict(), **changes})

    class _Members(type):
        """Makes of a class with constants what enum.Enum would."""

        def __new__(cls, name, bases, body):
            constants = {} if not bases else {k: v for k, v in body.items() if k[0] != "_"}
            made = super().__new__(
                cls, name, bases, {k: v for k, v in body.items() if k not in constants}
            )
            members = {}
            for word, value in constants.items():
                member = object.__new__(made)
                member.__dict__.update(name=word, value=value)
                type.__setattr__(made, word, member)
                members[value] = member
            type.__setattr__(made, "_value2member_map_", members)
            return made

        def __call__(cls, value):
            if isinstance(value, cls):
                return value
            try:
                return cls._value2member_map_[value]
            except (KeyError, TypeError):
                raise ValueError(f"{value!r} is not a valid {cls.__qualname__}") from None

        def __getitem__(cls, name):
            return {member.name: member for member in cls}[name]

        def __iter__(cls):
            return iter(cls._value2member_map_.values())

        def __len__(cls):
            return len(cls._value2member_map_)

        def __contains__(cls, value):
            return isinstance(value, cls)

        def __setattr__(cls, name, value):
            raise AttributeError(f"cannot change {cls.__qualname__}.{name}")

    class Enum(metaclass=_Members):
        """Named constants, each of them one object; without methods or aliases."""

        def __setattr__(self, name, _value):
            raise AttributeError(f"cannot change {self}.{name}")

        def __repr__(self):
            return f"<{self}: {self.value!r}>"

        def __str__(self):
            return f"{type(self).__name__}.{self.name}"

        def __reduce_ex__(self, _protocol):
            return type(self), (self.value,)

    class suppress:  # noqa: N801  (so is the standard library's called)
        """Ends a block at these exceptions, and goes on behind it."""

        def __init__(self, *exceptions):
            self._exceptions = exceptions

        def __enter__(self):
            pass

        def __exit__(self, kind, _error, _traceback):
            return kind is not None and issubclass(kind, self._exceptions)

    class _Block:
        """What a generator does before and after its `yield`, around a `with` block."""

        def __init__(self, generator):
            self._generator = generator

        def __enter__(self):
            for value in self._generator:
                return value
            raise RuntimeError("generator didn't yield")

        def __exit__(self, _kind, error, traceback):
            try:
                if error is None:
                    for _ in self._generator:
                        raise RuntimeError("generator didn't stop")
                    return False
                self._generator.throw(error)
            except StopIteration as stop:
                # One raised in the block, and not caught by the generator, is not its end.
                return stop is not error
            except BaseException as raised:
                # A generator wraps a StopIteration that leaves it (PEP 479).
                wrapped = isinstance(raised, RuntimeError) and isinstance(error, StopIteration)
                if raised is not error and not (wrapped and raised.__cause__ is error):
                    raise
                # As if it had not gone through the generator.
                error.__traceback__ = traceback
                return False
            raise RuntimeError("generator didn't stop after throw()")

    def contextmanager(function):
        """Makes of a generator function with one `yield` what `with` takes."""

        def block(*values, **named):
            return _Block(function(*values, **named))

        block.__name__ = function.__name__
        block.__qualname__ = function.__qualname__
        block.__doc__ = function.__doc__
        block.__module__ = function.__module__
        block.__wrapped__ = function
        return block

    def cache(function):
        """Calls it once for the same arguments."""
        known = {}

        def kept(*values):
            if values not in known:
                known[values] = function(*values)
            return known[values]

        kept.__name__ = function.__name__
        kept.__doc__ = function.__doc__
        kept.__wrapped__ = function
        kept.cache_clear = known.clear
        return kept

    class cached_property:  # noqa: N801  (likewise)
        """A property that is computed once, and kept in the object's __dict__."""

        def __init__(self, function):
            self._function = function
            self.__doc__ = function.__doc__

        def __set_name__(self, _owner, name):
            self._name = name

        def __get__(self, instance, _owner=None):
            if instance is None:
                return self
            # Not found here the next time, for the object's own comes first.
            value = instance.__dict__[self._name] = self._function(instance)
            return value


def tally(values: Iterable[_T]) -> dict[_T, int]:
    """How often each value is there, in the order in which they come."""
    counts: dict[_T, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts
