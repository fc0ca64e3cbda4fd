"""Dataclasses that cost a third to make: a primary has a hundred, and its start is waited for.

``dataclasses`` compiles up to six methods for each class. Here only ``__init__`` is compiled, once
for all classes with the same fields; the other methods are shared. ``fields``, ``replace``,
``asdict`` and ``match`` work as ever. What a class of ours has never needed is refused.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

__all__ = ["record"]

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:
    import dataclasses

    def record(cls=None, /, *, frozen=False, slots=False, eq=True):
        """As ``dataclasses.dataclass``."""
        if cls is None:
            return lambda cls: _made(cls, frozen, slots, eq)
        return _made(cls, frozen, slots, eq)

    def _made(cls, frozen, slots, eq):
        # Without a docstring dataclasses makes one, by way of inspect.
        cls.__doc__ = cls.__doc__ or cls.__name__
        cls = dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=slots)
        cls.__init__ = _init(cls, frozen)
        if cls.__repr__ is object.__repr__:
            cls.__repr__ = _repr
        if eq:
            cls.__eq__, cls.__hash__ = _eq, _hash if frozen else None
        if frozen:
            cls.__setattr__, cls.__delattr__ = _no_set, _no_delete
            cls.__getstate__, cls.__setstate__ = _values, _set_all
        return cls

    def _init(cls, frozen):
        parameters, lines, names = ["self"], [], {"_set": object.__setattr__, "_none": _values}
        for item in dataclasses.fields(cls):
            if not item.init or item.kw_only or not item.compare or not item.repr:
                raise TypeError(f"{cls.__name__}.{item.name}: use dataclasses")
            name = value = item.name
            default = ""
            if item.default is not dataclasses.MISSING:
                names[f"_is_{name}"], default = item.default, f"=_is_{name}"
            elif item.default_factory is not dataclasses.MISSING:
                names[f"_new_{name}"], default = item.default_factory, "=_none"
                value = f"_new_{name}() if {name} is _none else {name}"
            parameters.append(name + default)
            lines.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
        if hasattr(cls, "__post_init__"):
            lines.append("self.__post_init__()")
        exec(_compiled(", ".join(parameters), tuple(lines)), names)  # noqa: S102
        made = names["__init__"]
        made.__qualname__ = f"{cls.__qualname__}.__init__"
        return made

    @functools.cache
    def _compiled(parameters, lines):
        body = "\n ".join(lines or ("pass",))
        return compile(f"def __init__({parameters}):\n {body}", "<record>", "exec")

    def _values(self):
        return tuple([getattr(self, name) for name in self.__dataclass_fields__])

    def _set_all(self, values):
        for name, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, name, value)

    def _repr(self):
        told = (f"{name}={getattr(self, name)!r}" for name in self.__dataclass_fields__)
        return f"{type(self).__qualname__}({', '.join(told)})"

    def _eq(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        return _values(self) == _values(other)

    def _hash(self):
        return hash(_values(self))

    def _no_set(_self, name, _value):
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def _no_delete(_self, name):
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
