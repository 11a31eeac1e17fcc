-- On PostgreSQL this step guards the audit log against the role of the server. Here whoever can write has the whole file.
SELECT 9;
