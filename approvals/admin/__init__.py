"""The pages of those who set things up. Whatever changes something here goes through a verb.

`targets` and `policies` are changed by `administration`'s verbs; `records` are only looked at.
"""

from approvals.admin import policies, records, targets

__all__ = ["policies", "records", "targets"]
