-- Registrations that wait for their code. They are no users.
CREATE TABLE usermgr_registrations (
    id UUID PRIMARY KEY,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL,
    password TEXT NOT NULL,
    username TEXT,
    locale TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX usermgr_registrations_email ON usermgr_registrations (email_key, id);
CREATE INDEX usermgr_registrations_expiry ON usermgr_registrations (expires_at);

CREATE TABLE usermgr_users (
    id UUID PRIMARY KEY,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL,
    email_verified_at TIMESTAMPTZ,
    username TEXT,
    roles TEXT NOT NULL,
    status TEXT NOT NULL,
    locale TEXT,
    password TEXT,
    password_version BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    last_login_at TIMESTAMPTZ,
    deleted_at TIMESTAMPTZ
);
CREATE UNIQUE INDEX usermgr_users_email ON usermgr_users (email_key) WHERE deleted_at IS NULL;

-- Codes and links by identifier only: the secrets are derived. `digits` is 0 for a link.
CREATE TABLE usermgr_codes (
    id UUID PRIMARY KEY,
    registration_id UUID REFERENCES usermgr_registrations (id) ON DELETE CASCADE,
    user_id UUID REFERENCES usermgr_users (id) ON DELETE CASCADE,
    email_key TEXT NOT NULL,
    purpose TEXT NOT NULL,
    digits BIGINT NOT NULL,
    secret_key BYTEA NOT NULL,
    dies_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ,
    closed_at TIMESTAMPTZ,
    wrong_tries BIGINT NOT NULL
);
CREATE INDEX usermgr_codes_open ON usermgr_codes (email_key, purpose) WHERE closed_at IS NULL;
CREATE INDEX usermgr_codes_registration ON usermgr_codes (registration_id);
CREATE INDEX usermgr_codes_user ON usermgr_codes (user_id);
CREATE INDEX usermgr_codes_expiry ON usermgr_codes (dies_at);

CREATE TABLE usermgr_sessions (
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES usermgr_users (id) ON DELETE CASCADE,
    refresh BYTEA NOT NULL,
    previous_refresh BYTEA,
    previous_rotated_at TIMESTAMPTZ,
    access BYTEA,
    access_expires_at TIMESTAMPTZ,
    password_version BIGINT NOT NULL,
    method TEXT NOT NULL,
    ip TEXT,
    user_agent TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    authenticated_at TIMESTAMPTZ NOT NULL,
    last_seen_at TIMESTAMPTZ NOT NULL,
    idle_expires_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    ended_at TIMESTAMPTZ
);
CREATE UNIQUE INDEX usermgr_sessions_refresh ON usermgr_sessions (refresh);
CREATE UNIQUE INDEX usermgr_sessions_access ON usermgr_sessions (access) WHERE access IS NOT NULL;
CREATE INDEX usermgr_sessions_user ON usermgr_sessions (user_id) WHERE ended_at IS NULL;
CREATE INDEX usermgr_sessions_expiry ON usermgr_sessions (idle_expires_at);
CREATE INDEX usermgr_sessions_ended ON usermgr_sessions (ended_at) WHERE ended_at IS NOT NULL;

-- Mails and events that are owed. A mail names its code, it never holds one.
CREATE TABLE usermgr_outbox (
    id UUID PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    email TEXT,
    locale TEXT,
    username TEXT,
    code_id UUID,
    user_id UUID,
    created_at TIMESTAMPTZ NOT NULL,
    due_at TIMESTAMPTZ NOT NULL,
    attempts BIGINT NOT NULL,
    lease BYTEA,
    lease_until TIMESTAMPTZ,
    status TEXT NOT NULL,
    settled_at TIMESTAMPTZ,
    error TEXT
);
CREATE INDEX usermgr_outbox_due ON usermgr_outbox (due_at, id) WHERE status = 'queued';
CREATE INDEX usermgr_outbox_lease ON usermgr_outbox (lease) WHERE lease IS NOT NULL;
CREATE INDEX usermgr_outbox_settled ON usermgr_outbox (settled_at) WHERE settled_at IS NOT NULL;

CREATE TABLE usermgr_audit (
    id UUID PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL,
    event TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    actor UUID,
    subject UUID,
    email TEXT,
    ip TEXT,
    user_agent TEXT,
    request_id TEXT
);
CREATE INDEX usermgr_audit_subject ON usermgr_audit (subject, id) WHERE subject IS NOT NULL;
CREATE INDEX usermgr_audit_at ON usermgr_audit (at);

CREATE TABLE usermgr_throttles (
    key BYTEA PRIMARY KEY,
    count BIGINT NOT NULL,
    ends_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX usermgr_throttles_end ON usermgr_throttles (ends_at);

-- Networks that signed in to an account: whoever guesses from elsewhere cannot lock these out.
CREATE TABLE usermgr_networks (
    user_id UUID NOT NULL REFERENCES usermgr_users (id) ON DELETE CASCADE,
    network BYTEA NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (user_id, network)
);
CREATE INDEX usermgr_networks_seen ON usermgr_networks (seen_at);

CREATE TABLE usermgr_signing_keys (
    id UUID PRIMARY KEY,
    algorithm TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    sealed BYTEA NOT NULL
);
