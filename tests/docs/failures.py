"""What went wrong elsewhere, as others report it or as their code reads, and what happens here.

One line per failure: where and in which public thread, what happened there, what happens here, and
the tests that show it. docs/failures-of-others.md is printed from it:

    python -m tests.docs.failures
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.docs.pages import DOCS

PAGE = DOCS / "failures-of-others.md"
BEGIN = "<!-- failures: begin (printed by python -m tests.docs.failures) -->"
END = "<!-- failures: end -->"
HEAD = "| where | what went wrong there | what happens here | shown by |\n| --- | --- | --- | --- |"
BY_READING = " (by reading)"
A = "tests/approvals"
MISSING = f"{A}/test_failures_of_others.py"


@dataclass(frozen=True)
class Failure:
    where: str
    theirs: str
    ours: str
    tests: tuple[str, ...]

    def __init__(self, where: str, theirs: str, ours: str, *tests: str) -> None:
        for name, value in (("where", where), ("theirs", theirs), ("ours", ours), ("tests", tests)):
            object.__setattr__(self, name, value)

    def line(self) -> str:
        shown = "<br>".join(f"`{test}`" for test in self.tests)
        return f"| {self.where} | {self.theirs} | {self.ours} | {shown} |"


CHAINS = (
    Failure(
        "Teleport #36854; AWS TEAM #38; JIT Groups #55; AWX, quorum only in a fork (ascender #579)",
        "Approvals cannot be asked of two teams, in an order, or of several people.",
        "A chain has ordered stages; each asks any number of groups for a minimum of each.",
        f"{A}/test_chain.py::test_bob_alone_leaves_security_missing",
        f"{A}/api/test_requests.py::test_alice_asks_and_two_approve",
    ),
    Failure(
        "Nautobot" + BY_READING + "; AWX #10610; Rundeck, left to each plugin",
        "Whoever asks may approve their own request.",
        "Refused by the verb, whoever calls it, and by a trigger below it.",
        f"{A}/test_workflow.py::test_nobody_decides_about_themselves_even_as_a_member",
        f"{A}/test_workflow.py::test_the_database_refuses_ones_own_vote_too",
    ),
    Failure(
        "Bytebase #19142",
        "The ban on approving one's own missed a kind of approver, and the API.",
        "Page, API and bulk decisions call one verb, which refuses.",
        f"{A}/api/test_requests.py::test_alice_cannot_approve_her_own",
        f"{A}/test_queue.py::test_nobody_decides_about_their_own_in_bulk",
    ),
    Failure(
        "Archery, Wagtail" + BY_READING,
        "Superusers are exempt: from the ban on their own, or from having to be asked.",
        "A superuser who is not asked is refused like anybody.",
        f"{A}/api/test_requests.py::test_a_superuser_is_refused_like_anybody",
    ),
    Failure(
        "discord/access" + BY_READING,
        "Approving one's own, or without a reason, changes nothing and is answered like a success.",
        "It is a refusal with a reason code, and an Event.",
        f"{A}/api/test_requests.py::test_alice_cannot_approve_her_own",
        f"{A}/test_views.py::test_a_denial_wants_a_reason_and_keeps_the_page",
    ),
    Failure(
        "OpenBao control groups" + BY_READING + "; hoop.dev" + BY_READING,
        "Somebody in several groups counts for each of them: one person is a quorum.",
        "One person fills one place in the whole chain.",
        f"{A}/test_chain.py::test_carol_in_both_groups_cannot_fill_two_slots",
        f"{A}/test_workflow.py::test_one_person_fills_one_place_in_the_whole_chain",
    ),
    Failure(
        "hoop.dev, a vote for every group of its author" + BY_READING,
        "More approvals than were needed are not as many as were needed: it stays pending.",
        "What is more than needed fills nothing and hinders nothing.",
        f"{A}/test_workflow.py::test_one_person_in_two_groups_of_a_stage_counts_once",
        f"{A}/test_chain.py::test_a_surplus_approval_is_allowed_but_fills_nothing",
    ),
    Failure(
        "Nautobot, the count compared with `==`" + BY_READING,
        "Two who approve at once both see one too few, and nobody completes it.",
        "A vote reads what it counts with the request locked.",
        f"{A}/test_races.py::test_two_approvers_of_two_places_both_count",
    ),
    Failure(
        "hoop.dev, rows saved whole" + BY_READING,
        "Of two votes at once the later one overwrites the earlier.",
        "Each vote is a row of its own; of approve and deny at once one decides.",
        f"{A}/test_races.py::test_approve_against_deny",
    ),
    Failure(
        "sso-elevator #47; Archery, no lock" + BY_READING,
        "Two press approve at once, and it is granted, or its end scheduled, twice.",
        "One completes the chain, the other is told that it is done, and one grant comes of it.",
        f"{A}/test_races.py::test_two_approvers_of_the_last_place",
    ),
    Failure(
        "Nautobot, over REST" + BY_READING,
        "The second stage can be approved before the first.",
        "Only the open stage takes votes.",
        f"{A}/api/test_requests.py::test_the_wrong_stage_and_a_second_slot_are_refused",
    ),
    Failure(
        "Nautobot, both are stored" + BY_READING,
        "One person both approves and denies.",
        "The later vote replaces the earlier one; both stay in the record.",
        f"{A}/test_workflow.py::test_a_vote_may_be_replaced_while_its_stage_is_open",
    ),
    Failure(
        "Kviklet" + BY_READING,
        "One reviewer's rejection is final, whatever the others think.",
        "How many denials end it is the policy's; until then a vote may be changed.",
        f"{A}/test_workflow.py::test_a_deny_quorum_of_two_wants_two",
    ),
    Failure(
        "Archery, the next stage found by its group" + BY_READING,
        "A group that is asked twice sends the chain back to its first stage.",
        "A stage is known by its place; the same group is asked in as many as one likes.",
        f"{MISSING}::test_a_group_may_be_asked_in_two_stages",
    ),
    Failure(
        "AWS TEAM #176",
        "A loop over somebody's groups ends at the first that has anything.",
        "Whatever group of theirs is asked, they are.",
        f"{MISSING}::test_every_group_that_somebody_is_in_counts",
    ),
    Failure(
        "Archery #2312",
        "The right to review is one for all: groups decide about each other's.",
        "Only whoever is asked in this stage of this request may vote.",
        f"{A}/test_workflow.py::test_who_is_not_asked_in_this_stage_may_not_vote",
    ),
    Failure(
        "Entitle, as documented, where nobody is the manager",
        "Any administrator may approve instead.",
        "The request says that nobody is left; administrators stand in for no one.",
        f"{MISSING}::test_nobody_stands_in_by_being_an_administrator",
    ),
    Failure(
        "Bytebase, PR #5654, undone in #6819",
        "A step that nobody matches is approved by itself.",
        "Refused when it is asked; if all leave later, it waits, says so, and runs out.",
        f"{A}/test_workflow.py::test_a_chain_nobody_could_fill_is_refused_naming_the_stage",
        f"{A}/test_escalation.py::test_then_it_is_stalled_and_nothing_else_happens_to_it",
    ),
    Failure(
        "sso-elevator, review of PR #175",
        "The command says OK to a request that nobody can approve.",
        "It is refused, and the preview says so before it is sent.",
        f"{A}/test_views.py::test_nobody_who_could_decide_means_refused_with_the_reason",
    ),
    Failure(
        "AWX #16528, asked for",
        "A timeout that counts as success.",
        "There is none: what runs out has expired.",
        f"{A}/test_escalation.py::test_no_timeout_approves",
        f"{A}/test_workflow.py::test_pending_runs_out_even_if_no_sweeper_came",
    ),
    Failure(
        "AWS TEAM #187; elektra #387; wso2 #25308",
        "Approvers are frozen at submission: who left is still asked, and may still act.",
        "Candidates are drawn at submission *and* have to be members still when they vote.",
        f"{A}/test_workflow.py::test_who_left_may_not_vote_and_their_open_vote_stops_counting",
        f"{A}/notify/test_facts.py::test_who_left_the_group_or_is_gone_is_not_asked",
    ),
    Failure(
        "Archery" + BY_READING,
        "A group is deleted, and what it was asked for fails with an exception for ever.",
        "A group that any chain asks cannot be deleted.",
        f"{MISSING}::test_a_group_that_is_asked_cannot_be_deleted",
    ),
    Failure(
        "AWS TEAM #38; powercat #103",
        "Nobody answers, and nothing happens.",
        "Reminders, then one more group is asked; each once.",
        f"{A}/test_escalation.py::test_it_asks_one_more_group_and_takes_nobody_out",
    ),
)

POLICIES = (
    Failure(
        "Bytebase, Nautobot" + BY_READING,
        "What no rule matches is approved, or runs.",
        "It is refused, saying for each policy why it does not match.",
        f"{A}/test_workflow.py::test_no_policy_at_all_approves_nothing",
        f"{A}/test_workflow.py::test_no_match_is_a_refusal_that_says_why_for_each",
    ),
    Failure(
        "hoop.dev, sorted by a random id" + BY_READING,
        "Of several rules that match an arbitrary one is taken.",
        "The first by rank, and no two have the same.",
        f"{A}/test_workflow.py::test_the_first_match_by_rank_wins",
    ),
    Failure(
        "hoop.dev #1446",
        "A rule of one type leaves another way in ungated.",
        "There is one way in, and a grant without its chain is refused by the database itself.",
        f"{A}/test_workflow.py::test_the_database_refuses_a_grant_without_a_completed_chain",
    ),
    Failure(
        "Kviklet" + BY_READING + "; Wagtail, the next task" + BY_READING,
        "The rules are read live: lowering a count approves what waits, without anyone acting.",
        "A request keeps the version it was asked under.",
        f"{A}/test_workflow.py::test_a_request_keeps_the_version_it_was_asked_under",
    ),
    Failure(
        "Nautobot, live counts" + BY_READING,
        "A stage that is added to a definition strands all that is under way.",
        "What waits is kept as it is, unless whoever publishes chooses otherwise, for each to see.",
        f"{A}/test_republishing.py::test_is_what_happens_unless_somebody_chooses",
    ),
    Failure(
        "Wagtail, a task disabled" + BY_READING + "; devtron #6999; squest #470",
        "Switching a step off moves what waits for it on, or approves it.",
        "What waits under a policy that is switched off is cancelled.",
        f"{A}/test_workflow.py::test_what_a_request_stood_on_is_gone",
    ),
    Failure(
        "discord/access PR #469",
        "Requests survive what they are for, and can be approved later under other rules.",
        "They are cancelled, and nobody can vote on them from that moment.",
        f"{A}/test_workflow.py::test_what_a_request_stood_on_is_gone",
        f"{A}/test_administration.py::test_what_is_in_use_stays",
    ),
    Failure(
        "AWS TEAM, a running maximum" + BY_READING,
        "A long window that is meant for development can be had on production.",
        "The limits are those of this level and of the one policy that governs it.",
        f"{MISSING}::test_a_long_window_elsewhere_lengthens_nothing_here",
    ),
    Failure(
        "JIT Groups, the nearest constraint wins" + BY_READING,
        "What is below can loosen what is above.",
        "The smallest of all limits holds, in an emergency too.",
        f"{A}/test_workflow.py::test_the_limit_says_whose_it_is",
        f"{A}/test_emergency.py::test_it_lasts_no_longer_than_anything_allows",
    ),
    Failure(
        "Kviklet" + BY_READING,
        "Zero means without limit.",
        "No length may be zero.",
        f"{MISSING}::test_no_length_of_zero_means_without_end",
    ),
    Failure(
        "AWS TEAM #81, #39, #415, #471",
        "Approvers go with an account, not with what is asked for there.",
        "A policy is chosen by environment, labels, risk, level and the requester's groups.",
        f"{A}/test_workflow.py::test_each_condition_can_fail",
    ),
    Failure(
        "Infisical PR #6988",
        "An empty list of who may go around the approval, or ask, lets outsiders in.",
        "An empty list is nobody.",
        f"{A}/test_emergency.py::test_a_policy_that_names_nobody_lets_nobody",
        f"{A}/test_workflow.py::test_mallory_may_not_ask",
    ),
    Failure(
        "discord/access PR #655",
        "One check lets something through that another refuses, and it is answered with 200.",
        "Buttons, lists and verbs ask the same rule.",
        f"{A}/test_workflow.py::test_permitted_actions_and_the_verbs_agree",
        f"{A}/test_workflow.py::test_the_queue_in_sql_agrees_with_the_rule",
    ),
)

WHAT = (
    Failure(
        "Kviklet, another pod under the same command" + BY_READING,
        "Some fields can be changed without losing the approvals.",
        "Every field is in the hash that a vote is for; whatever changes it voids them.",
        f"{MISSING}::test_no_approval_moves_to_something_else",
    ),
    Failure(
        "hoop.dev, at its transport" + BY_READING,
        "What runs is not compared with what was approved.",
        "What opens is the frozen scope, compared again at the opening; the row cannot be altered.",
        f"{A}/test_grants.py::test_what_runs_is_the_stored_text",
        f"{A}/test_grants.py::test_a_grant_that_somebody_altered_in_the_database_is_not_opened",
    ),
    Failure(
        "hoop.dev, one of its ways to run" + BY_READING,
        "Whose it is, and from when on, is looked at on one path and not on another.",
        "Only its holder is shown how to get in, once, and not before it is time.",
        f"{A}/api/test_grants.py::test_nobody_else_is_shown_it_nor_where_to_connect",
        f"{A}/test_grants.py::test_a_wanted_start_is_waited_for",
    ),
    Failure(
        "hoop.dev, a map in one process" + BY_READING,
        "What may happen once happens twice, with two processes or two calls at once.",
        "Of all who try at once one opens it, and one is shown the credential.",
        f"{A}/test_races.py::test_two_workers_open_once",
        f"{A}/test_races.py::test_a_credential_is_shown_once_however_many_ask_at_once",
    ),
    Failure(
        "Nautobot #8705; Kviklet #339, 8,000 minutes overlooked",
        "Who decides does not see what about, or for how long.",
        "All of it is on the page, the length in words.",
        f"{MISSING}::test_whoever_decides_reads_all_that_they_decide_on",
    ),
    Failure(
        "Teleport #5622; hoop.dev, which starts its time anew" + BY_READING,
        "What was decided can be decided again.",
        "The first decision is the last; a vote after it is a conflict.",
        f"{A}/api/test_requests.py::test_a_second_vote_replaces_the_first_and_one_after_the_end_is_late",
        f"{A}/test_grants.py::test_the_end_only_moves_earlier",
    ),
    Failure(
        "AWX #13465; Teleport #31538",
        "What is over is still shown as pending, with its buttons.",
        "State is worked out when it is looked at, before any sweeper came by.",
        f"{A}/test_views.py::test_a_request_past_its_time_offers_no_vote_before_any_sweeper_came",
        f"{A}/test_queue.py::test_a_decided_request_beside_the_list_says_what_it_is_now",
    ),
    Failure(
        "hoop.dev #884",
        "The page does not learn that it was approved.",
        "An open page follows within seconds.",
        f"{A}/test_views.py::test_a_poll_answers_nothing_until_something_happened",
    ),
    Failure(
        "JIT Groups, a proposal that is its mail" + BY_READING,
        "What waits is in nobody's list but in a mail, and cannot be taken back.",
        "There is a queue, it can be taken back, and a link in a mail decides nothing.",
        f"{A}/test_queue.py::test_bob_finds_the_most_urgent_first_whatever_it_is_that_ends",
        f"{A}/test_workflow.py::test_alice_takes_it_back",
        f"{A}/notify/test_inbox.py::test_it_decides_nothing",
    ),
    Failure(
        "AWS TEAM #47, #128; hoop.dev #1117",
        "Requests never reach those who could decide.",
        "The queue is a query over the requests themselves.",
        f"{A}/test_workflow.py::test_the_queue_in_sql_agrees_with_the_rule",
    ),
)

TIME = (
    Failure(
        "Teleport #50011, #16202, #14040, #32226",
        "Time runs from the asking: it is used up by waiting for an approval.",
        "It runs from when the access can be used.",
        f"{A}/test_grants.py::test_time_is_not_burnt_by_waiting_or_opening",
    ),
    Failure(
        "Kviklet #495; discord/access PR #597; hoop.dev #1136",
        "What waits, or was approved and not used, never runs out.",
        "Both do, each by its own clock; so does a request for longer access.",
        f"{A}/test_workflow.py::test_pending_runs_out_even_if_no_sweeper_came",
        f"{A}/test_grants.py::test_what_could_not_open_in_time_ends_unused",
        f"{A}/test_extensions.py::test_too_late_is_expired_and_opens_nothing_again",
    ),
    Failure(
        "hoop.dev, over its command line" + BY_READING + "; Infisical PR #6673",
        "Who connects in the last minute has the whole time again: a grant is a yes or no.",
        "There is one end, kept on the target too; every session ends then.",
        f"{MISSING}::test_who_comes_in_at_the_last_minute_leaves_with_the_others",
        f"{A}/provisioning/test_roles.py::test_past_its_expiry_the_server_lets_nobody_in",
    ),
    Failure(
        "Archery PR #2818",
        "Until when it is good is believed to the browser.",
        "Only a length is asked for; its end is counted by the database's clock.",
        f"{A}/test_grants.py::test_the_end_is_what_the_target_was_given",
    ),
    Failure(
        "Kviklet, times without a zone" + BY_READING,
        "An end is read in another zone than it was written in.",
        "A time without a zone is refused.",
        f"{A}/test_workflow.py::test_a_start_without_a_zone_is_refused",
    ),
    Failure(
        "Teleport #16723; JIT Groups #141; Archery #662",
        "There is no going on before the end: a gap, and another account.",
        "The end moves in place: the same account, password and sessions.",
        f"{A}/test_extensions.py::test_alice_goes_on_with_the_same_password_and_session",
    ),
    Failure(
        "granted #722",
        "An extension fires by itself, right after the access was opened.",
        "Somebody asks, near its end; without a decision the end does not move.",
        f"{A}/test_extensions.py::test_not_before_its_time",
        f"{A}/test_extensions.py::test_an_end_does_not_move_by_itself",
    ),
    Failure(
        "Celery #2599, #4766, #6236, #2481; kombu #337",
        "Messages that are put off are delivered many times, or lost at a restart.",
        "None is put off, and any may come again; what is due is found without any broker.",
        "tests/test_lint.py::test_no_message_is_put_off",
        f"{A}/test_replaying.py::test_replaying_any_task_changes_nothing_and_tells_nobody_twice",
        f"{A}/test_sweeper.py::test_it_opens_and_ends_without_any_bell",
    ),
)

ENDING = (
    Failure(
        "Vault #10681; vault-plugin-database-oracle #45",
        "The account is dropped, and its open connection goes on.",
        "Every session is ended, the one that runs a statement included.",
        f"{A}/provisioning/test_cut.py::test_an_idle_session_is_ended",
        f"{A}/provisioning/test_cut.py::test_a_running_statement_is_ended_and_does_not_commit",
    ),
    Failure(
        "Kviklet, a timer in memory" + BY_READING + "; hoop.dev" + BY_READING + "; hoop.dev #965",
        "Taking access away leaves what is connected connected.",
        "It ends the sessions, whichever process is told and whichever has been restarted.",
        f"{A}/provisioning/test_cut.py::test_an_idle_session_is_ended",
        "tests/faults/test_one_grant.py::test_a_sweeper_alone_ends_access_on_time",
    ),
    Failure(
        "Teleport #10018, #15356, #16626, #28549, #15580; sso-elevator #35",
        "Giving access back does not end it; somebody has to lock the user by hand.",
        "One button, and it is gone from the target.",
        f"{A}/test_grants.py::test_released_by_its_holder",
    ),
    Failure(
        "Teleport #50957",
        "An approval whose access was given back can be used again.",
        "It is spent.",
        f"{A}/test_grants.py::test_an_approved_request_is_spent",
    ),
    Failure(
        "Teleport #43355, #20191",
        "It is still shown as approved.",
        "It is shown as closing, and then as what it ended by.",
        f"{MISSING}::test_what_was_given_back_is_not_shown_as_approved_access",
    ),
    Failure(
        "Teleport #20318",
        "Who is locked cannot even give it back.",
        "A target or level that is switched off keeps nobody from that.",
        f"{MISSING}::test_what_is_switched_off_is_given_back_all_the_same",
    ),
    Failure(
        "Teleport #28414; AWS TEAM #398; Archery #1470",
        "Who approved it cannot take it away, or everybody can.",
        "Its approvers and the target's owners can, and nobody else.",
        f"{A}/test_grants.py::test_revoked_by_owners_and_approvers",
        f"{A}/test_grants.py::test_others_may_not_revoke",
    ),
    Failure(
        "AWS TEAM #255, #398",
        "What fails to end is marked as an error and left; the page says revoked meanwhile.",
        "It is tried until it works, and is *ended* only after the target was looked at.",
        f"{A}/test_grants.py::test_a_failing_cut_stays_revoking_and_is_tried_within_five_seconds",
        f"{A}/test_grants.py::test_it_does_not_say_ended_before_it_has_looked",
    ),
    Failure(
        "Vault #6058",
        "An account that is gone already cannot be revoked, over and over.",
        "Gone is what was wanted, once the target was looked at.",
        f"{A}/test_grants.py::test_already_gone_is_success_with_the_same_look",
    ),
    Failure(
        "Vault #4846",
        "The role was deleted, and what was opened by it cannot be ended.",
        "What ends an access is kept with it, and its level may be gone.",
        f"{MISSING}::test_access_ends_though_its_level_is_gone",
    ),
    Failure(
        "Vault #1386, #6100",
        "The rights that ending takes were forgotten, and leases stay for ever, past their time.",
        "They are checked before anything is opened; what fails later is an alarm.",
        f"{A}/provisioning/test_prepare.py::test_whatever_is_missing_is_named_with_what_mends_it",
        f"{A}/test_alarms.py::test_ending_that_fails_becomes_an_alarm_with_its_last_error",
    ),
    Failure(
        "Vault #5968",
        "After an outage thousands are due at once, and nothing else gets through.",
        "Each is ended once, a failing target has one attempt at a time and delays no other.",
        f"{A}/test_sweeper.py::test_many_due_at_once_are_each_ended_once",
        f"{A}/test_sweeper.py::"
        "test_much_due_at_a_failing_target_does_not_hide_what_is_due_elsewhere",
    ),
    Failure(
        "AWS TEAM #279",
        "Two accesses to the same overlap, and the end of one is the end of both.",
        "Each has an account of its own.",
        f"{A}/test_extensions.py::test_two_accesses_of_one_person_do_not_end_each_other",
    ),
    Failure(
        "discord/access #119",
        "What had ended is still on the target, and is taken in again as if it were meant.",
        "The ledger is what is meant: it is removed, and told.",
        f"{A}/test_reconciler.py::test_the_account_of_an_ended_grant_does_not_come_back",
    ),
    Failure(
        "sso-elevator #49",
        "A nightly comparison with an empty store would have revoked everybody.",
        "More than a few at once wait for somebody's consent.",
        f"{A}/test_reconciler.py::test_too_much_at_once_waits_and_is_told_once",
        f"{A}/test_judgement.py::test_more_than_three_or_a_fifth_wait",
    ),
    Failure(
        "Google Cloud PAM, `externally_modified`",
        "What was changed from outside once is marked so for ever.",
        "A finding is over when it is.",
        f"{A}/test_alarms.py::test_a_target_that_differs_is_an_alarm_of_its_own_until_it_does_not",
    ),
)

EMERGENCIES = (
    Failure(
        "Infisical PR #3878",
        "The way around the approval broke when stages came.",
        "It opens at once, however many stages are skipped.",
        f"{A}/test_emergency.py::test_it_opens_at_once_and_is_never_called_approved",
    ),
    Failure(
        "Infisical, review of PR #7039",
        "That the approval was gone around is shown, without by whom and why.",
        "Who, why, and who was not asked, in the timeline and to those people.",
        f"{A}/test_emergency.py::test_from_opening_to_the_review",
        f"{A}/test_emergency.py::test_it_is_known_who_was_passed_over",
    ),
    Failure(
        "hoop.dev, a field that is written and not read" + BY_READING,
        "That it was forced is forgotten with the next change.",
        "It is a state of its own and stays one.",
        f"{MISSING}::test_an_emergency_is_one_for_ever",
    ),
    Failure(
        "Teleport PR #31950, #63507",
        "The date of a review passes, and nothing happens.",
        "Whoever owes it is reminded, others as well when it is overdue; and until it was given, no"
        " second emergency.",
        f"{A}/test_emergency.py::test_at_half_time_when_overdue_and_daily_then",
        f"{A}/test_emergency.py::test_waits_for_the_review_of_the_last",
    ),
)

TELLING = (
    Failure(
        "Teleport #32620, #58208; teleport-plugins #1026, #655, #402",
        "Whoever asked does not learn what became of it.",
        "They are told, with the reason.",
        f"{A}/notify/test_facts.py::test_approved_is_told_to_whoever_asked",
        f"{A}/notify/test_facts.py::test_denied_comes_with_the_reason",
    ),
    Failure(
        "AWS TEAM #263",
        "The others who were asked do not learn that it is done.",
        "They are told that they need not act any more.",
        f"{A}/notify/test_facts.py::"
        "test_the_next_stage_is_asked_when_it_opens_and_the_others_need_not_act",
    ),
    Failure(
        "OpenBao control groups, as documented",
        "Nobody is told that they are asked.",
        "Whoever can decide is.",
        f"{A}/notify/test_facts.py::test_whoever_can_decide_is_asked_and_nobody_else",
    ),
    Failure(
        "Archery #1487; sso-elevator #129",
        "Everybody with a title is told, wanted or not.",
        "Only who can decide now; and of those, who does not wish to be asked is spared.",
        f"{A}/notify/test_facts.py::test_whoever_does_not_wish_to_be_asked_is_spared",
    ),
    Failure(
        "ConductorOne, as documented",
        "Of groups above 128 people nobody is told.",
        "All are.",
        f"{MISSING}::test_a_crowd_is_asked_to_the_last",
    ),
    Failure(
        "sso-elevator #138",
        "One approver has left the chat, and nobody is told.",
        "One bad address is that person's alone.",
        f"{A}/notify/test_sending.py::test_one_bad_address_blocks_nobody",
    ),
    Failure(
        "Microsoft Entra, docs PR #106993",
        "Reviewers who were removed go on getting mails.",
        "Who is told is worked out when they are told, and again for what comes late.",
        f"{A}/notify/test_sending.py::test_who_is_gone_meanwhile_gets_nothing",
    ),
    Failure(
        "discord/access #33, PR #190",
        "The same end is announced twice.",
        "Once for each end, however many sweepers look; anew only if it moves.",
        f"{A}/notify/test_outbox.py::test_of_four_sweepers_one_notes_an_end",
        f"{A}/notify/test_facts.py::test_an_end_that_is_moved_is_told_anew",
    ),
    Failure(
        "hoop.dev PR #1811",
        "What somebody typed is markup in the message that asks for an approval.",
        "It is one harmless line.",
        f"{A}/notify/test_facts.py::test_other_peoples_text_is_one_harmless_line",
        f"{A}/notify/test_sending.py::test_hostile_text_stays_text",
    ),
)

RECORDS = (
    Failure(
        "Teleport #16301, #48279, #68308",
        "Requests and who decided them vanish when they run out.",
        "They are there a year later, for whoever asked and for whoever decided.",
        f"{MISSING}::test_what_happened_is_there_a_year_later",
    ),
    Failure(
        "hoop.dev, more routes without than with" + BY_READING,
        "Many changes write nothing to the audit log.",
        "Every address that changes something writes an Event, marks of one's own apart.",
        "tests/debugflow/test_routes.py::test_whatever_changes_something_writes_an_event",
    ),
    Failure(
        "hoop.dev, written after the change" + BY_READING,
        "Where the audit row cannot be written, the change is made all the same.",
        "Both are in one transaction.",
        f"{A}/test_races.py::test_a_change_and_its_event_stand_or_fall_together",
    ),
    Failure(
        "hoop.dev" + BY_READING,
        "Nothing keeps the application from changing what its log says.",
        "The database refuses it, to the application's login and to the table's owner.",
        "tests/audit/test_append_only.py::test_the_application_cannot_change_or_disarm_the_log",
        "tests/audit/test_append_only.py::test_the_owner_is_refused_by_trigger",
    ),
    Failure(
        "hoop.dev, a state that only its pages know" + BY_READING,
        "The documentation promises a state and a setting that the code has not.",
        "States, actions, settings and commands in the documentation are compared with the code.",
        "tests/docs/test_lifecycle.py::test_the_page_is_what_the_tables_print",
        "tests/docs/test_configuration.py::test_every_variable_is_listed_and_no_other",
    ),
)

SECTIONS = {
    "Who decides": CHAINS,
    "By which rules": POLICIES,
    "What is decided on": WHAT,
    "Time": TIME,
    "Ending access": ENDING,
    "Emergencies": EMERGENCIES,
    "Telling people": TELLING,
    "Records": RECORDS,
}
FAILURES = tuple(failure for section in SECTIONS.values() for failure in section)


def printed() -> str:
    """All sections, each a table."""
    parts = (
        "\n".join([f"## {title}\n", HEAD, *(failure.line() for failure in failures)])
        for title, failures in SECTIONS.items()
    )
    return "\n\n".join(parts)


def written_into(page: str) -> str:
    """`page` with the tables between its two marks. Raises ValueError unless it has both."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"The page needs the lines {BEGIN} and {END}, in this order.")
    return f"{head}{BEGIN}\n\n{printed()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(written_into(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
