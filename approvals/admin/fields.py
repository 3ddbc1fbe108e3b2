"""Form fields for what people type in words: times, labels, groups, and a kind's typed values.

Each turns text into a plain value and the value back into the same text. Nothing is saved here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from pydantic import BaseModel
from pydantic import ValidationError as SchemaError

from approvals.lengths import lasting

UNITS = {"d": 86400, "h": 3600, "min": 60, "s": 1}
LONGEST = 366 * UNITS["d"]
"""Seconds: nothing is asked for or waited for longer than a year."""
TEXT_LENGTH = 5000
MAX_LABELS = 50
MAX_MINIMUM = 50
"""More people than any one stage could sensibly wait for."""

SPAN = re.compile(
    r"([0-9]{1,8})\s*(d|h|min|s|days?|hours?|minutes?|m|seconds?)\b[\s,]*", re.IGNORECASE | re.ASCII
)
COUNTED_GROUP = re.compile(r"\s*(\S.*?)\s*:\s*([0-9]{1,4})\s*(?:,|\n|\Z)", re.ASCII)


class ParsedField(forms.Field):
    """A text that means something else. `parse` gets it without NUL characters and stripped."""

    widget: type[forms.Widget] | forms.Widget = forms.TextInput
    _text = forms.CharField(required=False, max_length=TEXT_LENGTH)

    def to_python(self, value: Any) -> Any:
        return self.parse(self._text.clean(value))

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Nothing is nothing, whether it is written as no value or as an empty mapping."""
        try:
            return (self.to_python(data) or None) != (initial or None)
        except ValidationError:
            return True

    def parse(self, text: str) -> Any:
        """Raises ValidationError."""
        raise NotImplementedError


class DurationField(ParsedField):
    """Seconds, written as "30 min", "8 h" or "1 d 12 h"."""

    def parse(self, text: str) -> int | None:
        if not text:
            return None
        spans = SPAN.findall(text)
        if not spans or SPAN.sub("", text):
            raise ValidationError("Write a number with its unit, such as 30 min, 8 h or 2 d.")
        seconds = sum(int(number) * UNITS[_unit(word)] for number, word in spans)
        if not 0 < seconds <= LONGEST:
            raise ValidationError("Between one second and 366 days.")
        return seconds

    def prepare_value(self, value: Any) -> Any:
        return lasting(value) if isinstance(value, int) else value


def _unit(word: str) -> str:
    return "min" if word.lower().startswith("m") else word[0].lower()


class LabelsField(ParsedField):
    """Labels as a mapping, written one a line: `team=orders`."""

    widget = forms.Textarea(attrs={"rows": 3, "cols": 40})

    def parse(self, text: str) -> dict[str, str]:
        labels: dict[str, str] = {}
        for line in filter(None, map(str.strip, text.splitlines())):
            name, equals, value = (part.strip() for part in line.partition("="))
            if not (name and equals and value):
                raise ValidationError(f"“{line}” is not written as name=value.")
            if name in labels:
                raise ValidationError(f"The label “{name}” is there twice.")
            labels[name] = value
        if len(labels) > MAX_LABELS:
            raise ValidationError(f"At most {MAX_LABELS} labels.")
        return labels

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return "\n".join(f"{name}={label}" for name, label in sorted(value.items()))


class RowsField(ParsedField):
    """Things with a few values each, written one a line: `host=db2 port=5432`."""

    widget = forms.Textarea(attrs={"rows": 3, "cols": 40})

    def parse(self, text: str) -> list[dict[str, str]]:
        return [_row(line) for line in filter(None, map(str.strip, text.splitlines()))]

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return "\n".join(shlex.join(f"{n}={one}" for n, one in row.items()) for row in value)


def _row(line: str) -> dict[str, str]:
    try:
        pairs = [word.partition("=") for word in shlex.split(line)]
    except ValueError:
        raise ValidationError(f"“{line}” has a quotation mark that is not closed.") from None
    if not all(name and value for name, _, value in pairs):
        raise ValidationError(f"“{line}” is not written as name=value, with spaces between.")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise ValidationError(f"“{line}” has a name twice.")
    return {name: value for name, _, value in pairs}


