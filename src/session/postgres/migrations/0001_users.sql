-- Users who registered here. `key` is the name without regard to case and Unicode form, in the order of its bytes, whatever
-- the database's own order is. Times are milliseconds since 1970.
CREATE TABLE hub_users (
    key        TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT NOT NULL,
    email      TEXT NOT NULL,
    password   TEXT NOT NULL,
    role       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_login BIGINT NOT NULL
);

CREATE INDEX hub_users_by_last_login ON hub_users (last_login);
