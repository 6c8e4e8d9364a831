"""Last.fm as HetRec 2011 packs it: play counts, tags with dates, friends. Read in place from the zip or its folder.

The order of a user's artists comes from two facts. An artist that the user tagged has the date of the user's first tag;
tags of one date (mostly the first of a month) are set one second apart, in an order that a fixed hash of user and artist
decides, so that no artist is favoured. An artist that the user only played has no date, and is placed in the seconds
before the user's first tag, the most played one nearest. So the last events of a user are the artists newly tagged.

The words of an artist are its name and its most frequent tags. A tag that a user gave to one of their own newest
artists, which are the ones held out, would tell the answer, so those tags count neither for the artist nor for the user.
"""

from dataclasses import replace
from pathlib import Path

import polars as pl

from lmrec.data.dataset import Dataset
from lmrec.data.sources.checks import require_few_bad
from lmrec.data.sources.files import SourceFiles, open_files, split_fields
from lmrec.data.sources.reading import ROW, Table
from lmrec.data.sources.tables import TablesConfig, read_dataset
from lmrec.data.users import TAG_SEPARATOR
from lmrec.errors import DataError
from lmrec.fields import ITEM_ID, KIND, TIMESTAMP, USER_ID, WEIGHT

TEXT_COLUMNS = ("name", "tags")
LAUNCH_TS = 1_009_843_200  # 2002-01-01: Last.fm opened that year, so an earlier date is a slip

_ASK = "Give hetrec2011-lastfm-2k.zip, or the folder it lies in or was unpacked to"
_TAG_ID, _TAG = "tag_id", "tag"
_MIX_A, _MIX_B, _MIX_MODULUS = 2_654_435_761, 40_503, 2_147_483_647


def read_lastfm(path: Path | str, config: TablesConfig | None = None, *, n_tags: int = 8) -> Dataset:
    """Artists as items, one event for each user and artist: kind "played" or "tagged", play counts as `weight`.

    At most `n_tags` tags describe an artist. Of each user's newest `config.secret_tags` artists none of that user's tags
    are told: set it to at least what a split holds out of a user (2: a last event each for validation and test).
    Counts weigh log2(1 + plays) unless `config.weight_scale` says otherwise; an artist tagged and never played weighs 1.
    Raises `DataError` for missing files and where too many lines are broken.
    """
    config = config or TablesConfig()
    files = open_files(path, "user_artists.dat", _ASK)
    artists = _read(files, "artists.dat", [ITEM_ID, "name", "url", "picture_url"])
    plays = _read(files, "user_artists.dat", [USER_ID, ITEM_ID, WEIGHT])
    tags = _read(files, "tags.dat", [_TAG_ID, _TAG])
    taggings = _read(files, "user_taggedartists-timestamps.dat", [USER_ID, ITEM_ID, _TAG_ID, "milliseconds"])
    for table in (artists, plays, tags, taggings):
        require_few_bad(table, config.max_bad_share)
    known = artists.frame[ITEM_ID].unique().implode()
    taggings = _date_tags(taggings.set_aside(~pl.col(ITEM_ID).is_in(known), "the item is not in the catalog"))
    events = _place_events(plays, taggings)
    events = replace(events, quarantine=pl.concat([events.quarantine, tags.quarantine]))
    tagged = _open_tags(taggings.frame, events.frame, tags.frame, config.secret_tags)
    words = _most_frequent(tagged, ITEM_ID, USER_ID, n_tags).with_columns(pl.col("tags").list.join(", "))
    frame = artists.frame.select(ROW, ITEM_ID, "name").join(words, on=ITEM_ID, how="left", maintain_order="left")
    items = replace(artists, frame=frame)
    items = items.note(
        f"tags that users gave to their own newest {config.secret_tags} artists are not among the words, for they would "
        "tell the answer"
    )
    users = events.frame.select(USER_ID).unique(maintain_order=True)
    interests = _most_frequent(tagged, USER_ID, ITEM_ID, n_tags)
    interests = interests.select(USER_ID, pl.col("tags").list.join(TAG_SEPARATOR).alias("interests"))
    users = users.join(interests, on=USER_ID, how="left", maintain_order="left")
    if "user_friends.dat" in files:
        friends = _read(files, "user_friends.dat", [USER_ID, "friend_id"])
        counts = friends.frame.group_by(USER_ID).agg(pl.len().alias("n_friends"))
        users = users.join(counts, on=USER_ID, how="left", maintain_order="left")
    scale = config.weight_scale if "weight_scale" in config.model_fields_set else "log"
    chosen = {"text_columns": config.text_columns or TEXT_COLUMNS, "weight_scale": scale}
    dataset = read_dataset(items, events, users, config.model_copy(update=chosen))
    catalog = replace(dataset.catalog, attribute_columns=("tags",))
    return replace(dataset, catalog=catalog, source=f"Last.fm HetRec 2011 ({files.path})")


