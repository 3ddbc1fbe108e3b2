"""The tables. Each module may import those before it: targets, policies, requests, grants."""

from approvals.models.grants import Grant, Step, StepKind
from approvals.models.policies import Policy, PolicyVersion, Stage, StageGroup
from approvals.models.requests import (
    AccessRequest,
    Candidate,
    Decision,
    RequestKind,
    RequestStage,
    Vote,
)
from approvals.models.targets import AccessLevel, Environment, Reach, Risk, Target

__all__ = [
    "AccessLevel",
    "AccessRequest",
    "Candidate",
    "Decision",
    "Environment",
    "Grant",
    "Policy",
    "PolicyVersion",
    "Reach",
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
