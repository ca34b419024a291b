//! Redis, and what goes with it.

use super::*;

#[test]
fn what_is_for_one_node_alone_is_warned_of_in_a_fleet() {
    let of_one = [
        ("HISTORY_MAX_BYTES", "1000"),
        ("MAX_CHANNELS", "5"),
        ("MAX_IDEMPOTENCY_KEYS", "10"),
    ];
    let url = ("REDIS_URL", "redis://localhost");
    for set in of_one {
        let warning = format!("{} is set, but has no effect with REDIS_URL", set.0);
        assert!(settings(&[url, set]).warnings.contains(&warning));
        assert!(!settings(&[set]).warnings.contains(&warning));
    }
    let mentioned = |warning: &String| warning.contains("has no effect");
    assert!(!settings(&[url]).warnings.iter().any(mentioned));
}

#[test]
fn a_redis_url_makes_a_fleet() {
    assert!(settings(&[("REDIS_URL", "")]).redis.is_none());
    let settings = settings(&[("REDIS_URL", "redis://:private@redis:6379/1")]);
    let redis = settings.redis.as_ref().expect("a fleet");
    assert_eq!(redis.address.to_string(), "redis://redis:6379/1");
    assert_eq!(redis.prefix, "fanfare@1");
    for url in ["redis://redis", "redis://redis/0", "redis-cluster://redis"] {
        let settings = self::settings(&[("REDIS_URL", url), ("REDIS_KEY_PREFIX", "mine")]);
        assert_eq!(settings.redis.expect("a fleet").prefix, "mine", "{url}");
    }
    check_fault(
        &[("REDIS_KEY_PREFIX", "a{b}c")],
        "REDIS_KEY_PREFIX=\"a{b}c\" must be",
    );
}

#[test]
fn replicas_are_waited_for_where_there_are_any() {
    let url = ("REDIS_URL", "redis://redis");
    let replicas = |variables: &[_]| settings(variables).redis.expect("a fleet").wait_replicas;
    assert_eq!(replicas(&[url]), 0);
    assert_eq!(replicas(&[url, ("REDIS_WAIT_REPLICAS", "2")]), 2);
    check_fault(
        &[("REDIS_WAIT_REPLICAS", "1")],
        "REDIS_WAIT_REPLICAS=\"1\" needs REDIS_URL",
    );
    settings(&[("REDIS_WAIT_REPLICAS", "0")]);
}

#[test]
fn who_vouches_for_redis_is_asked_over_tls_only() {
    let url = ("REDIS_URL", "rediss://redis");
    let settings = settings(&[url, ("REDIS_CA_FILE", "ca.pem")]);
    let redis = settings.redis.as_ref().expect("a fleet");
    assert_eq!(redis.ca_file.as_deref(), Some(Path::new("ca.pem")));
    check_fault(
        &[("REDIS_URL", "redis://redis"), ("REDIS_CA_FILE", "ca.pem")],
        "REDIS_CA_FILE=\"ca.pem\" is for TLS, but REDIS_URL does not begin with rediss",
    );
}
