//! The secret of a node that was given none: it comes later, from the store that a fleet shares, and may be another one after
//! that store has lost it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use jsonwebtoken::Algorithm;

use super::key::Key;

/// Its place.
#[derive(Default)]
pub(super) struct Adopted {
    present: ArcSwapOption<Secret>,
    /// Whether one will come.
    is_expected: AtomicBool,
}

/// A secret that came.
pub(super) struct Secret {
    pub(super) bytes: Box<[u8]>,
    key: Key,
    /// The one before, which still verifies.
    earlier: Option<Key>,
}

impl Secret {
    /// What it verifies with: itself, and the one before.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.key).chain(&self.earlier)
    }
}

impl Adopted {
    /// One will come.
    pub(super) fn expect(&self) {
        self.is_expected.store(true, Ordering::Relaxed);
    }

    /// Whether one will come that is not here yet.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_expected.load(Ordering::Relaxed) && self.present.load().is_none()
    }

    /// The one that is here.
    pub(super) fn secret(&self) -> Option<Arc<Secret>> {
        self.present.load_full()
    }

    /// Takes this one. Answers whether it is another one.
    pub(super) fn take(&self, secret: &[u8], algorithms: &[Algorithm]) -> bool {
        let before = self.secret();
        if before
            .as_ref()
            .is_some_and(|before| *before.bytes == *secret)
        {
            return false;
        }
        self.present.store(Some(Arc::new(Secret {
            bytes: secret.into(),
            key: Key::secret(secret, algorithms),
            earlier: before.map(|before| before.key.clone()),
        })));
        true
    }
}
