//! What is found again, and what is not.

use tokio::time::Instant;

use super::*;

const HOST: &[u8] = b"x-forwarded-host: h\r\n";

fn cache(total_bytes_max: u64) -> Cache {
    Cache::new(CacheConfig {
        total_bytes_max,
        wait_max: Duration::from_secs(1),
    })
}

fn stored(vary: &str, body: &str) -> Stored {
    let vary = if vary.is_empty() {
        String::new()
    } else {
        format!("vary: {vary}\r\n")
    };
    let lines = format!("cache-control: max-age=60\r\n{vary}");
    let now = Instant::now();
    let asking = Asking {
        lines: b"",
        is_personal: false,
        since: now,
        at: now,
    };
    let head = Head::new(200, "OK", lines.into_bytes(), None);
    let kept = head.keep(&asking, Duration::ZERO);
    kept.expect("kept").with_body(body.as_bytes().to_vec())
}

fn body(cache: &Cache, key: &str, request: &str) -> Option<String> {
    let found = cache.find(key, request.as_bytes())?;
    Some(String::from_utf8_lossy(&found.body).into_owned())
}

#[test]
fn answers_are_found_by_scheme_host_service_and_target() {
    let cache = cache(1 << 20);
    let at = |encrypted, host, target| {
        let fields = format!("x-forwarded-for: 1.2.3.4\r\nX-Forwarded-Host: {host}\r\n\r\n");
        key(encrypted, "s", target, fields.as_bytes())
    };
    cache.keep(&at(false, "A.example", "/x?q"), b"", stored("", "one"));
    let found = |key: Arc<str>| body(&cache, &key, "");
    assert_eq!(
        found(at(false, "a.EXAMPLE", "/x?q")).as_deref(),
        Some("one")
    );
    assert_eq!(found(at(true, "a.example", "/x?q")), None);
    assert_eq!(found(at(false, "b.example", "/x?q")), None);
    assert_eq!(found(at(false, "a.example", "/x")), None);
    assert_eq!(
        found(key(false, "t", "/x?q", b"x-forwarded-host: a.example\r\n")),
        None
    );
}

#[test]
fn answers_that_vary_are_found_by_the_fields_that_they_name() {
    let cache = cache(1 << 20);
    let key = key(false, "s", "/", b"");
    let (gzip, plain) = ("Accept-Encoding: gzip\r\n", "x: y\r\n");
    cache.keep(&key, gzip.as_bytes(), stored("Accept-Encoding", "packed"));
    assert_eq!(body(&cache, &key, plain), None);
    cache.keep(&key, plain.as_bytes(), stored("accept-encoding", "plain"));
    assert_eq!(body(&cache, &key, gzip).as_deref(), Some("packed"));
    assert_eq!(body(&cache, &key, plain).as_deref(), Some("plain"));
    cache.forget(&key);
    assert_eq!(body(&cache, &key, gzip), None);
    cache.keep(&key, plain.as_bytes(), stored("accept-encoding", "new"));
    assert_eq!(
        body(&cache, &key, gzip),
        None,
        "what was forgotten stays so"
    );
}

#[test]
fn what_the_upstream_is_told_of_the_address_parts_answers() {
    let of = |fields: &str| key(false, "s", "/", fields.as_bytes());
    let plain = of("x-forwarded-host: a\r\nx-forwarded-port: 80\r\n");
    assert_eq!(
        of(
            "X-Forwarded-For: 1.1.1.1\r\naccept: b\r\nx-forwarded-host: a\r\nx-forwarded-port: 80\r\n"
        ),
        plain
    );
    for other in [
        "x-forwarded-host: b\r\nx-forwarded-port: 80\r\n",
        "x-forwarded-host: a\r\nx-forwarded-port: 81\r\n",
        "x-forwarded-host: a\r\nx-forwarded-port: 80\r\nx-forwarded-prefix: /p\r\n",
        "x-forwarded-host: a\r\nx-forwarded-host: a\r\nx-forwarded-port: 80\r\n",
        "x-forwarded-host: a\r\nx-forwarded-port: 80\r\nforwarded: for=1.1.1.1;host=b\r\n",
    ] {
        assert_ne!(of(other), plain, "{other}");
    }
    let told = |client: &str| {
        of(&format!(
            "forwarded: for={client};host=\"b\";proto=http\r\n"
        ))
    };
    assert_eq!(told("1.1.1.1"), told("\"[::1]\""));
}

#[test]
fn values_that_are_no_text_are_told_apart() {
    let cache = cache(1 << 20);
    let key = key(false, "s", "/", HOST);
    cache.keep(&key, b"x: \xe9\r\n", stored("x", "one"));
    let found = |request: &[u8]| cache.find(&key, request).is_some();
    assert!(found(b"x: \xe9\r\n"));
    assert!(!found(b"x: \xe8\r\n"));
    assert!(!found("x: \u{fffd}\r\n".as_bytes()));
}

#[test]
fn a_service_is_purged_as_far_as_its_paths_begin_alike() {
    let cache = cache(1 << 20);
    for (service, target) in [("s", "/a/1"), ("s", "/a/2"), ("s", "/b"), ("t", "/a/1")] {
        cache.keep(&key(false, service, target, HOST), b"", stored("", target));
    }
    cache.entries.run_pending_tasks();
    assert_eq!(cache.purge("s", "/a/"), 2);
    assert_eq!(body(&cache, &key(false, "s", "/a/1", HOST), ""), None);
    assert!(body(&cache, &key(false, "s", "/b", HOST), "").is_some());
    assert!(body(&cache, &key(false, "t", "/a/1", HOST), "").is_some());
}

#[test]
fn all_together_stay_within_the_bytes() {
    let cache = cache(20_000);
    for n in 0..200 {
        let body = "x".repeat(900);
        cache.keep(
            &key(false, "s", &format!("/{n}"), HOST),
            b"",
            stored("", &body),
        );
    }
    cache.entries.run_pending_tasks();
    assert!(cache.entries.weighted_size() <= 20_000);
    assert!(cache.entries.entry_count() > 0);
}
