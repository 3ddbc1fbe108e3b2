"""What must hold whatever the code does: held by the database itself, by trigger.

A published policy version never changes. Nobody's vote is about themselves. No grant without a
decided request. An end only moves earlier, and what has ended stays so.
"""

from django.db import migrations

POLICIES = r"""
CREATE FUNCTION approvals_refuse_published() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
DECLARE
    published timestamptz;
BEGIN
    IF TG_TABLE_NAME = 'approvals_policyversion' THEN
        published := OLD.published_at;
    ELSIF TG_TABLE_NAME = 'approvals_stage' THEN
        SELECT v.published_at INTO published FROM approvals_policyversion v
            WHERE v.id = CASE WHEN TG_OP = 'INSERT' THEN NEW.version_id ELSE OLD.version_id END;
    ELSE
        SELECT v.published_at INTO published FROM approvals_policyversion v
            JOIN approvals_stage s ON s.version_id = v.id
            WHERE s.id = CASE WHEN TG_OP = 'INSERT' THEN NEW.stage_id ELSE OLD.stage_id END;
    END IF;
    IF published IS NOT NULL THEN
        RAISE EXCEPTION 'a published policy version never changes'
            USING ERRCODE = 'restrict_violation', HINT = 'Publish a new version.';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;

CREATE TRIGGER policyversion_frozen BEFORE UPDATE OR DELETE ON approvals_policyversion
    FOR EACH ROW EXECUTE FUNCTION approvals_refuse_published();
CREATE TRIGGER stage_frozen BEFORE INSERT OR UPDATE OR DELETE ON approvals_stage
    FOR EACH ROW EXECUTE FUNCTION approvals_refuse_published();
CREATE TRIGGER stagegroup_frozen BEFORE INSERT OR UPDATE OR DELETE ON approvals_stagegroup
    FOR EACH ROW EXECUTE FUNCTION approvals_refuse_published();

CREATE FUNCTION approvals_publish_whole() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.published_at IS NOT NULL AND (
        NOT EXISTS (SELECT FROM approvals_stage s WHERE s.version_id = NEW.id)
        OR EXISTS (SELECT FROM approvals_stage s WHERE s.version_id = NEW.id AND NOT EXISTS
            (SELECT FROM approvals_stagegroup g WHERE g.stage_id = s.id))
    ) THEN
        RAISE EXCEPTION 'a policy needs a stage, and each stage a group to ask'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER policyversion_whole BEFORE INSERT OR UPDATE ON approvals_policyversion
    FOR EACH ROW EXECUTE FUNCTION approvals_publish_whole();
"""

VOTES = r"""
CREATE FUNCTION approvals_refuse_own_vote() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM approvals_requeststage s JOIN approvals_accessrequest r ON r.id = s.request_id
        WHERE s.id = NEW.stage_id
          AND NEW.voter_id IN (r.requester_id, r.beneficiary_id, r.last_edited_by_id)
    ) THEN
        RAISE EXCEPTION 'nobody decides about themselves' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER vote_not_about_oneself BEFORE INSERT OR UPDATE OF voter_id, stage_id
    ON approvals_vote FOR EACH ROW EXECUTE FUNCTION approvals_refuse_own_vote();
"""

GRANTS = r"""
CREATE FUNCTION approvals_refuse_unapproved() RETURNS trigger LANGUAGE plpgsql
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

CREATE TRIGGER grant_needs_approval
    BEFORE INSERT OR UPDATE OF request_id, beneficiary_id, target_id, level_id, scope, scope_hash,
        duration
    ON approvals_grant FOR EACH ROW EXECUTE FUNCTION approvals_refuse_unapproved();

CREATE FUNCTION approvals_refuse_longer() RETURNS trigger LANGUAGE plpgsql
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

CREATE TRIGGER grant_only_shrinks BEFORE UPDATE OF expires_at, state
    ON approvals_grant FOR EACH ROW EXECUTE FUNCTION approvals_refuse_longer();
"""

# Not switched off by session_replication_role.
ALWAYS = r"""
ALTER TABLE approvals_policyversion ENABLE ALWAYS TRIGGER policyversion_frozen;
ALTER TABLE approvals_policyversion ENABLE ALWAYS TRIGGER policyversion_whole;
ALTER TABLE approvals_stage ENABLE ALWAYS TRIGGER stage_frozen;
ALTER TABLE approvals_stagegroup ENABLE ALWAYS TRIGGER stagegroup_frozen;
ALTER TABLE approvals_vote ENABLE ALWAYS TRIGGER vote_not_about_oneself;
ALTER TABLE approvals_grant ENABLE ALWAYS TRIGGER grant_needs_approval;
ALTER TABLE approvals_grant ENABLE ALWAYS TRIGGER grant_only_shrinks;
"""

UNDO = r"""
DROP TRIGGER grant_only_shrinks ON approvals_grant;
DROP TRIGGER grant_needs_approval ON approvals_grant;
DROP TRIGGER vote_not_about_oneself ON approvals_vote;
DROP TRIGGER policyversion_whole ON approvals_policyversion;
DROP TRIGGER stagegroup_frozen ON approvals_stagegroup;
DROP TRIGGER stage_frozen ON approvals_stage;
DROP TRIGGER policyversion_frozen ON approvals_policyversion;
DROP FUNCTION approvals_refuse_longer();
DROP FUNCTION approvals_refuse_unapproved();
DROP FUNCTION approvals_refuse_own_vote();
DROP FUNCTION approvals_publish_whole();
DROP FUNCTION approvals_refuse_published();
"""


class Migration(migrations.Migration):
    dependencies = [("approvals", "0001_first")]
    operations = [migrations.RunSQL(POLICIES + VOTES + GRANTS + ALWAYS, reverse_sql=UNDO)]
