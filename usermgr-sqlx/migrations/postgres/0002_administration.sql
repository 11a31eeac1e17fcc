-- Sessions, roles, administration and the change of addresses.

-- Opaque access tokens. A session has several at once, each until its own end.
CREATE TABLE usermgr_access_tokens (
    digest BYTEA PRIMARY KEY,
    session_id UUID NOT NULL REFERENCES usermgr_sessions (id) ON DELETE CASCADE,
    expires_at TIMESTAMPTZ NOT NULL
);
INSERT INTO usermgr_access_tokens (digest, session_id, expires_at)
    SELECT access, id, access_expires_at FROM usermgr_sessions WHERE access IS NOT NULL;
CREATE INDEX usermgr_access_tokens_session ON usermgr_access_tokens (session_id);
CREATE INDEX usermgr_access_tokens_expiry ON usermgr_access_tokens (expires_at);
DROP INDEX usermgr_sessions_access;
ALTER TABLE usermgr_sessions DROP COLUMN access;
ALTER TABLE usermgr_sessions DROP COLUMN access_expires_at;
-- A refresh token names its session; its digest is compared, not looked up.
DROP INDEX usermgr_sessions_refresh;
CREATE INDEX usermgr_sessions_end ON usermgr_sessions (expires_at);
-- Also those that ended, for the removal of users.
DROP INDEX usermgr_sessions_user;
CREATE INDEX usermgr_sessions_user ON usermgr_sessions (user_id);

-- Names and addresses are searched by what they begin with, byte by byte.
ALTER TABLE usermgr_users ALTER COLUMN email_key TYPE TEXT COLLATE "C";
ALTER TABLE usermgr_users ADD COLUMN username_key TEXT COLLATE "C";
UPDATE usermgr_users SET username_key = lower(username) WHERE username IS NOT NULL;
-- Until when signing in brings a deleted user back; NULL when it does not.
ALTER TABLE usermgr_users ADD COLUMN restorable_until TIMESTAMPTZ;
CREATE INDEX usermgr_users_name ON usermgr_users (username_key, id) WHERE username_key IS NOT NULL;
CREATE INDEX usermgr_users_disabled ON usermgr_users (id) WHERE status = 'disabled';
CREATE INDEX usermgr_users_deleted ON usermgr_users (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX usermgr_users_restorable ON usermgr_users (email_key) WHERE restorable_until IS NOT NULL;

-- Who has a role, but the one that everybody has: the other side of usermgr_users.roles.
CREATE TABLE usermgr_user_roles (
    role TEXT NOT NULL,
    user_id UUID NOT NULL REFERENCES usermgr_users (id) ON DELETE CASCADE,
    PRIMARY KEY (role, user_id)
);
CREATE INDEX usermgr_user_roles_user ON usermgr_user_roles (user_id);
INSERT INTO usermgr_user_roles (role, user_id)
    SELECT role, id FROM usermgr_users, unnest(string_to_array(roles, ' ')) AS role WHERE role <> 'user';

-- The address that a code of a change of address gives its user.
ALTER TABLE usermgr_codes ADD COLUMN new_email TEXT;
CREATE INDEX usermgr_codes_closed ON usermgr_codes (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX usermgr_codes_end ON usermgr_codes (expires_at) WHERE expires_at IS NOT NULL;

-- A key is published before it signs.
ALTER TABLE usermgr_signing_keys ADD COLUMN signs_from TIMESTAMPTZ;
UPDATE usermgr_signing_keys SET signs_from = created_at;
ALTER TABLE usermgr_signing_keys ALTER COLUMN signs_from SET NOT NULL;

CREATE INDEX usermgr_audit_event ON usermgr_audit (event, id);
CREATE INDEX usermgr_audit_actor ON usermgr_audit (actor) WHERE actor IS NOT NULL;
CREATE INDEX usermgr_outbox_user ON usermgr_outbox (user_id, id) WHERE user_id IS NOT NULL;
CREATE INDEX usermgr_outbox_dead ON usermgr_outbox (id) WHERE status = 'dead';
