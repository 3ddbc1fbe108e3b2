"""The pages. A view reads from the visible querysets, calls one verb and shows the outcome.

What may be done is decided in the verbs; a refusal becomes a page in `approvals.middleware`.
"""
