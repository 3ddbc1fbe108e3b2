"""Slack: a channel that people can answer on.

`channel` sends, `messages` says what is in a message, `client` calls Slack. `workspace` and
`accounts` are the verbs of setting it up, `signing` tells calls of Slack's from others. What a
button does is `approvals.views.slack`.
"""
