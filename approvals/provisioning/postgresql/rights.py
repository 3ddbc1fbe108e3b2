"""The catalog queries behind a summary: every access list, and who may connect where.

Each row of the first two is kind, schema, name, privilege, whether PUBLIC holds it, and whether it
may be passed on. What the server itself gave in its own schemas at installation
(`pg_init_privs`, else the built-in default) is left out; what was added there later is not.
`information_schema` is not noted in `pg_init_privs`; it is open to everyone's eyes by standard.
Names come quoted where SQL would quote them: others chose them, and a comma in one is no second
one.
"""

from __future__ import annotations

from psycopg import sql

EXPLODED = sql.SQL("""
SELECT kind, schema, name, x.privilege_type, x.grantee = 0, x.is_grantable
FROM things, LATERAL aclexplode(acl) x
WHERE (x.grantee = 0 OR x.grantee = ANY(%(oids)s::oid[]))
  AND NOT (system AND EXISTS (
    SELECT FROM aclexplode(initial) i WHERE i.grantee = x.grantee
      AND i.privilege_type = x.privilege_type AND i.is_grantable = x.is_grantable))
  AND NOT (x.grantee = 0 AND x.privilege_type IN ('SELECT', 'USAGE')
    AND 'information_schema' = CASE kind WHEN 'schema' THEN name ELSE schema END)
""")

DATABASES = sql.SQL("""
SELECT d.datname, quote_ident(d.datname), has_database_privilege(d.oid, 'CONNECT')
FROM pg_database d WHERE d.datallowconn AND EXISTS (
  SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
  WHERE x.privilege_type = 'CONNECT' AND (x.grantee = 0 OR x.grantee = ANY(%(oids)s::oid[])))
ORDER BY 1
""")

IN_SERVER = (
    sql.SQL("""
WITH things(kind, schema, name, system, acl, initial) AS (
  SELECT 'database', '', quote_ident(datname), false, coalesce(datacl, acldefault('d', datdba)),
    NULL::aclitem[]
  FROM pg_database WHERE datallowconn
UNION ALL
  SELECT 'tablespace', '', quote_ident(spcname), false, spcacl, NULL FROM pg_tablespace
UNION ALL
  SELECT 'parameter', '', parname, false, paracl, NULL FROM pg_parameter_acl
)""")
    + EXPLODED
)

