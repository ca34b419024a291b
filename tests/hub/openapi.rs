//! The description of all calls, held to what is served.

use serde_json::Value;

use crate::support::hub;

/// What a parameter of a path may be called.
const SOMETHING: &str = "something";

#[tokio::test]
async fn every_call_that_is_described_is_served_and_its_path_has_no_other() {
    let hub = hub(&[]).await;
    let answer = hub.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 30);
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
        for method in ["get", "post", "put", "delete"] {
            let headers = [("content-length", "0")];
            let name = method.to_uppercase();
            let answer = hub.request(&name, &asked, &headers, "").await;
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
    for part in ["/docs/page.js", "/docs/page.css"] {
        assert!(page.text.contains(part));
        assert_eq!(shown.get(part).await.status, 200, "{part}");
    }
    assert!(!page.text.contains("//"), "nothing from elsewhere");
    let hidden = hub(&[("ENABLE_DOCS", "false")]).await;
    assert_eq!(hidden.get("/docs").await.status, 404);
    let document: Value = hidden.get("/openapi.json").await.json();
    assert!(document["paths"].is_object());
}
