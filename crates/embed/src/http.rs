//! The one HTTP client of the process: embedding providers and model downloads share it.
//!
//! TLS is rustls over ring. Certificates are judged by the platform's trust store, which honours
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` on Linux; a machine without any trust store (a bare
//! container) falls back to Mozilla's roots, compiled in. The proxy variables every tool knows
//! (`HTTPS_PROXY`, `NO_PROXY`) are honoured unless [`HttpOptions::proxy`] says otherwise.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};

/// Whether a client goes through the proxy that the environment names.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ProxyUse {
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` decide.
    Environment,
    /// Every connection is direct.
    Never,
}

/// What a client of [`http_client`] is made of.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// The `User-Agent` header of every request.
    pub user_agent: String,
    /// The longest a TCP connection and its TLS handshake may take.
    pub connect_timeout: Duration,
    /// The longest silence while an answer is being read; a whole answer may take longer.
    pub read_timeout: Duration,
    /// How long an unused connection is kept open.
    pub idle_timeout: Duration,
    /// Redirects that are followed before giving up.
    pub redirects_max: usize,
    /// Whether the environment's proxy is used.
    pub proxy: ProxyUse,
}

impl Default for HttpOptions {
    fn default() -> Self {
        HttpOptions {
            user_agent: concat!("arrwdb/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_mins(1),
            idle_timeout: Duration::from_mins(1),
            redirects_max: 10,
            proxy: ProxyUse::Environment,
        }
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The TLS library refused its own defaults.
    #[error("TLS could not be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The client could not be built from its options.
    #[error("the HTTP client could not be set up: {0}")]
    Client(#[from] reqwest::Error),
}

/// An HTTP client with connection pooling; cloning it is cheap and shares the pool.
///
/// Touches no process-wide state: the cryptography provider is its own.
pub fn http_client(options: &HttpOptions) -> Result<reqwest::Client, HttpError> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls_config()?)
        .user_agent(&options.user_agent)
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.read_timeout)
        .pool_idle_timeout(options.idle_timeout)
        .redirect(reqwest::redirect::Policy::limited(options.redirects_max));
    if options.proxy == ProxyUse::Never {
        builder = builder.no_proxy();
    }
    Ok(builder.build()?)
}

/// How every client of the process speaks TLS, for those that are made in another way.
pub fn tls_config() -> Result<ClientConfig, rustls::Error> {
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&crypto))
        .with_safe_default_protocol_versions()?;
    let mut config = match platform_verifier(crypto) {
        Ok(verifier) => builder.dangerous().with_custom_certificate_verifier(verifier),
        Err(error) => {
            tracing::warn!(%error, "no usable trust store on this machine: using the built-in roots");
            builder.with_root_certificates(RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            })
        }
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn platform_verifier(
    crypto: Arc<CryptoProvider>,
) -> Result<Arc<rustls_platform_verifier::Verifier>, rustls::Error> {
    Ok(Arc::new(rustls_platform_verifier::Verifier::new(crypto)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_made_without_any_process_wide_provider() {
        assert!(CryptoProvider::get_default().is_none());
        http_client(&HttpOptions::default()).expect("client");
        assert!(CryptoProvider::get_default().is_none());
    }
}
