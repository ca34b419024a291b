//! What may be kept, for how long, and what it is to a request.

use super::*;

const TTL: Duration = Duration::from_secs(5);

fn head(status: u16, lines: &str) -> Head {
    Head::new(
        status,
        "Reason",
        lines.replace(';', "\r\n").into_bytes(),
        None,
    )
}

fn asking(lines: &[u8], is_personal: bool) -> Asking<'_> {
    let now = Instant::now();
    Asking {
        lines,
        is_personal,
        since: now,
        at: now,
    }
}

fn keep(status: u16, lines: &str) -> Option<Stored> {
    head(status, lines).keep(&asking(b"", false), TTL)
}

/// For how many seconds an answer is fresh; none where it is not kept. `;` ends a line.
#[track_caller]
fn check(status: u16, lines: &str, expected: Option<u64>) {
    let found = keep(status, lines).map(|stored| stored.lifetime.as_secs());
    assert_eq!(found, expected, "{status} {lines}");
}

#[test]
fn answers_say_for_how_long_they_are_fresh() {
    check(200, "cache-control: max-age=60;", Some(60));
    check(200, "Cache-Control: MAX-AGE=60;", Some(60));
    check(200, "cache-control: max-age=60, s-maxage=10;", Some(10));
    check(
        200,
        "cache-control: max-age=60;cache-control: public;",
        Some(60),
    );
    check(500, "cache-control: max-age=60;", None);
    check(302, "cache-control: max-age=60;", Some(60));
    check(
        200,
        "cache-control: max-age=99999999999999999999;etag: a;",
        Some(0),
    );
    let dated =
        "date: Sat, 21 Nov 2026 00:00:00 GMT;expires: Sat, 21 Nov 2026 00:01:00 GMT;etag: a;";
    check(200, dated, Some(60));
    check(200, "expires: 0;etag: a;", Some(0));
}

#[test]
fn an_answer_that_does_not_say_is_fresh_for_the_default_time_where_its_status_allows() {
    check(200, "", Some(5));
    check(404, "", Some(5));
    check(200, "cache-control: public;", Some(5));
    check(
        200,
        "last-modified: Sat, 21 Nov 2020 00:00:00 GMT;",
        Some(5),
    );
    check(302, "", None);
    check(206, "", None);
    check(500, "", None);
    check(204, "", Some(5));
}

#[test]
fn what_is_not_to_be_kept_is_not() {
    for lines in [
        "cache-control: no-store;",
        "Cache-Control: No-Store, max-age=60;",
        "cache-control: private;",
        "cache-control: PRIVATE, max-age=60;",
        "cache-control: max-age=0;",
        "cache-control: no-cache;",
        "pragma: no-cache;",
        "vary: *;",
        "vary: accept, *;cache-control: max-age=60;",
        "set-cookie: a=b;cache-control: public, max-age=60;",
    ] {
        check(200, lines, None);
    }
    // With a validator it can be asked whether it is still good.
    check(200, "cache-control: no-cache;etag: \"a\";", Some(0));
}

#[test]
fn what_somebody_asked_for_is_kept_only_where_it_is_for_all() {
    for (lines, expected) in [
        ("cache-control: max-age=60;", false),
        ("", false),
        ("cache-control: public, max-age=60;", true),
        ("cache-control: s-maxage=60;", true),
        ("cache-control: max-age=60, must-revalidate;", true),
    ] {
        let request = b"authorization: Bearer x\r\n";
        let kept = head(200, lines).keep(&asking(request, true), TTL);
        assert_eq!(
            kept.is_some_and(|kept| kept.is_for_all),
            expected,
            "{lines}"
        );
    }
}

