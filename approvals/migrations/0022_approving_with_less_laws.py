"""Approving with less, held by the database itself, by trigger.

A vote takes away from what is asked and never adds to it: a shorter time, or a level of lower rank
of the same target. What a grant opens, and how far an extension goes, is what was asked for with
the least of the approvals that count, and nothing else.
"""

from django.db import migrations

VOTES = r"""
CREATE FUNCTION approvals_refuse_more() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
DECLARE
    asked approvals_accessrequest;
    free text[] := ARRAY['duration', 'level', 'reach', 'guardrails'];
BEGIN
    IF NEW.reduced_scope IS NULL THEN
        RETURN NEW;
    END IF;
    SELECT r.* INTO asked FROM approvals_accessrequest r
        JOIN approvals_requeststage s ON s.request_id = r.id WHERE s.id = NEW.stage_id;
    IF ((NEW.reduced_duration IS NULL OR NEW.reduced_duration < asked.duration)
        AND (NEW.reduced_level_id IS NULL OR asked.extends_id IS NULL AND EXISTS (
            SELECT FROM approvals_accesslevel lower
            JOIN approvals_accesslevel wanted ON wanted.id = asked.level_id
            WHERE lower.id = NEW.reduced_level_id AND lower.target_id = wanted.target_id
                AND lower.rank < wanted.rank))
        AND NEW.reduced_scope -> 'duration'
            = to_jsonb(coalesce(NEW.reduced_duration, asked.duration))
        AND NEW.reduced_scope -> 'level' -> 'id'
            = to_jsonb(coalesce(NEW.reduced_level_id, asked.level_id))
        AND (NEW.reduced_level_id IS NOT NULL OR NEW.reduced_scope - 'duration' - 'policy_version'
            = asked.scope - 'duration' - 'policy_version')
        -- A vote that is carried under another version of the policy keeps the scope it was for.
        AND NEW.reduced_scope - free - 'policy_version' = asked.scope - free - 'policy_version'
    ) IS NOT TRUE THEN
        RAISE EXCEPTION 'an approval with less takes away and never adds'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER vote_never_for_more
    BEFORE INSERT OR UPDATE OF stage_id, reduced_duration, reduced_level_id, reduced_scope
    ON approvals_vote FOR EACH ROW EXECUTE FUNCTION approvals_refuse_more();
ALTER TABLE approvals_vote ENABLE ALWAYS TRIGGER vote_never_for_more;
"""

UNDO_VOTES = r"""
DROP TRIGGER vote_never_for_more ON approvals_vote;
DROP FUNCTION approvals_refuse_more();
"""

LEAST = r"""
CREATE FUNCTION approvals_shortest(asked approvals_accessrequest) RETURNS integer
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT least(asked.duration, min(v.reduced_duration)) FROM approvals_vote v
    JOIN approvals_requeststage s ON s.id = v.stage_id
    WHERE s.request_id = asked.id AND s.round = asked.round AND v.decision = 'approve'
        AND v.replaced_at IS NULL AND v.voided_at IS NULL
$$;

CREATE FUNCTION approvals_least(asked approvals_accessrequest) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT asked.scope || coalesce((
        SELECT jsonb_build_object(
            'level', v.reduced_scope -> 'level',
            'reach', v.reduced_scope -> 'reach',
            'guardrails', v.reduced_scope -> 'guardrails')
        FROM approvals_vote v
        JOIN approvals_requeststage s ON s.id = v.stage_id
        JOIN approvals_accesslevel l ON l.id = v.reduced_level_id
        WHERE s.request_id = asked.id AND s.round = asked.round AND v.decision = 'approve'
            AND v.replaced_at IS NULL AND v.voided_at IS NULL
        ORDER BY l.rank, v.id LIMIT 1
    ), '{}') || jsonb_build_object('duration', approvals_shortest(asked))
$$;
"""

UNDO_LEAST = r"""
DROP FUNCTION approvals_least(approvals_accessrequest);
DROP FUNCTION approvals_shortest(approvals_accessrequest);
"""

GRANTS = r"""
CREATE OR REPLACE FUNCTION approvals_refuse_unapproved() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM approvals_accessrequest r WHERE r.id = NEW.request_id
          AND r.state IN ('approved', 'bypassed')
          AND NEW.scope = approvals_least(r) AND NEW.duration = approvals_shortest(r)
          AND NEW.scope -> 'level' -> 'id' = to_jsonb(NEW.level_id)
          AND (r.scope_hash = NEW.scope_hash) = (r.scope = NEW.scope)
          AND r.beneficiary_id = NEW.beneficiary_id
          AND r.target_id = NEW.target_id
          AND (r.state = 'bypassed' OR NOT EXISTS (
              SELECT FROM approvals_requeststage s
              WHERE s.request_id = r.id AND s.round = r.round AND s.state <> 'passed'))
          AND EXISTS (SELECT FROM approvals_requeststage s
              WHERE s.request_id = r.id AND s.round = r.round)
    ) THEN
        RAISE EXCEPTION 'no access without a completed chain' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
"""

