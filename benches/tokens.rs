//! What a token costs at the door: verified, and known from before.

use std::hint::black_box;

use criterion::Criterion;
use fanfare::auth::{Config, TokenClaims, Verifier};

/// A moment within the tokens' time, in Unix seconds.
const NOW: u64 = 1_800_000_000;

fn claims(user: usize) -> TokenClaims {
    TokenClaims {
        sub: Some(format!("user-{user}")),
        user_id: Some(format!("user-{user}")),
        role: Some("user".to_owned()),
        login_session: Some("6f1c2a44-9a0e-4d7e-8a6e-0c9c3a1b2d3e".to_owned()),
        exp: Some(NOW + 1800),
        ..TokenClaims::default()
    }
}

fn check(c: &mut Criterion) {
    let verifier = Verifier::new(&Config {
        secrets: vec![Box::from(*b"0123456789abcdef0123456789abcdef")],
        required: true,
        ..Config::default()
    });
    let mint = |user| verifier.mint(&claims(user)).expect("there is a secret");
    let mut group = c.benchmark_group("check an HS256 token");
    let token = mint(0);
    group.bench_function("verified each time", |b| {
        b.iter(|| verifier.verify(black_box(&token), NOW).expect("valid"));
    });
    // As many as a busy node sees, so that they do not all lie in a near cache.
    let tokens: Vec<String> = (0..4096).map(mint).collect();
    let mut next = tokens.iter().cycle();
    group.bench_function("known", |b| {
        b.iter(|| {
            let token = next.next().map(String::as_str);
            verifier.identify(black_box(token), NOW).expect("valid")
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    check(&mut criterion);
    criterion.final_summary();
}
