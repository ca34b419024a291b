//! Whom to believe behind us.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{IpAddr, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::own::OwnCertificate;
use super::pem::{TlsError, certificates};
use super::{Acceptor, Stream, provider};

/// Begins TLS with upstreams: with what roots vouch for, and nothing else.
#[derive(Clone)]
pub struct Connector {
    plain: TlsConnector,
    /// Offers HTTP/2, too, where it is wanted.
    http2: TlsConnector,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Connector")
    }
}

impl Connector {
    /// Believes the system's roots, or those of this file instead; `http2` says whether servers are offered that (ALPN,
    /// RFC 7301).
    ///
    /// # Errors
    /// When there are none, or the file is of no use.
    pub fn load(roots: Option<&Path>, http2: bool) -> Result<Self, TlsError> {
        let mut config = trusting(roots)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut both = config.clone();
        if http2 {
            both.alpn_protocols.insert(0, b"h2".to_vec());
        }
        Ok(Self {
            plain: TlsConnector::from(Arc::new(config)),
            http2: TlsConnector::from(Arc::new(both)),
        })
    }

    /// The same for servers that speak no HTTP.
    ///
    /// # Errors
    /// The same.
    pub fn without_alpn(roots: Option<&Path>) -> Result<Self, TlsError> {
        let connector = TlsConnector::from(Arc::new(trusting(roots)?));
        Ok(Self {
            plain: connector.clone(),
            http2: connector,
        })
    }

    /// Believes the one certificate of this acceptor, whatever it names: for a node that asks itself.
    pub fn for_own(acceptor: &Acceptor) -> Self {
        let builder = ClientConfig::builder_with_provider(provider());
        let versions = builder.with_safe_default_protocol_versions();
        let config = versions
            .expect("the provider has suites of both versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OwnCertificate::of(acceptor)))
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        Self {
            plain: connector.clone(),
            http2: connector,
        }
    }

    /// Does the handshake with the server of this name or address, which its certificate must name. The caller bounds its
    /// time.
    ///
    /// # Errors
    /// When nobody vouches for it, or it does not speak TLS as we do.
    pub async fn connect(&self, host: &str, socket: TcpStream) -> std::io::Result<Stream> {
        Self::shake_hands(&self.plain, host, socket).await
    }

    /// The same, where the server may choose HTTP/2: [`Stream::is_http2`] tells.
    ///
    /// # Errors
    /// The same.
    pub async fn connect_any(&self, host: &str, socket: TcpStream) -> std::io::Result<Stream> {
        Self::shake_hands(&self.http2, host, socket).await
    }

    async fn shake_hands(
        connector: &TlsConnector,
        host: &str,
        socket: TcpStream,
    ) -> std::io::Result<Stream> {
        let invalid = |_| std::io::Error::new(std::io::ErrorKind::InvalidInput, "no host name");
        let name = match host.parse::<std::net::IpAddr>() {
            Ok(address) => ServerName::IpAddress(IpAddr::from(address)),
            Err(_) => ServerName::try_from(host.to_owned()).map_err(invalid)?,
        };
        let connected = connector.connect(name, socket).await?;
        Ok(Stream::Tls(Box::new(connected.into())))
    }
}

/// What is wrong with a server's certificate, where that is why there is no connection.
pub fn untrusted(error: &std::io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref()? {
        fault @ rustls::Error::InvalidCertificate(_) => Some(fault.to_string()),
        _ => None,
    }
}

fn trusting(roots: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let store = match roots {
        Some(file) => roots_of(file)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(provider());
    let versions = builder.with_safe_default_protocol_versions();
    Ok(versions
        .expect("the provider has suites of both versions")
        .with_root_certificates(store)
        .with_no_client_auth())
}

fn roots_of(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store.add(certificate).map_err(|cause| TlsError::BadRoot {
            file: file.to_owned(),
            cause,
        })?;
    }
    Ok(store)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoRoots(errors.join("; ")));
    }
    Ok(store)
}
