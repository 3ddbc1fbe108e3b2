"""The database's clock: `dbnow()`, and the one row by which only its owner can shift it.

The body is SQL-standard, bound to the table when it is made: no search path and no temporary
table of the caller's can put another in its place.
"""

from django.db import migrations

CLOCK = r"""
CREATE TABLE audit_clock (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    shift interval NOT NULL DEFAULT '0'
);
INSERT INTO audit_clock DEFAULT VALUES;

CREATE TRIGGER audit_clock_rows BEFORE DELETE ON audit_clock
    FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_clock_table BEFORE TRUNCATE ON audit_clock
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
ALTER TABLE audit_clock ENABLE ALWAYS TRIGGER audit_clock_rows;
ALTER TABLE audit_clock ENABLE ALWAYS TRIGGER audit_clock_table;

CREATE FUNCTION dbnow() RETURNS timestamptz LANGUAGE sql VOLATILE
    RETURN clock_timestamp() + (SELECT shift FROM audit_clock);
"""

PRIVILEGES = r"""
DO $$
DECLARE held record;
BEGIN
    FOR held IN
        SELECT acl.privilege_type AS kind,
               CASE acl.grantee WHEN 0 THEN 'PUBLIC'
                    ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee
        FROM pg_class c, aclexplode(c.relacl) acl
        WHERE c.oid = 'audit_clock'::regclass AND acl.grantee <> c.relowner
          AND acl.privilege_type <> 'SELECT'
    LOOP
        EXECUTE format('REVOKE %s ON audit_clock FROM %s', held.kind, held.grantee);
    END LOOP;
END $$;
"""

UNDO = r"""
DROP FUNCTION dbnow();
DROP TABLE audit_clock;
"""


class Migration(migrations.Migration):
    dependencies = [("audit", "0002_append_only")]
    operations = [migrations.RunSQL(CLOCK + PRIVILEGES, reverse_sql=UNDO)]
