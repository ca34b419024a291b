//! `GET /openapi.json`: every call over HTTP as OpenAPI 3.1, and `GET /docs`, a page that shows it.
//!
//! The calls stand in one table; what their bodies look like in `components.json`. A test of the hub holds the table to the
//! routes of the sources, both ways.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use serde_json::{Map, Value, json};

use super::Config;
use crate::telemetry::http::{Route, Stopwatch};

mod calls;

use calls::{CALLS, Call, Door};

/// The page loads its own document and nothing else.
const POLICY: &str = "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'";

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The document, and the page at the paths where it is wanted.
pub fn openapi_router(config: &Config) -> Router {
    let mut router = Router::new().route("/openapi.json", get(openapi));
    if config.docs {
        router = router.route("/docs", get(docs));
    }
    if config.redoc {
        router = router.route("/redoc", get(docs));
    }
    if config.docs || config.redoc {
        router = router
            .route("/docs/page.js", get(script))
            .route("/docs/page.css", get(style));
    }
    router
}

async fn openapi() -> Response {
    answer("application/json", &DOCUMENT)
}

async fn docs() -> Response {
    answer("text/html; charset=utf-8", include_str!("page.html"))
}

async fn script() -> Response {
    answer("text/javascript; charset=utf-8", include_str!("page.js"))
}

async fn style() -> Response {
    answer("text/css; charset=utf-8", include_str!("page.css"))
}

fn answer(media_type: &'static str, text: &'static str) -> Response {
    let watch = Stopwatch::start(Route::Documentation);
    let mut response = Response::new(Body::from(text));
    for (name, value) in [
        (CONTENT_TYPE, media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    watch.stop(200);
    response
}

/// The whole document.
fn document() -> Value {
    let mut paths = Map::new();
    for call in CALLS {
        let path = paths.entry(call.path).or_insert_with(|| json!({}));
        path[call.method] = operation(call);
    }
    // The file is part of the program; a test reads it.
    let components: Value =
        serde_json::from_str(include_str!("components.json")).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Fanfare",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A real-time fan-out hub. What sockets and streams speak stands in docs/PROTOCOL.md.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "hub", "description": "For back ends"},
            {"name": "sessions", "description": "For users"},
            {"name": "connections", "description": "WebSockets and event streams"},
            {"name": "services", "description": "Services behind the hub"},
            {"name": "admin", "description": "For operators"},
            {"name": "operations", "description": "Health and numbers"},
        ],
        "paths": paths,
        "components": components,
    })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

fn operation(call: &Call) -> Value {
    let mut operation = json!({
        "tags": [call.door.tag()],
        "summary": call.summary,
        "security": call.door.security(),
        "responses": responses(call),
    });
    if !call.parameters.is_empty() {
        let parameters = call.parameters.iter();
        let parameters = parameters.map(|name| reference("parameters", name));
        operation["parameters"] = parameters.collect();
    }
    if let Some((schema, required)) = call.body {
        let content = json!({call.body_type: {"schema": reference("schemas", schema)}});
        operation["requestBody"] = json!({"required": required, "content": content});
    }
    operation
}

fn responses(call: &Call) -> Value {
    let mut responses = Map::new();
    let done = match call.answer {
        "" => json!({"description": call.done}),
        schema => json!({
            "description": call.done,
            "content": {call.media_type: {"schema": reference("schemas", schema)}},
        }),
    };
    responses.insert(call.status.to_string(), done);
    for status in call.failures {
        let name = format!("{}{status}", call.door.errors());
        responses.insert(status.to_string(), reference("responses", &name));
    }
    responses.into()
}

impl Door {
    const fn tag(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Open | Self::User => "sessions",
            Self::Client => "connections",
            Self::Proxy => "services",
            Self::Admin => "admin",
            Self::Entrance | Self::Operations | Self::Statistics => "operations",
        }
    }

    /// What the names of its error answers begin with.
    const fn errors(self) -> &'static str {
        match self {
            Self::Open | Self::User | Self::Admin => "Session",
            Self::Proxy => "Proxy",
            Self::Hub | Self::Client | Self::Entrance | Self::Operations | Self::Statistics => {
                "Hub"
            }
        }
    }

    /// Each is enough; `{}` where none may be needed.
    fn security(self) -> Value {
        match self {
            Self::Hub => json!([{"hub": []}, {}]),
            Self::Open | Self::Entrance | Self::Operations => json!([]),
            Self::User => json!([{"token": []}]),
            Self::Client | Self::Proxy => json!([{"token": []}, {"tokenInQuery": []}, {}]),
            Self::Admin => json!([{"adminKey": []}, {"token": []}]),
            Self::Statistics => json!([{"adminKey": []}, {"token": []}, {}]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every `$ref` of a value.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match (name.as_str(), value) {
                        ("$ref", Value::String(to)) => {
                            found.insert(to.clone());
                        }
                        (_, value) => references(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_nothing_stands_there_for_nobody() {
        let document = document();
        let mut named = BTreeSet::new();
        references(&document, &mut named);
        let mut there = BTreeSet::new();
        for kind in ["schemas", "parameters", "responses"] {
            let parts = document["components"][kind].as_object().expect(kind);
            assert!(parts.len() > 5, "{kind}");
            there.extend(
                parts
                    .keys()
                    .map(|name| format!("#/components/{kind}/{name}")),
            );
        }
        assert_eq!(named, there);
    }

    #[test]
    fn every_route_that_is_counted_is_described_and_no_other() {
        let described: BTreeSet<&str> = CALLS.iter().map(|call| call.path).collect();
        let own_pages = ["/", "unmatched"];
        // Together with what they belong to; the proxy has numbers of its own, and tools are not counted.
        let joined = ["/admin/events", "/admin/logout", "/ws/echo"];
        for route in Route::ALL {
            let label = route.label();
            let is_page = own_pages.contains(&label) || label == Route::Health.label();
            assert!(
                is_page || described.contains(label),
                "{label} is not described"
            );
        }
        let counted: BTreeSet<&str> = Route::ALL.iter().map(|route| route.label()).collect();
        for path in described {
            let mut calls = CALLS.iter().filter(|call| call.path == path);
            let is_elsewhere = joined.contains(&path)
                || calls.any(|call| matches!(call.door, Door::Operations | Door::Proxy));
            assert!(
                is_elsewhere || counted.contains(path),
                "{path} is not counted"
            );
        }
    }

    #[test]
    fn a_path_names_its_parameters() {
        for call in CALLS {
            let written: Vec<&str> = call
                .path
                .split('/')
                .filter(|part| part.starts_with('{'))
                .collect();
            let named = document()["components"]["parameters"].clone();
            let in_path: Vec<String> = call
                .parameters
                .iter()
                .map(|name| &named[*name])
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| format!("{{{}}}", parameter["name"].as_str().expect("a name")))
                .collect();
            assert_eq!(written, in_path, "{}", call.path);
        }
    }
}
