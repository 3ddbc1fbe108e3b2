"""The end of a grant moves later by an extension only: held by the database itself, by trigger.

First an intent, which needs a completed chain as the grant's policy has it, or the one bridge while
the decision is out, and is never beyond `max_total`; then, in a statement of its own, the end.
"""

from django.db import migrations

INTENT = r"""
CREATE FUNCTION approvals_refuse_extension() RETURNS trigger LANGUAGE plpgsql
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

CREATE TRIGGER grant_extended_by_decision
    BEFORE INSERT OR UPDATE OF extended_until, extended_count, bridged_at
    ON approvals_grant FOR EACH ROW EXECUTE FUNCTION approvals_refuse_extension();
ALTER TABLE approvals_grant ENABLE ALWAYS TRIGGER grant_extended_by_decision;
"""

END = r"""
CREATE OR REPLACE FUNCTION approvals_refuse_longer() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.expires_at IS NULL AND OLD.expires_at IS NOT NULL THEN
        RAISE EXCEPTION 'the end of a grant only moves earlier' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.expires_at > OLD.expires_at AND (
        OLD.state = 'active' AND NEW.state = 'active' AND OLD.expires_at > dbnow()
        AND NEW.expires_at <= OLD.extended_until AND NEW.extended_until = OLD.extended_until
    ) IS NOT TRUE THEN
        RAISE EXCEPTION 'the end of a grant only moves earlier, but for an extension'
            USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.activated_at IS NOT NULL AND NEW.activated_at IS DISTINCT FROM OLD.activated_at THEN
        RAISE EXCEPTION 'a grant was opened when it was' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.state = 'ended' AND NEW.state <> 'ended' THEN
        RAISE EXCEPTION 'a grant that has ended stays ended' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

DROP TRIGGER grant_only_shrinks ON approvals_grant;
CREATE TRIGGER grant_only_shrinks BEFORE UPDATE OF expires_at, state, activated_at
    ON approvals_grant FOR EACH ROW EXECUTE FUNCTION approvals_refuse_longer();
ALTER TABLE approvals_grant ENABLE ALWAYS TRIGGER grant_only_shrinks;
"""

UNDO_END = r"""
CREATE OR REPLACE FUNCTION approvals_refuse_longer() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.expires_at > OLD.expires_at OR (NEW.expires_at IS NULL AND OLD.expires_at IS NOT NULL)
    THEN
        RAISE EXCEPTION 'the end of a grant only moves earlier' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.state = 'ended' AND NEW.state <> 'ended' THEN
        RAISE EXCEPTION 'a grant that has ended stays ended' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

DROP TRIGGER grant_only_shrinks ON approvals_grant;
CREATE TRIGGER grant_only_shrinks BEFORE UPDATE OF expires_at, state
    ON approvals_grant FOR EACH ROW EXECUTE FUNCTION approvals_refuse_longer();
ALTER TABLE approvals_grant ENABLE ALWAYS TRIGGER grant_only_shrinks;
DROP TRIGGER grant_extended_by_decision ON approvals_grant;
DROP FUNCTION approvals_refuse_extension();
"""

# An extension prolongs what is there; it opens nothing of its own.
NO_GRANT = r"""
CREATE FUNCTION approvals_refuse_grant_of_extension() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM approvals_accessrequest r
        WHERE r.id = NEW.request_id AND r.extends_id IS NOT NULL)
    THEN
        RAISE EXCEPTION 'an extension opens no access of its own'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER grant_not_of_extension BEFORE INSERT OR UPDATE OF request_id
    ON approvals_grant FOR EACH ROW EXECUTE FUNCTION approvals_refuse_grant_of_extension();
ALTER TABLE approvals_grant ENABLE ALWAYS TRIGGER grant_not_of_extension;
"""

UNDO_NO_GRANT = r"""
DROP TRIGGER grant_not_of_extension ON approvals_grant;
DROP FUNCTION approvals_refuse_grant_of_extension();
"""


class Migration(migrations.Migration):
    dependencies = [("approvals", "0012_longer_access")]
    operations = [
        migrations.RunSQL(INTENT + END, reverse_sql=UNDO_END),
        migrations.RunSQL(NO_GRANT, reverse_sql=UNDO_NO_GRANT),
    ]
