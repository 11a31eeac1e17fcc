-- What the host keeps of a user: a JSON object as its type wrote it, letter by letter (so no jsonb). A program of an
-- earlier version that verifies a registration drops its profile.
ALTER TABLE usermgr_registrations ADD COLUMN profile TEXT;
ALTER TABLE usermgr_users ADD COLUMN profile TEXT;
