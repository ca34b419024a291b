//! Certificates and keys, from files in PEM (RFC 7468).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::provider;

/// Why files are of no use. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("{file} cannot be read: {cause}")]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// It holds no PEM, or a broken one.
    #[error("{file} is no PEM: {cause}")]
    Malformed {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        cause: pem::Error,
    },
    /// It holds no certificate.
    #[error("{0} holds no certificate")]
    NoCertificate(PathBuf),
    /// It holds no private key.
    #[error("{0} holds no private key (PKCS #8, PKCS #1 or SEC 1)")]
    NoKey(PathBuf),
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("{certificate} and {key} are no pair: {cause}")]
    NoPair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        cause: rustls::Error,
    },
    /// None of the system's root certificates can be read.
    #[error("the system has no root certificates: {0}")]
    NoRoots(String),
    /// A certificate cannot be a root.
    #[error("{file} holds a certificate that cannot be trusted: {cause}")]
    BadRoot {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        cause: rustls::Error,
    },
}

/// The certificates of a file, in order; at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|cause| malformed(file, cause))?;
    match certificates.is_empty() {
        true => Err(TlsError::NoCertificate(file.to_owned())),
        false => Ok(certificates),
    }
}

/// A certificate with those that lead from it to a root, and its key.
pub(super) fn certified_key(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(certificate)?;
    let der = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|cause| match cause {
        pem::Error::NoItemsFound => TlsError::NoKey(key.to_owned()),
        cause => malformed(key, cause),
    })?;
    let pair = CertifiedKey::from_der(chain, der, &provider());
    pair.map(Arc::new).map_err(|cause| TlsError::NoPair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        cause,
    })
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|cause| TlsError::Unreadable {
        file: file.to_owned(),
        cause,
    })
}

fn malformed(file: &Path, cause: pem::Error) -> TlsError {
    TlsError::Malformed {
        file: file.to_owned(),
        cause,
    }
}
