"""What both databases can keep exactly as it was: checked before it reaches them, so that one bad value is an
InputError of its own call and never a failed transaction of others."""

import json
from typing import Any, TypeAlias

from lmrec.errors import InputError

JsonScalar: TypeAlias = str | int | float | bool | None

_LARGEST = 2**63 - 1


def check_text(name: str, text: str) -> None:
    """InputError for text that is empty or that no UTF-8 database can hold.

    >>> check_text("user_id", "4\\x002")
    Traceback (most recent call last):
    lmrec.errors.InputError: user_id '4\\x002' has a NUL character, which databases cannot keep. Leave it out
    """
    if not text:
        raise InputError(f"{name} is empty; give at least one character")
    if "\x00" in text:
        raise InputError(f"{name} {text!r} has a NUL character, which databases cannot keep. Leave it out")
    if not text.isascii():
        _check_unicode(name, text)


def check_count(name: str, number: int) -> None:
    """InputError unless 0 <= number < 2**63."""
    if not 0 <= number <= _LARGEST:
        raise InputError(f"{name} is {number}; give a whole number from 0 to {_LARGEST}")


def to_json(name: str, value: Any) -> str:
    """Compact JSON text; InputError for what JSON has no word for (NaN, bytes, broken Unicode)."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} cannot be written as JSON ({error}). Use text, finite numbers, true, false and null"
        ) from None
    _check_unicode(name, text)
    return text


def from_json(text: str) -> Any:
    """What `to_json` was given."""
    return json.loads(text)


def _check_unicode(name: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{name} has a half character at place {error.start}; send whole Unicode characters") from None