# A view, a table under row security and a function that runs as its owner show a digest of their
# definition: another definition is another right, under the same name.
IN_DATABASE = (
    sql.SQL("""
WITH spaces AS (
  SELECT oid, quote_ident(nspname) AS nspname, nspacl, nspowner,
    nspname IN ('pg_catalog', 'information_schema') AS system
  FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp|toast_temp)'
), policies AS (
  SELECT polrelid, string_agg(concat_ws('|', polname, polcmd, polpermissive, polroles::regrole[],
    pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)), '|' ORDER BY polname) text
  FROM pg_policy GROUP BY polrelid
), relations AS (
  SELECT c.oid, n.nspname, n.system, c.relkind, c.relacl, c.relowner,
    CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'view'
      WHEN 'f' THEN 'foreign table' ELSE 'table' END AS kind,
    quote_ident(c.relname) || CASE WHEN n.system THEN ''
      WHEN c.relkind IN ('v', 'm') THEN ' [' || left(encode(sha256(convert_to(
        pg_get_viewdef(c.oid), 'UTF8')), 'hex'), 12) || ']'
      WHEN c.relrowsecurity THEN ' [rows by policy ' || left(encode(sha256(convert_to(
        coalesce(p.text, ''), 'UTF8')), 'hex'), 12) || ']'
      ELSE '' END AS name
  FROM pg_class c JOIN spaces n ON n.oid = c.relnamespace LEFT JOIN policies p ON polrelid = c.oid
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
), things(kind, schema, name, system, acl, initial) AS (
  SELECT 'schema', '', n.nspname, n.system, coalesce(n.nspacl, acldefault('n', n.nspowner)),
    coalesce(i.initprivs, acldefault('n', n.nspowner))
  FROM spaces n LEFT JOIN pg_init_privs i
    ON i.objoid = n.oid AND i.classoid = 'pg_namespace'::regclass
UNION ALL
  SELECT r.kind, r.nspname, r.name, r.system, r.relacl, coalesce(i.initprivs, acldefault(
    CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", r.relowner))
  FROM relations r LEFT JOIN pg_init_privs i
    ON i.objoid = r.oid AND i.classoid = 'pg_class'::regclass AND i.objsubid = 0
UNION ALL
  SELECT 'column', r.nspname, r.name || '.' || quote_ident(a.attname), r.system, a.attacl,
    i.initprivs
  FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attacl IS NOT NULL
  LEFT JOIN pg_init_privs i
    ON i.objoid = r.oid AND i.classoid = 'pg_class'::regclass AND i.objsubid = a.attnum
UNION ALL
  SELECT CASE WHEN p.prosecdef THEN 'SECURITY DEFINER function' ELSE 'function' END,
    n.nspname, quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')'
      || CASE WHEN p.prosecdef THEN ' as ' || quote_ident(pg_get_userbyid(p.proowner)) || ' ['
        || left(encode(sha256(convert_to(concat_ws('|', p.prosrc, p.probin, p.prosqlbody,
          p.proconfig), 'UTF8')), 'hex'), 12) || ']' ELSE '' END,
    n.system, coalesce(p.proacl, acldefault('f', p.proowner)),
    coalesce(i.initprivs, acldefault('f', p.proowner))
  FROM pg_proc p JOIN spaces n ON n.oid = p.pronamespace LEFT JOIN pg_init_privs i
    ON i.objoid = p.oid AND i.classoid = 'pg_proc'::regclass
  WHERE NOT n.system OR p.proacl IS NOT NULL
UNION ALL
  SELECT 'type', n.nspname, quote_ident(t.typname), n.system, t.typacl, i.initprivs
  FROM pg_type t JOIN spaces n ON n.oid = t.typnamespace LEFT JOIN pg_init_privs i
    ON i.objoid = t.oid AND i.classoid = 'pg_type'::regclass
  WHERE t.typacl IS NOT NULL
UNION ALL
  SELECT 'language', '', quote_ident(lanname), true, coalesce(lanacl, acldefault('l', lanowner)),
    coalesce(i.initprivs, acldefault('l', lanowner))
  FROM pg_language LEFT JOIN pg_init_privs i
    ON i.objoid = pg_language.oid AND i.classoid = 'pg_language'::regclass
UNION ALL
  SELECT 'foreign data wrapper', '', quote_ident(fdwname), false, fdwacl, NULL
  FROM pg_foreign_data_wrapper
UNION ALL
  SELECT 'foreign server', '', quote_ident(srvname), false, srvacl, NULL FROM pg_foreign_server
UNION ALL
  SELECT 'large object', '', oid::text, false, lomacl, NULL FROM pg_largeobject_metadata
UNION ALL
  SELECT CASE d.defaclobjtype WHEN 'r' THEN 'future table' WHEN 'S' THEN 'future sequence'
      WHEN 'f' THEN 'future function' WHEN 'T' THEN 'future type' WHEN 'n' THEN 'future schema'
      ELSE 'future large object' END,
    coalesce(quote_ident(n.nspname), ''), 'made by ' || quote_ident(pg_get_userbyid(d.defaclrole)),
    false, d.defaclacl, NULL
  FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
)""")
    + EXPLODED
    + sql.SQL("""
UNION ALL
SELECT 'foreign server', '', quote_ident(srvname), 'USER MAPPING', umuser = 0, false
FROM pg_user_mappings WHERE umuser = 0 OR umuser = ANY(%(oids)s::oid[])
""")
)
