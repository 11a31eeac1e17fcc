-- When a signing key was revoked. A program of an earlier version goes on accepting it.
ALTER TABLE usermgr_signing_keys ADD COLUMN revoked_at TIMESTAMPTZ;
