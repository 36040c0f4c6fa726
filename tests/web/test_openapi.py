"""The OpenAPI document is true: schemathesis makes requests from it and holds the answers against it."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from web_service import Clip, Running

from melisma.web import Settings, create_app

DOCUMENT = create_app(Settings(models={"analytic": "analytic"})).openapi()
schema = schemathesis.openapi.from_dict(DOCUMENT)
# No schema can say that bytes are audio or that a text is the name of a model: such a 400 is right.
EXCLUDED = [positive_data_acceptance]


@schema.parametrize()
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_documented(case: schemathesis.Case, server: Running, clip: Clip) -> None:
    case.call_and_validate(base_url=server.url, excluded_checks=EXCLUDED)
    if isinstance(case.body, dict):  # the same request with an upload that can be read
        case.body |= {"audio": clip.wav, "features": clip.npz, "model": "analytic"}
        case.call_and_validate(base_url=server.url, excluded_checks=[*EXCLUDED, negative_data_rejection])


def test_every_route_is_documented() -> None:
    assert set(DOCUMENT["paths"]) >= {"/v1/resynth", "/v1/synth", "/v1/models", "/healthz", "/metrics"}
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], f"{method} {path}"


@pytest.mark.parametrize("route", ["/v1/resynth", "/v1/synth"])
def test_a_full_queue_is_documented(route: str) -> None:
    assert {"200", "400", "413", "429"} <= set(DOCUMENT["paths"][route]["post"]["responses"])
