"""The API against its own description: whatever fits the description is answered as it says, whatever does not is refused
with a reason, and nothing is a fault of ours or hangs."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance

from .running import running

pytestmark = pytest.mark.usefixtures("service_logs")

EXAMPLES: Final = 8  # for each operation and mode

# No description says which columns this catalog has and of which types, or what was started before.
_OF_THIS_CATALOG: Final = re.compile(
    r"is unknown to the run that is served|"
    r"which items do not have|the catalog lacks|items have no|the filter|a filter|reads the field|the rule|"
    r"nothing was learnt of|"
    r"already|all together 1|is no ISO 8601 moment|is not the path's"
)


@pytest.fixture(scope="module")
def api(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    """A real server that has keys, so that what is asked without one is refused, and its OpenAPI."""
    run = Path(shutil.copytree(fitted, tmp_path_factory.mktemp("described") / "run"))
    with running(run) as service:
        secret = service.state.store.add_key("tests", ["admin"])
        service.state.keys.forget()
        schema = schemathesis.openapi.from_url(f"{service.client.base_url}/openapi.json")
        schema.config.update(headers={"Authorization": f"Bearer {secret}"})
        yield schema


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_operation_keeps_to_its_description(api: BaseSchema, mode: GenerationMode) -> None:
    broken: dict[str, str] = {}
    n_operations = 0
    found: Any
    for found in api.get_all_operations():
        operation = found.ok()
        n_operations += 1
        try:
            _try_out(operation, mode)
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE, "what takes nothing cannot be given something wrong"
        except (AssertionError, BaseExceptionGroup) as error:
            broken[operation.label] = str(error)[:2000]
    assert n_operations > 25
    assert not broken, "\n\n".join(f"{label}: {problem}" for label, problem in broken.items())


def _try_out(operation: Any, mode: GenerationMode) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        response = case.call_and_validate(timeout=20, excluded_checks=[positive_data_acceptance])
        if mode is GenerationMode.POSITIVE and response.status_code in (400, 422):
            message = response.json()["error"]["message"]
            assert _OF_THIS_CATALOG.search(message), f"what fits the description was refused: {message}"

    ask()
