"""JSON values into frozen dataclasses, strictly: a wrong type or an unknown name is a sentence."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from supervisor.errors import SpecInvalid

Value = TypeVar("Value")


def read(kind: type[Value], value: object, *, where: str) -> Value:
    """Make a ``kind`` from ``value``; raises ``SpecInvalid`` naming the place."""
    if not isinstance(value, Mapping):
        raise SpecInvalid(f"{where} must be an object.")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in value:
        if name not in fields:
            raise SpecInvalid(f"{where} has no field {name!r}; known are {', '.join(fields)}.")
    for name, field in fields.items():
        if name not in value and _has_no_default(field):
            raise SpecInvalid(f"{where}.{name} is missing.")
    given = {name: _convert(hints[name], value[name], f"{where}.{name}") for name in value}
    return kind(**given)


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _convert(hint: Any, value: object, where: str) -> object:
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        return None if value is None else _convert(typing.get_args(hint)[0], value, where)
    if origin is tuple:
        return _convert_list(typing.get_args(hint)[0], value, where)
    if origin is not None:  # the one mapping there is: names to texts
        return _convert_texts(value, where)
    if dataclasses.is_dataclass(hint):
        return read(typing.cast("type[object]", hint), value, where=where)
    return _convert_plain(hint, value, where)


def _convert_list(kind: Any, value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise SpecInvalid(f"{where} must be a list.")
    return tuple(_convert(kind, item, f"{where}[{index}]") for index, item in enumerate(value))


def _convert_texts(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise SpecInvalid(f"{where} must be an object of texts.")
    return {
        str(_convert_plain(str, name, where)): str(_convert_plain(str, text, f"{where}.{name}"))
        for name, text in value.items()
    }


def _convert_plain(kind: type, value: object, where: str) -> object:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise SpecInvalid(f"{where} must be {_NAMES[kind]}, not {type(value).__name__}.")
    return value


_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
