//! What a certificate says of itself (RFC 5280): whose it is, who vouches for it, until when.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate, x509::X509Name,
};

use crate::finding::Verdict;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// With less time left, somebody should renew it.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// How many of its names are shown.
const NAMES: usize = 3;

/// A certificate, as far as people want to know it. Says nothing of whether it is to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    names: Vec<String>,
    issuer: String,
    ends: SystemTime,
}

impl Certificate {
    /// Reads the DER form; `None` if it is none.
    pub fn read(der: &[u8]) -> Option<Certificate> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Some(Certificate {
            names: names(&certificate),
            issuer: common_name(certificate.issuer()),
            ends: UNIX_EPOCH.checked_add(Duration::from_secs(ends))?,
        })
    }

    /// Whether it is good for a while yet, in words that follow `before`.
    pub fn verdict(&self, before: &str, now: SystemTime) -> Verdict {
        match self.ends.duration_since(now) {
            Err(_) => Verdict::bad(format!("{before}{self}, which is over; renew it")),
            Ok(left) if left < SOON => {
                Verdict::doubtful(format!("{before}{self}, {} days left; renew it", days(left)))
            }
            Ok(left) => Verdict::good(format!("{before}{self}, {} days left", days(left))),
        }
    }
}

/// `certificate of *.example.com by Example CA`
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<&str> = self.names.iter().take(NAMES).map(String::as_str).collect();
        write!(f, "certificate of {}", shown.join(", "))?;
        match self.names.len().saturating_sub(NAMES) {
            0 => {}
            more => write!(f, " and {more} more")?,
        }
        write!(f, " by {}", self.issuer)
    }
}

/// The hosts it is for; those of old, or of no host, have a name only in their subject.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let general = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let names: Vec<String> = general.filter_map(host).collect();
    match names.is_empty() {
        true => vec![common_name(certificate.subject())],
        false => names,
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some((*name).to_owned());
    }
    let GeneralName::IPAddress(bytes) = name else {
        return None;
    };
    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
    v4.or_else(|_| v6()).ok().map(|address| address.to_string())
}

/// The common name, or all of a name that has none.
fn common_name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().find_map(|part| part.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_owned)
}

fn days(time: Duration) -> u64 {
    time.as_secs() / DAY.as_secs()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;
    use crate::finding::Outcome;

    /// A certificate that ends on 1 July 2030, for these hosts.
    fn certificate(hosts: &[&str]) -> Certificate {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.not_after = date_time_ymd(2030, 7, 1);
        params.distinguished_name.push(DnType::CommonName, "A Name");
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Certificate::read(signed.der()).unwrap()
    }

    #[test]
    fn names_are_hosts_or_else_the_subject() {
        let table: [(&[&str], &str); 3] = [
            (&["a.test", "10.0.0.1"], "certificate of a.test, 10.0.0.1 by A Name"),
            (&["a", "b", "c", "d", "::1"], "certificate of a, b, c and 2 more by A Name"),
            (&[], "certificate of A Name by A Name"),
        ];
        for (hosts, want) in table {
            assert_eq!(certificate(hosts).to_string(), want);
        }
    }

    #[test]
    fn the_end_is_told_two_weeks_before() {
        let end = certificate(&["a"]).ends;
        let hour = Duration::from_secs(3600);
        for (now, outcome, part) in [
            (end - 30 * DAY, Outcome::Good, ", 30 days left"),
            (end - 14 * DAY, Outcome::Good, ", 14 days left"),
            (end - 14 * DAY + hour, Outcome::Doubtful, ", 13 days left; renew it"),
            (end + hour, Outcome::Bad, ", which is over; renew it"),
        ] {
            let verdict = certificate(&["a"]).verdict("TLS, ", now);
            assert_eq!(verdict.outcome, outcome, "{verdict:?}");
            assert!(verdict.detail.starts_with("TLS, certificate of a by"), "{verdict:?}");
            assert!(verdict.detail.ends_with(part), "{verdict:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        for bytes in [&b""[..], b"no certificate", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(Certificate::read(bytes), None);
        }
    }
}
