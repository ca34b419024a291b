//! What is kept in the place of a password, and how a password is checked against it.
//!
//! New ones are argon2id in the PHC string format. Two kinds that were made elsewhere are read as well and replaced at
//! the next login: argon2 with other parameters, and the unsalted SHA-256 of an imported user in hexadecimal.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use unicode_normalization::UnicodeNormalization as _;

/// Bytes of a salt (RFC 9106, 3.1) and of a hash.
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// The most that checking a hash that was made elsewhere may cost: whoever can write one could otherwise stop us.
const MEMORY_KIB_MAX: u32 = 65_536;
const ITERATIONS_MAX: u32 = 16;
const LANES_MAX: u32 = 8;

/// The cost of a hash (`PASSWORD_HASH`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashParameters {
    memory_kib: u32,
    iterations: u32,
    lanes: u32,
}

impl Default for HashParameters {
    /// OWASP's first choice: 19 MiB, two passes, one lane. About 22 ms of a core.
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            iterations: 2,
            lanes: 1,
        }
    }
}

/// What a text must be to be parameters, as the rest of a sentence.
pub const PARAMETERS_RULE: &str =
    "argon2id:<KiB of memory, 7168 to 65536>:<passes, 1 to 16>:<lanes, 1 to 8>";

/// The text is no parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {PARAMETERS_RULE}")]
pub struct ParametersError;

impl FromStr for HashParameters {
    type Err = ParametersError;

    fn from_str(text: &str) -> Result<Self, ParametersError> {
        let parts: Vec<&str> = text.split(':').collect();
        let &["argon2id", memory, iterations, lanes] = parts.as_slice() else {
            return Err(ParametersError);
        };
        let number = |text: &str| text.parse().map_err(|_| ParametersError);
        let parameters = Self {
            memory_kib: number(memory)?,
            iterations: number(iterations)?,
            lanes: number(lanes)?,
        };
        // 7 MiB is the least memory that OWASP recommends (with five passes).
        let fits = parameters.is_bearable() && parameters.memory_kib >= 7168;
        if fits && parameters.params(HASH_BYTES).is_some() {
            Ok(parameters)
        } else {
            Err(ParametersError)
        }
    }
}

impl fmt::Display for HashParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (memory, iterations, lanes) = (self.memory_kib, self.iterations, self.lanes);
        write!(f, "argon2id:{memory}:{iterations}:{lanes}")
    }
}

impl HashParameters {
    const fn is_bearable(&self) -> bool {
        self.memory_kib <= MEMORY_KIB_MAX
            && self.iterations <= ITERATIONS_MAX
            && self.lanes <= LANES_MAX
    }

    fn params(&self, hash_bytes: usize) -> Option<Params> {
        Params::new(
            self.memory_kib,
            self.iterations,
            self.lanes,
            Some(hash_bytes),
        )
        .ok()
    }
}

/// Whether a password is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is not.
    Wrong,
    /// It is.
    Right,
    /// It is, and what is kept should be replaced by a hash of today's kind.
    RightButOld,
}

/// Hashes and checks on one thread. It keeps the memory that a hash needs: to ask the system for it each time would
/// cost a tenth of the hash.
#[derive(Debug, Default)]
pub(super) struct Hasher {
    parameters: HashParameters,
    blocks: Vec<Block>,
}

impl Hasher {
    pub(super) const fn new(parameters: HashParameters) -> Self {
        Self {
            parameters,
            blocks: Vec::new(),
        }
    }

    /// A new hash of a password.
    pub(super) fn hash(&mut self, password: &str) -> Option<String> {
        let salt: [u8; SALT_BYTES] = rand::random();
        let parameters = self.parameters;
        let mut hash = [0; HASH_BYTES];
        self.run(Algorithm::Argon2id, parameters, password, &salt, &mut hash)?;
        let (memory, iterations, lanes) = (
            parameters.memory_kib,
            parameters.iterations,
            parameters.lanes,
        );
        let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
        Some(format!(
            "$argon2id$v=19$m={memory},t={iterations},p={lanes}${salt}${hash}"
        ))
    }