UNDO_GRANTS = r"""
CREATE OR REPLACE FUNCTION approvals_refuse_unapproved() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM approvals_accessrequest r WHERE r.id = NEW.request_id
          AND r.state IN ('approved', 'bypassed')
          AND r.scope_hash = NEW.scope_hash AND r.scope = NEW.scope AND r.duration = NEW.duration
          AND r.beneficiary_id = NEW.beneficiary_id
          AND r.target_id = NEW.target_id AND r.level_id = NEW.level_id
          AND (r.state = 'bypassed' OR NOT EXISTS (
              SELECT FROM approvals_requeststage s
              WHERE s.request_id = r.id AND s.round = r.round AND s.state <> 'passed'))
          AND EXISTS (SELECT FROM approvals_requeststage s
              WHERE s.request_id = r.id AND s.round = r.round)
    ) THEN
        RAISE EXCEPTION 'no access without a completed chain' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
"""

EXTENSIONS = r"""
CREATE OR REPLACE FUNCTION approvals_refuse_extension() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
DECLARE
    version approvals_policyversion;
    agreed bigint;
    this_one bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.extended_until IS NOT NULL OR NEW.extended_count <> 0 OR NEW.bridged_at IS NOT NULL
        THEN
            RAISE EXCEPTION 'a grant begins without extensions' USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF (NEW.extended_until, NEW.extended_count, NEW.bridged_at)
        IS NOT DISTINCT FROM (OLD.extended_until, OLD.extended_count, OLD.bridged_at)
    THEN
        RETURN NEW;
    END IF;
    SELECT v.* INTO version FROM approvals_policyversion v
        JOIN approvals_accessrequest r ON r.policy_version_id = v.id WHERE r.id = OLD.request_id;
    IF (OLD.state = 'active' AND NEW.state = 'active' AND OLD.expires_at > dbnow()
        AND NEW.expires_at = OLD.expires_at) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'only what goes on can be extended' USING ERRCODE = 'check_violation';
    END IF;
    IF (NEW.extended_until > OLD.expires_at
        AND NEW.extended_until >= coalesce(OLD.extended_until, OLD.expires_at)
        AND NEW.extended_until <= OLD.activated_at + make_interval(secs => version.max_total)
    ) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'an extension ends later than before, and within max_total'
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.extended_count = OLD.extended_count THEN
        IF (OLD.bridged_at IS NULL AND NEW.bridged_at IS NOT NULL
            AND NEW.extended_until <= OLD.expires_at + make_interval(secs => version.bridge)
            AND EXISTS (SELECT FROM approvals_accessrequest e WHERE e.extends_id = OLD.id
                AND e.state IN ('pending', 'changes_requested'))) IS NOT TRUE
        THEN
            RAISE EXCEPTION 'a grant is bridged once, while a decision is out'
                USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;
    SELECT count(*),
           count(*) FILTER (WHERE e.starts_at + make_interval(secs => approvals_shortest(e))
                            = NEW.extended_until)
        INTO agreed, this_one
        FROM approvals_accessrequest e
        WHERE e.extends_id = OLD.id AND e.state = 'approved'
          AND e.beneficiary_id = OLD.beneficiary_id AND e.target_id = OLD.target_id
          AND e.level_id = OLD.level_id AND e.policy_version_id = version.id
          AND NOT EXISTS (SELECT FROM approvals_requeststage s
              WHERE s.request_id = e.id AND s.round = e.round
                AND NOT (s.state = 'passed' OR s.state = 'skipped' AND (
                    version.extension_approval = 'none'
                    OR version.extension_approval = 'last' AND EXISTS (
                        SELECT FROM approvals_requeststage l WHERE l.request_id = e.id
                            AND l.round = e.round AND l."order" > s."order"))))
          AND (version.extension_approval = 'none' OR EXISTS (
              SELECT FROM approvals_requeststage s
              WHERE s.request_id = e.id AND s.round = e.round AND s.state = 'passed'));
    IF (NEW.extended_count = OLD.extended_count + 1
        AND NEW.bridged_at IS NOT DISTINCT FROM OLD.bridged_at
        AND NEW.extended_count <= version.extensions_most
        AND NEW.extended_count <= agreed AND this_one > 0) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'no longer access without a completed chain'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
"""

