use super::*;
use crate::http1::slots;
use std::net::IpAddr;

#[test]
fn trailers_bring_nothing_that_a_head_would_not() {
    let field = |name: &'static str| Field { name, value: b"v" };
    let names = [
        "X-Sum",
        "Content-Digest",
        "X-User-Id",
        "x_user_id",
        "X-Forwarded-For",
        "Forwarded",
        "Host",
        "Authorization",
        "Cookie",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "X-Api-Key",
        "If-Match",
        "Content-Type",
        "TE",
        "Via",
    ];
    let mut out = Vec::new();
    write_trailers(&names.map(field), &mut out);
    assert_eq!(out, b"X-Sum: v\r\nContent-Digest: v\r\n\r\n");
}

fn client(is_behind_trusted: bool) -> Client {
    Client {
        peer: IpAddr::from([10, 0, 0, 1]),
        ip: IpAddr::from([9, 9, 9, 9]),
        is_behind_trusted,
        is_encrypted: false,
        standard_elements: usize::from(is_behind_trusted),
    }
}

fn head_of(fields: &[(&str, &str)]) -> String {
    let lines: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("GET / HTTP/1.1\r\nhost: a.b:8080\r\n{lines}\r\n")
}

/// What a request's fields become.
fn forwarded(fields: &[(&str, &str)], is_behind_trusted: bool) -> String {
    told(fields, is_behind_trusted, false)
}

/// The same, with `Forwarded` or without.
fn told(fields: &[(&str, &str)], is_behind_trusted: bool, tells_forwarded: bool) -> String {
    let text = head_of(fields);
    let mut slots = slots();
    let head = RequestHead::parse(text.as_bytes(), &mut slots).expect("a good head");
    let intro = Introduction {
        client: &client(is_behind_trusted),
        ids: b"x-request-id: r\r\n",
        identity: None,
        hides_bearer: false,
        upgrades: false,
        is_http2: false,
        tells_forwarded,
    };
    let mut out = Vec::new();
    write_request(&head, &intro, &mut out);
    String::from_utf8(out).expect("text")
}

#[track_caller]
fn has(text: &str, name: &str, value: &str) {
    assert!(
        text.contains(&format!("{name}: {value}\r\n")),
        "{name} in {text}"
    );
    assert_eq!(
        text.matches(&format!("{name}: ")).count(),
        1,
        "{name} in {text}"
    );
}

#[test]
fn requests_lose_what_is_not_for_the_upstream() {
    for name in [
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Proxy",
        "Proxy-Anything",
        "Upgrade",
        "HTTP2-Settings",
        "X-API-Key",
        "X-Admin-Key",
        "X-User-Id",
        "x-user-role",
        "Forwarded",
        "x_foo",
        "X_Forwarded_For",
        "X-Forwarded-Anything",
    ] {
        let text = forwarded(&[(name, "v-lost")], false);
        assert!(!text.contains("v-lost"), "{name}: {text}");
    }
}

#[test]
fn requests_keep_everything_else_as_it_came() {
    let fields = [
        ("Authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("accept-encoding", "gzip"),
        ("Content-TYPE", "x/y"),
        ("trailer", "x-sum"),
        ("te", "trailers"),
        ("origin", "http://o"),
        ("expect", "100-continue"),
    ];
    let text = forwarded(&fields, false);
    for (name, value) in fields {
        has(&text, name, value);
    }
    has(&text, "via", "1.1 fanfare");
    has(&text, "x-request-id", "r");
}

#[test]
fn what_connection_names_goes_unless_it_is_protected() {
    let text = forwarded(
        &[
            ("connection", "close, X-Foo ,authorization"),
            ("connection", "x-forwarded-for, Cookie"),
            ("x-foo", "lost"),
            ("authorization", "a"),
            ("cookie", "c"),
        ],
        false,
    );
    assert!(
        !text.contains("lost") && !text.contains("connection"),
        "{text}"
    );
    has(&text, "authorization", "a");
    has(&text, "cookie", "c");
    has(&text, "x-forwarded-for", "10.0.0.1");
}

#[test]
fn of_strangers_nothing_is_believed() {
    let lies = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-port", "1"),
        ("x-real-ip", "1.1.1.1"),
    ];
    let text = forwarded(&lies, false);
    for (name, value) in [
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a.b:8080"),
        ("x-forwarded-port", "8080"),
        ("x-real-ip", "9.9.9.9"),
    ] {
        has(&text, name, value);
    }
}

