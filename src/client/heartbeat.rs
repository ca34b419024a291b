//! Signs of life: when to ping, and when a client is taken for gone.

use std::time::Duration;

use crate::model::{CloseReason, Moment};

use super::Config;

/// What to do because time passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Nothing yet.
    Nothing,
    /// Send a ping, and say [`Heartbeat::expect_pong`].
    Ping,
    /// The client is gone.
    Close(CloseReason),
}

/// One client's heartbeat. 24 bytes.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    next_ping: Moment,
    /// When the pong to the last ping is due at the latest; the far future when none is awaited.
    pong_due: Moment,
    last_seen: Moment,
}

/// No pong is awaited.
const NEVER: Moment = Moment::from_millis(u64::MAX);

impl Heartbeat {
    /// Begins now. `jitter` in 0..1 spreads the first pings of clients that came together over half an interval.
    pub fn new(now: Moment, config: &Config, jitter: f64) -> Self {
        let first = config
            .ping_interval
            .mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        Self {
            next_ping: now + first,
            pong_due: NEVER,
            last_seen: now,
        }
    }

    /// The client sent something.
    pub fn saw(&mut self, now: Moment) {
        self.last_seen = now;
    }

    /// The client sent a pong, or its socket took bytes that it had refused: it reads.
    pub fn saw_pong(&mut self, now: Moment) {
        self.last_seen = now;
        self.pong_due = NEVER;
    }

    /// When [`Heartbeat::check`] has something to do at the earliest.
    pub fn next_deadline(&self, config: &Config) -> Moment {
        self.next_ping
            .min(self.pong_due)
            .min(self.last_seen + config.inactivity_timeout)
    }

    /// What time asks for.
    pub fn check(&mut self, now: Moment, config: &Config) -> Signal {
        if now >= self.pong_due {
            return Signal::Close(CloseReason::NoPong);
        }
        if now.since(self.last_seen) >= config.inactivity_timeout {
            return Signal::Close(CloseReason::Inactive);
        }
        if now < self.next_ping {
            return Signal::Nothing;
        }
        self.next_ping = now + config.ping_interval;
        Signal::Ping
    }

    /// A ping was sent, or the socket takes none because the client does not read: an answer is due from now on, unless
    /// one is due already. Not to be said of a ping that was not sent: nobody answers that.
    pub fn expect_pong(&mut self, now: Moment, config: &Config) {
        if self.pong_due == NEVER {
            self.pong_due = now + config.pong_timeout.max(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(30),
            inactivity_timeout: Duration::from_secs(60),
            json_ping: false,
            channels_max: 10,
            command_rate: 0,
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    #[test]
    fn pings_every_interval_and_goes_on_while_pongs_come() {
        let mut heartbeat = Heartbeat::new(at(0), &config(), 1.0);
        for round in 1..=10 {
            let now = at(round * 25);
            assert_eq!(heartbeat.next_deadline(&config()), now);
            assert_eq!(heartbeat.check(now, &config()), Signal::Ping);
            heartbeat.expect_pong(now, &config());
            heartbeat.saw_pong(now);
        }
    }

    #[test]
    fn closes_when_no_pong_comes_though_the_client_talks() {
        let mut heartbeat = Heartbeat::new(at(0), &config(), 1.0);
        assert_eq!(heartbeat.check(at(25), &config()), Signal::Ping);
        heartbeat.expect_pong(at(25), &config());
        heartbeat.saw(at(54));
        assert_eq!(heartbeat.check(at(54), &config()), Signal::Ping);
        heartbeat.expect_pong(at(54), &config());
        assert_eq!(
            heartbeat.check(at(55), &config()),
            Signal::Close(CloseReason::NoPong)
        );
    }

    #[test]
    fn waits_for_no_pong_to_a_ping_that_was_not_sent() {
        let mut heartbeat = Heartbeat::new(at(0), &config(), 1.0);
        assert_eq!(heartbeat.check(at(25), &config()), Signal::Ping);
        heartbeat.saw(at(49));
        assert_eq!(heartbeat.check(at(50), &config()), Signal::Ping);
        heartbeat.expect_pong(at(50), &config());
        heartbeat.saw(at(55));
        assert_eq!(heartbeat.check(at(56), &config()), Signal::Nothing);
        assert_eq!(
            heartbeat.check(at(80), &config()),
            Signal::Close(CloseReason::NoPong)
        );
    }

    #[test]
    fn closes_after_the_inactivity_time_out() {
        let patient = Config {
            pong_timeout: Duration::from_secs(600),
            ..config()
        };
        let mut heartbeat = Heartbeat::new(at(0), &patient, 0.0);
        assert_eq!(heartbeat.check(at(59), &patient), Signal::Ping);
        assert_eq!(
            heartbeat.check(at(60), &patient),
            Signal::Close(CloseReason::Inactive)
        );
    }
}