#[test]
fn an_answer_is_as_old_as_it_says_or_as_its_date_says() {
    let now = Instant::now();
    let old = Head::new(
        200,
        "OK",
        b"cache-control: max-age=60\r\n".to_vec(),
        Some(b"20"),
    );
    let stored = old.keep(&asking(b"", false), TTL).expect("kept");
    assert_eq!(stored.age(now).as_secs(), 20);
    assert_eq!(
        stored.fresh_for(now + Duration::from_secs(10)).as_secs(),
        30
    );
    // A number that no sum of times can hold harms nothing.
    let absurd = Some(&b"18446744073709551615"[..]);
    let old = Head::new(
        200,
        "OK",
        b"cache-control: max-age=60\r\netag: a\r\n".to_vec(),
        absurd,
    );
    let stored = old.keep(&asking(b"", false), TTL).expect("kept");
    assert_eq!(stored.fresh_for(now), Duration::ZERO);
    let dated = "cache-control: max-age=60;date: Sat, 21 Nov 2020 00:00:00 GMT;etag: a;";
    let stored = keep(200, dated).expect("kept");
    assert!(stored.age(now) > Duration::from_secs(3600));
}

#[test]
fn requests_say_what_they_take() {
    let stored = keep(200, "cache-control: max-age=60;").expect("kept");
    let later = |seconds| stored.at + Duration::from_secs(seconds);
    let check = |request: &str, at: u64, expected: Use| {
        let directives = Directives::of(format!("cache-control: {request}").as_bytes());
        assert_eq!(
            stored.use_for(&directives, later(at)),
            expected,
            "{request} at {at}"
        );
    };
    check("", 59, Use::Fresh);
    check("", 60, Use::Stale);
    check("no-cache", 0, Use::Stale);
    check("max-age=10", 11, Use::Stale);
    check("max-age=10", 10, Use::Fresh);
    check("min-fresh=10", 49, Use::Fresh);
    check("min-fresh=10", 50, Use::Stale);
    check("max-stale", 600, Use::Fresh);
    check("max-stale=10", 70, Use::Fresh);
    check("max-stale=10", 71, Use::Stale);
    let strict = keep(200, "cache-control: max-age=60, must-revalidate;").expect("kept");
    let directives = Directives::of(b"cache-control: max-stale");
    let at = strict.at + Duration::from_secs(61);
    assert_eq!(strict.use_for(&directives, at), Use::Stale);
}

#[test]
fn stale_answers_serve_as_they_say() {
    let lines = "cache-control: max-age=60, stale-while-revalidate=10, stale-if-error=20;";
    let stored = keep(200, lines).expect("kept");
    let (none, at) = (Directives::default(), |s| {
        stored.at + Duration::from_secs(s)
    });
    assert_eq!(stored.use_for(&none, at(69)), Use::WhileRevalidating);
    assert_eq!(stored.use_for(&none, at(70)), Use::Stale);
    assert!(stored.may_stand_in(&none, at(79)));
    assert!(!stored.may_stand_in(&none, at(80)));
    let strict = lines.replace("max-age", "must-revalidate, max-age");
    let strict = keep(200, &strict).expect("kept");
    let later = strict.at + Duration::from_secs(61);
    assert!(!strict.may_stand_in(&none, later), "not even then");
    let plain = keep(200, "cache-control: max-age=60;").expect("kept");
    assert!(!plain.may_stand_in(&none, plain.at + Duration::from_secs(61)));
}

#[test]
fn a_304_renews_what_it_names_and_keeps_the_rest() {
    let lines = "cache-control: max-age=1;etag: \"a\";content-type: text/plain;x-a: 1;link: </1>;link: </2>;";
    let stored = keep(200, lines).expect("kept").with_body(b"body".to_vec());
    let news = head(304, "cache-control: max-age=60;x-a: 2;content-type: wrong;");
    let renewed = stored
        .renewed(&news, &asking(b"", false), TTL)
        .expect("kept");
    assert_eq!(
        (renewed.head.status, &renewed.body[..]),
        (200, &b"body"[..])
    );
    assert_eq!(renewed.lifetime.as_secs(), 60);
    let text = String::from_utf8_lossy(&renewed.head.lines).into_owned();
    for line in [
        "x-a: 2",
        "content-type: text/plain",
        "link: </1>",
        "link: </2>",
        "etag: \"a\"",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in {text}"
        );
    }
    assert!(!text.contains("x-a: 1"), "{text}");
}
