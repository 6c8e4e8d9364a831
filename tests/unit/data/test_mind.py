"""MIND: clicks of histories and impressions become events, what was shown stays for judging, Chinese texts replace."""

from pathlib import Path

import numpy as np
import pytest

from lmrec.data.history import HistoryIndex
from lmrec.data.impressions import Impressions, shown_beside
from lmrec.data.sources import TablesConfig, read_mind
from lmrec.errors import DataError
from lmrec.fields import Ragged

BEHAVIORS = (
    "2\tU1\t11/11/2019 2:14:46 PM\tN1 N2\tN3-1 N4-0 N9-0\n"
    "1\tU1\t11/9/2019 12:05:00 AM\tN1 N2\tN2-0 N5-1\n"
    "3\tU2\t11/10/2019 9:00:00 AM\t\tN4-1 N3-1\n"
)
NEWS = "".join(f'N{n}\tnews\tworld\tTitle "{n}" of\tAbstract {n}\thttp://x\t[]\t[]\n' for n in (1, 2, 3, 4, 5, 7))
CHINESE = "nid\ttitle\tabstract\nN1\t新聞一\t內容一\nN9\t新聞九\t內容九\n"
DAY = 86_400


def write(folder: Path, behaviors: str = BEHAVIORS, news: str = NEWS, chinese: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviors.tsv").write_text(behaviors)
    (folder / "news.tsv").write_text(news)
    if chinese:
        (folder / "news_zh.tsv").write_text(chinese)
    return folder


def test_clicks_become_events_and_shown_lists_stay(tmp_path: Path) -> None:
    dataset = read_mind(write(tmp_path))
    assert dataset.catalog.ids == ["N1", "N2", "N3", "N4", "N5", "N9"]  # N7 is never named; N9 has no text
    assert dataset.catalog.titles == [
        'Title "1" of',
        'Title "2" of',
        'Title "3" of',
        'Title "4" of',
        'Title "5" of',
        "N9",
    ]
    log = dataset.interactions
    assert log.kind is not None
    events = [
        (log.user_ids[user], dataset.catalog.ids[item], kind)
        for user, item, kind in zip(log.user_idx, log.item_idx, log.kind, strict=True)
    ]
    assert events == [
        ("U1", "N1", "history"),
        ("U1", "N2", "history"),
        ("U1", "N5", "click"),
        ("U2", "N4", "click"),
        ("U2", "N3", "click"),
        ("U1", "N3", "click"),
    ]
    first_day = 1_573_257_600.0  # 2019-11-09 00:00 UTC
    assert log.time_ts[:3].tolist() == [first_day - 21 * DAY, first_day - 7 * DAY, first_day + 300]
    shown = dataset.impressions
    assert shown is not None
    assert shown.impression_id == ["1", "3", "2"]
    assert [log.user_ids[user] for user in shown.user_idx] == ["U1", "U2", "U1"]
    assert [[dataset.catalog.ids[item] for item in shown.candidates[row]] for row in range(3)] == [
        ["N2", "N5"],
        ["N4", "N3"],
        ["N3", "N4", "N9"],
    ]
    assert shown.clicked.tolist() == [False, True, True, True, True, False, False]


def test_what_was_known_before_an_impression_holds_none_of_its_clicks(tmp_path: Path) -> None:
    dataset = read_mind(write(tmp_path))
    assert dataset.impressions is not None
    index = HistoryIndex.from_interactions(dataset.interactions)
    known = index.before(dataset.impressions.user_idx, dataset.impressions.time_ts)
    assert [[dataset.catalog.ids[item] for item in known[row]] for row in range(3)] == [
        ["N1", "N2"],
        [],
        ["N1", "N2", "N5"],
    ]


def test_chinese_texts_replace_the_english_ones(tmp_path: Path) -> None:
    folder = write(tmp_path, chinese=CHINESE)
    dataset = read_mind(folder)
    assert dict(zip(dataset.catalog.ids, dataset.catalog.titles, strict=True)) == {
        "N1": "新聞一",
        "N2": 'Title "2" of',
        "N3": 'Title "3" of',
        "N4": 'Title "4" of',
        "N5": 'Title "5" of',
        "N9": "新聞九",
    }
    assert dataset.catalog.frame["category"].to_list()[0] == "news"
    assert any("2 news take title and abstract from news_zh.tsv" in note for note in dataset.notes)
    assert read_mind(folder, TablesConfig(language="en")).catalog.titles[0] == 'Title "1" of'
    with pytest.raises(DataError, match=r"news_zh\.tsv is missing"):
        read_mind(write(tmp_path / "english"), TablesConfig(language="zh"))


def test_broken_lines_are_set_aside(tmp_path: Path) -> None:
    broken = (
        "4\tU3\tyesterday\tN1\tN2-1\n"
        "5\tU3\t11/10/2019 9:00:00 AM\tN1\tN2\n"
        "6\tU3\t11/10/2019 9:00:00 AM\tN1\n"
        "7\t\t11/10/2019 9:00:00 AM\tN1\tN2-1\n"
        "8\tU3\t11/10/2019 9:00:00 AM\tN1\t\n"
    )
    folder = write(tmp_path, BEHAVIORS + broken, NEWS + "N8\ttoo\tfew\n")
    with pytest.raises(DataError, match=r"behaviors\.tsv, row 5: 5 of 8 rows cannot be used"):
        read_mind(folder)
    dataset = read_mind(folder, TablesConfig(max_bad_share=1.0))
    found = dict(
        dataset.quarantine.filter(dataset.quarantine["file"].str.ends_with("behaviors.tsv"))["row", "reason"].rows()
    )
    assert found == {
        4: "the time is not written like 11/12/2019 2:14:46 PM",
        5: "a candidate is not written like N123-0 or N123-1",
        6: "the line has not 5 fields between tabs",
        7: "no user_id",
        8: "a candidate is not written like N123-0 or N123-1",
    }
    assert dataset.interactions.fingerprint == read_mind(write(tmp_path / "clean")).interactions.fingerprint


def test_impressions_of_users_without_events_are_counted(tmp_path: Path) -> None:
    dataset = read_mind(write(tmp_path, BEHAVIORS + "9\tU8\t11/10/2019 9:00:00 AM\t\tN4-0\n"))
    assert dataset.impressions is not None
    assert len(dataset.impressions) == 3
    assert any("1 impressions of users without any event" in note for note in dataset.notes)


def test_two_parts_in_one_folder_are_not_mixed_up(tmp_path: Path) -> None:
    write(tmp_path / "train")
    write(tmp_path / "dev")
    with pytest.raises(DataError, match=r"behaviors\.tsv lies in more than one folder here"):
        read_mind(tmp_path)


def test_impressions_survive_saving_and_cutting(tmp_path: Path) -> None:
    shown = Impressions(
        ["a", "b", "c"],
        np.array([0, 1, 0], np.int32),
        np.array([1.0, 2.0, 3.0]),
        Ragged.from_rows([[4, 5], [], [6]]),
        np.array([True, False, True]),
    )
    shown.save_parquet(tmp_path / "i.parquet")
    again = Impressions.from_parquet(tmp_path / "i.parquet")
    assert again.impression_id == shown.impression_id
    assert [again.candidates[row].tolist() for row in range(3)] == [[4, 5], [], [6]]
    assert again.clicked.tolist() == shown.clicked.tolist()
    late = shown.between(2.0)
    assert (late.impression_id, late.n_shown, late.clicked.tolist()) == (["b", "c"], 1, [True])
    with pytest.raises(DataError, match="arrays of one length"):
        Impressions(["a"], shown.user_idx, shown.time_ts, shown.candidates, shown.clicked)


def test_what_stood_beside_a_click_is_found_for_its_event(tmp_path: Path) -> None:
    dataset = read_mind(write(tmp_path))
    assert dataset.impressions is not None
    index = HistoryIndex.from_interactions(dataset.interactions)
    beside = shown_beside(index, dataset.impressions)
    assert len(beside) == len(index.item_idx)
    lists = dataset.impressions
    n_known = 0
    for at in range(len(lists)):
        shown, clicked = (
            lists.candidates[at],
            lists.clicked[lists.candidates.offsets[at] : lists.candidates.offsets[at + 1]],
        )
        for item in shown[clicked]:
            (event,) = np.flatnonzero(
                (index.user_idx == lists.user_idx[at]) & (index.time_ts == lists.time_ts[at]) & (index.item_idx == item)
            )
            assert beside[int(event)].tolist() == shown[~clicked].tolist()
            n_known += len(shown[~clicked]) > 0
    assert n_known == np.count_nonzero(beside.lengths)  # clicks of histories have no list
    none = shown_beside(index, lists.take(np.zeros(0, np.int64)))
    assert not len(none.values)
    assert len(none) == len(beside)


def test_histories_that_grow_put_no_answer_before_its_question(tmp_path: Path) -> None:
    """As a site would write its own log: beside each list all that was clicked before it."""
    grown = (
        "1\tU1\t11/9/2019 12:05:00 AM\tN1\tN2-0 N5-1\n"
        "2\tU1\t11/11/2019 2:14:46 PM\tN1 N5\tN3-1 N4-0\n"
        "3\tU1\t11/12/2019 2:14:46 PM\tN1 N5 N3\tN2-1 N4-0\n"
    )
    dataset = read_mind(write(tmp_path, grown))
    log = dataset.interactions
    assert [dataset.catalog.ids[item] for item in log.item_idx] == ["N1", "N5", "N3", "N2"]
    assert any("1 users have other histories beside later lists" in note for note in dataset.notes)
    assert not any("other histories" in note for note in read_mind(write(tmp_path / "same")).notes)
