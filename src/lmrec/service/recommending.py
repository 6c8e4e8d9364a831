"""From questions to lists, a batch at a time: histories from the store, one pass of the model, reasons where asked."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lmrec.errors import InputError, UnknownIdError, nearest
from lmrec.feedback.shown import Shown
from lmrec.fields import ITEM_ID
from lmrec.retrieval.answers import LiveAnswer, LiveItem, LiveQuery
from lmrec.retrieval.filters import Filter
from lmrec.service.lineup import Served
from lmrec.service.reasons import find_reasons
from lmrec.service.schemas.questions import ExplanationQuestion, RankingQuestion, RecommendationQuestion
from lmrec.service.schemas.words import plain_filter
from lmrec.service.users import UserHistory, Users

Question = TypeVar("Question")
Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class Ask:
    """A checked question and the id of its answer."""

    request_id: str
    question: RecommendationQuestion | RankingQuestion

    @property
    def is_quick(self) -> bool:
        """Known items only: no pass of the language model."""
        question = self.question
        return isinstance(question, RankingQuestion) or (question.text is None and not question.explain)


@dataclass(frozen=True, eq=False)
class Listed:
    """body: the JSON answer. shown: what is kept of it."""

    body: dict[str, Any]
    shown: Shown


def answer_asks(asks: Sequence[Ask], served: Served, users: Users) -> list[Listed]:
    """(B,) answers, in order. Raises InputError where a question does not fit the catalog, such as by a filter."""
    known = users.histories([ask.question.user_id for ask in asks])
    queries = [_query_of_ask(ask, history, served) for ask, history in zip(asks, known, strict=True)]
    answers = served.live.recommend(queries)
    return [_listed(ask, query, answer, served) for ask, query, answer in zip(asks, queries, answers, strict=True)]


def each_answered(questions: Sequence[Question], answer: Callable[[Question], Answer]) -> list[Answer]:
    """(B,) answers; an InputError says of which question it is."""
    answers = []
    for place, question in enumerate(questions):
        with of_question(place, len(questions)):
            answers.append(answer(question))
    return answers


@contextmanager
def of_question(place: int, n_questions: int) -> Iterator[None]:
    """What is wrong with one question among many is said with its place."""
    try:
        yield
    except InputError as error:
        if n_questions == 1:
            raise
        kind = UnknownIdError if isinstance(error, UnknownIdError) else InputError
        raise kind(f"questions.{place}: {error}") from error


def filter_of(spec: Any, served: Served) -> Filter | None:
    plain = plain_filter(spec)
    return None if plain is None else served.live.read_filter(plain)


def full_history(user_id: str | None, history: Sequence[str] | None, users: Users) -> tuple[str, ...]:
    """What is known of the user, then what was given, oldest first."""
    known = users.history(user_id).positive if user_id is not None else ()
    return (*known, *(history or ()))


def columns_of(names: Sequence[str] | None, served: Served) -> tuple[str, ...] | None:
    """The catalog's columns that a question asks for; None where it asks for none. Raises InputError for an unknown one."""
    if names is None:
        return None
    columns = tuple(name for name in served.live.schema if name != ITEM_ID)
    for name in names:
        if name != "*" and name not in columns:
            raise InputError(f"fields: items have no '{name}'. {nearest(name, columns)}; '*' is all of them")
    return columns if "*" in names else tuple(dict.fromkeys(names))


def item_body(item: LiveItem, columns: Sequence[str] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"item_id": item.item_id, "title": item.title, "score": item.score}
    if columns is not None:
        body["fields"] = {name: item.fields[name] for name in columns}
    if item.rule is not None:
        body["rule"] = item.rule
    return body


def query_of(question: RecommendationQuestion | ExplanationQuestion, known: UserHistory, served: Served) -> LiveQuery:
    """What is asked of the model, given what is known of the user. Raises InputError for a filter that does not fit."""
    exclude = known.dismissed.union(question.exclude or ())
    exclude_seen = served.live.excludes_seen if question.exclude_seen is None else question.exclude_seen
    if exclude_seen:
        exclude = exclude.union(known.seen, question.history or ())
    return replace(
        _query_of_anybody(question, known, served),
        text=question.text,
        k=question.k,
        exclude=exclude,
        exclude_seen=exclude_seen,
    )


def _query_of_anybody(
    question: RecommendationQuestion | RankingQuestion | ExplanationQuestion, known: UserHistory, served: Served
) -> LiveQuery:
    """Who asks, and what may be shown to them."""
    scorer = served.live.scorer
    profile = scorer.profile_with(known.attributes, question.profile or {})
    return LiveQuery(
        history=(*known.positive, *(question.history or ())),
        filter=filter_of(question.filter, served),
        segment=question.segment,
        profile=profile,
        asked_words=bool(question.profile)
        and scorer.of_users.render(profile) != scorer.of_users.render(known.attributes),
    )


def _query_of_ask(ask: Ask, known: UserHistory, served: Served) -> LiveQuery:
    question = ask.question
    if isinstance(question, RankingQuestion):
        return replace(
            _query_of_anybody(question, known, served),
            candidates=tuple(question.candidates),
            k=question.k or len(question.candidates),
            exclude_seen=False,
            columns=bool(question.fields),
        )
    return replace(query_of(question, known, served), diversity=question.diversity, columns=bool(question.fields))


def _listed(ask: Ask, query: LiveQuery, answer: LiveAnswer, served: Served) -> Listed:
    columns = columns_of(ask.question.fields, served)
    items = [item_body(item, columns) for item in answer.items]
    if isinstance(ask.question, RecommendationQuestion) and ask.question.explain:
        reasons = find_reasons(
            served.live, query.history, query.text, [item.item_id for item in answer.items], query.profile
        )
        for item, reason in zip(items, reasons, strict=True):
            item["reason"] = reason
    body: dict[str, Any] = {
        "items": items,
        "request_id": ask.request_id,
        "generation": served.generation,
        "basis": answer.basis,
        "n_history": answer.n_history,
    }
    if isinstance(ask.question, RankingQuestion):
        body |= {"unknown": list(answer.unknown), "left_out": list(answer.left_out)}
    if answer.unwanted:
        body["not_wanted"] = list(answer.unwanted)
    if not answer.text_read:
        body["text_read"] = False
    context: dict[str, Any] = {"basis": answer.basis, **(ask.question.context or {})}
    if ask.question.segment is not None:
        context["segment"] = ask.question.segment
    shown = Shown(
        request_id=ask.request_id,
        user_id=ask.question.user_id,
        generation=served.generation,
        item_ids=tuple(item.item_id for item in answer.items),
        time_ts=time.time(),
        context=context,
    )
    return Listed(body, shown)
