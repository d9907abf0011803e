"""What a start needs of `typing`, without it: its import takes longer than an attach.

It brings `re` and more with it, 0.1 s under emulation. What annotations alone name is imported for
type checkers only: `if TYPE_CHECKING:`, a name that they all take for true.
"""

from __future__ import annotations

from collections import namedtuple

__all__ = ["TYPE_CHECKING", "NamedTuple"]

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NamedTuple
else:

    class _Fields(type):
        """Makes of a class with annotated fields what typing.NamedTuple would."""

        def __new__(cls, name, bases, body):
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body.pop("__annotations__")
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            made.__annotations__ = fields
            for key, value in body.items():
                if key not in ("__module__", "__qualname__"):
                    setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Fields):
        """A tuple with named fields; those with a default come last."""