    /// Whether a password is the one that `kept` was made from. Takes as long for nobody (`None`) and for a kept
    /// text that is no hash as for somebody.
    pub(super) fn verify(&mut self, password: &str, kept: Option<&str>) -> Verdict {
        match kept.and_then(Kept::parse) {
            Some(Kept::Argon2(kept)) => self.verify_argon2(password, &kept),
            Some(Kept::Sha256(kept)) => {
                // What it takes to make a new one is spent here, whatever comes out.
                self.waste(password);
                let is_same: bool = Sha256::digest(password.as_bytes()).ct_eq(&kept).into();
                if is_same {
                    Verdict::RightButOld
                } else {
                    Verdict::Wrong
                }
            }
            None => {
                self.waste(password);
                Verdict::Wrong
            }
        }
    }

    fn verify_argon2(&mut self, password: &str, kept: &Argon2Hash) -> Verdict {
        let mut hash = vec![0; kept.hash.len()];
        let ran = self.run(
            kept.algorithm,
            kept.parameters,
            password,
            &kept.salt,
            &mut hash,
        );
        if ran.is_none() || !bool::from(hash.ct_eq(&kept.hash)) {
            return Verdict::Wrong;
        }
        let is_todays = kept.algorithm == Algorithm::Argon2id && kept.parameters == self.parameters;
        if is_todays {
            Verdict::Right
        } else {
            Verdict::RightButOld
        }
    }

    /// Works as hard as for a check.
    fn waste(&mut self, password: &str) {
        let mut hash = [0; HASH_BYTES];
        let parameters = self.parameters;
        let salt = [0; SALT_BYTES];
        self.run(Algorithm::Argon2id, parameters, password, &salt, &mut hash);
        std::hint::black_box(&hash);
    }

    /// The same characters are the same password, however a keyboard composes them (RFC 8265, 4.2).
    fn run(
        &mut self,
        algorithm: Algorithm,
        parameters: HashParameters,
        password: &str,
        salt: &[u8],
        hash: &mut [u8],
    ) -> Option<()> {
        let password: String = password.nfc().collect();
        let params = parameters.params(hash.len())?;
        self.blocks.resize(params.block_count(), Block::default());
        let argon2 = Argon2::new(algorithm, Version::V0x13, params);
        let blocks = self.blocks.as_mut_slice();
        argon2
            .hash_password_into_with_memory(password.as_bytes(), salt, hash, blocks)
            .ok()
    }
}

/// What is kept, taken apart.
enum Kept {
    Argon2(Argon2Hash),
    Sha256([u8; 32]),
}

