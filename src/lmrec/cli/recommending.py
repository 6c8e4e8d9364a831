"""From the options of `lmrec recommend` to an answer."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lmrec.cli.show import say
from lmrec.cli.tables import read_user_ids
from lmrec.data.sources.tables import read_new_items
from lmrec.errors import InputError
from lmrec.retrieval.recommender import READING, UNREAD, RankedCandidates, Recommendation, Recommender

_NEXT_COLUMN: Final = re.compile(r",(?=[^,=|]+=)")  # other commas are part of a value, as in "city=Portland, Oregon"


@dataclass(frozen=True)
class Question:
    """One of user, users, history and text is given; or a profile, alone or beside a history."""

    user: str | None
    users: Path | None
    history: str | None
    text: str | None
    k: int
    exclude_seen: bool | None
    rerank: bool = True
    profile: str | None = None


def load_recommender(run: Path, new_items: Path | None) -> Recommender:
    recommender = Recommender.load(run)
    return recommender if new_items is None else recommender.add_items(read_new_items(new_items, recommender.catalog))


def answer(recommender: Recommender, question: Question) -> list[Recommendation]:
    """Raises InputError unless exactly one kind of question is asked."""
    asked = [name for name in ("user", "users", "history", "text") if getattr(question, name) is not None]
    of_profile = question.profile is not None and asked in ([], ["history"])
    if len(asked) != 1 and not of_profile:
        got = ", ".join(f"--{name}" for name in asked) or "none of them"
        raise InputError(f"say for whom: one of --user, --users, --history, --profile, --text; got {got}")
    if question.profile is not None and not of_profile:
        raise InputError(
            f"--profile is of somebody never seen: it stands alone or beside --history, not beside --{asked[0]}. Users of the "
            "user table have theirs there"
        )
    k, exclude_seen, rerank = question.k, question.exclude_seen, question.rerank
    if question.text is not None:
        found = recommender.recommend_for_text(question.text, k)
        if found.basis != "text":
            say(
                f"note: {UNREAD}. A newcomer's list. To ask with words, {READING}; `lmrec similar --text` reads them here"
            )
        return [found]
    if question.history is not None or question.profile is not None:
        items = [] if question.history is None else _items_of(question.history, "--history", ", oldest first")
        profiles = None if question.profile is None else [read_profile(question.profile)]
        answers = recommender.recommend(
            histories=[items], profiles=profiles, k=k, exclude_seen=exclude_seen, rerank=rerank
        )
        if answers[0].basis == "nothing":
            say("note: nothing was learnt of these values of the profile: a newcomer's list")
        return answers
    ids = [question.user] if question.user is not None else read_user_ids(question.users or Path())
    answers = recommender.recommend(users=ids, k=k, exclude_seen=exclude_seen, rerank=rerank)
    unknown = [found.user_id for found in answers if found.basis == "nothing"]
    if unknown:
        named = ", ".join(f"'{user}'" for user in unknown[:3]) + (" ..." if len(unknown) > 3 else "")
        say(
            f"note: {len(unknown):,} of {len(answers):,} users have no history in this run ({named}): a newcomer's list"
        )
    return answers


def rank(
    recommender: Recommender, candidates: str, user: str | None, history: str | None, profile: str | None, rerank: bool
) -> RankedCandidates:
    """Raises InputError unless exactly one of user, history and profile says for whom; a profile may stand beside a history."""
    items = _items_of(candidates, "--candidates")
    if (user is None) == (history is None and profile is None):
        got = "all of them" if user is not None else "none of them"
        raise InputError(f"say for whom: --user, or --history and --profile, of somebody never seen; got {got}")
    found = recommender.rank(
        items,
        user=user,
        history=None if user is not None else _items_of(history, "--history", ", oldest first") if history else [],
        profile=None if profile is None else read_profile(profile),
        rerank=rerank,
    )
    if found.basis == "nothing":
        say("note: nothing is known of them in this run: the order for a newcomer")
    if found.unknown:
        named = ", ".join(f"'{item}'" for item in found.unknown[:3]) + (" ..." if len(found.unknown) > 3 else "")
        say(f"note: the catalog has none of {len(found.unknown):,} candidates ({named}): left out")
    return found


def read_profile(text: str) -> dict[str, str]:
    """
    >>> read_profile("age=30, likes=jazz|tea,city=Portland, Oregon")
    {'age': '30', 'likes': 'jazz|tea', 'city': 'Portland, Oregon'}

    Raises InputError for what is no column=value, and for a column that comes twice.
    """
    profile: dict[str, str] = {}
    for part in _NEXT_COLUMN.split(text):
        name, separator, value = (piece.strip() for piece in part.partition("="))
        if not separator or not name:
            raise InputError(f"--profile '{part}' is not column=value. Example: --profile 'age=30,likes=jazz|tea'")
        if name in profile:
            raise InputError(
                f"--profile names '{name}' twice. Several values of one column: --profile '{name}=jazz|tea'"
            )
        profile[name] = value
    return profile


def _items_of(text: str, option: str, order: str = "") -> list[str]:
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise InputError(f"{option} is empty. Give item ids{order}: {option} 50,181")
    return items
