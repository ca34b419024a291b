//! Every call: its path, who may call, and what it takes and gives by the names of `components.json`.

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Back ends.
    Hub,
    /// Anybody, before there is a token.
    Open,
    /// The same at the dashboard.
    Entrance,
    /// Users.
    User,
    /// Clients that connect.
    Client,
    /// Clients of services behind the hub.
    Proxy,
    /// Operators.
    Admin,
    /// The dashboard and its numbers.
    Statistics,
    /// Balancers and monitoring.
    Operations,
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) door: Door,
    pub(super) summary: &'static str,
    pub(super) parameters: &'static [&'static str],
    /// The schema of the body, and whether there has to be one.
    pub(super) body: Option<(&'static str, bool)>,
    pub(super) body_type: &'static str,
    pub(super) status: u16,
    pub(super) done: &'static str,
    /// The schema of the answer, or nothing.
    pub(super) answer: &'static str,
    pub(super) media_type: &'static str,
    pub(super) failures: &'static [u16],
}

const fn call(
    door: Door,
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    answer: &'static str,
    failures: &'static [u16],
) -> Call {
    Call {
        method,
        path,
        door,
        summary,
        parameters: &[],
        body: None,
        body_type: "application/json",
        status: 200,
        done: "Done",
        answer,
        media_type: "application/json",
        failures,
    }
}

impl Call {
    const fn takes(mut self, schema: &'static str) -> Self {
        self.body = Some((schema, true));
        self
    }

    const fn may_take(mut self, schema: &'static str) -> Self {
        self.body = Some((schema, false));
        self
    }

    const fn takes_form(self, schema: &'static str) -> Self {
        Self {
            body_type: "application/x-www-form-urlencoded",
            ..self.takes(schema)
        }
    }

    /// Whatever somebody sends, and whatever a service answers.
    const fn passes(self) -> Self {
        Self {
            body_type: "*/*",
            done: "What the service answers, with its status",
            media_type: "*/*",
            ..self
        }
    }

    const fn with(mut self, parameters: &'static [&'static str]) -> Self {
        self.parameters = parameters;
        self
    }

    const fn as_media(mut self, media_type: &'static str) -> Self {
        self.media_type = media_type;
        self
    }

    const fn upgrades(mut self) -> Self {
        self.status = 101;
        self.done = "Upgraded (RFC 6455)";
        self
    }

    const fn leads(mut self, done: &'static str) -> Self {
        self.status = 303;
        self.done = done;
        self
    }
}

use Door::{Admin, Client, Entrance, Hub, Open, Operations, Proxy, Statistics, User};

/// What a call of a service may come to before the service is asked, or instead of its answer.
const OF_PROXY: &[u16] = &[400, 401, 403, 404, 413, 429, 502, 503, 504];

