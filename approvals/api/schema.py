"""The API as OpenAPI 3.1, made from what the views themselves parse by and print.

What each view takes and gives is named on it; the sentences and examples are in `examples`.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiParameter
from rest_framework import serializers

from approvals.api import examples, shapes
from approvals.api.errors import CONTENT_TYPE
from approvals.api.repeating import HEADER

PREFIX: Final = "/api/v1/"
PARAMETER: Final = re.compile(r"\{\w+\}")
# Members that are there only where they apply; every other one always is.
OPTIONAL: Final = {
    "ProblemShape": {"fields", "current", "near_misses", "request"},
    "EventDetail": {"address", "agent"},
}
KEY: Final = OpenApiParameter(
    HEADER,
    str,
    OpenApiParameter.HEADER,
    description="The same call with the same key is carried out once, and answered alike.",
)


@functools.cache
def description() -> dict[str, Any]:
    """The document, which nothing but another version of the program changes."""
    generator: Any = SchemaGenerator
    made: dict[str, Any] = generator().get_schema(public=True)
    return made


class Described(AutoSchema):
    """Reads `takes`, `gives`, `lists`, `filters` and `post_status` off a view."""

    view: Any

    def get_operation_id(self) -> str:
        words = [word for word in self._words() if not PARAMETER.fullmatch(word)]
        ending = {"GET": "list" if self._lists() else "get", "DELETE": "delete"}.get(self.method)
        if self.method == "POST" and self.view.creates:
            ending = "create"
        return "_".join(word.replace("-", "_") for word in (*words, ending) if word)

    def get_tags(self) -> list[str]:
        return [self._words()[0]]

    def _words(self) -> list[str]:
        return self.path.removeprefix(PREFIX).strip("/").split("/")

    def get_summary(self) -> str:
        return examples.SUMMARIES[self.get_operation_id()]

    def get_description(self) -> str:  # type: ignore[override]  # as the generator has it
        scope = self.view.token_scopes.get(self.method)
        return f"A token needs the scope `{scope}`." if scope else "No token does this."

    def get_examples(self) -> list[OpenApiExample]:
        sent = examples.SENT.get(self.get_operation_id())
        answered = examples.ANSWERED.get(self.get_operation_id())
        code = [str(self.view.post_status if self.method == "POST" else 200)]
        return [
            OpenApiExample(
                name, value=value, request_only=sends, response_only=not sends, status_codes=codes
            )
            for name, value, sends, codes in (
                ("Sent", sent, True, None),
                ("Answered", answered, False, code),
            )
            if value is not None
        ]

    def get_override_parameters(self) -> list[Any]:
        if self._lists():
            return [self.view.filters]
        repeatable = self.method == "POST" and getattr(self.view, "perform", None)
        return [KEY] if repeatable and not self.view.shown_once else []

    def get_request_serializer(self) -> Any:
        return self.view.takes if self.method == "POST" else None

    def get_response_serializers(self) -> Any:
        refusals = {("4XX", CONTENT_TYPE): shapes.ProblemShape}
        if self.method == "DELETE":
            return {204: None, **refusals}
        if self._lists():
            page = _page(self.view.lists, self.view.beside)
            return {(200, "application/json"): page, **refusals}
        if self.method != "POST":
            return {(200, "application/json"): self.view.gives, **refusals}
        done = {(self.view.post_status, "application/json"): self.view.gives}
        if self.view.proposes:
            done[202, "application/json"] = self.view.proposes
        return {**done, **refusals}

    def _lists(self) -> bool:
        return self.method == "GET" and hasattr(self.view, "lists")


@functools.cache
def _page(
    of: type[serializers.BaseSerializer[Any]], beside: type[shapes.Shape]
) -> type[serializers.Serializer[Any]]:
    address = serializers.URLField(allow_null=True)
    members = {"next": address, "previous": address, "results": of(many=True)}
    return type(f"PageOf{of.__name__}", (beside,), members)


def strict(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """A hook: what is sent may hold no other member, and what is answered lacks none."""
    for name, schema in result["components"]["schemas"].items():
        members = schema.get("properties", {})
        if name.endswith("Input"):
            schema["additionalProperties"] = False
        else:
            schema["required"] = sorted(members.keys() - OPTIONAL.get(name, set()))
        # Docstrings of ours, which speak to those who read the code.
        schema.pop("description", None)
    _tidy(result)
    return result


def _tidy(node: Any) -> None:
    """Drop what the generator notes for itself."""
    if isinstance(node, dict):
        for name in ("x-spec-enum-id", "readOnly"):
            node.pop(name, None)
    for inner in node.values() if isinstance(node, dict) else node:
        if isinstance(inner, dict | list):
            _tidy(inner)


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "approvals.api.authentication.Bearer"
    match_subclasses = True
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "dbf_…"}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "approvals.api.authentication.Session"
    name = "session"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": settings.SESSION_COOKIE_NAME,
            "description": "Changes need the header X-CSRFToken as well.",
        }
