//! How often somebody may try to log in: per user and address, per user, and per address; and register, per address. For this
//! node alone.

use std::hash::RandomState;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Config, UserName};
use crate::limits::{Decision, Keyed, Quota};
use crate::model::Moment;

/// The most limiters of each kind: 65,536 of 16 bytes. When all are in use, newcomers share one.
const KEYS_MAX: usize = 65_536;
/// How much more often one user may try from all addresses than from one: a guesser is slowed down, and does not lock
/// the user out from where they are.
const ADDRESSES: u32 = 10;

/// The limiters.
#[derive(Debug)]
pub(super) struct Attempts {
    started: Instant,
    /// A lock held for at most three look-ups.
    limiters: Mutex<Limiters>,
}

#[derive(Debug)]
struct Limiters {
    /// By user and address.
    pairs: Option<Keyed<RandomState>>,
    users: Option<Keyed<RandomState>>,
    addresses: Option<Keyed<RandomState>>,
    /// Of registrations, by address.
    registrations: Option<Keyed<RandomState>>,
}

impl Attempts {
    pub(super) fn new(config: &Config) -> Self {
        let keyed = |max: u32| {
            let quota = Quota::new(max, config.login_rate_window);
            (max > 0).then(|| Keyed::new(quota, KEYS_MAX, RandomState::new()))
        };
        Self {
            started: Instant::now(),
            limiters: Mutex::new(Limiters {
                pairs: keyed(config.login_rate_max),
                users: keyed(config.login_rate_max.saturating_mul(ADDRESSES)),
                addresses: keyed(config.login_address_rate_max),
                registrations: keyed(config.register_rate_max),
            }),
        }
    }

    /// Counts an attempt to log in.
    ///
    /// # Errors
    /// With how long to wait, when there were too many.
    pub(super) fn check(&self, name: &UserName, ip: IpAddr) -> Result<(), Duration> {
        self.check_at(name, ip, self.now())
    }

    /// Counts an attempt to register.
    ///
    /// # Errors
    /// With how long to wait, when there were too many.
    pub(super) fn check_registration(&self, ip: IpAddr) -> Result<(), Duration> {
        self.check_registration_at(ip, self.now())
    }

    fn now(&self) -> Moment {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Moment::from_millis(elapsed)
    }

    fn check_registration_at(&self, ip: IpAddr, now: Moment) -> Result<(), Duration> {
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        let registrations = limiters.registrations.as_mut();
        passed(registrations.map(|keyed| keyed.check(&network(ip), now)))
    }

    fn check_at(&self, name: &UserName, ip: IpAddr, now: Moment) -> Result<(), Duration> {
        let (name, network) = (name.key(), network(ip));
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        let Limiters {
            pairs,
            users,
            addresses,
            ..
        } = &mut *limiters;
        // The narrowest first, and no further: what one refuses counts for no other.
        passed(
            pairs
                .as_mut()
                .map(|keyed| keyed.check(&(name, network), now)),
        )?;
        passed(users.as_mut().map(|keyed| keyed.check(name, now)))?;
        passed(addresses.as_mut().map(|keyed| keyed.check(&network, now)))
    }
}

fn passed(decision: Option<Decision>) -> Result<(), Duration> {
    match decision {
        Some(decision) if !decision.is_allowed => Err(decision.retry_after),
        _ => Ok(()),
    }
}

/// Whoever has one IPv6 address usually has all of its /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(1);

    fn attempts(login_rate_max: u32, login_address_rate_max: u32) -> Attempts {
        Attempts::new(&Config {
            login_rate_max,
            login_address_rate_max,
            ..Config::for_tests()
        })
    }

    /// How many of a hundred attempts pass.
    fn passed(
        attempts: &Attempts,
        user: impl Fn(u8) -> String,
        ip: impl Fn(u8) -> String,
    ) -> usize {
        let try_once = |number: &u8| {
            let name = UserName::new(&user(*number)).expect("a name");
            let ip = ip(*number).parse().expect("an address");
            attempts.check_at(&name, ip, NOW).is_ok()
        };
        (0..100).filter(try_once).count()
    }

    #[test]
    fn a_user_may_try_so_often_from_one_address_in_any_case() {
        let attempts = attempts(3, 0);
        let user = |number| if number % 2 == 0 { "Ann" } else { "ann" }.to_owned();
        assert_eq!(passed(&attempts, user, |_| "10.0.0.1".to_owned()), 3);
        assert_eq!(passed(&attempts, user, |_| "10.0.0.2".to_owned()), 3);
        assert_eq!(
            passed(&attempts, |_| "bob".to_owned(), |_| "10.0.0.1".to_owned()),
            3
        );
    }

    #[test]
    fn guessing_from_everywhere_is_slowed_down_as_well() {
        let attempts = attempts(3, 0);
        let everywhere = |number| format!("10.0.0.{number}");
        assert_eq!(passed(&attempts, |_| "ann".to_owned(), everywhere), 30);
    }

    #[test]
    fn an_address_may_try_so_often_with_any_names() {
        let attempts = attempts(3, 20);
        let user = |number| format!("user-{number}");
        assert_eq!(passed(&attempts, user, |_| "10.0.0.1".to_owned()), 20);
        let neighbours = |number| format!("2001:db8::{number:x}");
        assert_eq!(passed(&attempts, user, neighbours), 20);
    }

    #[test]
    fn an_address_may_register_so_often_and_logins_count_for_themselves() {
        let attempts = Attempts::new(&Config {
            register_rate_max: 5,
            login_address_rate_max: 20,
            ..Config::for_tests()
        });
        let registered = |ip: &dyn Fn(u8) -> String| {
            let try_once = |number: &u8| {
                let ip = ip(*number).parse().expect("an address");
                attempts.check_registration_at(ip, NOW).is_ok()
            };
            (0..100).filter(try_once).count()
        };
        assert_eq!(registered(&|_| "10.0.0.1".to_owned()), 5);
        assert_eq!(registered(&|_| "10.0.0.2".to_owned()), 5);
        let neighbours = |number| format!("2001:db8::{number:x}");
        assert_eq!(registered(&neighbours), 5);
        let user = |number| format!("user-{number}");
        assert_eq!(passed(&attempts, user, |_| "10.0.0.1".to_owned()), 20);
    }

    #[test]
    fn without_limits_everybody_may_try() {
        let attempts = attempts(0, 0);
        assert_eq!(
            passed(&attempts, |_| "ann".to_owned(), |_| "::1".to_owned()),
            100
        );
    }

    #[test]
    fn tells_how_long_to_wait() {
        let attempts = attempts(3, 0);
        passed(&attempts, |_| "ann".to_owned(), |_| "::1".to_owned());
        let name = UserName::new("ann").expect("a name");
        let ip = "::1".parse().expect("an address");
        assert_eq!(
            attempts.check_at(&name, ip, NOW),
            Err(Duration::from_secs(20))
        );
        let later = NOW + Duration::from_secs(20);
        assert_eq!(attempts.check_at(&name, ip, later), Ok(()));
    }
}
