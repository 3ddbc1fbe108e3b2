"""An installation's key never changes: it is on every account of ours on every target."""

from django.db import migrations

KEEP = r"""
CREATE FUNCTION approvals_refuse_other_key() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.key = OLD.key THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'an installation keeps its key' USING ERRCODE = 'restrict_violation',
        HINT = 'Under another it would leave its own accounts alone as somebody else''s.';
END $$;

CREATE TRIGGER installation_keeps_its_key BEFORE UPDATE OF key OR DELETE
    ON approvals_installation FOR EACH ROW EXECUTE FUNCTION approvals_refuse_other_key();
ALTER TABLE approvals_installation ENABLE ALWAYS TRIGGER installation_keeps_its_key;
"""

UNDO = r"""
DROP TRIGGER installation_keeps_its_key ON approvals_installation;
DROP FUNCTION approvals_refuse_other_key();
"""


class Migration(migrations.Migration):
    dependencies = [("approvals", "0005_end_reason_words")]
    operations = [migrations.RunSQL(KEEP, UNDO)]