def _read(files: SourceFiles, name: str, columns: list[str]) -> Table:
    """A tab-separated file with a header; tags.dat is Latin-1, the others UTF-8."""
    return split_fields(files.read_lines(name, ("utf-8", "latin-1")), "\t", columns, header=True)


def _date_tags(taggings: Table) -> Table:
    """Add the unix seconds of each tag; a date before Last.fm existed is no date."""
    seconds = pl.col("milliseconds").cast(pl.Float64, strict=False) / 1e3
    table = replace(taggings, frame=taggings.frame.with_columns(seconds.alias(TIMESTAMP)))
    table = table.set_aside(~pl.col(TIMESTAMP).is_finite().fill_null(False), "the time is not a number")
    kept = table.frame.filter(pl.col(TIMESTAMP) >= LAUNCH_TS)
    n_early = table.frame.height - kept.height
    table = replace(table, frame=kept)
    return table.note(f"{n_early:,} tags dated before 2002 were left out") if n_early else table


def _place_events(plays: Table, taggings: Table) -> Table:
    """One event for each pair of user and artist, placed in the order that the module describes."""
    first = taggings.frame.group_by(USER_ID, ITEM_ID).agg(pl.col(TIMESTAMP).min(), pl.col(ROW).first().alias("tag_row"))
    pairs = plays.frame.join(first, on=[USER_ID, ITEM_ID], how="full", coalesce=True)
    if pairs.is_empty():
        raise DataError("nobody played or tagged an artist. Fetch the file again", file=plays.name)
    count = pl.col(WEIGHT).cast(pl.Float64, strict=False).fill_null(0.0)
    pairs = pairs.with_columns(_fixed_order().alias("order"), count.alias("plays"))
    start = pl.col(TIMESTAMP).min().over(USER_ID).fill_null(pl.col(TIMESTAMP).min())
    pairs = pairs.with_columns(start.fill_null(float(LAUNCH_TS)).alias("start"))
    undated = pl.col(TIMESTAMP).is_null()
    # The place from the end: the most played lies one second before the first tag.
    pairs = pairs.sort(pl.when(undated).then(-pl.col("plays")).otherwise(0.0), "order", ITEM_ID)
    back = pl.int_range(1, pl.len() + 1).over(USER_ID, undated)
    same_date = pl.int_range(pl.len()).over(USER_ID, TIMESTAMP)
    placed = pl.when(undated).then(pl.col("start") - back).otherwise(pl.col(TIMESTAMP) + same_date)
    events = pairs.select(
        pl.coalesce(ROW, "tag_row").alias(ROW),
        USER_ID,
        ITEM_ID,
        placed.alias(TIMESTAMP),
        pl.when(pl.col(WEIGHT).is_null()).then(pl.lit("1")).otherwise(WEIGHT).alias(WEIGHT),
        pl.when(undated).then(pl.lit("played")).otherwise(pl.lit("tagged")).alias(KIND),
    ).sort(TIMESTAMP, USER_ID, ITEM_ID)
    quarantine = pl.concat([plays.quarantine, taggings.quarantine])
    table = replace(plays, frame=events, n_rows=events.height + quarantine.height, quarantine=quarantine)
    table = replace(table, notes=(*plays.notes, *taggings.notes))
    n_undated = int((events[KIND] == "played").sum())
    return table.note(
        f"{n_undated:,} artists that a user played and never tagged have no date and are placed just before that user's "
        "first tag, the most played last; tags of one date lie a second apart in a fixed arbitrary order"
    )


def _fixed_order() -> pl.Expr:
    """A number for each (user, artist) that looks random and is the same with any version of any library."""
    user = pl.col(USER_ID).cast(pl.Int64, strict=False).fill_null(0)
    item = pl.col(ITEM_ID).cast(pl.Int64, strict=False).fill_null(0)
    mixed = (user * _MIX_B + item * _MIX_A) % _MIX_MODULUS
    return (mixed * _MIX_B + item) % _MIX_MODULUS


def _open_tags(taggings: pl.DataFrame, events: pl.DataFrame, tags: pl.DataFrame, n_secret: int) -> pl.DataFrame:
    """(user, artist, tag) without the tags of each user's newest artists."""
    # Of one time those given last are the newest, as for the split.
    newest = pl.len().over(USER_ID) - pl.col(TIMESTAMP).rank("ordinal").over(USER_ID) < n_secret
    secret = events.filter(newest).select(USER_ID, ITEM_ID)
    return (
        taggings.join(secret, on=[USER_ID, ITEM_ID], how="anti").join(tags, on=_TAG_ID).select(USER_ID, ITEM_ID, _TAG)
    )


def _most_frequent(tagged: pl.DataFrame, by: str, voter: str, n: int) -> pl.DataFrame:
    """(by, tags): a list of the n tags that most distinct voters gave, commonest first."""
    counts = tagged.group_by(by, _TAG).agg(pl.col(voter).n_unique().alias("n"))
    counts = counts.sort([by, "n", _TAG], descending=[False, True, False])
    return counts.group_by(by, maintain_order=True).agg(pl.col(_TAG).head(n).alias("tags"))
