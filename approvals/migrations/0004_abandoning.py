"""Abandoning takes two people who are not the holder: held by the database itself, by trigger."""

from django.db import migrations

SQL = r"""
CREATE FUNCTION approvals_refuse_own_abandonment() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM approvals_grant g JOIN approvals_accessrequest r ON r.id = g.request_id
        WHERE g.id = NEW.grant_id AND NEW.person_id IN (g.beneficiary_id, r.requester_id)
    ) THEN
        RAISE EXCEPTION 'nobody abandons access of their own' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER abandonment_not_of_oneself BEFORE INSERT OR UPDATE OF grant_id, person_id
    ON approvals_abandonment FOR EACH ROW EXECUTE FUNCTION approvals_refuse_own_abandonment();
ALTER TABLE approvals_abandonment ENABLE ALWAYS TRIGGER abandonment_not_of_oneself;

CREATE FUNCTION approvals_refuse_lonely_abandoning() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.abandoned_at IS NOT NULL AND OLD.abandoned_at IS NULL AND
        (SELECT count(*) FROM approvals_abandonment a WHERE a.grant_id = NEW.id) < 2
    THEN
        RAISE EXCEPTION 'abandoning takes two people' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER grant_abandoned_by_two BEFORE UPDATE OF abandoned_at
    ON approvals_grant FOR EACH ROW EXECUTE FUNCTION approvals_refuse_lonely_abandoning();
ALTER TABLE approvals_grant ENABLE ALWAYS TRIGGER grant_abandoned_by_two;
"""

UNDO = r"""
DROP TRIGGER grant_abandoned_by_two ON approvals_grant;
DROP FUNCTION approvals_refuse_lonely_abandoning();
DROP TRIGGER abandonment_not_of_oneself ON approvals_abandonment;
DROP FUNCTION approvals_refuse_own_abandonment();
"""


class Migration(migrations.Migration):
    dependencies = [("approvals", "0003_operations")]
    operations = [migrations.RunSQL(SQL, reverse_sql=UNDO)]
