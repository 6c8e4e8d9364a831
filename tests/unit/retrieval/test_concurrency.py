"""Many readers beside writers: no deleted item after its delete returned, no row that is half old and half new."""

import random
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from lmrec.retrieval.filters import parse_filter
from lmrec.retrieval.live import LiveQuery, LiveRecommender

from .conftest import N_ITEMS, TOPICS

SECONDS = 2.0


def run_together(workers: list[Callable[[], None]]) -> None:
    """Run all workers to their end and raise what any of them raised."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a worker hangs"
    if failures:
        raise failures[0]


def test_readers_see_whole_items_and_no_deleted_ones(live: LiveRecommender) -> None:
    """Each version of an item says its number in title and price and its topic in genre and title. A deleted id is never
    used again, so that seeing it in an answer that was asked for after the delete returned would be a mistake."""
    stop = time.monotonic() + SECONDS
    deleted: set[str] = set()
    put: set[str] = set()
    n_answers = [0]
    vectors = {topic: live.encode_items([{"item_id": topic, "title": topic}])[0].text_vec for topic in TOPICS}

    def write(name: str) -> None:
        rng = random.Random(name)
        alive: list[str] = []
        number = 0
        while time.monotonic() < stop:
            number += 1
            if alive and rng.random() < 0.3:
                gone = alive.pop(rng.randrange(len(alive)))
                assert live.delete([gone]) == 1
                deleted.add(gone)
            else:
                fresh = alive and rng.random() < 0.5
                item_id = rng.choice(alive) if fresh else f"{name}-{number}"
                topic = rng.choice(TOPICS)
                live.upsert([{"item_id": item_id, "title": topic, "genre": topic, "price": number, "stock": number}])
                put.add(item_id)
                if item_id not in alive:
                    alive.append(item_id)
            if rng.random() < 0.02:
                live.compact()

    def read(seed: int) -> None:
        rng = random.Random(seed)
        cheap = parse_filter({"stock": {"min": 0}}, live.schema)
        while time.monotonic() < stop:
            gone = set(deleted)  # deletes that returned before the question was asked
            known = put - gone
            history = ("3", *rng.sample(sorted(known), min(3, len(known))))
            (answer,) = live.recommend([LiveQuery(history=history, k=60, filter=cheap)])
            near = live.similar(item_id="3", k=60)
            for items in (answer.items, near):
                ids = [item.item_id for item in items]
                assert len(ids) == len(set(ids))
                assert not gone & set(ids)
                for item in items:
                    if item.fields["genre"] in TOPICS:
                        assert item.title == item.fields["genre"]
                        assert item.fields["price"] == item.fields["stock"]
            n_answers[0] += 1

    def check_rows() -> None:
        """In every snapshot a row's vector is that of the row's own words."""
        while time.monotonic() < stop:
            snapshot = live.state.snapshot
            assert len(snapshot.rows) == snapshot.alive.sum()
            rows = [row for item_id, row in snapshot.rows.items() if "-" in item_id]
            bank = snapshot.bank.take(np.array(rows, np.int64))
            for row, text_vec, fields in zip(rows, bank.text_vec, snapshot.fields(rows), strict=True):
                np.testing.assert_allclose(text_vec.numpy(), vectors[fields["title"]], atol=1e-5)
                assert snapshot.titles[row] == fields["title"]
                assert snapshot.rows[snapshot.ids[row]] == row

    run_together([lambda: write("a"), lambda: write("b"), lambda: read(1), lambda: read(2), check_rows])
    assert n_answers[0] > 10
    assert deleted
    assert live.n_items == N_ITEMS + len(put - deleted)


def test_an_older_snapshot_stays_as_it_was(live: LiveRecommender) -> None:
    """Appends, growth of the buffers, replaced rows and compaction leave alone what somebody is still reading."""
    live.upsert([{"item_id": "x", "title": "whale"}])
    snapshot = live.state.snapshot
    rows = np.arange(snapshot.n_rows)
    before = [part.clone() for part in vars(snapshot.bank.take(rows)).values()]
    fields, alive = snapshot.fields(list(rows)), snapshot.alive.copy()
    for place in range(80):
        live.upsert([{"item_id": f"y{place}", "title": "chef"}, {"item_id": "x", "title": "rocket", "price": place}])
    live.delete(["3", "y5"])
    live.compact()
    for part, kept in zip(vars(snapshot.bank.take(rows)).values(), before, strict=True):
        assert bool((part == kept).all())
    assert snapshot.fields(list(rows)) == fields
    assert (snapshot.alive == alive).all()
    assert snapshot.rows["3"] == 3


def test_words_are_encoded_from_many_threads(live: LiveRecommender) -> None:
    """The tokenizers of transformers raise when two threads use them at once."""
    texts = ["rocket galaxy", "a whale " * 20, "chef", "violin choir bakery " * 5]
    alone = [live.recommend([LiveQuery(text=text)])[0] for text in texts]

    def ask(place: int) -> Callable[[], None]:
        def work() -> None:
            for _ in range(15):
                (answer,) = live.recommend([LiveQuery(text=texts[place])])
                assert [item.item_id for item in answer.items] == [item.item_id for item in alone[place].items]

        return work

    run_together([ask(place) for place in range(4)])


@pytest.mark.parametrize("seed", range(3))
def test_a_catalog_under_random_changes_equals_a_dict(live: LiveRecommender, seed: int) -> None:
    """Puts, deletes and compactions in any order leave exactly the items that a dict would hold."""
    rng = random.Random(seed)
    model: dict[str, str] = dict(zip(*_all(live), strict=True))
    for number in range(120):
        item_id = str(rng.randrange(60))
        match rng.randrange(5):
            case 0 | 1 | 2:
                title = f"{rng.choice(TOPICS)} {number if rng.random() < 0.2 else ''}".strip()
                live.upsert([{"item_id": item_id, "title": title}])
                model[item_id] = title
            case 3:
                assert live.delete([item_id]) == (item_id in model)
                model.pop(item_id, None)
            case 4:
                if rng.random() < 0.1:
                    live.compact()
    assert dict(zip(*_all(live), strict=True)) == model
    (answer,) = live.recommend([LiveQuery(text="rocket", k=1000)])
    assert {item.item_id: item.title for item in answer.items} == model


def _all(live: LiveRecommender) -> tuple[list[str], list[str]]:
    items, total = live.browse("", 0, 1000)
    assert total == len(items) == live.n_items
    return [item.item_id for item in items], [item.title for item in items]
