"""What comes in: one model for each body. Limits are in the schema, so that a client sees them in the OpenAPI."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from lmrec.feedback.assignment import MAX_NAME, NAMES, Mode
from lmrec.fields import ITEM_ID
from lmrec.retrieval.candidates import MAX_CANDIDATES
from lmrec.service.schemas.words import (
    MAX_EVENTS,
    MAX_FIELDS,
    MAX_ITEMS,
    MAX_QUESTIONS,
    MAX_SECONDS,
    ONLY_NAMES,
    PLAIN,
    Fields,
    FilterSpec,
    Id,
    K,
    Name,
    Note,
    Number,
    Scalar,
    Text,
    Words,
    whole,
)

# These bounds are in the schema only: there is a better message for who sends milliseconds, or takes back by what is below 0.
_Seconds = Annotated[
    float, Strict(), Field(allow_inf_nan=False, json_schema_extra={"minimum": -MAX_SECONDS, "maximum": MAX_SECONDS})
]
_Amount = Annotated[float, Strict(), Field(le=1e15, allow_inf_nan=False, json_schema_extra={"minimum": 0})]
_Moment = (
    Annotated[str, Strict(), Field(min_length=1, max_length=40, json_schema_extra={"format": "date-time"})] | _Seconds
)
_ID: TypeAdapter[str] = TypeAdapter(Id)
_FLAG_PATH = "/flag"  # after an item's own: an item of such a name could not be asked for


def _with_id(fields: dict[str, Any]) -> dict[str, Any]:
    try:
        _ID.validate_python(fields.get(ITEM_ID))
    except ValidationError:
        raise ValueError(
            f"the item_id {fields.get(ITEM_ID)!r:.100} is none. Give 1 to 200 characters, without control characters"
        ) from None
    if str(fields[ITEM_ID]).endswith(_FLAG_PATH):
        raise ValueError(
            f"the item_id {fields[ITEM_ID]!r:.100} ends in '{_FLAG_PATH}', which is the path that flags an item"
        )
    return fields


_ItemFields = Annotated[
    Fields,
    AfterValidator(_with_id),
    Field(
        json_schema_extra={
            **ONLY_NAMES,
            "required": [ITEM_ID],
            "properties": {ITEM_ID: {"type": "string", "minLength": 1, "maxLength": 200, "pattern": PLAIN}},
        }
    ),
]
_History = Annotated[list[Id], Field(max_length=1_000)]
_Shown = Annotated[
    list[Name],
    Field(
        min_length=1,
        max_length=MAX_FIELDS,
        description="Columns of the catalog that each item brings along; '*' is all of them. The title always comes.",
        examples=[["*"]],
    ),
]


_Segment = Annotated[Name | None, Field(description="A group of users that rules may speak of, such as 'children'.")]


_Excluded = Annotated[Annotated[list[Id], Field(max_length=10_000)] | None, Field(description="Never these items.")]
_ExcludeSeen = Annotated[
    bool | None,
    Field(
        description="Leave out items of the history, and all the user had to do with. Unset: as the run was judged "
        "(`evaluation.exclude_seen` of its recipe)."
    ),
]


_Profile = Annotated[
    Annotated[dict[Name, Scalar | None], Field(max_length=20, json_schema_extra=ONLY_NAMES)] | None,
    Field(
        description="What else is known of them: columns of user_model.profile, template.user or reranker.user, several values "
        "in one between '|'. It comes before what the user table says. Not kept.",
        examples=[{"age": 34, "interests": "jazz|chess"}],
    ),
]

_Context = Annotated[
    Annotated[dict[Name, Scalar | None], Field(max_length=20, json_schema_extra=ONLY_NAMES)] | None,
    Field(description="Kept with the list that was shown, such as page or device. Nothing personal, please."),
]


class RecommendationQuestion(Words):
    """Who or what to recommend for. With nothing at all, or somebody unknown, the answer is what is popular now."""

    user_id: Id | None = Field(
        default=None, description="Their history is what the service knows of them at this moment."
    )
    history: _History | None = Field(
        default=None,
        description="Item ids, oldest first; they come after what is known of the user. Unknown ones are ignored.",
    )
    text: Text | None = Field(
        default=None,
        description="What somebody says they want, in English also what not ('no horror', 'without guns'): items that name "
        "it are left out, and the rest counts as the newest item.",
    )
    k: K = Field(default=10, description="How many items.")
    filter: FilterSpec | None = None
    exclude: _Excluded = None
    exclude_seen: _ExcludeSeen = None
    diversity: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.0, description="0 takes the best scores; towards 1, items that differ from one another."
    )
    segment: _Segment = None
    profile: _Profile = None
    context: _Context = None
    explain: bool = Field(default=False, description="Give each item a reason.")
    fields: _Shown | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "42", "k": 5},
                {"history": ["50", "181"], "k": 5, "filter": {"title": {"contains": "night"}}},
                {"text": "something light for rainy days, no horror", "k": 5, "explain": True},
            ]
        }
    )


class RecommendationBatch(Words):
    questions: Annotated[list[RecommendationQuestion], Field(min_length=1, max_length=MAX_QUESTIONS)]

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"questions": [{"user_id": "42", "k": 3}, {"text": "heist films", "k": 3}]}]}
    )


class RankingQuestion(Words):
    """Items to put in order, and for whom. With no user and no history, or somebody unknown, by what is popular now."""

    candidates: Annotated[list[Id], Field(min_length=1, max_length=MAX_CANDIDATES)] = Field(
        description="Item ids, each counted once. All are ordered, whether the user has seen or dismissed them or not; rules, "
        "reviews and the filter hold. Unknown ones are named in the answer; where all are, that is a 404."
    )
    user_id: Id | None = Field(
        default=None, description="Their history is what the service knows of them at this moment."
    )
    history: _History | None = Field(
        default=None,
        description="Item ids, oldest first; they come after what is known of the user. Unknown ones are ignored.",
    )
    k: Annotated[int, Strict(), Field(ge=1, le=MAX_CANDIDATES), BeforeValidator(whole)] | None = Field(
        default=None, description="How many of the best are wanted, so that only these count as shown; all without it."
    )
    filter: FilterSpec | None = None
    segment: _Segment = None
    profile: _Profile = None
    context: _Context = None
    fields: _Shown | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"candidates": ["50", "181", "7"], "user_id": "42"},
                {"candidates": ["50", "181", "7"], "history": ["1", "2"], "k": 2},
            ]
        }
    )


class SimilarQuestion(Words):
    """One of item_id and text."""

    item_id: Id | None = None
    text: Text | None = None
    k: K = 10
    filter: FilterSpec | None = None
    segment: _Segment = None
    fields: _Shown | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"item_id": "50", "k": 5}, {"text": "space opera", "k": 5}],
            "oneOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in ("item_id", "text")],
        }
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.item_id is None) == (self.text is None):
            raise ValueError("give either item_id or text, one of them")
        return self


class SimilarBatch(Words):
    questions: Annotated[list[SimilarQuestion], Field(min_length=1, max_length=MAX_QUESTIONS)]

    model_config = ConfigDict(json_schema_extra={"examples": [{"questions": [{"item_id": "50", "k": 3}]}]})


class SearchQuestion(Words):
    words: Text
    k: K = 10
    filter: FilterSpec | None = None
    user_id: Id | None = Field(default=None, description="Order what matches by this user's taste, too.")
    history: _History | None = Field(default=None, description="The same for somebody known by a list of items.")
    segment: _Segment = None
    fields: _Shown | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"words": "heist in vegas", "k": 5, "user_id": "42"}]})


class SearchBatch(Words):
    questions: Annotated[list[SearchQuestion], Field(min_length=1, max_length=MAX_QUESTIONS)]

    model_config = ConfigDict(json_schema_extra={"examples": [{"questions": [{"words": "heist in vegas", "k": 3}]}]})


class ExplanationQuestion(Words):
    """Why this item: for a user, a list of items, words, or all of these; ask as the list was asked."""

    item_id: Id
    user_id: Id | None = None
    history: _History | None = None
    text: Text | None = Field(default=None, description="What somebody says they want; counts as the newest item.")
    k: K = Field(
        default=10, description="The length of the list that the smallest change of history would drop the item from."
    )
    filter: FilterSpec | None = None
    exclude: _Excluded = None
    exclude_seen: _ExcludeSeen = None
    words: bool = Field(default=True, description="Also which words of the item's text moved the score.")
    segment: _Segment = None
    profile: _Profile = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"item_id": "50", "user_id": "42"}, {"item_id": "50", "text": "a heist in vegas"}]
        }
    )


_Kind = Annotated[
    Name,
    Field(
        description="One of view, click, cart, purchase, rating, dismiss, play, of those that the run's recipe names "
        "(data.kind_weights, data.return_kinds), or of those that the table had that the run was fitted on. It weighs what it "
        "weighs there. `dismiss` says that the item is not wanted; a kind of return takes back the newest earlier purchase.",
        examples=["click"],
    ),
]


class EventIn(Words):
    """Something that a user did, as a table of interactions would say it."""

    event_id: Id | None = Field(
        default=None, description="Made by you, it makes a retry harmless. Without one, we make one."
    )
    user_id: Id
    item_id: Id = Field(description="One that we do not know is kept and flagged.")
    kind: _Kind
    time: _Moment | None = Field(
        default=None, description="Unix seconds or ISO 8601 (UTC where it names no zone). Without one, now."
    )
    rating: Number | None = Field(
        default=None,
        description="Stars. Of the kind `rating`, fewer than 3 say that the item is not wanted, unless the run weighs "
        "events by their stars (data.weight_from = 'rating').",
    )
    weight: _Amount | None = Field(
        default=None,
        description="How often or how much, such as pieces of a purchase or of a return; once, where it is not said. The run's "
        "recipe says what that weighs (data.weight_from, data.weight_scale).",
    )
    request_id: Id | None = Field(default=None, description="Of the recommendation that showed the item.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"event_id": "e-1", "user_id": "42", "item_id": "50", "kind": "view", "time": 1735689600}]
        }
    )


class EventBatch(Words):
    events: Annotated[list[EventIn], Field(min_length=1, max_length=MAX_EVENTS)]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"events": [{"event_id": "e-1", "user_id": "42", "item_id": "50", "kind": "click"}]}]
        }
    )


def _shape(body: Any) -> str:
    named = "events" in body if isinstance(body, dict) else isinstance(body, EventBatch)
    return "list of events" if named else "single event"


Events = Annotated[
    Annotated[EventBatch, Tag("list of events")] | Annotated[EventIn, Tag("single event")],
    Discriminator(_shape),
]


class ItemBatch(Words):
    """Items as flat objects: `item_id` and the catalog's fields."""

    items: Annotated[list[_ItemFields], Field(min_length=1, max_length=MAX_ITEMS)]

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"item_id": "n1", "title": "A new film"}]}]},
    )