UNDO_EXTENSIONS = r"""
CREATE OR REPLACE FUNCTION approvals_refuse_extension() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
DECLARE
    version approvals_policyversion;
    agreed bigint;
    this_one bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.extended_until IS NOT NULL OR NEW.extended_count <> 0 OR NEW.bridged_at IS NOT NULL
        THEN
            RAISE EXCEPTION 'a grant begins without extensions' USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF (NEW.extended_until, NEW.extended_count, NEW.bridged_at)
        IS NOT DISTINCT FROM (OLD.extended_until, OLD.extended_count, OLD.bridged_at)
    THEN
        RETURN NEW;
    END IF;
    SELECT v.* INTO version FROM approvals_policyversion v
        JOIN approvals_accessrequest r ON r.policy_version_id = v.id WHERE r.id = OLD.request_id;
    IF (OLD.state = 'active' AND NEW.state = 'active' AND OLD.expires_at > dbnow()
        AND NEW.expires_at = OLD.expires_at) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'only what goes on can be extended' USING ERRCODE = 'check_violation';
    END IF;
    IF (NEW.extended_until > OLD.expires_at
        AND NEW.extended_until >= coalesce(OLD.extended_until, OLD.expires_at)
        AND NEW.extended_until <= OLD.activated_at + make_interval(secs => version.max_total)
    ) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'an extension ends later than before, and within max_total'
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.extended_count = OLD.extended_count THEN
        IF (OLD.bridged_at IS NULL AND NEW.bridged_at IS NOT NULL
            AND NEW.extended_until <= OLD.expires_at + make_interval(secs => version.bridge)
            AND EXISTS (SELECT FROM approvals_accessrequest e WHERE e.extends_id = OLD.id
                AND e.state IN ('pending', 'changes_requested'))) IS NOT TRUE
        THEN
            RAISE EXCEPTION 'a grant is bridged once, while a decision is out'
                USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;
    SELECT count(*),
           count(*) FILTER (WHERE e.starts_at + make_interval(secs => e.duration)
                            = NEW.extended_until)
        INTO agreed, this_one
        FROM approvals_accessrequest e
        WHERE e.extends_id = OLD.id AND e.state = 'approved'
          AND e.beneficiary_id = OLD.beneficiary_id AND e.target_id = OLD.target_id
          AND e.level_id = OLD.level_id AND e.policy_version_id = version.id
          AND NOT EXISTS (SELECT FROM approvals_requeststage s
              WHERE s.request_id = e.id AND s.round = e.round
                AND NOT (s.state = 'passed' OR s.state = 'skipped' AND (
                    version.extension_approval = 'none'
                    OR version.extension_approval = 'last' AND EXISTS (
                        SELECT FROM approvals_requeststage l WHERE l.request_id = e.id
                            AND l.round = e.round AND l."order" > s."order"))))
          AND (version.extension_approval = 'none' OR EXISTS (
              SELECT FROM approvals_requeststage s
              WHERE s.request_id = e.id AND s.round = e.round AND s.state = 'passed'));
    IF (NEW.extended_count = OLD.extended_count + 1
        AND NEW.bridged_at IS NOT DISTINCT FROM OLD.bridged_at
        AND NEW.extended_count <= version.extensions_most
        AND NEW.extended_count <= agreed AND this_one > 0) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'no longer access without a completed chain'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
"""


# Before it knew of less, the code took each approval for one of all that was asked.
KEEP = r"""
DO $$ BEGIN
    IF EXISTS (
        SELECT FROM approvals_vote v
        JOIN approvals_requeststage s ON s.id = v.stage_id
        JOIN approvals_accessrequest r ON r.id = s.request_id AND r.round = s.round
        WHERE v.reduced_scope IS NOT NULL AND v.replaced_at IS NULL AND v.voided_at IS NULL
            AND r.state IN ('pending', 'changes_requested')
    ) THEN
        RAISE EXCEPTION 'requests wait that were approved with less: have them decided first'
            USING ERRCODE = 'check_violation';
    END IF;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("approvals", "0021_approving_with_less")]
    operations = [
        migrations.RunSQL(VOTES, reverse_sql=UNDO_VOTES),
        migrations.RunSQL(LEAST, reverse_sql=UNDO_LEAST),
        migrations.RunSQL(GRANTS, reverse_sql=UNDO_GRANTS),
        migrations.RunSQL(EXTENSIONS, reverse_sql=UNDO_EXTENSIONS),
        migrations.RunSQL(migrations.RunSQL.noop, reverse_sql=KEEP),
    ]
