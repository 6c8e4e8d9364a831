"""Which column is what: named by the caller, or guessed from the names that public data sets use, and said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from lmrec.data.sources.reading import ROW, Table
from lmrec.errors import DataError, nearest
from lmrec.fields import ADDED_AT, ITEM_ID, KIND, POSITION, RATING, TIMESTAMP, USER_ID, WEIGHT

# Compared in lower case, without punctuation and without a ":type" at the end (RecBole); the first name found wins.
_ITEM_NAMES = """itemid item iid asin parentasin sku stockcode productid product movieid movie filmid newsid nid
    articleid article bookid isbn trackid songid artistid businessid recipeid gameid appid docid""".split()
_USER_NAMES = """userid user uid reviewerid customerid customer memberid visitorid accountid readerid
    playerid sessionid""".split()
_TIME_NAMES = """timestamp time ts unixreviewtime unixtime datetime eventtime createdat ratedat clickedat date
    reviewtime invoicedate""".split()

ITEM_GUESSES: Mapping[str, tuple[str, ...]] = {
    ITEM_ID: (*_ITEM_NAMES, "id"),
    ADDED_AT: ("addedat", "createdat", "publishedat", "firstseenat"),
}
USER_GUESSES: Mapping[str, tuple[str, ...]] = {USER_ID: (*_USER_NAMES, "id")}
INTERACTION_GUESSES: Mapping[str, tuple[str, ...]] = {
    USER_ID: tuple(_USER_NAMES),
    ITEM_ID: tuple(_ITEM_NAMES),
    TIMESTAMP: tuple(_TIME_NAMES),
    POSITION: ("position", "pos", "seq", "sequence", "order"),
    RATING: ("rating", "overall", "stars"),
    WEIGHT: ("weight", "playcount", "plays", "listens"),
    KIND: ("kind", "eventtype", "event", "action", "interactiontype", "behavior", "behaviour"),
}
_TITLE_WORDS = ("title", "name", "headline", "label")
# Columns that hold text but describe nothing: links, pictures, prices, lists of other items.
_NO_WORDS = re.compile(r"url|link|image|img|photo|html|price|similar|rank$|date$|^also")
_WORD = r"\p{Ll}{2}|\p{Lo}"  # two small letters, or one of a script without case
_LINK = r"^(?:https?|ftp)://\S+$"


def name_columns(
    table: Table,
    named: Mapping[str, str],
    guesses: Mapping[str, tuple[str, ...]],
    option: str,
    anywhere: Mapping[str, str] | None = None,
) -> Table:
    """Rename columns to the names of `lmrec.fields`: those in `named` (ours -> theirs), the rest by the best guess.

    `option` is what the caller calls `named`, for messages. `anywhere` names columns of whichever tables have them.
    Raises `DataError` for a column in `named` that is not there.
    """
    fits = {ours: theirs for ours, theirs in (anywhere or {}).items() if ours in guesses and theirs in table.columns}
    named = {**fits, **named}
    for ours, theirs in named.items():
        if theirs not in table.columns:
            hint = nearest(theirs, table.columns)
            way = f"Where only one table has it, say which: --map {option.removesuffix('_columns')}s.{ours}={theirs}"
            raise DataError(f"there is no column '{theirs}' for {option}.{ours}. {hint} {way}", file=table.name)
    renames = {theirs: ours for ours, theirs in named.items()}
    free = {_plain(name): name for name in reversed(table.columns) if name not in renames}
    guessed = []
    for ours, words in guesses.items():
        if ours in named:
            continue
        known = (free[word] for word in (_plain(ours), *words) if word in free and free[word] not in renames)
        guess = next(known, None)
        if guess is not None:
            renames[guess] = ours
            if guess != ours:
                guessed.append(f"{ours} <- {guess}")
    taken = [name for name in renames.values() if name in table.columns and name not in renames]
    frame = table.frame.drop(taken).rename(renames)
    renamed = replace(table, frame=frame)
    if taken:
        renamed = renamed.note(f"the columns {taken} are replaced by those named in {option}")
    return renamed.note(f"guessed the columns {', '.join(guessed)}") if guessed else renamed


def require_somewhere(tables: Sequence[Table], anywhere: Mapping[str, str]) -> None:
    """`DataError` where no table has a column that was named for whichever has it."""
    for ours, theirs in anywhere.items():
        if not any(theirs in table.columns for table in tables):
            known = [name for table in tables for name in table.columns]
            raise DataError(
                f"there is no column '{theirs}' for {ours} in any table. {nearest(theirs, known)} Name one that exists",
                file=", ".join(table.name for table in tables),
            )


def require_columns(table: Table, wanted: tuple[str, ...], option: str) -> None:
    """`DataError` where a needed column was neither named nor guessed."""
    for name in wanted:
        if name not in table.columns:
            raise DataError(
                f"there is no column '{name}', and none looks like it; found {table.columns}. "
                f'Rename one, or say which it is: --map {name}=YOUR_COLUMN, in a recipe data.{option}.{name} = "YOUR COLUMN"'
                + (". Without times, a column `position` with the order will do" if name == TIMESTAMP else ""),
                file=table.name,
            )


def choose_text_columns(table: Table, wanted: tuple[str, ...] | None, named: Mapping[str, str]) -> tuple[str, ...]:
    """The columns with words: those wanted, else all text columns that mostly hold words, titles first.

    A wanted column may go by the name that it has in the source, also where `named` (ours -> theirs) renamed it.
    """
    if wanted is not None:
        ours = {theirs: ours for ours, theirs in named.items()}
        chosen = tuple(name if name in table.columns else ours.get(name, name) for name in wanted)
        for name in chosen:
            if name not in table.columns:
                raise DataError(
                    f"there is no text column '{name}'. {nearest(name, table.columns)} Say which they are, in order: --set "
                    "'data.text_columns=[\"YOUR COLUMN\"]', with --set 'template.item={YOUR COLUMN}' where the recipe has one",
                    file=table.name,
                )
        return chosen
    texts = [name for name in table.columns if name not in (ITEM_ID, ADDED_AT) and _holds_words(table.frame[name])]
    return tuple(sorted(texts, key=lambda name: not any(word in _plain(name) for word in _TITLE_WORDS)))


def _holds_words(column: pl.Series) -> bool:
    if column.dtype != pl.String or _NO_WORDS.search(_plain(column.name)):
        return False
    sample = column.filter(column.str.len_bytes() > 0).head(1_000)
    worded = sample.str.contains(_WORD) & ~sample.str.contains(_LINK)
    return int(worded.sum()) * 2 > len(sample)


def _plain(name: str) -> str:
    return "" if name == ROW else re.sub(r"[^a-z0-9]", "", name.partition(":")[0].lower())
