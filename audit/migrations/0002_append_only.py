"""Events are only ever added: refused by trigger for everyone, by privilege for all but the owner.

The triggers are ENABLE ALWAYS, so that `session_replication_role` does not switch them off. An
insert gets its `xid` from the database, since a false one would hide the row from sealing, and a
leaf hash that is not that of the bytes is refused.
"""

from django.db import migrations

FUNCTIONS = r"""
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION '% refuses %, its owner included', TG_TABLE_NAME, TG_OP
        USING ERRCODE = '2F002', HINT = 'What it holds is corrected by adding, never by changing.';
END $$;

CREATE FUNCTION audit_stamp() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.xid := pg_current_xact_id();
    RETURN NEW;
END $$;
"""

TRIGGERS = r"""
CREATE TRIGGER audit_event_rows BEFORE UPDATE OR DELETE ON audit_event
    FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_event_table BEFORE TRUNCATE ON audit_event
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_event_stamp BEFORE INSERT ON audit_event
    FOR EACH ROW EXECUTE FUNCTION audit_stamp();
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_event_rows;
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_event_table;
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_event_stamp;
"""

LEAF = r"""
ALTER TABLE audit_event ADD CONSTRAINT audit_event_leaf_hash
    CHECK (leaf_hash = sha256('\x00'::bytea || canonical));
"""

# Default privileges give the application's login all of these on a new table.
PRIVILEGES = r"""
DO $$
DECLARE held record;
BEGIN
    FOR held IN
        SELECT acl.privilege_type AS kind,
               CASE acl.grantee WHEN 0 THEN 'PUBLIC'
                    ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee
        FROM pg_class c, aclexplode(c.relacl) acl
        WHERE c.oid = 'audit_event'::regclass AND acl.grantee <> c.relowner
          AND acl.privilege_type NOT IN ('SELECT', 'INSERT')
    LOOP
        EXECUTE format('REVOKE %s ON audit_event FROM %s', held.kind, held.grantee);
    END LOOP;
END $$;
"""

UNDO = r"""
ALTER TABLE audit_event DROP CONSTRAINT audit_event_leaf_hash;
DROP TRIGGER audit_event_stamp ON audit_event;
DROP TRIGGER audit_event_table ON audit_event;
DROP TRIGGER audit_event_rows ON audit_event;
DROP FUNCTION audit_stamp();
DROP FUNCTION audit_refuse();
"""


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_event")]
    operations = [
        migrations.RunSQL(FUNCTIONS + TRIGGERS + LEAF + PRIVILEGES, reverse_sql=UNDO),
    ]