struct Argon2Hash {
    algorithm: Algorithm,
    parameters: HashParameters,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Kept {
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with('$') {
            return Self::parse_phc(text).map(Self::Argon2);
        }
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self::Sha256(digest))
    }

    fn parse_phc(text: &str) -> Option<Argon2Hash> {
        let phc = PasswordHash::new(text).ok()?;
        if phc.version != Some(19) {
            return None;
        }
        let params = Params::try_from(&phc).ok()?;
        let parameters = HashParameters {
            memory_kib: params.m_cost(),
            iterations: params.t_cost(),
            lanes: params.p_cost(),
        };
        let kept = Argon2Hash {
            algorithm: Algorithm::new(phc.algorithm).ok()?,
            parameters,
            salt: phc.salt?.as_ref().to_vec(),
            hash: phc.hash?.as_bytes().to_vec(),
        };
        parameters.is_bearable().then_some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cheaper than any that may be configured: tests check logic, not strength.
    const CHEAP: HashParameters = HashParameters {
        memory_kib: 64,
        iterations: 1,
        lanes: 1,
    };

    fn hasher() -> Hasher {
        Hasher::new(CHEAP)
    }

    #[test]
    fn the_right_password_is_right_and_no_other() {
        let kept = hasher().hash("correct horse").expect("a hash");
        assert!(kept.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{kept}");
        for (password, verdict) in [
            ("correct horse", Verdict::Right),
            ("correct hors", Verdict::Wrong),
            ("Correct horse", Verdict::Wrong),
            ("", Verdict::Wrong),
        ] {
            assert_eq!(
                hasher().verify(password, Some(&kept)),
                verdict,
                "{password}"
            );
        }
    }

    #[test]
    fn two_hashes_of_one_password_differ() {
        assert_ne!(hasher().hash("x"), hasher().hash("x"));
    }

    #[test]
    fn a_password_is_the_same_in_every_unicode_form_and_may_have_nul() {
        let kept = hasher().hash("Rene\u{301}\0🦀").expect("a hash");
        assert_eq!(
            hasher().verify("Ren\u{e9}\0🦀", Some(&kept)),
            Verdict::Right
        );
        assert_eq!(hasher().verify("Ren\u{e9}", Some(&kept)), Verdict::Wrong);
    }

    #[test]
    fn a_hash_of_other_parameters_is_right_but_old() {
        let other = HashParameters {
            memory_kib: 256,
            ..CHEAP
        };
        let kept = Hasher::new(other).hash("password").expect("a hash");
        assert_eq!(
            hasher().verify("password", Some(&kept)),
            Verdict::RightButOld
        );
        assert_eq!(hasher().verify("passwort", Some(&kept)), Verdict::Wrong);
    }

    #[test]
    fn agrees_with_the_reference_implementation() {
        // phc-winner-argon2, src/test.c, version 0x13.
        let kept =
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        assert_eq!(
            hasher().verify("password", Some(kept)),
            Verdict::RightButOld
        );
        assert_eq!(
            hasher().verify("differentpassword", Some(kept)),
            Verdict::Wrong
        );
    }

    #[test]
    fn an_imported_sha_256_is_right_but_old() {
        let kept = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
        for kept in [kept.to_owned(), kept.to_uppercase()] {
            assert_eq!(
                hasher().verify("password", Some(&kept)),
                Verdict::RightButOld
            );
            assert_eq!(hasher().verify("passwort", Some(&kept)), Verdict::Wrong);
        }
    }

    #[test]
    fn what_is_no_hash_opens_to_nobody() {
        for kept in [
            "",
            "password",
            "$",
            "$argon2id$v=19$m=64,t=1,p=1$",
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$",
            "$argon2id$v=16$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            &"g".repeat(64),
        ] {
            assert_eq!(
                hasher().verify("password", Some(kept)),
                Verdict::Wrong,
                "{kept}"
            );
        }
        assert_eq!(hasher().verify("", None), Verdict::Wrong);
    }

    #[test]
    fn nobody_costs_as_much_memory_as_somebody() {
        let mut hasher = hasher();
        hasher.verify("x", None);
        assert_eq!(hasher.blocks.len(), 64);
    }

    #[test]
    fn parameters_have_one_form_and_bounds() {
        let text = "argon2id:19456:2:1";
        assert_eq!(text.parse(), Ok(HashParameters::default()));
        assert_eq!(HashParameters::default().to_string(), text);
        for text in [
            "",
            "argon2id",
            "argon2i:19456:2:1",
            "argon2id:19456:2",
            "argon2id:19456:2:1:1",
            "argon2id:1024:2:1",
            "argon2id:70000:2:1",
            "argon2id:19456:0:1",
            "argon2id:19456:17:1",
            "argon2id:19456:2:0",
            "argon2id:x:2:1",
        ] {
            assert_eq!(
                text.parse::<HashParameters>(),
                Err(ParametersError),
                "{text}"
            );
        }
    }
}
