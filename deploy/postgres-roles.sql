-- Two roles for one database: usermgr_owner owns the tables and migrates; usermgr_app runs `serve` and `worker` and can
-- neither make, change nor drop a table.
--
--   psql -v ON_ERROR_STOP=1 -d usermgr -f deploy/postgres-roles.sql      as a superuser, in the database of usermgr
--   usermgr-server migrate                                               as usermgr_owner
--   usermgr-server serve                                                 as usermgr_app
--
-- It may be run again at any time, also on a database whose tables another role has made: they come to belong to
-- usermgr_owner. Passwords are not set here: \password usermgr_owner, \password usermgr_app. Elsewhere than with a
-- superuser, whoever runs it has to be a member of usermgr_owner and own the database.

DO $$
DECLARE
    role TEXT;
BEGIN
    FOREACH role IN ARRAY ARRAY['usermgr_owner', 'usermgr_app'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- It is there, or another database of the cluster makes it at this moment.
        END;
    END LOOP;
    -- Nobody else: neither to connect nor to make temporary tables.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO usermgr_owner, usermgr_app', current_database());
END $$;

-- Before PostgreSQL 15 everybody may make tables in public.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO usermgr_owner;
GRANT USAGE ON SCHEMA public TO usermgr_app;

-- The table of versions, made here so that it is read-only from the start.
CREATE TABLE IF NOT EXISTS public.usermgr_schema (version BIGINT PRIMARY KEY);

-- Tables that are there, and those that a later version brings. Sequences of identity columns need no grant.
DO $$
DECLARE
    found TEXT;
BEGIN
    FOR found IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename LIKE 'usermgr\_%' LOOP
        EXECUTE format('ALTER TABLE public.%I OWNER TO usermgr_owner', found);
        EXECUTE format('REVOKE ALL ON public.%I FROM PUBLIC, usermgr_app', found);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I TO usermgr_app', found);
    END LOOP;
    -- The function that keeps usermgr_app from changing the audit log, and from removing what is under 30 days old.
    FOR found IN SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname = 'usermgr_guard_audit' LOOP
        EXECUTE format('ALTER FUNCTION public.%I() OWNER TO usermgr_owner', found);
    END LOOP;
END $$;
ALTER DEFAULT PRIVILEGES FOR ROLE usermgr_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO usermgr_app;

-- Which version the tables are of is for usermgr_owner to say.
REVOKE INSERT, UPDATE, DELETE ON public.usermgr_schema FROM usermgr_app;
