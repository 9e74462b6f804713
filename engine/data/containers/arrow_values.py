"""From the columns of Arrow to plain values: text as text, and no key that only pads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyarrow import types

from engine.data.containers.record_file import RowError

Convert = Callable[[Any], Any]


def converter(kind: pa.DataType) -> Convert | None:
    """What makes plain values of those that Arrow gives for a type; None if they are plain.

    The function raises a `RowError` for a value that cannot be learned from.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return converter(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return converter(kind.value_type)
    if types.is_struct(kind):
        return _struct(kind)
    if types.is_map(kind):
        return _map(kind)
    if types.is_nested(kind):
        return _list(kind)
    if _is_binary(kind):
        return _text
    if types.is_floating(kind):
        return _number
    is_plain = (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_integer(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
        or str(kind) == "string_view"
    )
    return None if is_plain else _words


def plain_column(column: pa.Array) -> list[Any]:
    """The values of a column; a `RowError` stands for one that cannot be learned from."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind: Any = column.type
    convert = converter(kind)
    try:
        values = column.to_pylist()
    except (UnicodeDecodeError, OverflowError):
        return [_value(cell, convert) for cell in column]
    if convert is None:
        return values
    return [_converted(value, convert) for value in values]


def _value(cell: pa.Scalar, convert: Convert | None) -> Any:
    try:
        value = cell.as_py()
    except UnicodeDecodeError:
        return RowError("it holds text that is not UTF-8")
    except OverflowError:
        return RowError("it holds a date that is no date")
    return _converted(value, convert) if convert else value


def _converted(value: Any, convert: Convert) -> Any:
    if value is None:
        return None
    try:
        return convert(value)
    except RowError as error:
        return error


def _is_binary(kind: pa.DataType) -> bool:
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or str(kind) == "binary_view"
    )


def _struct(kind: Any) -> Convert:
    converts = {inner.name: converter(inner.type) for inner in kind}

    def convert(value: dict[str, Any]) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for name, inner in value.items():
            change = converts.get(name)
            # Arrow gives every row the keys of all rows; None is the one that it has not.
            if inner is not None:
                plain[name] = change(inner) if change else inner
        return plain

    return convert


def _map(kind: Any) -> Convert:
    change = converter(kind.item_type)

    def convert(value: Any) -> dict[str, Any]:
        pairs = value.items() if isinstance(value, dict) else value
        return {
            str(key): change(inner) if change and inner is not None else inner
            for key, inner in pairs
        }

    return convert


def _list(kind: Any) -> Convert | None:
    change = converter(kind.value_type) if hasattr(kind, "value_type") else _words
    if change is None:
        return None

    def convert(value: list[Any]) -> list[Any]:
        return [None if inner is None else change(inner) for inner in value]

    return convert


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise RowError("it holds bytes that are no UTF-8 text") from None


def _number(value: float) -> float | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        raise RowError("it holds a number that is infinite")
    return value


def _words(value: Any) -> str:
    """Dates, times and decimals."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
