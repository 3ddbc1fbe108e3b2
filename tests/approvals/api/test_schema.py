"""The description of the API is true: every endpoint is in it, and answers as it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from django.contrib.auth.models import Permission
from django.core.handlers.wsgi import WSGIHandler
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as bounded
from hypothesis.errors import Unsatisfiable
from jsonschema import Draft202012Validator, ValidationError
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from approvals import delegating
from approvals.api import examples
from approvals.api.endpoints import Endpoint
from approvals.api.schema import description
from approvals.api.urls import urlpatterns
from approvals.delegating import Lending
from approvals.models import Grant
from audit import clock
from tests.approvals.api.conftest import As, asked, connection_kept, opened, program
from tests.approvals.api.test_urls import view_of
from tests.world import World, owe_review, propose

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
METHODS = {"get", "post", "delete"}
EXAMPLES = 8  # calls of each endpoint, of each kind
BOUNDED = bounded(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SIGNS_OUT = "DELETE /api/v1/session/"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in description()["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_route_and_method_is_described_and_no_other():
    routes = {
        (f"/api/v1/{url.pattern}".replace("<int:pk>", "{id}"), method)
        for url in urlpatterns
        if url.name != "unknown"
        for method in METHODS
        if hasattr(view_of(url), method)
    }
    assert {(path, method) for path, method, _ in operations()} == routes


def test_operations_have_names_of_their_own_and_a_summary_each():
    names = [operation["operationId"] for _, _, operation in operations()]
    assert sorted(names) == sorted(set(names))
    assert set(names) == set(examples.SUMMARIES)
    assert examples.SENT.keys() | examples.ANSWERED.keys() <= set(names)


def test_it_is_openapi_3_1_and_says_how_to_sign_in():
    assert description()["openapi"].startswith("3.1")
    assert set(description()["components"]["securitySchemes"]) == {"token", "session"}


def held_against(schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": description()["components"]}
    Draft202012Validator(whole).validate(value)


def test_the_examples_are_as_described():
    found = 0
    for _, _, operation in operations():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            for media in body.get("content", {}).values():
                for example in media.get("examples", {}).values():
                    held_against(media["schema"], example["value"])
                    found += 1
    assert found == len(examples.SENT) + len(examples.ANSWERED)


def test_a_key_is_described_where_one_is_taken():
    with_key = {
        operation["operationId"]
        for _, _, operation in operations()
        if any(told["name"] == "Idempotency-Key" for told in operation.get("parameters", []))
    }
    assert {"requests_create", "requests_vote", "grants_release"} <= with_key
    assert not {"grants_reveal", "tokens_create", "session_create"} & with_key


def test_whoever_has_signed_in_reads_it(world: World, as_: As):
    assert as_("mallory").get("schema/").json() == description()
    assert program(world, "alice", "read").get("schema/").json() == description()


def as_described(operation_id: str, answer: Any) -> Any:
    """The body of an answer, held against what the description says of its status."""
    told = {operation["operationId"]: operation for _, _, operation in operations()}
    media = told[operation_id]["responses"][str(answer.status_code)]["content"]
    held_against(media[answer["Content-Type"]]["schema"], answer.json())
    return answer.json()


@pytest.mark.slow
def test_a_story_is_answered_as_described(world: World, as_: As):
    """With values of every kind, where calls made up at random are refused most of the time."""
    alice, bob, carol = as_("alice"), as_("bob"), as_("carol")
    as_described("requests_preview", alice.post("requests/preview/", asked(world)))
    refused_ = alice.post("requests/preview/", asked(world, reason=""))
    assert as_described("requests_preview", refused_)["problem"]["fields"]
    made = as_described("requests_create", alice.post("requests/", asked(world)))
    path = f"requests/{made['id']}/"
    for by in (bob, carol):
        body = {"decision": "approve", "scope_hash": made["scope_hash"], "comment": "Fine."}
        as_described("requests_vote", by.post(f"{path}vote/", body))
    assert as_described("requests_get", alice.get(path))["stages"][0]["votes"]
    as_described("requests_list", bob.get("requests/"))
    talk = f"{path}comments/"
    as_described("requests_comments_create", bob.post(talk, {"comment": "@alice @mallory?"}))
    as_described("requests_comments_list", alice.get(talk))
    as_described("requests_events_list", alice.get(f"{path}events/"))
    grant = opened(Grant.objects.get(request=made["id"]))
    path = f"grants/{grant.pk}/"
    as_described("grants_get", alice.get(path))
    as_described("grants_reveal", alice.post(f"{path}reveal/"))
    as_described("grants_revoke", bob.post(f"{path}revoke/", {"reason": "Enough."}))
    as_described("grants_list", alice.get("grants/"))
    second = as_described("requests_create", alice.post("requests/", asked(world)))
    as_described("requests_cancel", alice.post(f"requests/{second['id']}/cancel/"))
    world.chen.user_permissions.add(Permission.objects.get(codename="view_event"))
    events = as_described("events_list", as_("chen").get("events/"))
    assert "address" in events["results"][0]
    wish = {"name": "nightly", "scopes": ["read"], "days": 1}
    as_described("tokens_create", alice.post("tokens/", wish))
    as_described("tokens_list", alice.get("tokens/"))


def test_an_answer_that_is_not_as_described_would_be_noticed(world: World, as_: As):
    answer = as_("alice").get("targets/")
    answer.json = lambda: {"next": None, "previous": None, "results": [{"id": "1"}]}
    with pytest.raises(ValidationError):
        as_described("targets_list", answer)


def described() -> Any:
    schema = schemathesis.openapi.from_dict(description())
    schema.app = WSGIHandler()
    return schema


OPERATIONS = {found.ok().label: found.ok() for found in described().get_all_operations()}


def call_many(operation: Any, call: Callable[[Any, list[Any]], None]) -> None:
    """Sound and unsound calls, some of each, the same ones each time."""
    for mode in GenerationMode:
        unsound = mode == GenerationMode.NEGATIVE and operation.method == "post"
        _each(operation, mode, call, [*CHECKS, negative_data_rejection] if unsound else CHECKS)


def _each(operation: Any, mode: Any, call: Callable[[Any, list[Any]], None], checks: Any) -> None:
    @BOUNDED
    @given(operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        call(case, checks)

    try:
        with connection_kept():
            one()
    except Unsatisfiable:
        # Nothing that a GET without parameters could be sent is unsound.
        assert mode == GenerationMode.NEGATIVE


def noun_of(label: str) -> str:
    return label.split("/")[3]


NOUNS = sorted({noun_of(label) for label in OPERATIONS})


@pytest.mark.slow
@pytest.mark.parametrize("noun", NOUNS)
def test_whatever_alice_sends_she_is_answered_as_described(
    world: World, as_: As, noun: str, subtests: pytest.Subtests
):
    alice = as_("alice")
    grant = opened(world.approved())
    token = program(world)
    made = alice.get("tokens/").json()["results"][0]["id"]
    ids = {"requests": grant.request_id, "grants": grant.pk, "tokens": made}
    ids |= {"reviews": owe_review(grant).pk}
    lending = Lending(delegate="amir", ends_at=clock.now() + timedelta(days=1))
    lent = delegating.delegate(world.alice.pk, by=world.alice, lending=lending)
    ids |= {"targets": world.target.pk, "levels": world.read.pk, "delegations": lent.pk}
    ids |= {"proposals": propose(world).pk}
    cookies = {name: morsel.value for name, morsel in alice.client.cookies.items()}
    in_person = {"headers": {"X-CSRFToken": alice.token}, "cookies": cookies}
    by_token = {"headers": {"Authorization": f"Bearer {token.clear}"}}

    def call(case: Any, checks: list[Any]) -> None:
        if isinstance(case.path_parameters.get("id"), int):
            case.path_parameters["id"] = ids[noun]
        how = by_token if label.endswith("/this/") else in_person
        case.call_and_validate(**how, checks=checks)

    for label in sorted(OPERATIONS.keys() - {SIGNS_OUT}):
        if noun_of(label) == noun:
            with subtests.test(label):
                call_many(OPERATIONS[label], call)


@pytest.mark.slow
def test_whatever_nobody_sends_gets_them_nothing(world: World, subtests: pytest.Subtests):
    def call(case: Any, checks: list[Any]) -> None:
        answer = case.call_and_validate(checks=checks)
        assert 400 <= answer.status_code < 500

    for label, operation in OPERATIONS.items():
        with subtests.test(label):
            call_many(operation, call)


def test_a_view_that_says_nothing_of_itself_would_be_noticed():
    """Its answers would be compared with a form that has no member."""
    silent = [
        url.name
        for url in urlpatterns
        if url.name not in {"unknown"}
        and getattr(view_of(url), "gives", None) is Endpoint.gives
        and not hasattr(view_of(url), "lists")
    ]
    assert silent == []