#[test]
fn trusted_proxies_are_believed_and_added_to() {
    let fields = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "9.9.9.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "real"),
        ("x-forwarded-port", "443"),
    ];
    let text = forwarded(&fields, true);
    for (name, value) in [
        ("x-forwarded-for", "1.1.1.1, 9.9.9.9, 10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "real"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "9.9.9.9"),
    ] {
        has(&text, name, value);
    }
}

/// A proxy that ends TLS and says its scheme alone was answered with port 80 behind `https`.
#[test]
fn the_port_is_that_of_the_host_or_the_scheme_that_trusted_proxies_name() {
    for (proto, host, expected) in [
        (Some("https"), Some("real"), "443"),
        (Some("https, http"), Some("real, inner:81"), "443"),
        (Some("wss"), Some("[::1]"), "443"),
        (Some("http"), Some("real"), "80"),
        (Some("https"), Some("real:8443"), "8443"),
        (Some("https"), Some("[::1]:8443"), "8443"),
        (None, Some("real"), "80"),
        // The host that the client named is ours to read.
        (Some("https"), None, "8080"),
    ] {
        let fields: Vec<(&str, &str)> = [("x-forwarded-proto", proto), ("x-forwarded-host", host)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        has(&forwarded(&fields, true), "x-forwarded-port", expected);
    }
    let lie = [("x-forwarded-proto", "https"), ("x-forwarded-host", "evil")];
    has(&forwarded(&lie, false), "x-forwarded-port", "8080");
}

#[test]
fn what_trusted_proxies_say_in_the_standard_form_alone_is_told_in_the_older_one() {
    let standard = ("forwarded", "for=9.9.9.9;proto=https;host=\"real:8443\"");
    let text = forwarded(&[standard], true);
    for (name, value) in [
        ("x-forwarded-for", "9.9.9.9, 10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "real:8443"),
        ("x-forwarded-port", "8443"),
    ] {
        has(&text, name, value);
    }
    let text = forwarded(&[standard, ("x-forwarded-proto", "http")], true);
    has(&text, "x-forwarded-proto", "http");
    has(&text, "x-forwarded-host", "real:8443");
    let text = forwarded(&[standard], false);
    has(&text, "x-forwarded-for", "10.0.0.1");
    has(&text, "x-forwarded-proto", "http");
    has(&text, "x-forwarded-host", "a.b:8080");
}

#[test]
fn a_token_among_subprotocols_stays_here() {
    assert_eq!(without_bearer(b"a, bearer.x.y.z,b"), b"a, b");
    assert_eq!(without_bearer(b"bearer.x"), b"");
}

#[test]
fn answers_lose_what_is_internal() {
    let text = "HTTP/1.1 200 OK\r\nx-internal-service-name: s\r\nX-Internal-Anything-That-Is-Quite-Long-Indeed: s\r\n\
                x-db-query-count: 3\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
                Content-Encoding: gzip\r\nset_cookie: a\r\nx-foo: 1\r\nx-ours: 1\r\ncontent-length: 0\r\n\r\n";
    let mut slots = slots();
    let head = ResponseHead::parse(text.as_bytes(), &mut slots, false).expect("a good head");
    let mut out = Vec::new();
    let removed = ["x-internal-*", "x-db-query-count", "x-ours"].map(str::to_owned);
    let removed = crate::proxy::removed::Removed::new(&removed);
    write_response(&head, |name| removed.has(name), &mut out);
    let expected = "Content-Encoding: gzip\r\nset_cookie: a\r\nx-foo: 1\r\ncontent-length: 0\r\n";
    assert_eq!(String::from_utf8(out).expect("text"), expected);
}

#[test]
fn circles_are_found() {
    let looping = |times: usize| {
        let via = vec![("via", "1.1 fanfare, 1.0 other"); times];
        let text = head_of(&via);
        let mut slots = slots();
        let head = RequestHead::parse(text.as_bytes(), &mut slots).expect("a good head");
        is_looping(&head)
    };
    assert!(!looping(VIA_MAX - 1) && looping(VIA_MAX));
}

#[test]
fn the_standard_form_of_who_asks_is_told_to_who_wants_it() {
    let brought = [("forwarded", "for=1.1.1.1;proto=https")];
    let ours = "for=10.0.0.1;host=\"a.b:8080\";proto=http";
    has(&told(&brought, false, true), "forwarded", ours);
    let both = format!("for=1.1.1.1;proto=https, {ours}");
    has(&told(&brought, true, true), "forwarded", &both);
    assert!(!told(&brought, true, false).contains("forwarded: "));
}
