-- Registrations that wait for their code. They are no users.
CREATE TABLE usermgr_registrations (
    id BLOB PRIMARY KEY,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL,
    password TEXT NOT NULL,
    username TEXT,
    locale TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX usermgr_registrations_email ON usermgr_registrations (email_key, id);
CREATE INDEX usermgr_registrations_expiry ON usermgr_registrations (expires_at);

CREATE TABLE usermgr_users (
    id BLOB PRIMARY KEY,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL,
    email_verified_at INTEGER,
    username TEXT,
    roles TEXT NOT NULL,
    status TEXT NOT NULL,
    locale TEXT,
    password TEXT,
    password_version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_login_at INTEGER,
    deleted_at INTEGER
) STRICT;
CREATE UNIQUE INDEX usermgr_users_email ON usermgr_users (email_key) WHERE deleted_at IS NULL;

-- Codes and links by identifier only: the secrets are derived. `digits` is 0 for a link.
CREATE TABLE usermgr_codes (
    id BLOB PRIMARY KEY,
    registration_id BLOB REFERENCES usermgr_registrations (id) ON DELETE CASCADE,
    user_id BLOB REFERENCES usermgr_users (id) ON DELETE CASCADE,
    email_key TEXT NOT NULL,
    purpose TEXT NOT NULL,
    digits INTEGER NOT NULL,
    secret_key BLOB NOT NULL,
    dies_at INTEGER NOT NULL,
    expires_at INTEGER,
    closed_at INTEGER,
    wrong_tries INTEGER NOT NULL
) STRICT;
CREATE INDEX usermgr_codes_open ON usermgr_codes (email_key, purpose) WHERE closed_at IS NULL;
CREATE INDEX usermgr_codes_registration ON usermgr_codes (registration_id);
CREATE INDEX usermgr_codes_user ON usermgr_codes (user_id);
CREATE INDEX usermgr_codes_expiry ON usermgr_codes (dies_at);

CREATE TABLE usermgr_sessions (
    id BLOB PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES usermgr_users (id) ON DELETE CASCADE,
    refresh BLOB NOT NULL,
    previous_refresh BLOB,
    previous_rotated_at INTEGER,
    access BLOB,
    access_expires_at INTEGER,
    password_version INTEGER NOT NULL,
    method TEXT NOT NULL,
    ip TEXT,
    user_agent TEXT,
    created_at INTEGER NOT NULL,
    authenticated_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    idle_expires_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;
CREATE UNIQUE INDEX usermgr_sessions_refresh ON usermgr_sessions (refresh);
CREATE UNIQUE INDEX usermgr_sessions_access ON usermgr_sessions (access) WHERE access IS NOT NULL;
CREATE INDEX usermgr_sessions_user ON usermgr_sessions (user_id) WHERE ended_at IS NULL;
CREATE INDEX usermgr_sessions_expiry ON usermgr_sessions (idle_expires_at);
CREATE INDEX usermgr_sessions_ended ON usermgr_sessions (ended_at) WHERE ended_at IS NOT NULL;

-- Mails and events that are owed. A mail names its code, it never holds one.
CREATE TABLE usermgr_outbox (
    id BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    email TEXT,
    locale TEXT,
    username TEXT,
    code_id BLOB,
    user_id BLOB,
    created_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    lease BLOB,
    lease_until INTEGER,
    status TEXT NOT NULL,
    settled_at INTEGER,
    error TEXT
) STRICT;
CREATE INDEX usermgr_outbox_due ON usermgr_outbox (due_at, id) WHERE status = 'queued';
CREATE INDEX usermgr_outbox_lease ON usermgr_outbox (lease) WHERE lease IS NOT NULL;
CREATE INDEX usermgr_outbox_settled ON usermgr_outbox (settled_at) WHERE settled_at IS NOT NULL;

CREATE TABLE usermgr_audit (
    id BLOB PRIMARY KEY,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    actor BLOB,
    subject BLOB,
    email TEXT,
    ip TEXT,
    user_agent TEXT,
    request_id TEXT
) STRICT;
CREATE INDEX usermgr_audit_subject ON usermgr_audit (subject, id) WHERE subject IS NOT NULL;
CREATE INDEX usermgr_audit_at ON usermgr_audit (at);

CREATE TABLE usermgr_throttles (
    key BLOB PRIMARY KEY,
    count INTEGER NOT NULL,
    ends_at INTEGER NOT NULL
) STRICT;
CREATE INDEX usermgr_throttles_end ON usermgr_throttles (ends_at);

-- Networks that signed in to an account: whoever guesses from elsewhere cannot lock these out.
CREATE TABLE usermgr_networks (
    user_id BLOB NOT NULL REFERENCES usermgr_users (id) ON DELETE CASCADE,
    network BLOB NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, network)
) STRICT;
CREATE INDEX usermgr_networks_seen ON usermgr_networks (seen_at);

CREATE TABLE usermgr_signing_keys (
    id BLOB PRIMARY KEY,
    algorithm TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    sealed BLOB NOT NULL
) STRICT;
