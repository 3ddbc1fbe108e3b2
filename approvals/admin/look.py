"""Form fields in the admin's look, for those that are not made from a model's columns."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.forms.widgets import Input
from unfold import widgets

CLASSES: Final = (
    (forms.CheckboxInput, widgets.SWITCH_CLASSES),
    (forms.Textarea, widgets.TEXTAREA_CLASSES),
    (forms.Select, widgets.SELECT_CLASSES),
    (Input, widgets.INPUT_CLASSES),
)
"""By the widget's kind, the first that fits."""


def dress(form: forms.BaseForm) -> None:
    """Give every widget the classes that unfold's own have, unless it has some already."""
    for field in form.fields.values():
        if isinstance(field.widget, forms.HiddenInput) or "class" in field.widget.attrs:
            continue
        for kind, classes in CLASSES:
            if isinstance(field.widget, kind):
                field.widget.attrs["class"] = " ".join(classes)
                break


class DressedForm(forms.Form):
    """A form in the admin's look, whatever its fields are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        dress(self)


class Choices(widgets.UnfoldAdminCheckboxSelectMultipleWidget):  # type: ignore[misc]
    """Boxes, for a few choices."""


class Picked(widgets.UnfoldAdminRadioSelectWidget):  # type: ignore[misc]
    """One of a few, all in sight."""


class Several(widgets.UnfoldAdminSelect2MultipleWidget):  # type: ignore[misc]
    """For many choices: found by typing. Without scripts a plain list."""


class One(widgets.UnfoldAdminSelect2Widget):  # type: ignore[misc]
    """For one of many choices: found by typing. Without scripts a plain list."""
