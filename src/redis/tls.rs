//! TLS to the server: who vouches for it.

use std::path::Path;
use std::sync::Arc;

use fred::rustls::crypto::aws_lc_rs;
use fred::rustls::pki_types::CertificateDer;
use fred::rustls::pki_types::pem::PemObject as _;
use fred::rustls::{ClientConfig, RootCertStore};
use fred::rustls_native_certs::load_native_certs;
use fred::types::config::TlsConfig;

use super::StartError;

/// What a connection is secured with: the certificates of a file, or those that the system trusts.
pub(super) fn tls(ca_file: Option<&Path>) -> Result<TlsConfig, StartError> {
    let roots = match ca_file {
        Some(file) => roots_of(file)?,
        None => roots_of_system()?,
    };
    // Named, because another part of the process may bring another provider.
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| StartError::NoCertificates(error.to_string()))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(fred::types::config::TlsConnector::from(config).into())
}

fn roots_of(file: &Path) -> Result<RootCertStore, StartError> {
    let fault = |why: String| StartError::CaFile {
        file: file.to_owned(),
        why,
    };
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| fault(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| fault(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| fault(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(fault("there is no certificate in it".to_owned())),
        false => Ok(roots),
    }
}

fn roots_of_system() -> Result<RootCertStore, StartError> {
    let found = load_native_certs();
    let mut roots = RootCertStore::empty();
    // Old machines have certificates that no library takes any more.
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        true => {
            let why = found.errors.first().map(ToString::to_string);
            Err(StartError::NoCertificates(why.unwrap_or_default()))
        }
        false => Ok(roots),
    }
}