class CountedGroupsField(ParsedField):
    """Groups with the least number of their people, written "dba: 1, security: 2"."""

    def parse(self, text: str) -> dict[Group, int]:
        wanted = _counted(text)
        groups = {group.name: group for group in Group.objects.filter(name__in=wanted)}
        if unknown := [name for name in wanted if name not in groups]:
            raise ValidationError(
                f"There is no group called {' or '.join(f'“{name}”' for name in unknown)}."
            )
        return {groups[name]: minimum for name, minimum in wanted.items()}

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return ", ".join(f"{group.name}: {minimum}" for group, minimum in value.items())


def _counted(text: str) -> dict[str, int]:
    wanted: dict[str, int] = {}
    if COUNTED_GROUP.sub("", text).strip():
        raise ValidationError("Write each group with its number, such as dba: 1, security: 2.")
    for name, minimum in COUNTED_GROUP.findall(text):
        if name in wanted:
            raise ValidationError(f"The group “{name}” is there twice.")
        if int(minimum) > MAX_MINIMUM:
            raise ValidationError(f"At most {MAX_MINIMUM} of one group.")
        wanted[name] = int(minimum)
    return wanted


def schema_fields(
    schema: type[BaseModel], prefix: str, stored: Mapping[str, Any]
) -> dict[str, forms.Field]:
    """One form field for each of `schema`'s, called `prefix` + its name, filled from `stored`."""
    described = schema.model_json_schema()
    required = described.get("required", [])
    return {
        prefix + name: _field(
            name,
            {**part, "rows": _columns(part, described)},
            required=name in required,
            initial=stored.get(name, part.get("default")),
        )
        for name, part in described["properties"].items()
    }


def _columns(part: Mapping[str, Any], described: Mapping[str, Any]) -> list[str]:
    """For a list of things with values of their own the values' names, else none."""
    item = part.get("items", {})
    if name := item.get("$ref", "").rpartition("/")[2]:
        item = described["$defs"][name]
    return list(item.get("properties", {}))


def _label(name: str, title: str) -> str:
    """The title that the kind gave it; one that the schema made of the name is none."""
    words = name.replace("_", " ")
    return words.capitalize() if title in ("", words.title()) else title


def _field(name: str, part: Mapping[str, Any], *, required: bool, initial: Any) -> forms.Field:
    common: dict[str, Any] = {
        "label": _label(name, part.get("title", "")),
        "help_text": part.get("description", "") or _limits(part),
        "required": required,
        "initial": initial,
    }
    if "enum" in part:
        return forms.ChoiceField(choices=[(one, one) for one in part["enum"]], **common)
    if part.get("type") == "boolean":
        return forms.BooleanField(**{**common, "required": False})
    if part.get("type") == "integer":
        return forms.IntegerField(**common)
    if _is_text(part):
        return forms.CharField(max_length=TEXT_LENGTH, **common)
    if part["rows"]:
        written = " ".join(f"{column}=…" for column in part["rows"])
        return RowsField(**{**common, "help_text": f"{common['help_text']} One a line: {written}"})
    return forms.JSONField(**common)


def _limits(part: Mapping[str, Any]) -> str:
    if "minimum" in part and "maximum" in part:
        return f"{part['minimum']} to {part['maximum']}"
    return ""


def _is_text(part: Mapping[str, Any]) -> bool:
    arms = part.get("anyOf", [part])
    return all(arm.get("type") == "string" or isinstance(arm.get("const"), str) for arm in arms)


def typed(form: forms.BaseForm, schema: type[BaseModel], prefix: str) -> dict[str, Any]:
    """What the form's `schema_fields` hold, as stored. Problems become errors of their fields."""
    names = [name for name in schema.model_fields if prefix + name in form.cleaned_data]
    given = {name: form.cleaned_data[prefix + name] for name in names}
    try:
        # An empty field means the schema's own default.
        found = schema.model_validate({k: v for k, v in given.items() if v not in (None, "")})
    except SchemaError as error:
        # Without pydantic's echo of the input: a secret in the wrong field must not be shown.
        for problem in error.errors(include_input=False, include_url=False):
            _add_problem(form, prefix, problem["loc"], problem["msg"])
        return {}
    return found.model_dump(mode="json")


def _add_problem(
    form: forms.BaseForm, prefix: str, place: tuple[int | str, ...], message: str
) -> None:
    name = f"{prefix}{place[0]}" if place else None
    if name not in form.fields:
        form.add_error(None, f"{place}: {message}" if place else message)
    elif name not in form.errors:
        form.add_error(name, message)
