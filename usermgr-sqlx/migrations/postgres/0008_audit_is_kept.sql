-- The audit log is written once. Whoever can run statements as the role of the server must not be able to hide what they
-- did: an entry goes when it is 30 days old, and loses address, client and agent when a user that it names is deleted.
-- A trigger and not missing rights, so that it holds for the owner's own mistakes as well, and so that servers of older
-- versions go on purging.
CREATE FUNCTION usermgr_guard_audit() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog
AS $guard$
DECLARE
    is_deleted BOOLEAN;
BEGIN
    IF TG_OP = 'DELETE' THEN
        -- The time of the database, which the role of the server does not set.
        IF OLD.at < now() - INTERVAL '30 days' THEN
            RETURN OLD;
        END IF;
    ELSIF NEW.email IS NULL AND NEW.ip IS NULL AND NEW.user_agent IS NULL THEN
        OLD.email := NULL;
        OLD.ip := NULL;
        OLD.user_agent := NULL;
        IF NEW IS NOT DISTINCT FROM OLD THEN
            EXECUTE format(
                'SELECT EXISTS (SELECT 1 FROM %I.usermgr_users WHERE id IN ($1, $2) AND deleted_at IS NOT NULL)',
                TG_TABLE_SCHEMA
            ) INTO is_deleted USING OLD.subject, OLD.actor;
            IF is_deleted THEN
                RETURN NEW;
            END IF;
        END IF;
    END IF;
    RAISE insufficient_privilege
        USING MESSAGE = 'entries of the audit log are not changed, and not removed before they are 30 days old';
END
$guard$;

CREATE TRIGGER usermgr_guard_audit BEFORE UPDATE OR DELETE ON usermgr_audit
    FOR EACH ROW EXECUTE FUNCTION usermgr_guard_audit();
