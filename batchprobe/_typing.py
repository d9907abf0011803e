"""What a start needs of `typing`, without it: its import takes longer than an attach.

It brings `re` and more with it, 0.1 s under emulation, and a class takes it 1 ms: there are twenty.
What annotations alone name is imported for type checkers only: `if TYPE_CHECKING:`, a name that all
of them take for true.
"""

from __future__ import annotations

from operator import itemgetter

__all__ = ["TYPE_CHECKING", "NamedTuple"]

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NamedTuple
else:
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
