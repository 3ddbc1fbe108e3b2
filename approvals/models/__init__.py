"""The tables. Each may import those before: targets, policies, requests, grants, operations."""

from approvals.models.grants import Abandonment, Grant, Step, StepKind
from approvals.models.operations import (
    Alarm,
    AlarmKind,
    Heartbeat,
    Installation,
    Reconciliation,
)
from approvals.models.policies import Policy, PolicyVersion, Stage, StageGroup
from approvals.models.requests import (
    AccessRequest,
    Candidate,
    Decision,
    Mention,
    RequestKind,
    RequestStage,
    Vote,
)
from approvals.models.targets import AccessLevel, Environment, Reach, Risk, Target

__all__ = [
    "Abandonment",
    "AccessLevel",
    "AccessRequest",
    "Alarm",
    "AlarmKind",
    "Candidate",
    "Decision",
    "Environment",
    "Grant",
    "Heartbeat",
    "Installation",
    "Mention",
    "Policy",
    "PolicyVersion",
    "Reach",
    "Reconciliation",
    "RequestKind",
    "RequestStage",
    "Risk",
    "Stage",
    "StageGroup",
    "Step",
    "StepKind",
    "Target",
    "Vote",
]
