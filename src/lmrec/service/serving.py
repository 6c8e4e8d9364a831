"""What is served: one generation with everything that has changed since, or several while an experiment runs; swapped for
others in one assignment.

Items, rules and reviews are written to the store first and then applied from there, by whoever notices first: the request
that made the change, or the watcher, which also sees the changes of other processes. So memory can never hold
something that a restart would lose.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from threading import RLock
from typing import Any, Final

from lmrec.artifacts.generation import FIRST, generation_path, how_far, list_generations, read_pointer, read_serving
from lmrec.artifacts.run import RunFolder
from lmrec.artifacts.weighing import read_weighing
from lmrec.errors import InputError, LmrecError
from lmrec.feedback.assignment import Experiment
from lmrec.feedback.items import ItemPut
from lmrec.feedback.rulebook import RuleRow
from lmrec.feedback.store import Store
from lmrec.fields import ItemId
from lmrec.retrieval.live import LiveRecommender
from lmrec.retrieval.rules import Review, Rule, compile_rules, load_rules_file, parse_rule
from lmrec.service.errors import busy
from lmrec.service.fared import FaredCounts
from lmrec.service.lineup import Lineup, Served
from lmrec.service.logs import log, log_failure
from lmrec.service.popularity import LiveCounts

_BY_RULE: Final = "rule "  # and its id: who flagged an item, where no person did
_MAX_FLAGS: Final = 1_000


class Serving:
    """Holds what is served and keeps it up to date. All methods may be called from any thread; reads take no lock."""

    def __init__(self, run: Path, store: Store, rules_file: Path | None, retry_s: float) -> None:
        self._run = run
        self._store = store
        self._rules_file = rules_file
        self._retry_s = retry_s
        self._lineup: Lineup | None = None
        self._failed: tuple[str, float] | None = None  # a generation, and when it may be tried again
        self._failed_experiment: tuple[str, float] | None = None
        self._changing = RLock()  # one change of the live recommender at a time
        self._loading = RLock()  # one generation loads at a time; changes go on meanwhile
        self._file_rules: Mapping[str, Rule] = {}
        self._file_stamp: tuple[int, int] | None = None
        self._rules_version = -1
        self._problems: dict[str, str] = {}
        self._caught_up: tuple[int, int, int] | None = None

    # ---- reading

    @property
    def current(self) -> Served:
        """Raises ServiceError (503) while nothing is loaded."""
        return self.lineup.current

    @property
    def lineup(self) -> Lineup:
        """Raises ServiceError (503) while nothing is loaded."""
        if self._lineup is None:
            raise busy("the service is loading its generation. Send the request again in a moment", "loading", 2)
        return self._lineup

    @property
    def ready(self) -> bool:
        return self._lineup is not None

    @property
    def problems(self) -> list[str]:
        """What does not hinder serving but needs somebody's eye."""
        return list(self._problems.values())

    @property
    def generation_problem(self) -> str | None:
        """Why the generation that the pointer names is not served, where that is so."""
        return self._problems.get("generation")

    @property
    def experiment_problem(self) -> str | None:
        """Why the experiment that runs is not in force, where that is so."""
        return self._problems.get("experiment")

    @property
    def file_rules(self) -> Mapping[str, Rule]:
        return self._file_rules

    # ---- generations

    def load(self) -> Served:
        """Load the generation that the pointer names, with all changes, and serve it.

        Raises RunFolderError where it is missing or damaged; what was served before is served still.
        """
        with self._loading:
            start = time.monotonic()
            name, served = self._read_pointed()
            if self._lineup is not None and self._lineup.current is served:
                return served
            self._adopt(Lineup(served))
            log("serving", generation=name, items=served.live.n_items, seconds=round(time.monotonic() - start, 2))
            return served

    def _read_pointed(self) -> tuple[str, Served]:
        """The generation that the pointer names, and its name. Where the pointer moves on while it is read, it may be gone
        halfway: then the next one."""
        while True:
            name = read_serving(self._run)
            try:
                return name, self._read(name)
            except LmrecError:
                if read_pointer(self._run).generation == name:
                    raise

    def _read(self, name: str) -> Served:
        """A generation with all changes, for nobody yet; the one in memory, where it is there for an experiment."""
        if self._lineup is not None and (held := self._lineup.find(name)) is not None:
            return held
        live = LiveRecommender.load(generation_path(self._run, name))
        live.apply_changes(self._store.item_changes(0))
        if self._lineup is not None:
            live.warm_up()  # at the very first start the service is up first; see ServiceState
        counts = self._count_news(name)
        live.set_popularity(counts.weights())
        return Served(name, live, counts, _created_ts(self._run, name), time.time(), self._count_lists(name, live))

    def _adopt(self, lineup: Lineup) -> None:
        with self._changing:
            for served in lineup.all_served:
                served.live.apply_changes(self._store.item_changes(served.live.version))
                self._apply_rules(served.live)
            review = self._apply_reviews(lineup)
            self._lineup = lineup
            self._queue_held(review)
            self._problems.pop("generation", None)

    def follow(self) -> bool:
        """Serve what the pointer names, if that has changed; whether it had.

        Raises LmrecError where that cannot be loaded: a problem, while what was served is served on. The same
        generation is tried again only after `retry_s`, another one at once.
        """
        with self._loading:  # who comes while another loads waits, and finds it done
            name = None
            try:
                name = read_pointer(self._run).generation
                if self._failed is not None and self._failed[0] == name and time.monotonic() < self._failed[1]:
                    return False
                before = self.current.generation
                after = self.load().generation
            except LmrecError as error:
                self._failed = None if name is None else (name, time.monotonic() + self._retry_s)
                self._problems["generation"] = str(error)
                raise
            self._failed = None
            self._problems.pop("generation", None)
            return after != before

    # ---- experiments

    def sync_experiment(self) -> None:
        """Bring the experiment that the store says runs into force, or out of it.

        It ends by itself once another generation than its control's is served: after a rollback or a promotion nobody may
        be left with what was there before. Raises LmrecError where a generation cannot be loaded; until it can be,
        everybody is answered by what is served.
        """
        with self._loading:
            lineup = self.lineup
            row = self._store.running_experiment()
            wanted = None if row is None else row.experiment
            if wanted is not None and not self._still_fits(wanted):
                wanted = None
            if wanted is None:
                self._problems.pop("experiment", None)
            if wanted == lineup.experiment:
                return
            if wanted is None:
                self._adopt(Lineup(lineup.current))
                log("experiment out of force")
                return
            failed = self._failed_experiment
            if failed is not None and failed[0] == wanted.name and time.monotonic() < failed[1]:
                return
            try:
                served = [self._read(name) for name in wanted.generations]
            except LmrecError as error:
                self._failed_experiment = (wanted.name, time.monotonic() + self._retry_s)
                self._problems["experiment"] = f"the experiment '{wanted.name}' is not in force: {error}"
                raise
            self._failed_experiment = None
            self._problems.pop("experiment", None)
            others = {one.generation: one for one in served if one is not lineup.current}
            self._adopt(Lineup(lineup.current, wanted, others))
            log("experiment in force", mode=wanted.mode, generations=list(wanted.generations))

    def _still_fits(self, experiment: Experiment) -> bool:
        """Whether its control is what the pointer names; an experiment for which it is not is ended."""
        named = read_pointer(self._run).generation
        control = experiment.arms[0].generation
        if named == control:
            return self.current.generation == control  # else this process has still to follow
        why = f"generation {named} came to be served in place of its control, generation {control}"
        self._store.end_experiment(experiment.name, why)
        return False

    # ---- items

    def has_item(self, item_id: ItemId) -> bool:
        return self.current.live.state.snapshot.row_of(item_id) is not None

    def put_items(self, items: Sequence[Mapping[str, Any]], by: str) -> int:
        """Encode, store, show: returns the store's version once the items can be recommended.

        Raises InputError for fields that the catalog lacks and values that do not fit; then nothing has changed.
        """
        live = self.current.live
        encoded = live.encode_items(items)
        puts = [
            ItemPut(item.item_id, dict(item.fields), item.text_vec.astype("<f4").tobytes(), live.fingerprint)
            for item in encoded
        ]
        reworded = [item.item_id for item in encoded if live.rewords(item)]
        version = self._store.put_items(puts, reworded=reworded, by=by)
        self.sync_items()
        return version

    def delete_items(self, item_ids: Sequence[ItemId], by: str) -> int:
        version = self._store.delete_items(item_ids, by=by)
        self.sync_items()
        return version

    def sync_items(self) -> None:
        """Apply what the store has and the live recommender has not."""
        changed = False
        with self._changing:
            for served in self.lineup.all_served:
                changes = self._store.item_changes(served.live.version)
                if changes:
                    # First, and read after the changes were: an approval of other words must not cover these.
                    served.live.set_review(self._read_review())
                    served.live.apply_changes(changes)
                    changed = True
            if changed:
                self._settle_queue()

    def catch_up(self) -> bool:
        """Apply what other processes have changed of items, rules and reviews since the last time; whether anything was
        decided since. Raises StoreError."""
        mark = self._store.catalog_mark()
        if mark == self._caught_up:
            return False
        self.sync_items()
        self.sync_rules()
        self.sync_reviews()
        self._caught_up = mark
        return True

    # ---- rules and reviews

    def check_rule(self, rule_id: str, rule: Rule) -> None:
        """Raises InputError where the rule does not fit the catalog."""
        compile_rules({rule_id: rule}, self.current.live.state.snapshot, Review())

    def sync_rules(self, *, force: bool = False) -> None:
        """Put the rules of file and store in force, where one of them has changed."""
        with self._changing:
            version = self._store.rules_version()
            if self._read_rules_file() or version != self._rules_version or force:
                for served in self.lineup.all_served:
                    self._apply_rules(served.live)
                self._rules_version = version
                self._settle_queue()

    def sync_reviews(self) -> None:
        with self._changing:
            self._queue_held(self._apply_reviews(self.lineup))

    def start_rules(self) -> None:
        """Read the rules file for the first time: a broken one is an error here, and only a problem later."""
        if self._rules_file is not None:
            self._file_rules = load_rules_file(self._rules_file)
            self._file_stamp = _stamp(self._rules_file)

    def _read_rules_file(self) -> bool:
        """Whether it has changed; a broken file is reported, and the rules that it had stay in force."""
        if self._rules_file is None or (stamp := _stamp(self._rules_file)) == self._file_stamp:
            return False
        self._file_stamp = stamp
        try:
            self._file_rules = load_rules_file(self._rules_file)
        except (LmrecError, OSError) as error:
            self._problems["rules file"] = f"the rules file is not used as it is now, the rules before it are: {error}"
            log_failure("rules file refused", error)
            return False
        self._problems.pop("rules file", None)
        return True

    def _apply_rules(self, live: LiveRecommender) -> None:
        """Rules that do not fit this generation's catalog are left out and reported, so that the others are in force."""
        stored = self._stored_rules()
        wanted = {**stored, **self._file_rules}
        if twice := sorted(stored.keys() & self._file_rules.keys()):
            self._problems["rules twice"] = (
                f"the rules {twice} are in the rules file and were put by the API too; those of the file are in force. "
                "Delete the others by the API, or give them other ids in the file"
            )
        else:
            self._problems.pop("rules twice", None)
        try:
            live.set_rules(wanted)
            self._problems.pop("rules", None)
            return
        except InputError:
            fitting = {rule_id: rule for rule_id, rule in wanted.items() if _fits(live, rule_id, rule)}
        live.set_rules(fitting)
        left_out = sorted(set(wanted) - set(fitting))
        self._problems["rules"] = (
            f"the rules {left_out} do not fit the catalog and are not in force. Change or remove them"
        )
        log("rules left out", rules=left_out)

    def _stored_rules(self) -> dict[str, Rule]:
        rules: dict[str, Rule] = {}
        broken: list[str] = []
        for row in self._store.rules():
            try:
                rules[row.rule_id] = parse_rule(rule_spec(row))
            except InputError:
                broken.append(row.rule_id)
        if broken:
            self._problems["stored rules"] = (
                f"the stored rules {broken} cannot be read and are not in force. Put them anew"
            )
        else:
            self._problems.pop("stored rules", None)
        return rules

    def _read_review(self) -> Review:
        approved = {row.item_id: row.decided_ts or 0.0 for row in self._store.reviews("approved")}
        file_ts = 0.0 if self._file_stamp is None else self._file_stamp[0] / 1e9
        made = {row.rule_id: row.created_ts for row in self._store.rules()} | dict.fromkeys(self._file_rules, file_ts)
        return Review(frozenset(self._store.waiting_items()), approved, made)

    def _apply_reviews(self, lineup: Lineup) -> Review:
        """What people have decided comes into force. Returns what that was."""
        review = self._read_review()
        for served in lineup.all_served:
            served.live.set_review(review)
        return review

    def _settle_queue(self) -> None:
        """After a change of items or rules: who waits for no reason any more is let go, who has to wait is queued."""
        self._release_unheld()
        self._queue_held(self._apply_reviews(self.lineup))

    def _held(self) -> dict[ItemId, str]:
        """Items that a rule holds back in one of the generations in memory, and the rule's id."""
        held: dict[ItemId, str] = {}
        for served in self._lineup.all_served if self._lineup is not None else ():
            held |= served.live.held_items()
        return held

    def _queue_held(self, review: Review) -> None:
        """Items that a rule holds back under this review go into the queue where people see them; those in it already stay
        as they are, and so do those that somebody has decided on since the review was read."""
        self._say_whether_all_is_hidden()
        fresh: dict[str, list[ItemId]] = {}
        for item_id, rule_id in self._held().items():
            if item_id not in review.waiting:
                fresh.setdefault(rule_id, []).append(item_id)
        for rule_id, item_ids in fresh.items():
            by = f"{_BY_RULE}{rule_id}"
            for start in range(0, len(item_ids), _MAX_FLAGS):  # nobody's write waits for all of a large catalog
                reasons = dict.fromkeys(item_ids[start : start + _MAX_FLAGS], by)
                self._store.queue_items(reasons, approvals=review.approved, by=by)

    def _say_whether_all_is_hidden(self) -> None:
        if self._lineup is not None and self._lineup.current.live.state.rules.everyone.hidden.all():
            self._problems["all hidden"] = (
                "every item is hidden, by the rules or because it waits for review, so all lists are empty. "
                "See GET /v1/rules and GET /v1/reviews"
            )
        else:
            self._problems.pop("all hidden", None)

    def _release_unheld(self) -> None:
        """Items that wait because of a rule which holds them no more need nobody's decision."""
        if self._store.rules_version() != self._rules_version:
            return  # another process has changed the rules, and knows better until they are in force here
        waiting = [row for row in self._store.reviews("waiting") if row.flagged_by.startswith(_BY_RULE)]
        if not waiting:
            return
        held = self._held()
        freed = [row for row in waiting if row.item_id not in held]
        for start in range(0, len(freed), _MAX_FLAGS):
            self._store.release_items(freed[start : start + _MAX_FLAGS], "no rule holds it back any more")

    # ---- popularity

    def count(self) -> None:
        """Take in the events and the lists since the last time."""
        for served in self.lineup.all_served:
            if served.counts.update():
                served.live.set_popularity(served.counts.weights())
            if served.fared is not None:
                served.fared.update()

    def _count_lists(self, name: str, live: LiveRecommender) -> FaredCounts | None:
        """Of the lists that were shown since the generation's own, where it orders candidates by them."""
        stack = live.recommender.list_stack
        if stack is None or live.counts is None:
            return None
        weighing = read_weighing(RunFolder(generation_path(self._run, name)))
        fared = FaredCounts(self._store, live.counts, stack.until_ts, weighing=weighing)
        fared.update()
        return fared

    def _count_news(self, name: str) -> LiveCounts:
        folder = RunFolder(generation_path(self._run, name))
        learnt_seq, _ = how_far(folder)
        counts = LiveCounts(self._store, learnt_seq, weighing=read_weighing(folder))
        counts.update()
        return counts


def rule_spec(row: RuleRow) -> dict[str, Any]:
    """A stored rule as `parse_rule` takes it."""
    return {"kind": row.kind, **row.spec}


def _fits(live: LiveRecommender, rule_id: str, rule: Rule) -> bool:
    try:
        compile_rules({rule_id: rule}, live.state.snapshot, Review())
    except InputError:
        return False
    return True


def _stamp(file: Path) -> tuple[int, int] | None:
    """Changes with the file; None where it is gone."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _created_ts(run: Path, name: str) -> float:
    created = {info.name: info.created for info in list_generations(run)}
    return datetime.fromisoformat(created.get(name, created[FIRST])).timestamp()
