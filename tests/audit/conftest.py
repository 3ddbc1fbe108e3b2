"""The actions that the stories in this folder tell of. The cast is in each story."""

from audit import actions

actions.declare("story.told", "story.refused")
