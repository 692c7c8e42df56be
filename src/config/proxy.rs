//! The proxy that leads to a host, and where it is written: `proxy` of an `[[upstream]]`, or else
//! the variables that other programs read too. Those are no keys of Larder's, so that a wrong one
//! does not keep it from serving what it has: it is a warning, and whatever would need that proxy
//! fails with the same words. Nothing goes around a proxy that was meant.

use percent_encoding::percent_decode_str;
use url::Url;

use super::{
    Identity,
    no_proxy::NoProxy,
    reader::{Reader, Section},
    value,
};

/// What the key `proxy` holds when there shall be none.
const DIRECT: &str = "direct";

const REMEDY: &str = "write for example http://proxy:3128, with user:password@ before the host if need be, special characters in them as %40";

/// A proxy and what it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `http` or `https`, host and port. Holds no secret.
    pub url: Url,
    /// Who Larder is there: nobody, or a user.
    pub identity: Identity,
}

/// The way to every host that an endpoint leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Choice,
    https: Choice,
    no_proxy: Option<NoProxy>,
}

/// The way to one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// Without a proxy.
    Direct,
    /// By this one.
    Through(&'a Proxy),
    /// By one that cannot be used, for this reason.
    Closed(&'a str),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Choice {
    #[default]
    Direct,
    Proxy(Proxy),
    Unusable(String),
}

impl Proxies {
    /// `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in small letters before capitals.
    pub(super) fn of_environment(reader: &mut Reader<'_>) -> Proxies {
        let http = Choice::of_variable(reader, ["http_proxy", "HTTP_PROXY"]);
        let https = Choice::of_variable(reader, ["https_proxy", "HTTPS_PROXY"]);
        let every = Choice::of_variable(reader, ["all_proxy", "ALL_PROXY"]);
        let [http, https] = [http, https].map(|choice| match choice {
            Choice::Direct => every.clone(),
            Choice::Proxy(_) | Choice::Unusable(_) => choice,
        });
        let list = first_variable(reader, ["no_proxy", "NO_PROXY"]).map(|(_, list)| list);
        Proxies { http, https, no_proxy: Some(NoProxy::parse(list.unwrap_or_default())) }
    }

    /// The key `proxy`, which stands for all that the environment says, exceptions too.
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Proxies> {
        section.take("proxy", |written| {
            let text = value::text(written)?;
            if text == DIRECT {
                return Ok(Proxies::default());
            }
            let proxy = parse(&text).map_err(|problem| {
                written.wrong(&format!("{problem}; {REMEDY}, or \"{DIRECT}\""))
            })?;
            let choice = Choice::Proxy(proxy);
            Ok(Proxies { http: choice.clone(), https: choice, no_proxy: None })
        })
    }

    /// The way to `host`, an IPv6 address with or without brackets.
    pub fn route(&self, scheme: &str, host: &str, port: u16) -> Route<'_> {
        let is_exempt = || self.no_proxy.as_ref().is_some_and(|list| list.has(host, port));
        let choice = if scheme == "https" { &self.https } else { &self.http };
        match choice {
            Choice::Direct => Route::Direct,
            Choice::Proxy(_) | Choice::Unusable(_) if is_exempt() => Route::Direct,
            Choice::Proxy(proxy) => Route::Through(proxy),
            Choice::Unusable(reason) => Route::Closed(reason),
        }
    }
}

impl Choice {
    fn of_variable(reader: &mut Reader<'_>, names: [&str; 2]) -> Choice {
        let Some((name, text)) = first_variable(reader, names) else {
            return Choice::Direct;
        };
        match parse(text) {
            Ok(proxy) => Choice::Proxy(proxy),
            Err(problem) => {
                let reason = format!("{name}: {problem}; {REMEDY}");
                reader.warn(format!("{reason}; until then nothing is asked where it would lead"));
                Choice::Unusable(reason)
            }
        }
    }
}

fn first_variable<'a>(reader: &Reader<'a>, names: [&str; 2]) -> Option<(&'a str, &'a str)> {
    names.into_iter().find_map(|name| reader.variable(name))
}

/// A URL, or host and port for a proxy that speaks HTTP in the clear. The problem does not show the
/// text: it may hold a password.
fn parse(text: &str) -> Result<Proxy, &'static str> {
    let text = text.trim();
    let parsed = match text.contains("://") {
        true => Url::parse(text),
        false => Url::parse(&format!("http://{text}")),
    };
    let url = parsed.map_err(|_| "is no proxy")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("names a proxy that does not speak HTTP");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("holds more than a host and a port");
    }
    let identity = identity(&url).ok_or("holds a user or password that is no text")?;
    let mut url = url;
    // Both fail only for URLs without a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Ok(Proxy { url, identity })
}

fn identity(url: &Url) -> Option<Identity> {
    let decode = |text| percent_decode_str(text).decode_utf8().map(String::from).ok();
    let (name, password) = (url.username(), url.password().unwrap_or_default());
    if name.is_empty() && password.is_empty() {
        return Some(Identity::Anonymous);
    }
    Some(Identity::User { name: decode(name)?, password: decode(password)? })
}
