//! Which hosts belong together: who may see a password or a token, and where a URL may lead.

use url::{Host, Url};

use super::Error;

/// Whether both URLs name the same host. Ports do not count.
pub(super) fn is_same_host(a: &Url, b: &Url) -> bool {
    match (host(a), host(b)) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => false,
    }
}

/// Whether credentials for `endpoint` may be shown to `realm`: the same host, or one under the same
/// registrable domain (publicsuffix.org), or one that the configuration lists.
pub(super) fn may_see_credentials(endpoint: &Url, realm: &Url, trusted_realms: &[String]) -> bool {
    let is_listed = || {
        let host = host(realm);
        trusted_realms
            .iter()
            .any(|trusted| Some(without_dot(&trusted.to_ascii_lowercase())) == host.as_deref())
    };
    is_same_host(endpoint, realm) || is_same_site(endpoint, realm) || is_listed()
}

/// Refuses what no URL from upstream may lead to: other schemes than http and https, and http
/// where `from` was https. Userinfo and fragment are dropped.
pub(super) fn checked_step(from: &Url, to: &str) -> Result<Url, Error> {
    let mut url = from.join(to).map_err(|error| {
        Error::Invalid(format!("{}: a URL that is none: {error}", from.authority()))
    })?;
    let is_allowed = match url.scheme() {
        "https" => true,
        "http" => from.scheme() == "http",
        _ => false,
    };
    if !is_allowed || url.host().is_none() {
        return Err(Error::Invalid(format!(
            "{} leads to {}://{}, which is not as safe",
            from.authority(),
            url.scheme(),
            url.authority(),
        )));
    }
    // Both fail only for URLs without a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    Ok(url)
}

fn is_same_site(a: &Url, b: &Url) -> bool {
    match (registrable_domain(a), registrable_domain(b)) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => false,
    }
}

/// `None` for IP addresses, single labels and public suffixes themselves.
fn registrable_domain(url: &Url) -> Option<String> {
    match url.host()? {
        Host::Domain(domain) => psl::domain_str(without_dot(domain)).map(Into::into),
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}

fn host(url: &Url) -> Option<String> {
    url.host_str().map(|host| without_dot(host).into())
}

/// `registry.corp.` is `registry.corp`.
fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn credentials_stay_in_the_registrable_domain() {
        let table = [
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true),
            ("https://ghcr.io", "https://ghcr.io:8443/token", true),
            ("https://a.b.example.co.uk", "https://c.example.co.uk", true),
            ("https://one.co.uk", "https://two.co.uk", false),
            ("https://a.github.io", "https://b.github.io", false),
            ("https://quay.io", "https://quay.io.evil.example", false),
            ("https://Registry.Corp.", "https://registry.corp", true),
            ("https://registry.corp", "https://auth.registry.corp", true),
            ("https://one.corp", "https://two.corp", false),
            ("http://registry", "http://registry:5001", true),
            ("http://registry", "http://auth", false),
            ("http://10.0.0.1:5000", "http://10.0.0.1:5001", true),
            ("http://10.0.0.1", "http://11.0.0.1", false),
            ("http://[fd00::1]", "http://[fd00::2]", false),
            ("http://[fd00::1]", "http://[FD00::0001]:1", true),
            ("https://registry.example", "https://Login.Sso.Test/t", true),
        ];
        for (endpoint, realm, want) in table {
            let allowed =
                may_see_credentials(&url(endpoint), &url(realm), &["login.SSO.test".into()]);
            assert_eq!(allowed, want, "{endpoint} {realm}");
        }
    }

    #[test]
    fn https_never_becomes_http_and_relative_urls_are_joined() {
        let table = [
            ("https://a/v2/x", "/token?x=y", Some("https://a/token?x=y")),
            ("https://a/v2/x", "//b/c", Some("https://b/c")),
            ("http://a/v2/", "https://b/", Some("https://b/")),
            ("http://a/v2/", "http://b/", Some("http://b/")),
            ("https://a/", "https://user:secret@b/c#d", Some("https://b/c")),
            ("https://a/", "http://a/", None),
            ("http://a/", "file:///etc/passwd", None),
            ("http://a/", "ftp://b/", None),
            ("http://a/", "http://[::g]/", None),
        ];
        for (from, to, want) in table {
            let got = checked_step(&url(from), to).ok();
            assert_eq!(got.as_ref().map(Url::as_str), want, "{from} {to}");
        }
    }
}
