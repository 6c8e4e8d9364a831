"""From the options of `lmrec recommend` to an answer."""

from dataclasses import dataclass
from pathlib import Path

from lmrec.cli.show import say
from lmrec.cli.tables import read_user_ids
from lmrec.data.sources.tables import read_new_items
from lmrec.errors import InputError
from lmrec.retrieval.recommender import Recommendation, Recommender


@dataclass(frozen=True)
class Question:
    """One of user, users, history and text is given."""

    user: str | None
    users: Path | None
    history: str | None
    text: str | None
    k: int
    exclude_seen: bool
    rerank: bool = True


def load_recommender(run: Path, new_items: Path | None) -> Recommender:
    recommender = Recommender.load(run)
    return recommender if new_items is None else recommender.add_items(read_new_items(new_items, recommender.catalog))


def answer(recommender: Recommender, question: Question) -> list[Recommendation]:
    """Raises InputError unless exactly one kind of question is asked."""
    asked = [name for name in ("user", "users", "history", "text") if getattr(question, name) is not None]
    if len(asked) != 1:
        got = ", ".join(f"--{name}" for name in asked) or "none of them"
        raise InputError(f"say for whom: one of --user, --users, --history, --text; got {got}")
    k, exclude_seen, rerank = question.k, question.exclude_seen, question.rerank
    if question.text is not None:
        return [recommender.recommend_for_text(question.text, k)]
    if question.history is not None:
        items = [item.strip() for item in question.history.split(",") if item.strip()]
        if not items:
            raise InputError("--history is empty. Give item ids, oldest first: --history 50,181")
        return recommender.recommend(histories=[items], k=k, exclude_seen=exclude_seen, rerank=rerank)
    ids = [question.user] if question.user is not None else read_user_ids(question.users or Path())
    answers = recommender.recommend(users=ids, k=k, exclude_seen=exclude_seen, rerank=rerank)
    unknown = [found.user_id for found in answers if found.basis == "nothing"]
    if unknown:
        named = ", ".join(f"'{user}'" for user in unknown[:3]) + (" ..." if len(unknown) > 3 else "")
        say(
            f"note: {len(unknown):,} of {len(answers):,} users have no history in this run ({named}): a newcomer's list"
        )
    return answers
