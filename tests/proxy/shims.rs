//! TLS around what speaks plainly: a client's side, so that every client of these tests reaches a node over TLS, and a
//! server's, so that every upstream of these tests is asked over TLS. And certificates for both, made by openssl.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::Hub;

/// A certificate for this machine's loopback, vouched for by itself, and its key.
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    /// A new one, in files of its own.
    pub(crate) fn make() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tls-{}-{number}", std::process::id());
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        let pair = Self {
            certificate: directory.join("certificate.pem"),
            key: directory.join("key.pem"),
        };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
            .args([
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-subj",
                "/CN=fanfare tests",
            ])
            .args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&pair.key)
            .arg("-out")
            .arg(&pair.certificate)
            .output()
            .expect("openssl is installed");
        assert!(made.status.success(), "{made:?}");
        pair
    }

    /// The files of another one take the place of this one's.
    pub(crate) fn replace_by(&self, other: &Self) {
        for (from, to) in [
            (&other.key, &self.key),
            (&other.certificate, &self.certificate),
        ] {
            std::fs::copy(from, to).expect("a copy");
        }
    }

    /// What a node is told.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 2] {
        [
            ("TLS_CERT", text(&self.certificate)),
            ("TLS_KEY", text(&self.key)),
        ]
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        let read = CertificateDer::pem_file_iter(&self.certificate).expect("a file");
        read.map(|one| one.expect("a certificate")).collect()
    }

    pub(crate) fn trust(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for one in self.chain() {
            roots.add(one).expect("a root");
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = ClientConfig::builder_with_provider(Arc::new(provider));
        let config = config
            .with_safe_default_protocol_versions()
            .expect("versions");
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(directory) = self.key.parent() {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// A plain port before a node that speaks TLS: what answers there is the node, over TLS that trusts this pair.
pub(crate) async fn client_side(node: SocketAddr, pair: &Pair) -> Hub {
    let (listener, address) = listen().await;
    let connector = TlsConnector::from(pair.trust());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let connector = connector.clone();
            tokio::spawn(async move {
                let far = TcpStream::connect(node).await.ok()?;
                let name = ServerName::try_from("localhost").expect("a name");
                let mut far = connector.connect(name, far).await.ok()?;
                copy_bidirectional(&mut near, &mut far).await.ok()
            });
        }
    });
    Hub::elsewhere(address.port())
}

/// A port that speaks TLS before a plain upstream; its URL.
pub(crate) async fn server_side(upstream: String, pair: &Pair) -> String {
    server_side_with(upstream, pair, &[]).await
}

/// The server's side of TLS, where a client may choose one of these protocols.
fn acceptor(pair: &Pair, protocols: &[&[u8]]) -> TlsAcceptor {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider));
    let config = config
        .with_safe_default_protocol_versions()
        .expect("versions");
    let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
    let config = config
        .with_no_client_auth()
        .with_single_cert(pair.chain(), key);
    let mut config = config.expect("a pair");
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// A port that answers each connection over TLS with these bytes, and leaves without a farewell (`close_notify`).
pub(crate) async fn rude_side(answer: &'static str, pair: &Pair) -> String {
    let (listener, address) = listen().await;
    let acceptor = acceptor(pair, &[]);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut near = acceptor.accept(socket).await.expect("a handshake");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(near.read_u8().await.expect("a head"));
            }
            near.write_all(answer.as_bytes()).await.expect("sent");
            near.flush().await.expect("sent");
        }
    });
    format!("https://localhost:{}", address.port())
}

/// The same as [`server_side`], where a client may choose one of these protocols.
pub(crate) async fn server_side_with(upstream: String, pair: &Pair, protocols: &[&[u8]]) -> String {
    let (listener, address) = listen().await;
    let acceptor = acceptor(pair, protocols);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
            tokio::spawn(async move {
                let mut near = acceptor.accept(near).await.ok()?;
                let mut far = TcpStream::connect(upstream).await.ok()?;
                copy_bidirectional(&mut near, &mut far).await.ok()
            });
        }
    });
    format!("https://localhost:{}", address.port())
}
