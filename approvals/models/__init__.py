"""The tables. Each may import those before: targets, policies, requests, grants, reviews, and
operations.

Tokens and answers, of programs that call, Slack, and proposals, of admins, stand by themselves.
"""

from approvals.models.answers import Answer
from approvals.models.delegations import Delegation
from approvals.models.grants import Abandonment, Grant, Step, StepKind
from approvals.models.notices import INBOX, Delivery, Notice, Preferences, WebhookEndpoint
from approvals.models.operations import (
    Alarm,
    AlarmKind,
    Heartbeat,
    Installation,
    Reconciliation,
)
from approvals.models.policies import ExtensionApproval, Policy, PolicyVersion, Stage, StageGroup
from approvals.models.proposals import FourEyes, Proposal
from approvals.models.requests import (
    AccessRequest,
    Candidate,
    Decision,
    Mention,
    Nudge,
    NudgeKind,
    RequestKind,
    RequestStage,
    Vote,
)
from approvals.models.reviews import Review
from approvals.models.slack import SlackAccount, SlackCall, SlackProof, SlackWorkspace
from approvals.models.targets import AccessLevel, Environment, Reach, Risk, Target
from approvals.models.tokens import ApiToken, ServiceAccount, TokenKind, TokenScope

__all__ = [
    "INBOX",
    "Abandonment",
    "AccessLevel",
    "AccessRequest",
    "Alarm",
    "AlarmKind",
    "Answer",
    "ApiToken",
    "Candidate",
    "Decision",
    "Delegation",
    "Delivery",
    "Environment",
    "ExtensionApproval",
    "FourEyes",
    "Grant",
    "Heartbeat",
    "Installation",
    "Mention",
    "Notice",
    "Nudge",
    "NudgeKind",
    "Policy",
    "PolicyVersion",
    "Preferences",
    "Proposal",
    "Reach",
    "Reconciliation",
    "RequestKind",
    "RequestStage",
    "Review",
    "Risk",
    "ServiceAccount",
    "SlackAccount",
    "SlackCall",
    "SlackProof",
    "SlackWorkspace",
    "Stage",
    "StageGroup",
    "Step",
    "StepKind",
    "Target",
    "TokenKind",
    "TokenScope",
    "Vote",
    "WebhookEndpoint",
]
