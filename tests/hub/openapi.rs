//! The description of all calls, held to what is served.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use syn::visit::{self, Visit};
use syn::{Expr, ExprMethodCall, ItemMod, Lit};

use crate::support::hub::SECRET;
use crate::support::{hub, hub_with};

/// What a parameter of a path may be called.
const SOMETHING: &str = "something";

/// What a browser loads, and nobody calls.
const PAGES: [&str; 7] = [
    "/",
    "/docs",
    "/docs/page.css",
    "/docs/page.js",
    "/fanfare.d.ts",
    "/fanfare.js",
    "/redoc",
];

/// What the proxy takes by the form of the path, and is no route.
const PROXIED: [&str; 3] = [
    "/api/{service}/{path}",
    "/sse/{service}/{path}",
    "/ws/{service}",
];

/// Handlers that refuse whatever comes to them.
const REFUSING: [&str; 2] = ["not_found", "only_get"];

/// The routes that the sources register: method and path.
#[derive(Default)]
struct Routes {
    file: PathBuf,
    found: BTreeSet<(String, String)>,
}

impl Routes {
    fn of_sources() -> Self {
        let mut routes = Self::default();
        routes.read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        routes
    }

    fn read(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                self.read(&path);
            } else if path.extension().is_some_and(|ending| ending == "rs")
                && !path.ends_with("tests.rs")
            {
                let text = std::fs::read_to_string(&path).expect("a source");
                let file = syn::parse_file(&text).expect("Rust");
                self.file = path;
                self.visit_file(&file);
            }
        }
    }

    /// Notes the methods of `get(one).post(other)`.
    fn methods(&mut self, path: &str, router: &Expr) {
        let (method, handlers) = match router {
            Expr::Call(call) => (name_of(&call.func), &call.args),
            Expr::MethodCall(call) => {
                self.methods(path, &call.receiver);
                (call.method.to_string(), &call.args)
            }
            other => panic!("{}: {path}: {other:?}", self.file.display()),
        };
        let handler = handlers.first().map(name_of).unwrap_or_default();
        if !REFUSING.contains(&handler.as_str()) {
            self.found.insert((method, path.to_owned()));
        }
    }
}

/// The last part of a path.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Path(path) => path
            .path
            .segments
            .last()
            .map_or_else(String::new, |part| part.ident.to_string()),
        _ => String::new(),
    }
}

impl<'ast> Visit<'ast> for Routes {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let is_test = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<syn::Ident>()
                    .is_ok_and(|word| word == "test")
        };
        if !module.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        visit::visit_expr_method_call(self, call);
        let name = call.method.to_string();
        assert!(
            !["nest", "nest_service", "route_service"].contains(&name.as_str()),
            "{}: {name} is not understood here",
            self.file.display()
        );
        let is_servers_own = self
            .file
            .components()
            .any(|part| part.as_os_str() == "server");
        if name != "route" || is_servers_own {
            return;
        }
        match (call.args.first(), call.args.get(1)) {
            (Some(Expr::Lit(path)), Some(router)) => match &path.lit {
                Lit::Str(path) => self.methods(&path.value(), router),
                other => panic!("{}: a path {other:?}", self.file.display()),
            },
            _ => panic!("{}: a route whose path is no text", self.file.display()),
        }
    }
}

#[tokio::test]
async fn every_route_of_the_sources_is_described_and_no_other() {
    let hub = hub(&[]).await;
    let document = hub.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().expect("paths");
    let mut described: BTreeSet<(String, String)> = BTreeSet::new();
    for (path, methods) in paths {
        let methods = methods.as_object().expect("methods").keys();
        described.extend(methods.map(|method| (method.clone(), path.clone())));
    }
    let mut registered = Routes::of_sources().found;
    assert!(registered.len() > 40, "{registered:?}");
    for page in PAGES {
        let get = ("get".to_owned(), page.to_owned());
        assert!(registered.remove(&get), "{page} is no route any more");
    }
    let proxied: BTreeSet<&str> = described
        .difference(&registered)
        .map(|(_, path)| path.as_str())
        .collect();
    assert_eq!(
        proxied,
        BTreeSet::from(PROXIED),
        "described and not registered"
    );
    let hidden: Vec<_> = registered.difference(&described).collect();
    assert!(hidden.is_empty(), "not described: {hidden:?}");
}

#[tokio::test]
async fn every_call_that_is_described_is_served_and_its_path_has_no_other() {
    let hub = hub(&[("WS_ECHO", "true")]).await;
    // Where who asks is refused, for the stream would not end.
    let closed = hub_with("", &[("JWT_SECRET", SECRET), ("AUTH_REQUIRED", "true")]).await;
    let answer = hub.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 40);
    for (path, methods) in paths {
        let asked: Vec<&str> = path
            .split('/')
            .map(|part| {
                if part.starts_with('{') {
                    SOMETHING
                } else {
                    part
                }
            })
            .collect();
        let asked = asked.join("/");
        for method in ["get", "post", "put", "patch", "delete"] {
            let headers = [("content-length", "0")];
            let name = method.to_uppercase();
            let asked_hub = if path == "/admin/events" {
                &closed
            } else {
                &hub
            };
            let answer = asked_hub.request(&name, &asked, &headers, "").await;
            let is_described = methods.get(method).is_some();
            // Whatever is wrong with the request, somebody is there who says so.
            let is_no_route = answer.status == 405
                || (answer.status == 404 && answer.text.contains("Route "))
                || (answer.status == 404 && answer.text.contains("was not found on this server"));
            assert_eq!(is_described, !is_no_route, "{name} {asked}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn the_page_is_there_where_it_is_wanted() {
    let shown = hub(&[]).await;
    let page = shown.get("/docs").await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    // What it loads is there, and nothing of it is elsewhere.
    let parts = ["/docs/page.js", "/docs/page.css"];
    for part in parts {
        assert!(page.text.contains(part));
        assert_eq!(shown.get(part).await.status, 200, "{part}");
    }
    assert_eq!(shown.get("/redoc").await.text, page.text);
    assert!(!page.text.contains("//"), "nothing from elsewhere");
    let hidden = hub(&[("ENABLE_DOCS", "false")]).await;
    for path in ["/docs", "/redoc"].iter().chain(&parts) {
        assert_eq!(hidden.get(path).await.status, 404, "{path}");
    }
    let other = hub(&[("ENABLE_DOCS", "false"), ("ENABLE_REDOC", "true")]).await;
    assert_eq!(other.get("/docs").await.status, 404);
    for path in ["/redoc"].iter().chain(&parts) {
        assert_eq!(other.get(path).await.status, 200, "{path}");
    }
    let document: Value = hidden.get("/openapi.json").await.json();
    assert!(document["paths"].is_object());
}
