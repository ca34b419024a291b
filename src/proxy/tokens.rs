//! Tokens that were verified lately, by worker: a client shows the same one with each request, and its signature costs
//! more than everything else that is done to a request.
//!
//! A token stands here for as long as its own `exp` says, leeway not counted, as its key is good, and as the keys are those
//! that accepted it; one without `exp` never does.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::auth::{AuthError, Identity, Verifier};

/// The most tokens of a worker; when there are more, all are forgotten. About 2 MB.
const TOKENS_MAX: usize = 4096;

/// Verifies tokens, the same one once.
#[derive(Debug)]
pub(super) struct Tokens {
    verifier: Arc<Verifier>,
    /// Unique in the process: what one verifier has accepted says nothing about another.
    id: usize,
}

/// By verifier, the generation of its keys, and token: who shows it, and until which Unix second.
type Known = HashMap<(usize, usize, Box<str>), (Arc<Identity>, u64)>;

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

impl Tokens {
    /// Tokens that this accepts.
    pub(super) fn new(verifier: Arc<Verifier>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Self {
            verifier,
            id: NEXT.fetch_add(1, Relaxed),
        }
    }

    /// What accepts them.
    pub(super) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Who shows this token.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub(super) fn verify(
        &self,
        token: &str,
        unix_seconds: u64,
    ) -> Result<Arc<Identity>, AuthError> {
        // Read before the token is: should the keys change meanwhile, nobody finds it.
        let key = (self.id, self.verifier.generation(), Box::from(token));
        let known = KNOWN.with_borrow(|known| known.get(&key).cloned());
        if let Some((identity, _)) = known.filter(|(_, until)| unix_seconds < *until) {
            return Ok(identity);
        }
        let (identity, until) = self.verifier.verify_until(token, unix_seconds)?;
        let identity = Arc::new(identity);
        if let Some(end) = identity.expires_at.map(|end| end.min(until))
            && unix_seconds < end
        {
            KNOWN.with_borrow_mut(|known| {
                if known.len() >= TOKENS_MAX {
                    known.clear();
                }
                known.insert(key, (identity.clone(), end));
            });
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Config, TokenClaims};

    fn token(verifier: &Verifier, end: u64) -> String {
        let claims = TokenClaims {
            sub: Some("alice".to_owned()),
            exp: Some(end),
            ..TokenClaims::default()
        };
        verifier.mint(&claims).expect("a token")
    }

    fn tokens(secret: &str) -> Tokens {
        let config = Config {
            secrets: vec![secret.as_bytes().into()],
            required: true,
            ..Config::default()
        };
        Tokens::new(Arc::new(Verifier::new(&config)))
    }

    #[test]
    fn a_token_is_good_for_no_longer_than_its_key() {
        let secret = "one-secret-of-at-least-32-bytes!";
        let token = token(tokens(secret).verifier(), 1000);
        let config = Config {
            secrets: vec![b"another-secret-of-at-least-32-b!".as_slice().into()],
            previous_secret: Some((secret.as_bytes().into(), 500)),
            required: true,
            ..Config::default()
        };
        let tokens = Tokens::new(Arc::new(Verifier::new(&config)));
        assert!(tokens.verify(&token, 499).is_ok());
        assert!(tokens.verify(&token, 500).is_err());
    }

    #[test]
    fn a_token_is_known_until_it_ends_and_by_its_own_verifier_only() {
        let (ours, others) = (
            tokens("one-secret-of-at-least-32-bytes!"),
            tokens("another-secret-of-at-least-32-b!"),
        );
        let token = token(ours.verifier(), 1000);
        for _ in 0..2 {
            let identity = ours.verify(&token, 999).expect("a good token");
            assert_eq!(&*identity.user as &str, "alice");
        }
        assert!(ours.verify(&token, 1001).is_err(), "its end has come");
        assert!(others.verify(&token, 999).is_err(), "of another secret");
        assert!(ours.verify(&format!("{token}x"), 999).is_err());
    }
}
