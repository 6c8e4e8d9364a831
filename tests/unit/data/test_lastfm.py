"""Last.fm: the order of artists, the weight of plays, and words that do not tell what was held out."""

import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lmrec.data.dataset import Dataset
from lmrec.data.sources import TablesConfig, read_lastfm
from lmrec.data.split import SplitConfig
from lmrec.data.users import learn_vocabulary
from lmrec.errors import DataError
from lmrec.text.users import UserTemplate
from lmrec.workflows.prepare import words_that_tell

APRIL, MAY = 1_238_536_800, 1_241_128_800
FILES = {
    "artists.dat": 'id\tname\turl\tpictureURL\n1\tBjörk\thttp://x\t\n2\t"Weird" Al\thttp://x\t\n3\tMuse\thttp://x\t\n'
    "4\tAir\thttp://x\t\n",
    "user_artists.dat": "userID\tartistID\tweight\n7\t1\t15\n7\t2\t1\n7\t3\t3\n8\t1\t7\n",
    "tags.dat": "tagID\ttagValue\n1\tpop\n2\tcomedy\n3\ttrip hop\n4\tmine\n",
    "user_taggedartists-timestamps.dat": "userID\tartistID\ttagID\ttimestamp\n"
    f"7\t3\t4\t{MAY}000\n7\t3\t1\t{MAY}000\n7\t4\t3\t{APRIL}000\n8\t1\t1\t{APRIL}000\n8\t3\t3\t{MAY}000\n8\t4\t1\t-428720400000\n",
    "user_friends.dat": "userID\tfriendID\n7\t8\n8\t7\n",
    "readme.txt": "about",
}


