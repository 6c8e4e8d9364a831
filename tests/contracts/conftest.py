"""A real PostgreSQL, started once for the session."""

from collections.abc import Callable, Iterator

import pytest

from .postgresql import PostgreSQL

NewUrl = Callable[[], str]


@pytest.fixture(scope="session")
def new_postgresql_url() -> Iterator[NewUrl]:
    """A function that makes an empty schema and returns a URL that uses it."""
    server = PostgreSQL()
    yield server.new_url
    server.close()


@pytest.fixture
def postgresql() -> Iterator[PostgreSQL]:
    """One of a test's own, to be killed."""
    server = PostgreSQL()
    yield server
    server.close()
