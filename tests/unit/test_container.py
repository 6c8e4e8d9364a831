"""The Dockerfile and the compose file against what they speak of; whether they build is for a machine with Docker."""

import re
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from lmrec.cli.app import app

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = set("FROM WORKDIR RUN ENV COPY USER VOLUME EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD".split())


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """(instruction, the rest), with continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def accepted(words: list[str]) -> click.Context:
    """The context of the command that these words name; fails where its options are not there any more."""
    command: Any = typer.main.get_command(app)
    return command.commands[words[0]].make_context(words[0], words[1:])  # type: ignore[no-any-return]


def test_the_dockerfile_is_made_of_instructions_and_of_what_is_there(dockerfile: list[tuple[str, str]]) -> None:
    assert {name for name, _ in dockerfile} <= INSTRUCTIONS
    sent = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    for name, rest in dockerfile:
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source in sent, f".dockerignore keeps {source} from the builder"


def test_the_image_has_the_torch_that_is_tested(dockerfile: list[tuple[str, str]]) -> None:
    (pinned,) = re.findall(r"^torch==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert any(f"torch=={pinned} " in rest for name, rest in dockerfile if name == "RUN")


def test_what_the_containers_start_is_understood(dockerfile: list[tuple[str, str]], compose: dict[str, Any]) -> None:
    (default,) = [yaml.safe_load(rest) for name, rest in dockerfile if name == "CMD"]
    service = compose["services"]["lmrec"]
    for words in (default, service["command"]):
        context = accepted(words)
        assert str(context.params["run"]) == "/runs/mine"
        assert context.params["port"] == 8000
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["volumes"] == ["./runs:/runs"]


def test_the_service_waits_for_its_store_and_is_told_where_it_is(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, store = compose["services"]["lmrec"], compose["services"]["store"]
    assert service["depends_on"]["store"]["condition"] == "service_healthy"
    assert "-h 127.0.0.1" in store["healthcheck"]["test"][1]  # not the one that only makes the database
    monkeypatch.setenv("LMREC_STORE", service["environment"]["LMREC_STORE"])
    assert accepted(service["command"]).params["store"] == "postgresql+psycopg://lmrec@store/lmrec"
    environment = store["environment"]
    assert (environment["POSTGRES_USER"], environment["POSTGRES_DB"]) == ("lmrec", "lmrec")
    assert service["environment"]["PGPASSWORD"] == environment["POSTGRES_PASSWORD"]
