"""Only declared actions exist, and nobody takes another's name."""

import pytest

from audit import actions


def test_a_declared_action_is_known():
    assert actions.require("story.told") == "story.told"
    assert {"story.told", "story.refused"} <= actions.declared()


def test_an_undeclared_action_is_an_error():
    with pytest.raises(actions.UnknownAction, match=r"story\.misspelt"):
        actions.require("story.misspelt")


@pytest.mark.parametrize("names", [("story.told",), ("story.twice", "story.twice")])
def test_a_name_cannot_be_declared_twice(names):
    with pytest.raises(ValueError, match="declared twice"):
        actions.declare(*names)


@pytest.mark.parametrize("name", ["told", "Story.told", "story.", "story told", "story.told\n", ""])
def test_a_name_is_a_noun_and_a_verb(name):
    with pytest.raises(ValueError, match="named like"):
        actions.declare(name)


def test_of_several_names_all_are_declared_or_none():
    with pytest.raises(ValueError, match="declared twice"):
        actions.declare("story.fresh", "story.told")
    assert "story.fresh" not in actions.declared()
