"""The pages of those who set things up. Whatever changes something here goes through a verb.

`targets` and `policies` are changed by `administration`'s verbs, `webhooks` by those of endpoints,
`slack` by its own; what takes two people is agreed to in `proposals`; `records` and `notices` are
only looked at.
"""

from approvals.admin import notices, policies, proposals, records, slack, targets, webhooks

__all__ = ["notices", "policies", "proposals", "records", "slack", "targets", "webhooks"]
