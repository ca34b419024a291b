//! Users as clients of the session API are.

use serde_json::{Value, json};

use super::http::Answer;
use super::hub::SECRET;
use super::{Hub, hub};

/// Hashing as cheaply as may be configured: these tests check logic, not strength.
const PASSWORD_HASH: &str = "argon2id:7168:1:1";

pub(crate) const PASSWORD: &str = "correct horse";

/// What such a hub is told.
pub(crate) const SESSIONS: [(&str, &str); 2] =
    [("JWT_SECRET", SECRET), ("PASSWORD_HASH", PASSWORD_HASH)];

/// A hub that mints tokens.
pub(crate) async fn session_hub(variables: &[(&str, &str)]) -> Hub {
    let mut all = SESSIONS.to_vec();
    all.extend_from_slice(variables);
    hub(&all).await
}

/// A user who has logged in.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) token: String,
    pub(crate) session: String,
}

impl User {
    /// The path that opens a socket as that system's clients do.
    pub(crate) fn ws_path(&self) -> String {
        ws_path(&self.session, &self.token)
    }
}

pub(crate) fn ws_path(session: &str, token: &str) -> String {
    format!("/ws/connect?session_id={session}&token={token}")
}

impl Hub {
    /// A request with a token, empty for none, and a body, null for none.
    pub(crate) async fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers: &[(&str, &str)] = match token {
            "" => &[],
            _ => &[("authorization", &bearer)],
        };
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        // A POST without a body says so.
        let length = [("content-length", "0")];
        let headers = match (method, body.as_str()) {
            ("POST", "") => [headers, &length].concat(),
            _ => headers.to_vec(),
        };
        self.request(method, path, &headers, &body).await
    }

    pub(crate) async fn register(&self, name: &str) -> Answer {
        let body = json!({"username": name, "email": "a@example.com", "password": PASSWORD});
        self.call("POST", "/sessions/register", "", &body).await
    }

    pub(crate) async fn try_login(&self, name: &str, password: &str) -> Answer {
        let body = json!({"username": name, "password": password});
        self.call("POST", "/sessions/login", "", &body).await
    }

    pub(crate) async fn login(&self, name: &str) -> User {
        let answer = self.try_login(name, PASSWORD).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        User {
            name: text(&body["user"]["username"]),
            token: text(&body["access_token"]),
            session: text(&body["session_id"]),
        }
    }

    /// Registers and logs in.
    pub(crate) async fn user(&self, name: &str) -> User {
        let answer = self.register(name).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.login(name).await
    }

    /// The data of a session, as its user reads them.
    pub(crate) async fn session_data(&self, user: &User) -> Value {
        let path = format!("/sessions/{}", user.session);
        let answer = self.call("GET", &path, &user.token, &Value::Null).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["data"].clone()
    }
}

impl Answer {
    /// The status, which must be this one, and the first text of that system's error envelope.
    #[track_caller]
    pub(crate) fn expect_refusal(&self, status: u16, error: &str) {
        self.expect_refusal_at("/sessions", status, error);
    }

    /// The same at paths that begin so.
    #[track_caller]
    pub(crate) fn expect_refusal_at(&self, beginning: &str, status: u16, error: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        assert_eq!(body["error"], error, "{self:?}");
        assert_eq!(body["status_code"], status, "{self:?}");
        assert!(body.get("detail").is_some(), "{self:?}");
        let timestamp = body["timestamp"].as_str().expect("a time");
        assert!(
            timestamp.starts_with("20") && timestamp.ends_with('Z'),
            "{timestamp}"
        );
        let path = body["path"].as_str().expect("a path");
        assert!(path.starts_with(beginning), "{path}");
    }

    /// 422 with exactly these faults, each a place and a type.
    #[track_caller]
    pub(crate) fn expect_faults(&self, expected: &[(&str, &str)]) {
        self.expect_refusal(422, "Validation Error");
        let body = self.json();
        let faults = body["errors"].as_array().expect("a list").iter();
        let faults: Vec<(String, String)> = faults
            .map(|fault| {
                assert!(fault["msg"].is_string(), "{fault}");
                assert_eq!(fault["loc"][0], "body");
                let field = fault["loc"][1].as_str().unwrap_or_default();
                (
                    field.to_owned(),
                    fault["type"].as_str().expect("a type").to_owned(),
                )
            })
            .collect();
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(field, kind)| ((*field).to_owned(), (*kind).to_owned()))
            .collect();
        assert_eq!(faults, expected);
    }
}
