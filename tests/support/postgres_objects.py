"""Examples of whatever PostgreSQL lets lie in a schema, and a role own or be granted, by the catalogue that says so.

Rule: `{t}` is the tenant's schema and role, `{o}` a name that no other test uses, `{db}` the database.
"""

from typing import NamedTuple


def statements(text: str) -> list[str]:
    """Return the statements of a text; each ends at the end of a line."""
    return [one.strip() for one in text.strip().split(";\n")]


class Held(NamedTuple):
    """Something that a role has.

    Attributes:
        made: How it comes about.
        says: What a teardown says of it; empty text where it goes with the role.
        undone: What people do about it then, or what stays beside the role.
    """

    made: str
    says: str = ""
    undone: str = ""


LYING = {
    "pg_class": r"""
        CREATE TABLE {t}.t (id int PRIMARY KEY, at int GENERATED ALWAYS AS IDENTITY);
        CREATE INDEX ON {t}.t (at);
        CREATE TABLE {t}.parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE {t}.part PARTITION OF {t}.parted FOR VALUES FROM (0) TO (9);
        CREATE VIEW {t}.v AS SELECT * FROM {t}.t;
        CREATE MATERIALIZED VIEW {t}.m AS SELECT * FROM {t}.v;
        CREATE SEQUENCE {t}.s;
        CREATE SEQUENCE {t}.owned OWNED BY {t}.t.id;
        CREATE TYPE {t}.pair AS (a int, b {t}.t);
        CREATE FOREIGN DATA WRAPPER {o};
        CREATE SERVER {o} FOREIGN DATA WRAPPER {o};
        CREATE FOREIGN TABLE {t}.far (id int) SERVER {o}
    """,
    "pg_collation": r"""
        CREATE COLLATION {t}.c FROM "C"
    """,
    "pg_constraint": r"""
        CREATE TABLE {t}.checked (id int CHECK (id > 0), other int UNIQUE)
    """,
    "pg_conversion": r"""
        CREATE CONVERSION {t}.c FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8
    """,
    "pg_default_acl": r"""
        ALTER DEFAULT PRIVILEGES IN SCHEMA {t} GRANT SELECT ON TABLES TO PUBLIC
    """,
    "pg_extension": r"""
        DROP EXTENSION plpgsql;
        ALTER ROLE {t} SUPERUSER;
        SET ROLE {t};
        CREATE EXTENSION {ext} SCHEMA {t}
    """,
    "pg_opclass": r"""
        CREATE OPERATOR CLASS {t}.oc FOR TYPE int4 USING btree AS OPERATOR 1 <, FUNCTION 1 btint4cmp(int4, int4)
    """,
    "pg_operator": r"""
        CREATE FUNCTION {t}.same(int, int) RETURNS bool LANGUAGE sql AS 'SELECT $1 = $2';
        CREATE FUNCTION {t}.not_(int) RETURNS int LANGUAGE sql AS 'SELECT -$1';
        CREATE OPERATOR {t}.=== (FUNCTION = {t}.same, LEFTARG = int, RIGHTARG = int);
        CREATE OPERATOR {t}.@@@ (FUNCTION = {t}.not_, RIGHTARG = int)
    """,
    "pg_opfamily": r"""
        CREATE OPERATOR FAMILY {t}.of USING btree
    """,
    "pg_proc": r"""
        CREATE FUNCTION {t}.f(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION {t}.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE PROCEDURE {t}.p(int) LANGUAGE sql AS 'SELECT 1';
        CREATE AGGREGATE {t}.sums(int) (SFUNC = int4pl, STYPE = int);
        CREATE AGGREGATE {t}.counts(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0');
        CREATE FUNCTION {t}.w() RETURNS int8 LANGUAGE internal WINDOW AS 'window_row_number'
    """,
    "pg_publication_namespace": r"""
        CREATE PUBLICATION {o} FOR TABLES IN SCHEMA {t}
    """,
    "pg_statistic_ext": r"""
        CREATE TABLE {t}.counted (a int, b int);
        CREATE STATISTICS {t}.st (dependencies) ON a, b FROM {t}.counted
    """,
    "pg_ts_config": r"""
        CREATE TEXT SEARCH CONFIGURATION {t}.tc (COPY = pg_catalog.simple)
    """,
    "pg_ts_dict": r"""
        CREATE TEXT SEARCH DICTIONARY {t}.td (TEMPLATE = pg_catalog.simple)
    """,
    "pg_ts_parser": r"""
        CREATE TEXT SEARCH PARSER {t}.tp (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end,
            LEXTYPES = prsd_lextype)
    """,
    "pg_ts_template": r"""
        CREATE TEXT SEARCH TEMPLATE {t}.tt (LEXIZE = dsimple_lexize)
    """,
    "pg_type": r"""
        CREATE TYPE {t}.mood AS ENUM ('a');
        CREATE DOMAIN {t}.whole AS int CHECK (VALUE > 0);
        CREATE TYPE {t}.span AS RANGE (SUBTYPE = int4);
        CREATE TYPE {t}.row AS (a {t}.mood, b {t}.whole, c {t}.span);
        CREATE TYPE {t}.shell
    """,
}
"""What can lie in a schema."""

