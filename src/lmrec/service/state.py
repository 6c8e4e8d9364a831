"""The living parts of the service, put together once and handed to the routes."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event as Signal
from threading import Thread
from typing import Any, TypeAlias

import torch
from starlette.concurrency import run_in_threadpool

from lmrec.artifacts.generation import list_generations
from lmrec.artifacts.run import open_run
from lmrec.cores import free_cores
from lmrec.errors import LmrecError
from lmrec.feedback.errors import StoreError
from lmrec.feedback.shown import Shown
from lmrec.feedback.store import Store
from lmrec.fields import ItemId
from lmrec.service.arms import answer_by_arm, answer_in_shadow
from lmrec.service.batching import TIMEOUT, Batcher
from lmrec.service.errors import ServiceError, busy
from lmrec.service.limits import InFlight
from lmrec.service.lineup import Served
from lmrec.service.logs import log, log_failure
from lmrec.service.metrics import ListStatistics, Metrics, newest_drift
from lmrec.service.pulse import Pulse
from lmrec.service.recommending import Ask, Listed, of_question
from lmrec.service.schemas.questions import RecommendationQuestion
from lmrec.service.security import KeyRing
from lmrec.service.serving import Serving
from lmrec.service.settings import ServiceSettings
from lmrec.service.shown_lists import ShownLists
from lmrec.service.traffic import Traffic
from lmrec.service.users import TrainingLog, Users
from lmrec.service.watching import Task, Watcher

Work: TypeAlias = Callable[[], Any]


class ServiceState:
    """Everything between `start` and `close`.

    Until the generation is loaded, `check_ready` refuses; where it cannot be loaded, `failure` says why and `on_failure`
    is told; `on_stop` is told before it closes. `lanes`: `quick` and `slow` questions are answered by one thread each, so
    that who asks with words does not hold up who asks with a history; `words` and `writes` do all else that needs the
    model, one thing at a time; `shadow` asks the generation that an experiment wants asked without being shown.
    """

    def __init__(self, settings: ServiceSettings, store: Store) -> None:
        limits = settings.limits
        self.settings = settings
        self.store = store
        self.metrics = Metrics()
        self.traffic = Traffic()
        self.lists = ListStatistics()
        self.in_flight = InFlight(limits.max_in_flight)
        self.keys = KeyRing(store)
        self.pulse = Pulse(store.ping)
        self.shown = ShownLists(store, self.metrics.shown_lost.inc)
        self.serving = Serving(settings.run, store, settings.rules, settings.retry_s)
        self.started_ts = time.time()
        self.failure: LmrecError | None = None
        self.knows_words = False  # once the language model is loaded; until then who asks with words waits for it
        self.on_failure: Callable[[], None] = _nothing
        self.on_stop: Callable[[], None] = _nothing
        self._users: Users | None = None
        self._stopping = Signal()
        self._quick = self._batcher("quick", self._answer, limits.max_batch)
        self._slow = self._batcher("slow", self._answer, max(1, limits.max_batch // 4))
        self._words = self._batcher("words", self._do, 1)
        self._writes = self._batcher("writes", self._do, 1, limits.write_timeout_s)
        self._shadow = self._batcher("shadow", self._answer_shadows, limits.max_batch)
        self._tasks_behind: set[asyncio.Task[None]] = set()
        self._loader = Thread(target=self._load, name="lmrec-loader", daemon=True)
        self._watcher: Watcher | None = None
        self._watch_numbers()

    # ---- from start to close

    def start(self) -> None:
        self._loader.start()

    def close(self) -> None:
        """Finish what waits, then let go of everything. The store is closed last."""
        self._stopping.set()
        if self._loader.ident is not None:
            self._loader.join()
        if self._watcher is not None:
            self._watcher.close()
        for lane in (self._quick, self._slow, self._words, self._writes, self._shadow):
            lane.close()
        self.shown.close()
        self.store.close()
        log("stopped")

    def _load(self) -> None:
        # Threads that wait for each other spin: where cores are short, two are far slower than one. faiss follows torch
        # (lmrec.retrieval.threads).
        torch.set_num_threads(self.settings.threads or max(1, free_cores() // 2))
        try:
            self.serving.start_rules()
            self._users = Users(
                TrainingLog.load(open_run(self.settings.run)), self.store, self.settings.limits.max_history
            )
            served = self.serving.load()
        except Exception as error:  # the thread's end: whoever waits for it is told
            log_failure("loading failed", error)
            self.failure = error if isinstance(error, LmrecError) else LmrecError(f"loading failed: {error!r}")
            self.on_failure()
            return
        self._watcher = Watcher(self._tasks(), self._failed)
        if not self._stopping.is_set():
            self._watcher.start()
            try:
                served.live.warm_up()  # after the first answers are possible: only words need the language model
            except Exception as error:  # whoever asks with words will be told
                self._failed("warm up", error)
            else:
                self.knows_words = True
                log("knows words")

    def _tasks(self) -> list[Task]:
        every = self.settings.watch_s
        keeps_all = self.settings.keep_lists_days == 0
        return [
            *([] if keeps_all else [Task("old lists", self._drop_old_lists, 4 * every)]),
            Task("items", self.serving.sync_items, every),
            Task("rules", self.serving.sync_rules, every),
            Task("reviews", self.serving.sync_reviews, 4 * every),
            Task("forgotten", self.users.refresh_forgotten, 4 * every),
            Task("generation", self.follow, every),
            Task("experiment", self.serving.sync_experiment, every),
            Task("popularity", self.serving.count, self.settings.popularity_s),
        ]

    def lists_from(self, now: float) -> float:
        """Earlier lists are not kept, UTC seconds."""
        days = self.settings.keep_lists_days
        return now - days * 86_400 if days else 0.0

    def _drop_old_lists(self) -> None:
        """A few at a time, again and again: a thousand a second are more than are shown."""
        self.store.drop_old_lists(self.lists_from(time.time()))

    def follow(self) -> None:
        """Serve what the pointer names. Raises LmrecError where that cannot be loaded."""
        if self.serving.follow():
            self.metrics.swaps.inc()

    def follow_own(self) -> None:
        """For who has moved the pointer here: that is done, also where this process cannot load what it names just now. Then
        `/readyz` says so, and it is tried again; whoever were told of a failure would move the pointer once more."""
        try:
            self.follow()
        except LmrecError as error:
            self._failed("generation", error)

    def note_done(self, actor: str, action: str, target: str, detail: dict[str, Any]) -> None:
        """In the audit table; where that cannot be written, in the log alone: who asked must not do it again."""
        if (error := self.store.note_done(actor, action, target, detail)) is not None:
            log_failure("not in the audit table", error, action=action, by=actor, target=target)

    def _failed(self, task: str, error: Exception) -> None:
        log_failure("background work failed", error, work=task)
        self.metrics.failures.labels(task).inc()

    # ---- readiness

    @property
    def ready(self) -> bool:
        return self._users is not None and self.serving.ready

    @property
    def users(self) -> Users:
        self.check_ready()
        assert self._users is not None
        return self._users

    def check_ready(self) -> None:
        """Raises ServiceError (503) with the reason while there is nothing to answer with."""
        if not self.ready:
            if self.failure is not None:
                raise busy("the generation could not be loaded; the service's log says why", "not_loaded", 30)
            raise busy("the service is loading its generation. Send the request again in a moment", "loading", 2)

    @property
    def problems(self) -> list[str]:
        """What does not hinder answering but needs somebody's eye."""
        trouble = self.store.write_trouble
        return [*self.serving.problems, *([] if trouble is None else [f"the event store takes no writes: {trouble}"])]

    # ---- work in lanes

    async def recommend(self, asks: Sequence[Ask]) -> list[dict[str, Any]]:
        """The JSON answers, in order; what was shown is written down and counted."""
        reads = self.serving.current.live.reads
        lanes = [self._quick if ask.is_quick and not reads else self._slow for ask in asks]

        async def list_one(place: int) -> Listed:
            with of_question(place, len(asks)):
                made: Listed = await lanes[place].ask(asks[place])
                return made

        with self._loading_words():
            listed = await asyncio.gather(*(list_one(place) for place in range(len(asks))))
        for ask, entry in zip(asks, listed, strict=True):
            basis = entry.body["basis"]
            self.metrics.lists.labels(basis).inc()
            shadow = None
            if isinstance(ask.question, RecommendationQuestion):  # else others have chosen the items that are shown
                self.lists.add(entry.shown.item_ids, basis == "popular")
                shadow = self.serving.lineup.shadow_for(ask.question.user_id or ask.request_id)
            if shadow is None:
                self.shown.add(entry.shown)
            else:
                self._behind(self._ask_shadow(ask, entry.shown, shadow))
        return [entry.body for entry in listed]

    async def _ask_shadow(self, ask: Ask, shown: Shown, shadow: Served) -> None:
        """Behind the answer's back; where too much waits for it, the list is kept without its shadow."""
        try:
            await self._shadow.ask((ask, shown, shadow))
        except LmrecError:
            self.metrics.shadow_lost.inc()
            self.shown.add(shown)
        except Exception as error:  # nobody waits for this task, so nobody else would say it
            self._failed("shadow", error)
            self.shown.add(shown)

    def _behind(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks_behind.add(task)  # else it may be collected before it is done
        task.add_done_callback(self._tasks_behind.discard)

    def _answer_shadows(self, asked: Sequence[tuple[Ask, Shown, Served]]) -> list[None]:
        for shown in answer_in_shadow(asked, self.users):
            self.shown.add(shown)  # here, so that `close`, which waits for the lanes, loses none
        return [None] * len(asked)

    async def read(self, work: Work) -> Any:
        """Work that uses the model and changes nothing."""
        with self._loading_words():
            return await self._words.ask(work)

    async def write(self, work: Work) -> Any:
        """Work that encodes and changes items."""
        with self._loading_words():
            return await self._writes.ask(work)

    async def lacks_any(self, item_ids: Collection[ItemId]) -> Collection[ItemId]:
        """Those of the items that are not in the catalog, whoever put them."""
        lacking = [item_id for item_id in item_ids if not self.serving.has_item(item_id)]
        if lacking and self.settings.workers > 1:
            await run_in_threadpool(self.catch_up)
            lacking = [item_id for item_id in lacking if not self.serving.has_item(item_id)]
        return frozenset(lacking)

    @contextmanager
    def _loading_words(self) -> Iterator[None]:
        """Where there was no answer in time because the language model is loaded still, that is said."""
        try:
            yield
        except ServiceError as error:
            if error.code != TIMEOUT or self.knows_words:
                raise
            raise busy(
                "the service is loading the language model, which words and new items need. Send the request again in a "
                "moment; lists for users and items are answered already",
                "loading",
                2,
            ) from None

    def catch_up(self) -> None:
        """Among several workers an answer waits for what another one has changed: a deleted item is not shown again."""
        if self.settings.workers > 1:
            with suppress(StoreError):  # while the store is away nothing changes, and the watcher says that it is
                if self.serving.catch_up():
                    self.users.refresh_forgotten()

    def _do(self, works: Sequence[Work]) -> list[Any]:
        self.catch_up()
        return [work() for work in works]

    def _answer(self, asks: Sequence[Ask]) -> list[Listed]:
        self.catch_up()
        return answer_by_arm(asks, self.serving.lineup, self.users)

    def _batcher(
        self, name: str, answer: Callable[[Any], Any], max_batch: int, timeout_s: float | None = None
    ) -> Batcher[Any, Any]:
        limits = self.settings.limits
        return Batcher(
            name,
            answer,
            max_batch=max_batch,
            max_waiting=limits.max_waiting,
            timeout_s=timeout_s or limits.answer_timeout_s,
            observe=self.metrics.batch_size.observe if name in ("quick", "slow") else _nobody,
        )

    @property
    def n_waiting(self) -> int:
        return sum(lane.n_waiting for lane in (self._quick, self._slow, self._words, self._writes))

    # ---- numbers

    def _watch_numbers(self) -> None:
        watch = self.metrics.watch
        watch("lmrec_in_flight", "Requests being answered.", lambda: self.in_flight.count)
        watch("lmrec_waiting", "Questions that wait for the model.", lambda: self.n_waiting)
        watch("lmrec_ready", "1 once a generation is served.", lambda: float(self.ready))
        watch("lmrec_problems", "What needs somebody's eye; see /readyz.", lambda: len(self.problems))
        watch("lmrec_items", "Items that can be recommended.", self._n_items)
        watch("lmrec_generation", "The number of the generation that is served.", self._generation)
        watch("lmrec_generation_age_seconds", "Since the served generation was made.", self._generation_age_s)
        watch(
            "lmrec_drift",
            "What the newest update found: 0 steady, 1 moving, 2 shifted, -1 where none has measured it.",
            lambda: newest_drift(list_generations(self.settings.run)),
        )
        watch("lmrec_cold_share", "Of the newest lists, those that rest on nothing known.", self.lists.cold_share)
        watch(
            "lmrec_coverage",
            "Share of the catalog that the newest lists show.",
            lambda: self.lists.coverage(int(self._n_items())),
        )

    def _n_items(self) -> float:
        return self.serving.current.live.n_items if self.serving.ready else 0

    def _generation(self) -> float:
        return int(self.serving.current.generation) if self.serving.ready else -1

    def _generation_age_s(self) -> float:
        return time.time() - self.serving.current.created_ts if self.serving.ready else 0.0


def open_state(settings: ServiceSettings) -> ServiceState:
    """Checks that run and store are there; nothing is loaded yet. Raises LmrecError."""
    open_run(settings.run)
    return ServiceState(settings, Store.open(settings.store))


def _nobody(size: int) -> None:
    """Lanes of single works have no sizes worth counting."""


def _nothing() -> None:
    """Until somebody wants to know."""
