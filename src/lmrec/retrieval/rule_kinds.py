"""Rules that stand above the model, as a file or an API gives them: what must not be shown, is lifted, lowered, pinned.

What hides an item (a rule, the review queue, a delete) beats what lifts or pins it, and a pin beats a boost. No torch.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from lmrec.errors import InputError, nearest

ItemIdText = Annotated[str, Field(min_length=1, max_length=512)]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
FieldName = Annotated[str, Field(min_length=1, max_length=200)]
Segment = Annotated[str, Field(min_length=1, max_length=200)]


def _name_what_is_needed(schema: dict[str, Any]) -> None:
    """In the OpenAPI: `kind` has a default for code that knows its class, and is needed by all who send JSON."""
    schema["required"] = ["kind", *schema.get("required", ())]
    if "item_ids" in schema["properties"]:
        schema["anyOf"] = [
            {"required": ["item_ids"], "properties": {"item_ids": {"minItems": 1}}},
            {"required": ["filter"], "properties": {"filter": {"type": "object", "minProperties": 1}}},
        ]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_name_what_is_needed)


class Target(_Strict):
    """Which items a rule is about: named ones, those that pass a filter, or both."""

    item_ids: tuple[ItemIdText, ...] = Field(default=(), max_length=10_000, description="Items by id.")
    filter: dict[str, Any] | None = Field(default=None, description="Items by a filter, as in a request.")

    @model_validator(mode="after")
    def _names_something(self) -> "Target":
        if not self.item_ids and not self.filter:
            raise ValueError("names no items: give item_ids, or a filter")
        return self


class MustNotShow(Target):
    kind: Literal["must_not_show"] = "must_not_show"
    segment: Segment | None = Field(default=None, description="Only for users of this segment.")


class Boost(Target):
    """The odds of the items are multiplied by `factor`: its logarithm is added to their scores."""

    kind: Literal["boost"] = "boost"
    factor: float = Field(gt=1, le=1e6, allow_inf_nan=False, description="Over 1; 2 doubles the odds.")
    segment: Segment | None = Field(default=None, description="Only for users of this segment.")


class Demote(Target):
    """The odds of the items are divided by `factor`."""

    kind: Literal["demote"] = "demote"
    factor: float = Field(gt=1, le=1e6, allow_inf_nan=False, description="Over 1; 2 halves the odds.")
    segment: Segment | None = Field(default=None, description="Only for users of this segment.")


class Pin(_Strict):
    """An item at a place of every list, if it may be shown at all."""

    kind: Literal["pin"] = "pin"
    item_id: ItemIdText
    place: int = Field(ge=1, le=1000, description="1 is the top.")
    segment: Segment | None = Field(default=None, description="Only for users of this segment.")


class AgeRating(_Strict):
    """Items rated above `max` are not shown. Of a text such as 'FSK 16' or '12+' the first number counts; an item
    without a number is not shown either."""

    kind: Literal["age_rating"] = "age_rating"
    field: FieldName
    max: float = Field(ge=0, le=1000, allow_inf_nan=False)
    segment: Segment | None = Field(default=None, description="Only for users of this segment.")


class InStock(_Strict):
    """Only items are shown whose field is true or above zero; null is neither."""

    kind: Literal["in_stock"] = "in_stock"
    field: FieldName
    segment: Segment | None = Field(default=None, description="Only for users of this segment.")


class BlockWords(_Strict):
    """Items are not shown whose text columns hold one of the words, as whole words, whatever their case.

    review: such an item waits in the review queue, and is shown once a person has approved it: until its words change, or
    a rule that is newer than the approval finds something in them.
    """

    kind: Literal["block_words"] = "block_words"
    words: tuple[Words, ...] = Field(min_length=1, max_length=1000)
    review: bool = False
    segment: Segment | None = Field(default=None, description="Only for users of this segment.")

    @model_validator(mode="after")
    def _queues_for_everybody(self) -> "BlockWords":
        if self.review and self.segment is not None:
            raise ValueError("review and segment exclude each other: the queue holds an item back from everybody")
        return self


Rule: TypeAlias = Annotated[
    MustNotShow | Boost | Demote | Pin | AgeRating | InStock | BlockWords, Field(discriminator="kind")
]
_KINDS = ("must_not_show", "boost", "demote", "pin", "age_rating", "in_stock", "block_words")
_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)


def parse_rule(spec: Mapping[str, Any]) -> Rule:
    """Raises InputError that says what is wrong with which key.

    >>> parse_rule({"kind": "pin", "item_id": "50", "place": 1})
    Pin(kind='pin', item_id='50', place=1, segment=None)
    """
    if not isinstance(spec, Mapping) or spec.get("kind") not in _KINDS:
        kind = spec.get("kind") if isinstance(spec, Mapping) else spec
        raise InputError(f"a rule has the kind {kind!r:.100}. {nearest(str(kind), _KINDS)}")
    try:
        return _RULE.validate_python(dict(spec))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        raise InputError(
            f"the rule of kind '{spec['kind']}' is wrong{f' at {where!r}' if where else ''}: {first['msg']}. Mend it there"
        ) from None


def load_rules_file(path: Path | str) -> dict[str, Rule]:
    """rule id -> rule, from TOML ([[rules]] tables) or JSON ({"rules": [...]}); `id` names a rule, else its place does."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        values = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise InputError(f"the rules file '{path}' cannot be read ({error.strerror}). Name one that exists") from error
    except ValueError as error:
        raise InputError(f"the rules file '{path}' is neither TOML (.toml) nor JSON ({error}). Mend it") from error
    listed = values.get("rules") if isinstance(values, dict) else None
    if not isinstance(listed, list) or set(values) != {"rules"}:
        raise InputError(
            f"the rules file '{path}' must hold a list called 'rules' and nothing else. Write [[rules]] tables"
        )
    rules: dict[str, Rule] = {}
    for place, spec in enumerate(listed, start=1):
        if not isinstance(spec, dict):
            raise InputError(f"{path}, rule {place}: it is a {type(spec).__name__}; a rule is a table with a kind")
        rule_id = str(spec.pop("id", f"file-{place}"))
        if rule_id in rules:
            raise InputError(f"{path}, rule {place}: the id '{rule_id}' is taken by an earlier rule. Choose another")
        try:
            rules[rule_id] = parse_rule(spec)
        except InputError as error:
            raise InputError(f"{path}, rule {place} ('{rule_id}'): {error}") from None
    return rules
