//! Which hosts belong together: who may see a password or a token, and where a URL may lead.

use url::{Host, Position, Url};

use super::Error;

/// Domains whose subdomains are registries of different customers, which the public suffix list
/// does not know. There only the host itself counts.
const SHARED_DOMAINS: [&str; 6] =
    ["azurecr.io", "azurecr.cn", "azurecr.us", "amazonaws.com", "amazonaws.com.cn", "jfrog.io"];

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
            &url[Position::BeforeHost..Position::AfterPort],
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

/// `None` for IP addresses, single labels, public suffixes themselves and shared domains.
fn registrable_domain(url: &Url) -> Option<String> {
    match url.host()? {
        Host::Domain(domain) => psl::domain_str(without_dot(domain))
            .filter(|domain| !SHARED_DOMAINS.contains(domain))
            .map(Into::into),
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}

fn host(url: &Url) -> Option<String> {
    url.host_str().map(|host| without_dot(host).into())
}

/// `registry.corp.` is `registry.corp`.
pub(super) fn without_dot(host: &str) -> &str {
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
            ("https://a.github.io", "https://x.a.github.io", true),
            ("https://good.azurecr.io", "https://evil.azurecr.io", false),
            ("https://good.azurecr.io", "https://good.azurecr.io/oauth2/token", true),
            ("https://good.jfrog.io", "https://evil.jfrog.io", false),
            ("https://1.dkr.ecr.x.amazonaws.com", "https://2.dkr.ecr.x.amazonaws.com", false),
            ("https://1.dkr.ecr.x.amazonaws.com", "https://evil.s3.amazonaws.com", false),
            ("https://github.io", "https://github.io.", true),
            ("https://co.uk", "https://a.co.uk", false),
            ("https://b\u{fc}cher.example", "https://auth.xn--bcher-kva.example", true),
            ("https://quay.io", "https://qu\u{430}y.io", false),
            ("https://quay.io", "https://quay.io@evil.example", false),
            ("https://quay.io", "https://quay.io.evil.example", false),
            ("https://Registry.Corp.", "https://registry.corp", true),
            ("https://registry.corp", "https://auth.registry.corp", true),
            ("https://one.corp", "https://two.corp", false),
            ("http://registry", "http://registry:5001", true),
            ("http://registry", "http://auth", false),
            ("http://10.0.0.1:5000", "http://10.0.0.1:5001", true),
            ("http://10.0.0.1", "http://11.0.0.1", false),
            ("http://127.0.0.1", "http://0x7f.1:81", true),
            ("http://1.2.3.4", "http://5.2.3.4", false),
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
            ("http://a/", "unix:/run/x.sock", None),
            ("http://a/", "http+unix://x/", None),
            ("http://a/", "http://[fe80::1%25eth0]/", None),
            ("http://a/", "javascript:x", None),
            ("https://a/x", "ht\ttps://b/\r\nc", Some("https://b/c")),
            ("https://a/x", "\\\\b\\c", Some("https://b/c")),
        ];
        for (from, to, want) in table {
            let got = checked_step(&url(from), to).ok();
            assert_eq!(got.as_ref().map(Url::as_str), want, "{from} {to}");
        }
    }

    #[test]
    fn a_refusal_does_not_show_what_may_be_a_password() {
        for to in ["http://anna:s3cret@b/?s3cret", "ftp://s3cret@b/s3cret", "https://s3cret@:1/"] {
            let refusal = checked_step(&url("https://a/"), to).unwrap_err().to_string();
            assert!(!refusal.contains("s3cret"), "{refusal}");
        }
    }
}
