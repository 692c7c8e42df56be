//! TLS 1.3 with AES-128-GCM, at the least cost that user space can have: after the handshake,
//! records are read many at a time and opened where they lie.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::Arc,
};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, ExtractedSecrets, RootCertStore,
    client::UnbufferedClientConnection,
    unbuffered::{ConnectionState, UnbufferedStatus},
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};

use crate::{Failure, tally::Fault};

/// What is read at once, in bytes: fits a processor's own cache.
const BUFFER: usize = 256 << 10;

/// Types of content (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Messages after a handshake that are of no use here (section 4.6.1).
const NEW_SESSION_TICKET: u8 = 4;

/// The header of a record, in bytes.
const HEADER: usize = 5;

/// A connection after its handshake.
pub struct Tls {
    sealing: Direction,
    opening: Direction,
    buffer: Vec<u8>,
    /// Bytes in the buffer that are not opened yet.
    filled: usize,
    /// What the server said during the handshake.
    early: Vec<u8>,
}

/// The key of one direction, and how many records it was used for.
struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    records: u64,
}

/// Settings that trust the certificates in a PEM file.
pub fn config(ca: &Path, http2: bool) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&fs::read(ca)?) {
        roots.add(certificate?)?;
    }
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites =
        vec![rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

impl Tls {
    /// Shakes hands.
    pub fn connect(
        mut stream: &TcpStream,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> Result<Tls, Failure> {
        let name = ServerName::try_from(name.to_owned())?;
        let wanted = config.alpn_protocols.clone();
        let mut connection = UnbufferedClientConnection::new(config, name)?;
        let (mut buffer, mut filled) = (vec![0; BUFFER], 0);
        let (mut output, mut early) = (Vec::new(), Vec::new());
        loop {
            let UnbufferedStatus { discard, state, .. } =
                connection.process_tls_records(&mut buffer[..filled]);
            let (mut blocked, mut done) = (false, false);
            match state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    let mut record = vec![0; 1 << 15];
                    let bytes = data.encode(&mut record)?;
                    output.extend_from_slice(&record[..bytes]);
                }
                ConnectionState::TransmitTlsData(data) => {
                    stream.write_all(&output)?;
                    output.clear();
                    data.done();
                }
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        early.extend_from_slice(record?.payload);
                    }
                }
                ConnectionState::BlockedHandshake => blocked = true,
                ConnectionState::WriteTraffic(_) => done = true,
                _ => return Err("the server ended the handshake".into()),
            }
            buffer.copy_within(discard..filled, 0);
            filled -= discard;
            if done {
                break;
            }
            if blocked {
                filled += match stream.read(&mut buffer[filled..])? {
                    0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                    bytes => bytes,
                };
            }
        }
        if connection.alpn_protocol() != wanted.first().map(Vec::as_slice) {
            return Err("the server does not speak this version of HTTP".into());
        }
        let (ExtractedSecrets { tx, rx }, _) = connection.dangerous_into_kernel_connection()?;
        let (sealing, opening) = (Direction::new(tx)?, Direction::new(rx)?);
        Ok(Tls { sealing, opening, buffer, filled, early })
    }

    /// Writes these bytes as one record, which they must fit.
    pub fn send(&mut self, mut stream: &TcpStream, bytes: &[u8]) -> Result<(), Fault> {
        stream.write_all(&self.sealing.seal(bytes)?).map_err(|_| Fault::Cut)
    }

    /// Reads once, and gives every record of it to `take`. Whether one of them made it true.
    pub fn receive(
        &mut self,
        mut stream: &TcpStream,
        mut take: impl FnMut(&[u8]) -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        match stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) | Err(_) => return Err(Fault::Cut),
            Ok(bytes) => self.filled += bytes,
        }
        let mut whole = !self.early.is_empty() && take(&std::mem::take(&mut self.early))?;
        let mut opened = 0;
        while let Some(length) = record(&self.buffer[opened..self.filled]) {
            let (kind, plain) = self.opening.open(&mut self.buffer[opened..opened + length])?;
            match (kind, plain.first()) {
                (APPLICATION_DATA, _) => whole |= take(plain)?,
                (HANDSHAKE, Some(&NEW_SESSION_TICKET)) => {}
                _ => return Err(Fault::Cut),
            }
            opened += length;
        }
        self.buffer.copy_within(opened..self.filled, 0);
        self.filled -= opened;
        Ok(whole)
    }
}

/// The length of the first record with its header. `None`: it is not all there.
fn record(bytes: &[u8]) -> Option<usize> {
    let [_, _, _, high, low, ..] = *bytes else { return None };
    let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
    (bytes.len() >= length).then_some(length)
}

impl Direction {
    fn new((records, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Direction, Failure> {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            return Err("not AES-128-GCM".into());
        };
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref())?);
        Ok(Direction { key, iv: iv.as_ref().try_into()?, records })
    }

    /// The nonce of the next record (RFC 8446, section 5.3).
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, mask) in nonce[4..].iter_mut().zip(self.records.to_be_bytes()) {
            *byte ^= mask;
        }
        self.records += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Opens a record in its place: the type of its content, and the content.
    fn open<'r>(&mut self, record: &'r mut [u8]) -> Result<(u8, &'r [u8]), Fault> {
        let nonce = self.nonce();
        let (header, sealed) = record.split_at_mut(HEADER);
        if header[0] != APPLICATION_DATA {
            return Err(Fault::Protocol);
        }
        let opened = self.key.open_in_place(nonce, Aad::from(&*header), sealed);
        let opened = opened.map_err(|_| Fault::Protocol)?;
        // Zeros may follow the type.
        let at = opened.iter().rposition(|byte| *byte != 0).ok_or(Fault::Protocol)?;
        Ok((opened[at], &opened[..at]))
    }

    /// A record of application data.
    fn seal(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let nonce = self.nonce();
        let mut sealed = [bytes, &[APPLICATION_DATA]].concat();
        let length = (sealed.len() + AES_128_GCM.tag_len()) as u16;
        let [high, low] = length.to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(&header), &mut sealed)
            .map_err(|_| Fault::Protocol)?;
        Ok([&header[..], &sealed].concat())
    }
}
