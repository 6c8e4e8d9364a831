"""What the service is told: where things lie, and every bound that keeps it standing."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Bounds on size, number, rate and time. Beyond one of them a request is refused, never queued without end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_body_bytes: int = Field(default=4_000_000, ge=1_000, description="A larger body is refused with 413.")
    body_timeout_s: float = Field(
        default=10.0, gt=0, description="A body that takes longer to arrive is refused with 408."
    )
    max_in_flight: int = Field(
        default=256, ge=1, description="More requests at once are refused with 503 and Retry-After."
    )
    max_waiting: int = Field(
        default=128, ge=1, description="Questions that wait for the model; more are refused with 503."
    )
    max_batch: int = Field(default=32, ge=1, description="Questions that the model answers in one go.")
    answer_timeout_s: float = Field(default=10.0, gt=0, description="A question that waits longer is refused with 503.")
    write_timeout_s: float = Field(
        default=60.0, gt=0, description="The same for items that are put: 500 long texts take a while to encode."
    )
    rate_per_s: float = Field(
        default=2_000.0, gt=0, description="Requests a second of one key, or of one address without keys."
    )
    rate_burst: int = Field(default=4_000, ge=1, description="Requests at once before the rate counts; beyond it 429.")
    wrong_keys_per_s: float = Field(
        default=5.0, gt=0, description="Wrong keys a second from one address; beyond it 429."
    )
    max_history: int = Field(default=200, ge=1, description="Newest items of a user that lists are made from.")


class ServiceSettings(BaseModel):
    """Everything `lmrec serve` decides. Passed on to worker processes as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path
    store: str = Field(description="sqlite:///path/to/file.db or postgresql+psycopg://user@host/name.")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    rules: Path | None = Field(default=None, description="A file of rules, read again when it changes.")
    workers: int = Field(default=1, ge=1, le=64)
    limits: Limits = Limits()
    threads: int | None = Field(
        default=None,
        ge=1,
        description="Of each computation; half of the cores if not given. More make one answer quicker "
        "on an idle machine, and all answers slower on a busy one.",
    )
    watch_s: float = Field(
        default=0.25, gt=0, description="How often the pointer, items and rules of others are looked at."
    )
    retry_s: float = Field(
        default=30.0, gt=0, description="How long until a generation that did not load is tried again."
    )
    popularity_s: float = Field(
        default=5.0, gt=0, description="How often what is popular, and how items fare in lists, is counted."
    )
    keep_lists_days: float = Field(
        default=90.0,
        ge=0,
        description="How long shown lists are kept, 0: for ever. Those of an experiment stay while it runs.",
    )
    drain_s: int = Field(default=20, ge=1, description="How long a stop waits for requests that are being answered.")
    close_s: float = Field(
        default=30.0, gt=0, description="How long it then waits for the store, before it ends with exit code 1."
    )

    @classmethod
    def for_run(cls, run: Path, store: str | None = None, **values: object) -> Self:
        """The settings with the default store, RUN/service/store.db."""
        return cls.model_validate({"run": run, "store": store or default_store(run), **values})


def default_store(run: Path) -> str:
    return f"sqlite:///{run / 'service' / 'store.db'}"
