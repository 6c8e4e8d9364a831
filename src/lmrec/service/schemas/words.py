"""Bounded ids, texts, numbers and filters. Nothing is converted: a number in quotes is refused, not guessed at."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    model_validator,
)

# Without control characters: they are mistakes, and databases and logs choke on them.
PLAIN: Final = r"^[^\x00-\x1f\x7f]+$"
_NO_NULL: Final = r"^[^\x00]*$"
_NOT_BLANK: Final = r"^[^\x00]*[^\s\x00][^\x00]*$"
PATTERNS: Final = {
    PLAIN: "it has a control character, such as a line break or a tab. Leave it out",
    _NO_NULL: "it has a NUL character. Leave it out",
    _NOT_BLANK: "it is blank or has a NUL character. Give a few words, or leave the field out",
}
"""What a person is told in place of a pattern."""
_SAFE_INT: Final = 2**53 - 1  # beyond this JavaScript loses digits

MAX_K: Final = 200
MAX_TEXT: Final = 2_000
MAX_FIELD_TEXT: Final = 20_000
MAX_FIELDS: Final = 200
MAX_EVENTS: Final = 1_000
MAX_ITEMS: Final = 500
MAX_QUESTIONS: Final = 100
MAX_SECONDS: Final = 1e11  # of a moment; beyond it a number is milliseconds: seconds would be in the year 5138

Id: TypeAlias = Annotated[str, Strict(), Field(min_length=1, max_length=200, pattern=PLAIN)]
Name: TypeAlias = Annotated[str, Strict(), Field(min_length=1, max_length=100, pattern=PLAIN)]
Text: TypeAlias = Annotated[str, Strict(), Field(min_length=1, max_length=MAX_TEXT, pattern=_NOT_BLANK)]
Note: TypeAlias = Annotated[str, Strict(), Field(max_length=MAX_TEXT, pattern=_NO_NULL)]


def whole(value: Any) -> Any:
    """To JSON, 5.0 is a whole number as well."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The bounds stand before the conversion, or pydantic leaves them out of the schema.
K: TypeAlias = Annotated[int, Strict(), Field(ge=1, le=MAX_K), BeforeValidator(whole)]
Number: TypeAlias = Annotated[float, Strict(), Field(ge=-1e15, le=1e15, allow_inf_nan=False)]

_Integer: TypeAlias = Annotated[StrictInt, Field(ge=-_SAFE_INT, le=_SAFE_INT)]
_Float: TypeAlias = Annotated[float, Strict(), Field(ge=-_SAFE_INT, le=_SAFE_INT, allow_inf_nan=False)]
Scalar: TypeAlias = (
    StrictBool | _Integer | _Float | Annotated[StrictStr, Field(max_length=MAX_FIELD_TEXT, pattern=_NO_NULL)]
)
# pydantic writes the pattern of names as patternProperties, which alone would let other names pass.
ONLY_NAMES: Final = {"additionalProperties": False}
Fields: TypeAlias = Annotated[
    dict[Name, Scalar | None], Field(min_length=1, max_length=MAX_FIELDS, json_schema_extra=ONLY_NAMES)
]

_Value: TypeAlias = Scalar | None
_Choices: TypeAlias = Annotated[list[_Value], Field(min_length=1, max_length=1_000)]
_Bound: TypeAlias = Number | Annotated[StrictStr, Field(min_length=1, max_length=200, pattern=_NO_NULL)]


class Words(BaseModel):
    """Of all that comes in: unknown fields are refused, types are taken as they are."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Range(Words):
    """At least `min`, at most `max`; one of them or both."""

    min: _Bound | None = None
    max: _Bound | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": ["number", "string"]}}} for name in ("min", "max")
            ]
        }
    )

    @model_validator(mode="after")
    def _some(self) -> "Range":
        if self.min is None and self.max is None:
            raise ValueError("no bound is given. Give min, max or both")
        return self


class Contains(Words):
    """The field's text holds this word, or these words in a row, whatever their case."""

    contains: Annotated[str, Field(min_length=1, max_length=200, pattern=_NOT_BLANK)]


# Names of a union's members, as pydantic puts them into the place of a problem; with spaces, unlike names of fields.
BRANCHES: Final = frozenset(
    {"single value", "list of values", "range of values", "word in a text", "negation of a condition"}
    | {"list of events", "single event"}
)


def _shape(value: Any) -> str:
    if isinstance(value, list):
        return "list of values"
    if isinstance(value, Not) or (isinstance(value, dict) and "not" in value):
        return "negation of a condition"
    if isinstance(value, Contains) or (isinstance(value, dict) and "contains" in value):
        return "word in a text"
    return "range of values" if isinstance(value, dict | Range) else "single value"


_Plain: TypeAlias = (
    Annotated[_Value, Tag("single value")]
    | Annotated[_Choices, Tag("list of values")]
    | Annotated[Range, Tag("range of values")]
    | Annotated[Contains, Tag("word in a text")]
)


class Not(Words):
    """The condition does not hold."""

    not_: Annotated[_Plain, Discriminator(_shape)] = Field(alias="not")


Condition: TypeAlias = Annotated[_Plain | Annotated[Not, Tag("negation of a condition")], Discriminator(_shape)]

FilterSpec: TypeAlias = Annotated[
    dict[Name, Condition],
    Field(
        min_length=1,
        max_length=50,
        json_schema_extra=ONLY_NAMES,
        description="Fields of the catalog, all of which must hold: a value, several values (any of them), or a condition.",
        examples=[{"title": {"contains": "night"}}],
    ),
]


def plain_filter(spec: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The filter as the plain JSON that it came as."""
    if spec is None:
        return None
    return {
        name: value.model_dump(by_alias=True, exclude_none=True) if isinstance(value, BaseModel) else value
        for name, value in spec.items()
    }
