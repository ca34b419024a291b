//! The table of users, as both databases have it: what is asked of it, in their common SQL.

/// Makes the functions of a table of users: the connection and the row of a database, the name of the table, and what the later
/// of two times is called there.
macro_rules! users_table {
    ($connection:ty, $row:ty, $table:literal, $later:literal) => {
        pub(super) async fn add(
            connection: &mut $connection,
            user: &User,
        ) -> Result<bool, sqlx::Error> {
            let added = sqlx::query(concat!(
                "INSERT INTO ",
                $table,
                " (key, name, email, password, role, created_at, last_login)
                VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING"
            ))
            .bind(user.name.key())
            .bind(&**user.name.text())
            .bind(&*user.email)
            .bind(&*user.password)
            .bind(&*user.role)
            .bind(column(user.created_at))
            .bind(column(user.last_login))
            .execute(connection)
            .await?;
            Ok(added.rows_affected() == 1)
        }

        pub(super) async fn get(
            connection: &mut $connection,
            key: &str,
        ) -> Result<Option<User>, sqlx::Error> {
            let sql = concat!("SELECT * FROM ", $table, " WHERE key = $1");
            let row = sqlx::query(sql)
                .bind(key)
                .fetch_optional(connection)
                .await?;
            row.as_ref().map(user).transpose()
        }

        /// The users after a key, in the order of their keys.
        pub(super) async fn list(
            connection: &mut $connection,
            cursor: &str,
            limit: usize,
        ) -> Result<Vec<User>, sqlx::Error> {
            let sql = concat!(
                "SELECT * FROM ",
                $table,
                " WHERE key > $1 ORDER BY key LIMIT $2"
            );
            let rows = sqlx::query(sql)
                .bind(cursor)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_all(connection)
                .await?;
            let users = rows.iter().filter_map(|row| {
                let read = user(row);
                if let Err(error) = &read {
                    tracing::error!(%error, "a user in the database cannot be read: the list is without");
                }
                read.ok()
            });
            Ok(users.collect())
        }

        pub(super) async fn replace_password(
            connection: &mut $connection,
            key: &str,
            from: &str,
            to: &str,
        ) -> Result<bool, sqlx::Error> {
            let sql = concat!(
                "UPDATE ",
                $table,
                " SET password = $1 WHERE key = $2 AND password = $3"
            );
            let replaced = sqlx::query(sql)
                .bind(to)
                .bind(key)
                .bind(from)
                .execute(connection)
                .await?;
            Ok(replaced.rows_affected() == 1)
        }

        pub(super) async fn set_role(
            connection: &mut $connection,
            key: &str,
            role: &str,
        ) -> Result<bool, sqlx::Error> {
            let sql = concat!("UPDATE ", $table, " SET role = $1 WHERE key = $2");
            let set = sqlx::query(sql)
                .bind(role)
                .bind(key)
                .execute(connection)
                .await?;
            Ok(set.rows_affected() == 1)
        }

        /// Notes the login, and keeps the user from changing until the transaction ends. Answers the role, when there is a
        /// user with this hash of a password.
        pub(super) async fn log_in(
            connection: &mut $connection,
            name: &UserName,
            password: &str,
            now: UnixTime,
        ) -> Result<Option<Arc<str>>, sqlx::Error> {
            let sql = concat!(
                "UPDATE ",
                $table,
                " SET last_login = ",
                $later,
                "(last_login, $1) WHERE key = $2 AND password = $3 RETURNING role"
            );
            let role: Option<String> = sqlx::query_scalar(sql)
                .bind(column(now))
                .bind(name.key())
                .bind(password)
                .fetch_optional(connection)
                .await?;
            Ok(role.map(Arc::from))
        }

        /// Removes a user, and answers the name as it was registered.
        pub(super) async fn remove(
            connection: &mut $connection,
            key: &str,
        ) -> Result<Option<String>, sqlx::Error> {
            let sql = concat!("DELETE FROM ", $table, " WHERE key = $1 RETURNING name");
            sqlx::query_scalar(sql)
                .bind(key)
                .fetch_optional(connection)
                .await
        }

        pub(super) async fn count(connection: &mut $connection) -> Result<u64, sqlx::Error> {
            let sql = concat!("SELECT count(*) FROM ", $table);
            let count: i64 = sqlx::query_scalar(sql).fetch_one(connection).await?;
            Ok(u64::try_from(count).unwrap_or(0))
        }

        fn user(row: &$row) -> Result<User, sqlx::Error> {
            let name: &str = row.try_get("name")?;
            Ok(User {
                // It was one when it was written; an operator may have written it.
                name: UserName::new(name).map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
                email: row.try_get::<String, _>("email")?.into(),
                password: row.try_get::<String, _>("password")?.into(),
                role: row.try_get::<String, _>("role")?.into(),
                created_at: time(row.try_get("created_at")?),
                last_login: time(row.try_get("last_login")?),
            })
        }
    };
}

pub(in crate::session) use users_table;