def pack(folder: Path, files: dict[str, str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "hetrec.zip", "w") as archive:
        for name, text in (files or FILES).items():
            archive.writestr(name, text.encode("latin-1" if name == "tags.dat" else "utf-8"))
    return folder


def histories(dataset: Dataset) -> dict[str, list[str]]:
    log = dataset.interactions
    return {
        user: [dataset.catalog.ids[item] for item in log.item_idx[log.user_idx == row]]
        for row, user in enumerate(log.user_ids)
    }


def test_tagged_artists_come_last_and_played_ones_before(tmp_path: Path) -> None:
    dataset = read_lastfm(pack(tmp_path))
    assert histories(dataset) == {"7": ["2", "1", "4", "3"], "8": ["1", "3"]}
    log = dataset.interactions
    assert log.kind is not None
    assert log.kind[log.user_idx == log.user_ids.index("7")].tolist() == ["played", "played", "tagged", "tagged"]
    assert log.time_ts.max() == MAY
    assert dict(zip(log.item_idx[log.user_idx == log.user_ids.index("7")].tolist(), [1, 4, 1, 2], strict=True)) == {
        int(item): int(weight)
        for user, item, weight in zip(log.user_idx, log.item_idx, log.weight, strict=True)
        if user == log.user_ids.index("7")
    }  # log2(1 + plays); tagged without plays: 1
    assert any("1 tags dated before 2002" in note for note in dataset.notes)
    linear = read_lastfm(tmp_path, TablesConfig(weight_scale="linear")).interactions.weight
    assert sorted(linear.tolist()) == [1.0, 1.0, 1.0, 3.0, 7.0, 15.0]


def test_words_keep_the_newest_tags_secret(tmp_path: Path) -> None:
    dataset = read_lastfm(pack(tmp_path), TablesConfig(secret_tags=1))
    # The newest artist of both users is Muse: neither its tags nor "mine" of user 7 are told.
    assert dataset.catalog.frame["tags"].to_list() == ["pop", None, None, "trip hop"]
    assert dataset.users is not None
    assert dict(dataset.users.frame.select("user_id", "interests").rows()) == {"7": "trip hop", "8": "pop"}
    assert dataset.users.frame["n_friends"].to_list() == [1, 1]
    told = read_lastfm(tmp_path, TablesConfig(secret_tags=0)).catalog
    assert told.frame["tags"].to_list() == ["pop", None, "mine, pop, trip hop", "trip hop"]
    assert told.titles == ["Björk", '"Weird" Al', "Muse", "Air"]


def test_interests_are_single_values_and_read_well_as_words(tmp_path: Path) -> None:
    users = read_lastfm(pack(tmp_path), TablesConfig(secret_tags=0)).users
    assert users is not None
    assert dict(users.frame.select("user_id", "interests").rows()) == {"7": "mine|pop|trip hop", "8": "pop|trip hop"}
    assert learn_vocabulary(users, ["interests"]).values == {"interests": ("pop", "trip hop")}
    assert UserTemplate("Likes: {interests}").render(users.attributes("8")) == "Likes: pop, trip hop"


def test_one_date_is_a_fixed_order_without_ties(tmp_path: Path) -> None:
    taggings = "userID\tartistID\ttagID\ttimestamp\n" + "".join(f"7\t{a}\t1\t{MAY}000\n" for a in (1, 2, 3, 4))
    files = FILES | {"user_taggedartists-timestamps.dat": taggings}
    first, second = (read_lastfm(pack(tmp_path / str(n), files)).interactions for n in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.tie_share == 0
    assert sorted(first.time_ts[first.user_idx == first.user_ids.index("7")] - MAY) == [0, 1, 2, 3]


def test_an_unpacked_folder_gives_the_same(tmp_path: Path) -> None:
    pack(tmp_path / "zipped")
    with zipfile.ZipFile(tmp_path / "zipped" / "hetrec.zip") as archive:
        archive.extractall(tmp_path / "folder")
    assert read_lastfm(tmp_path / "zipped").fingerprint == read_lastfm(tmp_path / "folder").fingerprint
    assert read_lastfm(tmp_path / "zipped" / "hetrec.zip").fingerprint == read_lastfm(tmp_path / "folder").fingerprint


def test_broken_lines_and_missing_files(tmp_path: Path) -> None:
    files = FILES | {
        "user_artists.dat": FILES["user_artists.dat"] + "7\t4\n9\t1\tmany\n",
        "user_taggedartists-timestamps.dat": FILES["user_taggedartists-timestamps.dat"] + "7\t1\t1\tsoon\n",
    }
    dataset = read_lastfm(pack(tmp_path, files), TablesConfig(max_bad_share=1.0))
    assert dataset.quarantine.select("row", "reason").rows() == [
        (6, "the line has not 3 fields between tabs"),
        (8, "the time is not a number"),
        (7, "weight is not a finite number"),
    ]
    assert np.isfinite(dataset.interactions.time_ts).all()
    del files["artists.dat"]
    with pytest.raises(DataError, match=r"artists\.dat is missing beside .*Give hetrec2011-lastfm-2k\.zip"):
        read_lastfm(pack(tmp_path / "half", files))


@pytest.mark.parametrize(
    ("split", "secret_tags", "told"),
    [
        (SplitConfig(kind="last"), 2, ""),
        (SplitConfig(kind="last"), 1, "set data.secret_tags to 2"),
        (SplitConfig(kind="last_n", n=3), 2, "set data.secret_tags to 6"),
        (SplitConfig(kind="time"), 2, "use split.kind 'last'"),
        (SplitConfig(kind="cold_items"), 9, "use split.kind 'last'"),
        (SplitConfig(kind="none", validation=0.0), 0, ""),
    ],
)
def test_a_split_that_holds_out_more_than_is_secret_is_a_known_weakness(
    split: SplitConfig, secret_tags: int, told: str
) -> None:
    found = words_that_tell(TablesConfig(secret_tags=secret_tags), split)
    assert [told in one for one in found] == ([True] if told else [])


def test_of_two_at_one_time_the_one_held_out_keeps_its_tags_secret(tmp_path: Path) -> None:
    """A split holds out the last given; so do the words. A played artist lies a second before the tags, here at one of them."""
    tags = FILES["user_taggedartists-timestamps.dat"]
    later = tags + "".join(f"7\t1\t2\t{MAY + shift}000\n" for shift in (0,))
    dataset = read_lastfm(
        pack(tmp_path, {**FILES, "user_taggedartists-timestamps.dat": later}), TablesConfig(secret_tags=1)
    )
    log = dataset.interactions
    seven = log.user_ids.index("7")
    (newest,) = log.item_idx[log.user_idx == seven][-1:]
    own = {"1": "comedy", "3": "mine"}[dataset.catalog.ids[newest]]
    row = dataset.catalog.frame.filter(pl.col("item_id") == dataset.catalog.ids[newest])
    assert own not in str(row["tags"][0])
