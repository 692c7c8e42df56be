//! What the operator can do about a connection that fails.

use std::{error::Error, io, iter};

use rustls::{AlertDescription, CertificateError as Wrong, Error as TlsError};

use super::{
    guard::Refused,
    line::{BoxError, Closed, Proxied},
    proxy::Refusal,
    resolver::Unresolved,
};

/// What to do when no line to a host is made; without anything known of it, `otherwise`. `None`: the
/// error says so itself.
pub(in crate::upstream) fn line_remedy(
    error: &BoxError,
    otherwise: &'static str,
) -> Option<&'static str> {
    let error: &(dyn Error + 'static) = error.as_ref();
    if has::<Refused>(error) || has::<Closed>(error) || has::<Refusal>(error) {
        return None;
    }
    if has::<Unresolved>(error) {
        return Some("does DNS work here?");
    }
    if tls_error(error).is_some() {
        return Some(tls_remedy(error));
    }
    match has::<Proxied>(error) {
        true => Some("is the proxy up, and is it the right one?"),
        false => Some(otherwise),
    }
}

/// What to do when a handshake fails like this.
pub(in crate::upstream) fn tls_remedy(error: &(dyn Error + 'static)) -> &'static str {
    match tls_error(error) {
        Some(TlsError::InvalidCertificate(wrong)) => certificate_remedy(wrong),
        Some(TlsError::AlertReceived(_)) => {
            "does it want a certificate of Larder's, by client_cert and client_key?"
        }
        Some(_) | None => "does it speak TLS at all?",
    }
}

/// Whether a server asks in vain for a certificate of Larder's. In TLS 1.3 it says so only to the
/// first request (RFC 8446, section 4.4.2.4).
pub(in crate::upstream) fn wants_certificate(error: &(dyn Error + 'static)) -> bool {
    let wanted = TlsError::AlertReceived(AlertDescription::CertificateRequired);
    tls_error(error) == Some(&wanted)
}

fn certificate_remedy(wrong: &Wrong) -> &'static str {
    // An authority that was made anew, with the name of the one before, has signed it badly.
    if matches!(wrong, Wrong::UnknownIssuer | Wrong::BadSignature) {
        return "if you trust its authority, name that one's PEM file as ca";
    }
    if matches!(wrong, Wrong::Expired | Wrong::ExpiredContext { .. }) {
        return "it has to be renewed there, unless this machine's clock is wrong";
    }
    if matches!(wrong, Wrong::NotValidYet | Wrong::NotValidYetContext { .. }) {
        return "is this machine's clock right?";
    }
    if matches!(wrong, Wrong::NotValidForName | Wrong::NotValidForNameContext { .. }) {
        return "write a host that the certificate names in endpoints";
    }
    "only its owner can mend that"
}

/// Whether a `T` is among the causes.
fn has<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    iter::successors(Some(error), |&cause| cause.source()).any(<dyn Error>::is::<T>)
}

/// What rustls said. It comes inside of errors of I/O, which do not list it among their sources.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let io: Option<&io::Error> = error.downcast_ref();
    match io.and_then(io::Error::get_ref) {
        Some(inner) => tls_error(inner),
        None => tls_error(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_depends_on_who_is_content_with_whom() {
        let alert = TlsError::AlertReceived;
        for (error, remedy) in [
            (alert(AlertDescription::HandshakeFailure), "client_cert and client_key"),
            (TlsError::InvalidCertificate(Wrong::UnknownIssuer), "as ca"),
            (TlsError::InvalidCertificate(Wrong::BadSignature), "as ca"),
            (TlsError::InvalidCertificate(Wrong::Expired), "renewed there"),
            (TlsError::DecryptError, "speak TLS at all"),
        ] {
            let wrapped = io::Error::other(io::Error::other(error));
            assert!(tls_remedy(&wrapped).contains(remedy), "{wrapped:?}");
        }
        for (error, wants) in [
            (alert(AlertDescription::CertificateRequired), true),
            (alert(AlertDescription::HandshakeFailure), false),
        ] {
            assert_eq!(wants_certificate(&io::Error::other(error)), wants);
        }
    }
}
