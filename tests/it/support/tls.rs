//! A certificate authority of the tests' own.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::PrivateKeyDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

/// Signs the certificates of servers under test; clients that are given its PEM trust them.
pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// When what it signs ends, unless that is far away.
    ends: Option<SystemTime>,
}

impl TestCa {
    /// A new authority.
    pub fn new() -> TestCa {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        TestCa { issuer, ends: None }
    }

    /// A new authority that signs nothing for longer than to this time.
    pub fn ending(ends: SystemTime) -> TestCa {
        TestCa { ends: Some(ends), ..TestCa::new() }
    }

    /// The authority's certificate, for a `ca` file.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for this address and its key, in PEM.
    pub fn certificate(&self, address: IpAddr) -> (String, String) {
        let (certificate, key) = self.issue(params(&address.to_string()));
        (certificate.pem(), key.serialize_pem())
    }

    /// TLS for a server at `address`, offering HTTP/2 and HTTP/1.1.
    pub fn acceptor(&self, address: IpAddr) -> TlsAcceptor {
        self.acceptor_for(&address.to_string())
    }

    /// TLS for a server of this name or address.
    pub fn acceptor_for(&self, name: &str) -> TlsAcceptor {
        self.acceptor_with(params(name), WebPkiClientVerifier::no_client_auth())
    }

    /// TLS for a server whose certificate has expired.
    pub fn expired_acceptor_for(&self, name: &str) -> TlsAcceptor {
        let mut params = params(name);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.acceptor_with(params, WebPkiClientVerifier::no_client_auth())
    }

    /// TLS for a server that lets nobody in without a certificate of this authority.
    pub fn closed_acceptor_for(&self, name: &str) -> TlsAcceptor {
        self.acceptor_with(params(name), self.client_verifier().build().unwrap())
    }

    /// TLS for a server that takes certificates of this authority, and lets everybody in.
    pub fn curious_acceptor_for(&self, name: &str) -> TlsAcceptor {
        let verifier = self.client_verifier().allow_unauthenticated();
        self.acceptor_with(params(name), verifier.build().unwrap())
    }

    fn client_verifier(&self) -> rustls::server::ClientCertVerifierBuilder {
        let provider = Arc::new(aws_lc_rs::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider)
    }

    fn acceptor_with(
        &self,
        params: CertificateParams,
        clients: Arc<dyn ClientCertVerifier>,
    ) -> TlsAcceptor {
        let (certificate, key) = self.issue(params);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Connects to a server that this authority vouches for, asking for these protocols.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn connect(
        &self,
        server: SocketAddr,
        protocols: &[&str],
    ) -> io::Result<TlsStream<TcpStream>> {
        self.connect_over(TcpStream::connect(server).await?, protocols).await
    }

    /// As [`TestCa::connect`], over a connection that is made already.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn connect_over(
        &self,
        stream: TcpStream,
        protocols: &[&str],
    ) -> io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let server = stream.peer_addr()?.ip();
        TlsConnector::from(Arc::new(config)).connect(server.into(), stream).await
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    fn issue(&self, mut params: CertificateParams) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        if let Some(ends) = self.ends {
            params.not_after = ends.into();
        }
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}
