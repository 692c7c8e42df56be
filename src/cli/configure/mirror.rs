//! Where clients reach the mirror: the value of `--mirror`.

use std::str::FromStr;

use url::{Host, Url};

/// A mirror as its clients name it: scheme, host and port, and nothing else.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    scheme: String,
    authority: String,
}

/// Why a text is no address that every client could use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidMirror {
    /// Not a URL of the web.
    #[error("write the scheme, http or https, and a host, as in http://larder.lan:5000")]
    Url,
    /// A user name or password.
    #[error("a mirror's URL holds no user name and no password")]
    Userinfo,
    /// Clients put it before `/v2/` or behind it, each in its own way.
    #[error(
        "a path cannot be given to every client; give the mirror a host name or a port of its own"
    )]
    Path,
    /// Meant for a single request.
    #[error("write the URL without \"?\" and \"#\"")]
    QueryOrFragment,
    /// Where a server listens, not where it is reached.
    #[error("clients cannot reach {0}; write the mirror's name or address, and its port")]
    Unreachable(String),
}

impl Mirror {
    /// `http://larder.lan:5000`
    pub(super) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    /// `larder.lan:5000`
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether it is reached without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.scheme == "http"
    }
}

impl FromStr for Mirror {
    type Err = InvalidMirror;

    fn from_str(text: &str) -> Result<Mirror, InvalidMirror> {
        let url = Url::parse(text).map_err(|_| InvalidMirror::Url)?;
        let default_port = match url.scheme() {
            "http" => 80,
            "https" => 443,
            _ => return Err(InvalidMirror::Url),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidMirror::Userinfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidMirror::QueryOrFragment);
        }
        if url.path() != "/" {
            return Err(InvalidMirror::Path);
        }
        let host = url.host().ok_or(InvalidMirror::Url)?;
        if is_unspecified(&host) || url.port() == Some(0) {
            return Err(InvalidMirror::Unreachable(url.authority().to_owned()));
        }
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None if is_unmistakable(&host) => host.to_string(),
            None => format!("{host}:{default_port}"),
        };
        Ok(Mirror { scheme: url.scheme().to_owned(), authority })
    }
}

fn is_unspecified(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(_) => false,
        Host::Ipv4(address) => address.is_unspecified(),
        Host::Ipv6(address) => address.is_unspecified(),
    }
}

/// Whether clients take it for a host where an image's name begins with it. Others need a port.
fn is_unmistakable(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.contains('.') || *name == "localhost",
        Host::Ipv4(_) | Host::Ipv6(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_a_scheme_a_host_and_a_port() {
        for (text, url, authority) in [
            ("http://larder.lan:5000", "http://larder.lan:5000", "larder.lan:5000"),
            ("http://Larder.LAN:5000/", "http://larder.lan:5000", "larder.lan:5000"),
            ("https://larder.lan", "https://larder.lan", "larder.lan"),
            ("https://larder.lan:443", "https://larder.lan", "larder.lan"),
            ("http://10.0.0.5:5000", "http://10.0.0.5:5000", "10.0.0.5:5000"),
            ("http://[fd00::5]:5000", "http://[fd00::5]:5000", "[fd00::5]:5000"),
            ("http://larder", "http://larder:80", "larder:80"),
            ("https://larder", "https://larder:443", "larder:443"),
            ("http://localhost", "http://localhost", "localhost"),
        ] {
            let mirror: Mirror = text.parse().unwrap();
            assert_eq!((mirror.url().as_str(), mirror.authority()), (url, authority), "{text}");
            assert_eq!(mirror.is_plain(), text.starts_with("http:"), "{text}");
        }
    }

    #[test]
    fn what_no_client_could_use_is_refused() {
        let unreachable = |authority: &str| InvalidMirror::Unreachable(authority.to_owned());
        for (text, want) in [
            ("", InvalidMirror::Url),
            ("larder.lan", InvalidMirror::Url),
            ("larder.lan:5000", InvalidMirror::Url),
            ("ftp://larder.lan", InvalidMirror::Url),
            ("http://", InvalidMirror::Url),
            ("unix:/run/larder.sock", InvalidMirror::Url),
            ("http://user@larder.lan", InvalidMirror::Userinfo),
            ("http://user:secret@larder.lan", InvalidMirror::Userinfo),
            ("http://larder.lan/docker", InvalidMirror::Path),
            ("http://larder.lan/v2", InvalidMirror::Path),
            ("http://larder.lan?x", InvalidMirror::QueryOrFragment),
            ("http://larder.lan#x", InvalidMirror::QueryOrFragment),
            ("http://0.0.0.0:5000", unreachable("0.0.0.0:5000")),
            ("http://[::]:5000", unreachable("[::]:5000")),
            ("http://larder.lan:0", unreachable("larder.lan:0")),
        ] {
            assert_eq!(text.parse::<Mirror>().unwrap_err(), want, "{text}");
        }
    }
}
