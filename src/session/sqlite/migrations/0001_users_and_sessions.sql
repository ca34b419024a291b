-- Users who registered here. `key` is the name without regard to case and Unicode form.
CREATE TABLE users (
    key        TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    email      TEXT NOT NULL,
    password   TEXT NOT NULL,
    role       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_login INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX users_by_last_login ON users (last_login);

-- The secret that signs tokens where the node was given none: one row.
CREATE TABLE secrets (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    secret TEXT NOT NULL
) STRICT;

-- Sessions of these users, and of users that another issuer's tokens name. Times are milliseconds since 1970.
CREATE TABLE sessions (
    id          BLOB PRIMARY KEY,
    user        TEXT NOT NULL,
    chat_id     TEXT NOT NULL,
    data        TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    last_access INTEGER NOT NULL,
    node        TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_user ON sessions (user, last_access);
CREATE INDEX sessions_by_last_access ON sessions (last_access);
