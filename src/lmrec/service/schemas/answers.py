"""What goes out. Routes that answer thousands of times a second write the same shapes directly; tests hold them to these."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lmrec.feedback.assignment import Mode


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorBody(Answer):
    code: str = Field(description="For programs: invalid, not_found, busy, ...", examples=["invalid"])
    message: str = Field(
        description="The value, the rule and the way out.", examples=["k: 0 is below 1. Give 1 to 200"]
    )


class ErrorAnswer(Answer):
    error: ErrorBody


class Contribution(Answer):
    """What one past item adds to a score."""

    item_id: str
    title: str
    contribution: float


class Reason(Answer):
    because: str | None = Field(description="A sentence for a page; null where nothing is known of the user.")
    contributions: list[Contribution] = Field(description="The past items that matter most, strongest first.")


class RecommendedItem(Answer):
    item_id: str
    title: str
    score: float
    rule: str | None = Field(
        default=None, description="The rule that pinned, lifted or lowered the item, where one did."
    )
    fields: dict[str, Any] | None = Field(default=None, description="The columns asked for with `fields`.")
    reason: Reason | None = Field(default=None, description="With `explain`.")


Basis = Literal["history", "text", "history+text", "profile", "popular"]


class RecommendationAnswer(Answer):
    items: list[RecommendedItem]
    request_id: str = Field(description="Send it back with events, so that what was shown is joined to what followed.")
    generation: str = Field(description="Which generation answered.")
    arm: str | None = Field(default=None, description="The user's arm, while an experiment splits the users.")
    basis: Basis = Field(description="What the list rests on; 'popular' where nothing was known.")
    n_history: int = Field(description="Items of history that were known to the catalog.")
    not_wanted: list[str] | None = Field(
        default=None, description="What the text said is not wanted ('no horror'); items that name it are left out."
    )
    text_read: bool | None = Field(
        default=None,
        description="False where the list is not of what the text wants: nothing that counts in this generation reads words.",
    )


class RankingAnswer(Answer):
    items: list[RecommendedItem] = Field(description="The candidates in order, the best first.")
    request_id: str = Field(description="Send it back with events, so that what was shown is joined to what followed.")
    generation: str = Field(description="Which generation answered.")
    arm: str | None = Field(default=None, description="The user's arm, while an experiment splits the users.")
    basis: Basis = Field(description="What is known of the user; 'popular' where nothing is.")
    n_history: int = Field(description="Items of history that were known to the catalog.")
    unknown: list[str] = Field(description="Candidates that the catalog lacks.")
    left_out: list[str] = Field(description="Candidates that rules, reviews or the filter keep from being shown.")


class RecommendationBatchAnswer(Answer):
    answers: list[RecommendationAnswer] = Field(description="In the order of the questions.")


class FoundItems(Answer):
    items: list[RecommendedItem]
    generation: str


class FoundItemsBatch(Answer):
    answers: list[FoundItems] = Field(description="In the order of the questions.")


class WordAttribution(Answer):
    word: str
    attribution: float = Field(description="How much the score moves with this word of the item's text.")


class ExplanationAnswer(Answer):
    """`base`, the contributions and what the text gave add up to `score`."""

    item_id: str
    title: str
    score: float
    base: float = Field(description="The score with an empty history.")
    place: int | None = Field(description="The item's place in the list, from 1; null where it may not be shown.")
    contributions: list[Contribution]
    words: list[WordAttribution]
    smallest_change: list[Contribution] | None = Field(
        description="The smallest set of past items found without which the item leaves the top k; null where none was."
    )
    because: str | None
    text: float | None = Field(description="What the free text gave; null where the question had none.")
    text_words: list[WordAttribution] = Field(description="Which words of the free text moved the score.")
    text_read: bool = Field(description="False where nothing that counts in this generation reads words.")
    generation: str


class Item(Answer):
    item_id: str
    title: str
    fields: dict[str, Any] = Field(description="The catalog's columns; null where nothing is known.")


class ItemKept(Answer):
    item_id: str
    version: int = Field(description="Of the item store after this change.")


class ItemsKept(Answer):
    accepted: int
    version: int


class ItemGone(Answer):
    item_id: str
    deleted: bool


class ItemPage(Answer):
    items: list[Item]
    total: int
    offset: int


class EventsKept(Answer):
    accepted: int = Field(description="New, and safe on disk.")
    duplicates: int = Field(description="Known already by their event_id; counted once.")
    flagged: dict[str, int] = Field(
        description="How many carry each flag: unknown_item, old_clock, future_clock; left_out (the run's recipe leaves such "
        "events out), nothing_bought (a return that found nothing to take back)."
    )
    event_ids: list[str] = Field(description="In the order sent; ours where you gave none.")


class StoredEventAnswer(Answer):
    seq: int
    event_id: str
    item_id: str
    kind: str
    time: float = Field(description="Unix seconds.")
    rating: float | None
    weight: float | None
    request_id: str | None
    flags: list[str]
    received: float


class LoggedItem(Answer):
    item_id: str
    title: str
    time: float | None = Field(description="Unix seconds; null where the log has only an order.")


class ShownAnswer(Answer):
    request_id: str
    generation: str
    item_ids: list[str]
    time: float
    context: dict[str, Any]


class UserAnswer(Answer):
    """All that is held of a user."""

    user_id: str
    events: list[StoredEventAnswer]
    shown: list[ShownAnswer] = Field(description="Lists that were recommended to the user.")
    training_log: list[LoggedItem] = Field(description="What the run was fitted on, unless the user was forgotten.")
    history: list[str] = Field(description="The items that the next recommendation rests on, oldest first.")
    forgotten: float | None = Field(description="When the user was deleted, unix seconds.")


class UserForgotten(Answer):
    user_id: str
    events_removed: int


class UserList(Answer):
    user_ids: list[str]
    total: int


class RuleAnswer(Answer):
    rule_id: str
    rule: dict[str, Any]
    source: Literal["api", "file"]
    created: float | None


class RuleList(Answer):
    rules: list[RuleAnswer]


class RuleGone(Answer):
    rule_id: str
    deleted: bool


class Review(Answer):
    item_id: str
    title: str | None
    status: Literal["waiting", "approved", "rejected"]
    reason: str
    flagged_by: str
    flagged: float
    decided_by: str | None
    decided: float | None
    note: str | None


class ReviewList(Answer):
    reviews: list[Review]


class AuditEntry(Answer):
    time: float
    actor: str
    action: str
    target: str
    detail: dict[str, Any]


class AuditList(Answer):
    entries: list[AuditEntry]


class Generation(Answer):
    name: str
    created: str
    why: str
    serving: bool
    metrics: dict[str, Any]


class GenerationList(Answer):
    serving: str = Field(description="The generation that answers at this moment.")
    generations: list[Generation]
    problem: str | None = Field(
        description="Why the generation that the pointer names is not served, where that is so."
    )


class RolledBack(Answer):
    generation: str
    before: str


class GenerationResult(Answer):
    """Lists that one generation showed in this time, and how many of them at least one click or better followed."""

    generation: str
    lists: int
    lists_with_success: int
    rate: float
    low: float = Field(description="95 % Wilson interval of the rate.")
    high: float


class ArmAnswer(Answer):
    name: str
    generation: str
    share: float


class ExperimentAnswer(Answer):
    name: str
    mode: Mode
    arms: list[ArmAnswer] = Field(description="The control comes first.")
    running: bool
    in_force: bool = Field(description="Whether this process answers by it; a generation may still be loading.")
    started: float
    started_by: str
    ended: float | None
    ended_by: str | None
    why: str = Field(description="Why it was ended.")


class ExperimentList(Answer):
    since: float = Field(
        description="Lists since then are counted: later than asked for where earlier ones are not kept."
    )
    generations: list[GenerationResult]
    experiments: list[ExperimentAnswer] = Field(description="The newest first; at most one runs.")


class ArmRead(Answer):
    arm: str
    lists: int
    users: int
    successes: int = Field(description="Lists that a positive event followed on one of their items.")
    rate: float
    low: float = Field(description="95 % interval, users redrawn; Wilson's where redraws do not vary.")
    high: float


class ArmDifferenceRead(Answer):
    arm: str
    against: str
    mean: float
    low: float
    high: float
    p: float = Field(description="For who looks once, at a time chosen beforehand.")
    p_always: float = Field(description="For who looks as often as they like: go by this one.")
    effect: float = Field(description="The relative gain that `lists_needed` speaks of.")
    lists_needed: int | None = Field(description="Of each arm, to find such a gain in 4 of 5 tries.")
    is_clear: bool


class SplitRead(Answer):
    arms: list[ArmRead]
    differences: list[ArmDifferenceRead]
    warnings: list[str] = Field(description="What would mislead, in sentences.")


class Times(Answer):
    p50_ms: float
    p95_ms: float


class ShadowRead(Answer):
    lists: int
    compared: int = Field(description="Lists for which the shadow was asked as well.")
    overlap: float = Field(description="Mean share of the seen items that the shadow shows, too.")
    overlap_low: float
    overlap_high: float
    same_first: float = Field(description="How often both have the same item at the top.")
    followed: int = Field(description="Seen items that something positive came of.")
    kept: int = Field(description="Those of them that the shadow's lists name: what it would not have lost.")
    shown_times: Times | None
    shadow_times: Times | None
    warnings: list[str] = Field(description="What would mislead, in sentences.")


class ExperimentRead(ExperimentAnswer):
    split: SplitRead | None
    shadow: ShadowRead | None


class Key(Answer):
    key_id: str
    name: str
    scopes: list[str]
    created: float
    revoked: float | None


class KeyList(Answer):
    keys: list[Key]


class KeyMade(Answer):
    key_id: str
    name: str
    scopes: list[str]
    secret: str = Field(description="Shown this once; only a hash is kept.")


class KeyGone(Answer):
    key_id: str
    revoked: bool


class Ready(Answer):
    status: Literal["ready"]
    generation: str
    items: int
    knows_words: bool = Field(
        description="Whether the language model is loaded; before it is, who asks with words or puts items waits for it."
    )
    store: Literal["sqlite", "postgresql"]
    problems: list[str] = Field(description="What does not hinder serving but needs somebody's eye.")


class Alive(Answer):
    status: Literal["alive"]


class RouteTimesAnswer(Answer):
    route: str
    n: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


class MinuteAnswer(Answer):
    start: float
    statuses: dict[str, int]
    routes: dict[str, int]


class Stats(Answer):
    """For the console."""

    generation: str
    generation_since: float
    uptime_s: float
    items: int
    events: int
    users_in_log: int
    waiting: int
    in_flight: int
    cold_share: float = Field(description="Of the newest lists, how many rest on nothing known of the user.")
    coverage: float = Field(description="Share of the catalog that the newest lists show.")
    columns: dict[str, str] = Field(description="The catalog's columns and their types.")
    run: str = Field(description="The run folder's name.")
    times: list[RouteTimesAnswer]
    minutes: list[MinuteAnswer]
    problems: list[str]