ROLES = {
    "pg_auth_members.roleid": Held(
        """
        CREATE TABLE public.t (id int, other int);
        CREATE ROLE {o};
        GRANT {t} TO {o}
        """,
    ),
    "pg_auth_members.member": Held(
        """
        CREATE TABLE public.t (id int, other int);
        CREATE ROLE {o};
        GRANT {o} TO {t}
        """,
    ),
    "pg_auth_members.grantor": Held(
        """
        CREATE TABLE public.t (id int, other int);
        CREATE ROLE {o};
        CREATE ROLE {o}2;
        GRANT {o} TO {t} WITH ADMIN OPTION;
        GRANT {o} TO {o}2 GRANTED BY {t}
        """,
    ),
    "pg_db_role_setting.setrole": Held(
        """
        ALTER ROLE {t} SET work_mem = '1MB';
        ALTER ROLE {t} IN DATABASE {db} SET work_mem = '2MB'
        """,
    ),
    "pg_default_acl.defaclrole": Held(
        """
        ALTER DEFAULT PRIVILEGES FOR ROLE {t} GRANT SELECT ON TABLES TO PUBLIC
        """,
    ),
    "pg_default_acl.defaclacl": Held(
        """
        ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {t}
        """,
    ),
    "pg_largeobject_metadata.lomowner": Held(
        """
        SET ROLE {t};
        SELECT lo_create(0) FROM generate_series(1, 1100)
        """,
    ),
    "pg_largeobject_metadata.lomacl": Held(
        """
        SELECT lo_create(4711);
        GRANT SELECT ON LARGE OBJECT 4711 TO {t}
        """,
    ),
    "pg_policy.polroles": Held(
        """
        CREATE TABLE public.t (id int);
        CREATE POLICY p ON public.t TO {t};
        CREATE POLICY q ON public.t TO {t}, PUBLIC
        """,
    ),
    "pg_user_mapping.umuser": Held(
        """
        CREATE FOREIGN DATA WRAPPER {o};
        CREATE SERVER {o} FOREIGN DATA WRAPPER {o};
        CREATE USER MAPPING FOR {t} SERVER {o}
        """,
    ),
    "pg_attribute.attacl": Held(
        """
        CREATE TABLE public.t (id int);
        GRANT SELECT (id) ON public.t TO {t}
        """,
    ),
    "pg_class.relacl": Held(
        """
        CREATE TABLE public.t (id int);
        GRANT ALL ON public.t TO {t} WITH GRANT OPTION
        """,
    ),
    "pg_database.datacl": Held(
        """
        GRANT CONNECT ON DATABASE {db} TO {t};
        GRANT CONNECT ON DATABASE postgres TO {t}
        """,
    ),
    "pg_foreign_data_wrapper.fdwacl": Held(
        """
        CREATE FOREIGN DATA WRAPPER {o};
        GRANT USAGE ON FOREIGN DATA WRAPPER {o} TO {t}
        """,
    ),
    "pg_foreign_server.srvacl": Held(
        """
        CREATE FOREIGN DATA WRAPPER {o};
        CREATE SERVER {o} FOREIGN DATA WRAPPER {o};
        GRANT USAGE ON FOREIGN SERVER {o} TO {t}
        """,
    ),
    "pg_init_privs.initprivs": Held(
        """
        COPY (SELECT 'default_version = ''1''')
            TO PROGRAM 'mkdir -p /tmp/{o}/extension && cat > /tmp/{o}/extension/{o}.control';
        COPY (SELECT 'CREATE TABLE public.t (id int); GRANT SELECT ON public.t TO {t};')
            TO PROGRAM 'cat > /tmp/{o}/extension/{o}--1.sql';
        SET extension_control_path = '/tmp/{o}:$system';
        CREATE EXTENSION {o};
        COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm -r /tmp/{o}'
        """,
    ),
    "pg_language.lanacl": Held(
        """
        GRANT USAGE ON LANGUAGE plpgsql TO {t}
        """,
    ),
    "pg_namespace.nspacl": Held(
        """
        GRANT USAGE, CREATE ON SCHEMA public TO {t}
        """,
    ),
    "pg_parameter_acl.paracl": Held(
        """
        GRANT SET ON PARAMETER log_statement TO {t}
        """,
    ),
    "pg_proc.proacl": Held(
        """
        CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
        GRANT EXECUTE ON FUNCTION public.f() TO {t}
        """,
    ),
    "pg_tablespace.spcacl": Held(
        """
        SET allow_in_place_tablespaces = on;
        CREATE TABLESPACE {o} LOCATION '';
        GRANT CREATE ON TABLESPACE {o} TO {t}
        """,
        undone="""DROP TABLESPACE {o}""",
    ),
    "pg_type.typacl": Held(
        """
        CREATE TYPE public.mood AS ENUM ('a');
        GRANT USAGE ON TYPE public.mood TO {t}
        """,
    ),
    "pg_class.relowner": Held(
        """
        CREATE TABLE public.t (id int);
        ALTER TABLE public.t OWNER TO {t}
        """,
        says="owns table public.t",
        undone="""DROP TABLE public.t""",
    ),
    "pg_collation.collowner": Held(
        """
        CREATE COLLATION public.c FROM "C";
        ALTER COLLATION public.c OWNER TO {t}
        """,
        says="owns collation public.c",
        undone="""DROP COLLATION public.c""",
    ),
    "pg_conversion.conowner": Held(
        """
        CREATE CONVERSION public.c FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
        ALTER CONVERSION public.c OWNER TO {t}
        """,
        says="owns conversion public.c",
        undone="""DROP CONVERSION public.c""",
    ),
    "pg_database.datdba": Held(
        """
        CREATE DATABASE {o} OWNER {t}
        """,
        says="owns database {o}",
        undone="""DROP DATABASE {o}""",
    ),
    "pg_event_trigger.evtowner": Held(
        """
        ALTER ROLE {t} SUPERUSER;
        CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
        CREATE EVENT TRIGGER {o} ON ddl_command_start EXECUTE FUNCTION public.f();
        ALTER EVENT TRIGGER {o} OWNER TO {t}
        """,
        says="owns event trigger {o}",
        undone="""DROP EVENT TRIGGER {o}""",
    ),
    "pg_extension.extowner": Held(
        """
        DROP EXTENSION plpgsql;
        ALTER ROLE {t} SUPERUSER;
        SET ROLE {t};
        CREATE EXTENSION plpgsql
        """,
        says="owns extension plpgsql",
        undone="""DROP EXTENSION plpgsql""",
    ),
    "pg_foreign_data_wrapper.fdwowner": Held(
        """
        ALTER ROLE {t} SUPERUSER;
        CREATE FOREIGN DATA WRAPPER {o};
        ALTER FOREIGN DATA WRAPPER {o} OWNER TO {t}
        """,
        says="owns foreign-data wrapper {o}",
        undone="""DROP FOREIGN DATA WRAPPER {o}""",
    ),
    "pg_foreign_server.srvowner": Held(
        """
        CREATE FOREIGN DATA WRAPPER {o};
        GRANT USAGE ON FOREIGN DATA WRAPPER {o} TO {t};
        CREATE SERVER {o} FOREIGN DATA WRAPPER {o};
        ALTER SERVER {o} OWNER TO {t}
        """,
        says="owns server {o}",
        undone="""DROP SERVER {o}""",
    ),
    "pg_language.lanowner": Held(
        """
        CREATE LANGUAGE {o} HANDLER plpgsql_call_handler;
        ALTER LANGUAGE {o} OWNER TO {t}
        """,
        says="owns language {o}",
        undone="""DROP LANGUAGE {o}""",
    ),
    "pg_namespace.nspowner": Held(
        """
        CREATE SCHEMA {o} AUTHORIZATION {t}
        """,
        says="owns schema {o}",
        undone="""DROP SCHEMA {o}""",
    ),
    "pg_opclass.opcowner": Held(
        """
        CREATE OPERATOR CLASS public.oc FOR TYPE int4 USING btree AS OPERATOR 1 <, FUNCTION 1
            btint4cmp(int4, int4);
        ALTER OPERATOR CLASS public.oc USING btree OWNER TO {t}
        """,
        says="owns operator class public.oc",
        undone="""DROP OPERATOR FAMILY public.oc USING btree""",
    ),
    "pg_operator.oprowner": Held(
        """
        CREATE OPERATOR public.=== (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int);
        ALTER OPERATOR public.=== (int, int) OWNER TO {t}
        """,
        says="owns operator public.===",
        undone="""DROP OPERATOR public.=== (int, int)""",
    ),
    "pg_opfamily.opfowner": Held(
        """
        CREATE OPERATOR FAMILY public.of USING btree;
        ALTER OPERATOR FAMILY public.of USING btree OWNER TO {t}
        """,
        says="owns operator family public.of",
        undone="""DROP OPERATOR FAMILY public.of USING btree""",
    ),
    "pg_proc.proowner": Held(
        """
        CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
        ALTER FUNCTION public.f() OWNER TO {t}
        """,
        says="owns function public.f()",
        undone="""DROP FUNCTION public.f()""",
    ),
    "pg_publication.pubowner": Held(
        """
        CREATE PUBLICATION {o};
        ALTER PUBLICATION {o} OWNER TO {t}
        """,
        says="owns publication {o}",
        undone="""DROP PUBLICATION {o}""",
    ),
    "pg_statistic_ext.stxowner": Held(
        """
        CREATE TABLE public.t (a int, b int);
        CREATE STATISTICS public.st (dependencies) ON a, b FROM public.t;
        ALTER STATISTICS public.st OWNER TO {t}
        """,
        says="owns statistics object public.st",
        undone="""DROP STATISTICS public.st""",
    ),
    "pg_subscription.subowner": Held(
        """
        ALTER ROLE {t} SUPERUSER;
        CREATE SUBSCRIPTION {o} CONNECTION 'dbname=none' PUBLICATION p WITH (connect = false);
        ALTER SUBSCRIPTION {o} OWNER TO {t}
        """,
        says="owns subscription {o}",
        undone="""ALTER SUBSCRIPTION {o} SET (slot_name = NONE);
            DROP SUBSCRIPTION {o}""",
    ),
    "pg_tablespace.spcowner": Held(
        """
        SET allow_in_place_tablespaces = on;
        ALTER ROLE {t} SUPERUSER;
        CREATE TABLESPACE {o} OWNER {t} LOCATION ''
        """,
        says="owns tablespace {o}",
        undone="""DROP TABLESPACE {o}""",
    ),
    "pg_ts_config.cfgowner": Held(
        """
        CREATE TEXT SEARCH CONFIGURATION public.tc (COPY = pg_catalog.simple);
        ALTER TEXT SEARCH CONFIGURATION public.tc OWNER TO {t}
        """,
        says="owns text search configuration public.tc",
        undone="""DROP TEXT SEARCH CONFIGURATION public.tc""",
    ),
    "pg_ts_dict.dictowner": Held(
        """
        CREATE TEXT SEARCH DICTIONARY public.td (TEMPLATE = pg_catalog.simple);
        ALTER TEXT SEARCH DICTIONARY public.td OWNER TO {t}
        """,
        says="owns text search dictionary public.td",
        undone="""DROP TEXT SEARCH DICTIONARY public.td""",
    ),
    "pg_type.typowner": Held(
        """
        CREATE TYPE public.mood AS ENUM ('a');
        ALTER TYPE public.mood OWNER TO {t}
        """,
        says="owns type public.mood",
        undone="""DROP TYPE public.mood""",
    ),
}
"""What a role may own or be granted."""