/// All of them, by plane.
#[rustfmt::skip]
pub(super) const CALLS: &[Call] = &[
    call(Hub, "post", "/hub/publish", "Publish to a channel", "Published", &[400, 401, 403, 413, 503]).takes("Publish"),
    call(Hub, "post", "/hub/broadcast", "Publish the same to many channels", "Results", &[400, 401, 403, 413, 503]).takes("Broadcast"),
    call(Hub, "post", "/hub/batch", "Publish different things, at most 1,000", "Results", &[400, 401, 403, 413, 503]).takes("Batch"),
    call(Hub, "get", "/hub/channels", "The active channels of all nodes", "Channels", &[400, 401, 403, 503]).with(&["prefix", "cursor", "limit"]),
    call(Hub, "get", "/hub/channels/{channel}/history", "What a channel keeps, oldest first", "History", &[400, 401, 403, 409, 503]).with(&["channel", "limit", "epoch", "offset"]),
    call(Hub, "delete", "/hub/channels/{channel}/history", "Forget what a channel keeps", "Published", &[400, 401, 403, 409, 503]).with(&["channel"]),
    call(Hub, "get", "/hub/channels/{channel}/presence", "Who is in a channel", "Presence", &[400, 401, 403, 409, 503]).with(&["channel", "limit"]),
    call(Hub, "get", "/hub/channels/{channel}/stats", "Numbers of a channel", "Object", &[400, 401, 403, 503]).with(&["channel"]),
    call(Hub, "post", "/hub/subscribe", "Subscribe the connections of a user or a client", "Object", &[400, 401, 403, 503]).takes("Order"),
    call(Hub, "post", "/hub/unsubscribe", "End their subscriptions", "Object", &[400, 401, 403, 503]).takes("Order"),
    call(Hub, "post", "/hub/disconnect", "Close their connections (4002)", "Object", &[400, 401, 403, 503]).takes("Order"),
    call(Hub, "get", "/hub/nodes", "The nodes that are alive", "Nodes", &[401, 403, 503]),

    call(Open, "post", "/sessions/register", "Make an account", "Done", &[400, 413, 422, 429, 503]).takes("Register"),
    call(Open, "post", "/sessions/login", "Log in", "LoggedIn", &[401, 413, 422, 429, 503]).takes("Login"),
    call(User, "post", "/sessions/logout", "End the session of the token and close its sockets", "Done", &[401, 503]),
    call(User, "post", "/sessions/delete_account", "Delete the account and everything of it", "Done", &[401, 404, 503]),
    call(User, "post", "/sessions/create", "The session of an id or for a conversation, a new one when there is none", "Session", &[401, 403, 413, 422, 503]).may_take("CreateSession"),
    call(User, "post", "/sessions/update/{id}", "Change fields of a session's data", "Session", &[401, 403, 404, 413, 422, 503]).takes("UpdateSession").with(&["session"]),
    call(User, "get", "/sessions/{id}", "A session", "Session", &[401, 403, 404, 503]).with(&["session"]),
    call(User, "get", "/sessions/users/{user}/sessions", "The sessions of a user, the newest first", "SessionList", &[401, 403, 503]).with(&["user"]),
    call(User, "get", "/sessions/users/{user}/connection", "Where a user is connected", "Connection", &[401, 403, 404, 503]).with(&["user"]),

    call(Client, "get", "/ws/connect", "Open a WebSocket", "", &[400, 401, 403, 503]).with(&["session_id"]).upgrades(),
    call(Client, "get", "/sse/connect", "Open a stream of server-sent events", "Text", &[400, 401, 403, 503]).with(&["channels", "last_event_id"]).as_media("text/event-stream"),

    call(Client, "get", "/ws/echo", "Open a WebSocket that sends back what it is sent, where WS_ECHO is true", "", &[400, 503]).upgrades(),

    call(Proxy, "get", "/api/{service}/{path}", "Ask a service; the path may have any number of parts, and a query", "Any", OF_PROXY).passes().with(&["service", "path"]),
    call(Proxy, "head", "/api/{service}/{path}", "The same without the body", "", OF_PROXY).passes().with(&["service", "path"]),
    call(Proxy, "post", "/api/{service}/{path}", "Ask a service", "Any", OF_PROXY).may_take("Any").passes().with(&["service", "path"]),
    call(Proxy, "put", "/api/{service}/{path}", "Ask a service", "Any", OF_PROXY).may_take("Any").passes().with(&["service", "path"]),
    call(Proxy, "patch", "/api/{service}/{path}", "Ask a service", "Any", OF_PROXY).may_take("Any").passes().with(&["service", "path"]),
    call(Proxy, "delete", "/api/{service}/{path}", "Ask a service", "Any", OF_PROXY).may_take("Any").passes().with(&["service", "path"]),
    call(Proxy, "options", "/api/{service}/{path}", "Ask a service, unless it is the preflight of a page that is allowed", "Any", OF_PROXY).passes().with(&["service", "path"]),
    call(Proxy, "get", "/sse/{service}/{path}", "An event stream of a service", "Text", OF_PROXY).passes().as_media("text/event-stream").with(&["service", "path"]),
    call(Proxy, "head", "/sse/{service}/{path}", "The same without the body", "", OF_PROXY).passes().with(&["service", "path"]),
    call(Proxy, "get", "/ws/{service}", "Open a WebSocket to a service", "", &[400, 401, 403, 404, 426, 429, 502, 503, 504]).with(&["service", "target"]).upgrades(),

    call(Admin, "get", "/admin/users", "Users in the order of their names", "Users", &[400, 401, 403, 503]).with(&["cursor", "limit"]),
    call(Admin, "post", "/admin/users/promote", "Make a user an admin", "Done", &[401, 403, 404, 422, 503]).takes("UserName"),
    call(Admin, "post", "/admin/users/demote", "Make an admin a user again and end the sessions", "Done", &[400, 401, 403, 404, 422, 503]).takes("UserName"),
    call(Admin, "post", "/admin/users/{user}/role", "Give a user a role and end the sessions", "RoleSet", &[400, 401, 403, 404, 422, 503]).takes("Role").with(&["user"]),
    call(Admin, "get", "/admin/users/stats", "How many users, sessions and connections there are", "UserStats", &[401, 403, 503]),
    call(Admin, "get", "/admin/system/stats", "This node's process", "SystemStats", &[401, 403, 503]),
    call(Admin, "get", "/admin/system/redis-info", "What Redis says of itself", "RedisInfo", &[401, 403, 404, 503]),
    call(Admin, "post", "/admin/system/cleanup-sessions", "Throw away what has expired, now", "CleanedUp", &[401, 403, 503]),
    call(Admin, "delete", "/admin/cache", "Forget what this node's cache has of a service", "Object", &[400, 401, 404]).with(&["service_of_cache", "prefix"]),

    call(Statistics, "get", "/admin", "The dashboard, or a form to log in", "Text", &[401]).with(&["token"]).as_media("text/html"),
    call(Entrance, "post", "/admin", "Log in to the dashboard with ADMIN_API_KEY or a token", "", &[401]).takes_form("Pass").leads("To the dashboard, with a cookie"),
    call(Entrance, "post", "/admin/logout", "Take the cookie away", "", &[]).leads("To the form, without the cookie"),
    call(Statistics, "get", "/admin/events", "The dashboard's figures, once a second", "Text", &[401, 503]).as_media("text/event-stream"),
    call(Statistics, "get", "/admin/stats", "The node and its upstreams", "Object", &[401]),
    call(Operations, "get", "/healthz", "Whether the process lives", "Object", &[]),
    call(Operations, "get", "/health", "The same with more to read", "Object", &[]),
    call(Operations, "get", "/readyz", "Whether the node takes clients", "Object", &[503]),
    call(Operations, "get", "/ready", "The same in another form", "Object", &[503]),
    call(Operations, "get", "/ws/health", "WebSockets of this node, and their intervals", "Object", &[]),
    call(Operations, "get", "/_pressure", "Whether the node sheds load", "Object", &[503]),
    call(Operations, "get", "/metrics", "Numbers for Prometheus", "Text", &[]).as_media("text/plain"),
    call(Operations, "get", "/openapi.json", "This document", "Object", &[]),
];
