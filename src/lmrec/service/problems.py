"""What pydantic found wrong with a request, in one sentence for a person."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lmrec.service.schemas.words import BRANCHES, PATTERNS

_MAX_PROBLEMS: Final = 3  # named at once
_MAX_SHOWN: Final = 60  # characters of a wrong value that are quoted
_SOURCES: Final = ("body", "path", "query")
# pydantic's names for the members of a union, which end the place of a problem and say nothing to a client.
_TYPES: Final = frozenset({"bool", "int", "float", "str", "constrained-int", "constrained-float", "constrained-str"})

Problem = Mapping[str, Any]


def describe_problems(problems: Sequence[Problem]) -> str:
    """The first few problems; what a union says of each of its members becomes one.

    >>> describe_problems([{"loc": ("body", "k"), "type": "x", "msg": "Input should be at most 200", "input": 500}])
    'k is 500: Input should be at most 200'
    """
    said = list(dict.fromkeys(_describe(problem) for problem in problems))
    more = len(said) - _MAX_PROBLEMS
    return "; ".join(said[:_MAX_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _describe(problem: Problem) -> str:
    parts = [part for part in problem["loc"] if part not in BRANCHES]
    if parts and parts[0] in _SOURCES:
        parts = parts[1:]
    rule = str(problem["msg"]).removeprefix("Value error, ")
    kind = problem["type"]
    if kind == "json_invalid":
        return f"the body is no JSON ({problem.get('ctx', {}).get('error', rule)} at character {parts[-1]}). Send JSON"
    if parts and parts[-1] in _TYPES:
        parts, rule = parts[:-1], "it must be a text, a number, true or false, within the bounds in /openapi.json"
    place = ".".join(str(part) for part in parts) or "the body"
    if kind == "missing":
        return f"{place} is missing. Add it; the fields of each body are in /openapi.json"
    if kind == "extra_forbidden":
        return f"{place} is not a field of this body. Leave it out; the fields are in /openapi.json"
    if isinstance(problem.get("input"), bytes):
        return f"{place} did not come as JSON. Send the header 'Content-Type: application/json'"
    if kind == "string_pattern_mismatch":
        rule = PATTERNS.get(problem.get("ctx", {}).get("pattern", ""), rule)
    if kind == "value_error":
        return f"{place}: {rule}"
    value = repr(problem.get("input"))
    return f"{place} is {value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + '...'}: {rule}"
