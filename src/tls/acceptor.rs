//! The node's certificate, and how it changes while connections live on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::pem::{TlsError, certified_key};
use super::{Stream, provider};

/// How much plain text a connection holds that its socket does not take: four records.
const BUFFERED_BYTES_MAX: usize = 64 * 1024;

/// Accepts TLS with one certificate. Clones are the same one, and see the same renewals.
#[derive(Clone)]
pub struct Acceptor {
    inner: TlsAcceptor,
    certificate: Arc<Certificate>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.certificate.fmt(formatter)
    }
}

/// The files, and what was last read of them.
#[derive(Debug)]
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    present: ArcSwap<CertifiedKey>,
    /// What the files were like when they were last looked at, good or bad.
    seen: Mutex<[Stamp; 2]>,
}

/// What tells that a file is another one. A secret that Kubernetes mounts changes as a link does: all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(Option<(SystemTime, u64)>);

impl Stamp {
    fn of(file: &Path) -> Self {
        let data = std::fs::metadata(file).ok();
        Self(data.and_then(|data| Some((data.modified().ok()?, data.len()))))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.present.load_full())
    }
}

/// What a look at the files brought.
#[derive(Debug)]
pub enum Renewed {
    /// They are as they were.
    No,
    /// New connections get the new certificate.
    Yes,
    /// They have changed, and are of no use: the certificate stays as it was.
    Failed(TlsError),
}

impl Acceptor {
    /// With the certificate and the key of these files: the certificate first, then those that lead to a root. Clients
    /// may choose HTTP/2 where `http2` says so (ALPN, RFC 7301).
    ///
    /// # Errors
    /// When they are no such files, or no pair.
    pub fn load(certificate: &Path, key: &Path, http2: bool) -> Result<Self, TlsError> {
        let seen = [Stamp::of(certificate), Stamp::of(key)];
        let certificate = Arc::new(Certificate {
            present: ArcSwap::new(certified_key(certificate, key)?),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            seen: Mutex::new(seen),
        });
        let builder = ServerConfig::builder_with_provider(provider());
        let versions = builder.with_safe_default_protocol_versions();
        let mut config = versions
            .expect("the provider has suites of both versions")
            .with_no_client_auth()
            .with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if http2 {
            config.alpn_protocols.insert(0, b"h2".to_vec());
        }
        // Tickets instead of a cache on the server: a client resumes on any of its workers, and none holds anything.
        if let Ok(ticketer) = rustls::crypto::aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Self {
            inner: TlsAcceptor::from(Arc::new(config)),
            certificate,
        })
    }

    /// The node's own certificate as it is now, without those that lead to a root.
    pub(super) fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.certificate.present.load().cert.first().cloned()
    }

    /// Does the handshake. The caller bounds its time.
    ///
    /// # Errors
    /// When the peer does not speak TLS, or not as we do, or goes.
    pub async fn accept(&self, socket: TcpStream) -> std::io::Result<Stream> {
        let limit = |session: &mut rustls::ServerConnection| {
            session.set_buffer_limit(Some(BUFFERED_BYTES_MAX));
        };
        let accepted = self.inner.accept_with(socket, limit).await?;
        Ok(Stream::Tls(Box::new(accepted.into())))
    }

    /// Looks whether the files have changed, and takes what they hold now. Reads nothing when they have not: two calls of
    /// the system.
    pub fn renew(&self) -> Renewed {
        let Certificate {
            certificate,
            key,
            present,
            seen,
        } = &*self.certificate;
        let now = [Stamp::of(certificate), Stamp::of(key)];
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return Renewed::No;
        }
        *seen = now;
        match certified_key(certificate, key) {
            Ok(pair) => {
                present.store(pair);
                Renewed::Yes
            }
            Err(error) => Renewed::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::{Command, Stdio};

    /// A certificate and its key.
    fn make(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let files = ["cert", "key"].map(|kind| folder.join(format!("{name}-{kind}.pem")));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-subj", "/CN=a"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-keyout"])
            .args([files[1].as_path(), Path::new("-out"), files[0].as_path()])
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl").success());
        files.into()
    }

    #[test]
    fn files_are_read_again_when_they_have_changed_and_only_then() {
        let folder = std::env::temp_dir().join(format!("fanfare-acceptor-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (certificate, key) = make(&folder, "first");
        let acceptor = Acceptor::load(&certificate, &key, false).expect("a pair");
        let first = acceptor.leaf();
        assert!(matches!(acceptor.renew(), Renewed::No));
        let (other_certificate, other_key) = make(&folder, "other");
        fs::copy(other_key, &key).expect("a copy");
        assert!(matches!(acceptor.renew(), Renewed::Failed(_)));
        assert!(matches!(acceptor.renew(), Renewed::No), "told once");
        assert_eq!(acceptor.leaf(), first);
        fs::copy(other_certificate, &certificate).expect("a copy");
        assert!(matches!(acceptor.renew(), Renewed::Yes));
        assert!(acceptor.leaf().is_some() && acceptor.leaf() != first);
        assert!(matches!(acceptor.renew(), Renewed::No), "told once");
        fs::remove_dir_all(folder).expect("a folder");
    }
}