class FlagQuestion(Words):
    reason: Text

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the picture is not for children"}]})


class Decision(Words):
    approved: bool = Field(description="True shows the item again; false hides it for good.")
    note: Note = ""

    model_config = ConfigDict(json_schema_extra={"examples": [{"approved": True, "note": "looked at it, it is fine"}]})


class RollbackQuestion(Words):
    why: Text

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "click rate fell since the swap"}]})


class NewExperiment(Words):
    """What is served is the control; `generation` is the challenger."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=NAMES)]
    generation: Annotated[str, Field(pattern=r"^(0|[0-9]{4,9})$")] = Field(description="As /v1/generations names it.")
    mode: Mode = Field(
        default="split",
        description="split: the share of users is answered by the challenger. shadow: nobody is; of the share it is asked "
        "too, and what it would have shown is kept.",
    )
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(
        default=0.5, description="Of users, for the challenger; below 1 in a split."
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "autumn", "generation": "0001", "mode": "split", "share": 0.1}]}
    )


class EndExperiment(Words):
    why: Text
    promote: bool = Field(default=False, description="Serve the challenger from now on, to everybody.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "no difference in four weeks"}]})


class NewKey(Words):
    name: Name
    scopes: Annotated[list[Literal["read", "events", "admin"]], Field(min_length=1, max_length=3)]

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "shop", "scopes": ["read", "events"]}]})
