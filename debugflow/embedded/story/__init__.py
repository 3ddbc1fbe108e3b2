"""The demonstration: one story of asking, deciding, opening and taking away, with real processes.

Everything in it goes through the public API and real connections to the target; nothing is faked,
and a step that does not go as it must ends the story.
"""
