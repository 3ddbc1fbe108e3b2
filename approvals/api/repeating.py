"""`Idempotency-Key`: a POST that is sent again gets the first answer again.

What is kept, and for how long, is in `answers`. An answer with a credential in it never is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from django.http import HttpResponse, HttpResponseBase
from rest_framework.exceptions import ParseError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from approvals import answers
from approvals.models import Answer
from approvals.transition import committed

if TYPE_CHECKING:
    from approvals.people import Person

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
KEY: Final = re.compile(r"[!-~]{1,255}")


def key_of(request: Request) -> str | None:
    """Raises ParseError for one that is no key."""
    key: str | None = request.headers.get(HEADER)
    if key is not None and not KEY.fullmatch(key):
        raise ParseError("An Idempotency-Key is 1 to 255 visible ASCII characters.", "malformed")
    return key


def once(view: APIView, request: Request, carry_out: Callable[[], Response]) -> HttpResponseBase:
    """Carry it out, or answer as the first time. Raises Invalid, WrongState over the key.

    Refusals are answers too. What failed otherwise, before anything was committed, is not kept, so
    that it can be tried again. What failed afterwards stays claimed: it must not be done twice.
    """
    key = key_of(request)
    if key is None:
        return carry_out()
    claimed = answers.claim(key, by=cast("Person", request.user), fingerprint=_fingerprint(request))
    if isinstance(claimed, Answer):
        return _replayed(claimed)
    with committed() as done:
        try:
            response = _answer(view, carry_out)
            if response.status_code < 500:
                _keep(claimed, response)
            elif not done:
                answers.free(claimed)
        except Exception:
            if not done:
                answers.free(claimed)
            raise
    return response


def _answer(view: APIView, carry_out: Callable[[], Response]) -> HttpResponseBase:
    try:
        return carry_out()
    except Exception as error:  # noqa: BLE001  (the view raises again what is no refusal)
        return view.handle_exception(error)


def _fingerprint(request: Request) -> str:
    call = [request.method, request.path, request.data]
    return hashlib.sha256(json.dumps(call, sort_keys=True).encode()).hexdigest()


def _keep(claimed: answers.Claim, response: Any) -> None:
    plain = isinstance(response, Response)
    body = JSONRenderer().render(response.data) if plain else response.content
    answers.keep(
        claimed,
        status=response.status_code,
        content_type="application/json" if plain else response["Content-Type"],
        location=response.headers.get("Location", ""),
        body=body.decode(),
    )


def _replayed(answer: Answer) -> HttpResponse:
    response = HttpResponse(answer.body, status=answer.status, content_type=answer.content_type)
    response[REPLAYED] = "true"
    if answer.location:
        response["Location"] = answer.location
    return response
