//! Values as written → values as meant. Every message says what to write instead; none shows what
//! may be a secret.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;
use ipnet::IpNet;
use toml::de::DeValue;
use url::Url;

use super::{
    DockerConfig, Glob, Listen, Size, read_secret,
    written::{Value, Written, Wrong},
};
use crate::oci::{Name, Registry};

type Parsed<'a, T> = Result<T, Wrong<'a>>;

/// Longer times are written `never`; they would only overflow in arithmetic.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Any text. The message does not show it: user names and passwords are text.
pub(super) fn text(written: Written<'_>) -> Parsed<'_, String> {
    match written.as_text() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        Some(_) | None => Err(written.wrong("want text in quotes")),
    }
}

/// `true` or `false`.
pub(super) fn boolean(written: Written<'_>) -> Parsed<'_, bool> {
    match written.value {
        Value::Toml(DeValue::Boolean(value)) => Ok(*value),
        Value::Bare(text) => written.parsed(text.parse().ok(), "neither true nor false"),
        Value::Toml(_) => Err(written.is("neither true nor false")),
    }
}

/// A number of things, at least one.
pub(super) fn positive_count(written: Written<'_>) -> Parsed<'_, usize> {
    let value: Option<usize> = whole_number(written);
    written.parsed(value.filter(|count| *count > 0), "no number above zero; write for example 6")
}

/// A number of times, perhaps none.
pub(super) fn times(written: Written<'_>) -> Parsed<'_, u32> {
    written.parsed(whole_number(written), "no whole number; write for example 8")
}

/// A number of pulls, perhaps none.
pub(super) fn pulls(written: Written<'_>) -> Parsed<'_, u64> {
    written.parsed(whole_number(written), "no whole number; write for example 20")
}

fn whole_number<T: FromStr>(written: Written<'_>) -> Option<T> {
    match written.value {
        Value::Toml(DeValue::Integer(number)) if number.radix() == 10 => {
            number.as_str().parse().ok()
        }
        Value::Bare(text) => text.parse().ok(),
        Value::Toml(_) => None,
    }
}

/// A time with its unit, up to 100 years.
pub(super) fn duration(written: Written<'_>) -> Parsed<'_, Duration> {
    let value = written.as_text().and_then(parse_duration);
    written.parsed(value, "no duration; write for example \"30s\" or \"1h 30m\"")
}

/// A time above zero.
pub(super) fn positive_duration(written: Written<'_>) -> Parsed<'_, Duration> {
    let value = duration(written)?;
    refuse_zero(written, Some(value))?;
    Ok(value)
}

/// A time, or `never`.
pub(super) fn duration_or_never(written: Written<'_>) -> Parsed<'_, Option<Duration>> {
    let value = written.as_text().and_then(|text| match text {
        "never" => Some(None),
        text => parse_duration(text).map(Some),
    });
    written.parsed(value, "no duration; write for example \"90d\" or \"never\"")
}

/// A time above zero, or `never`.
pub(super) fn positive_duration_or_never(written: Written<'_>) -> Parsed<'_, Option<Duration>> {
    let value = duration_or_never(written)?;
    refuse_zero(written, value)?;
    Ok(value)
}

/// Bytes with a unit, or per cent.
pub(super) fn size(written: Written<'_>) -> Parsed<'_, Size> {
    let value = written.as_text().and_then(parse_size);
    written.parsed(value, "no size; write for example \"100GiB\" or \"10%\"")
}

/// `address:port` or `unix:/path`.
pub(super) fn listen(written: Written<'_>) -> Parsed<'_, Listen> {
    let text = written.as_text().unwrap_or_default();
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Listen::Unix(written.origin.directory().join(path)));
    }
    written.parsed(
        text.parse().ok().map(Listen::Tcp),
        "no address to listen on; write for example \"127.0.0.1:5000\", \"[::]:5000\" or \"unix:/run/larder.sock\"",
    )
}

/// `address:port`
pub(super) fn socket_address(written: Written<'_>) -> Parsed<'_, SocketAddr> {
    written.parsed_from_text("no address to listen on; write for example \"127.0.0.1:5001\"")
}

/// A network, or one address.
pub(super) fn network(written: Written<'_>) -> Parsed<'_, IpNet> {
    let parse = |text: &str| {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse().ok().or_else(address)
    };
    written.parsed(
        written.as_text().and_then(parse),
        "no network; write for example \"10.0.0.0/8\" or \"fd00::/8\"",
    )
}

/// A host with an optional port: a registry, or an alias of one.
pub(super) fn registry(written: Written<'_>) -> Parsed<'_, Registry> {
    written
        .parsed_from_text("no host name; write for example \"ghcr.io\" or \"registry.corp:5000\"")
}

/// A host whose port, whatever it is, does not count.
pub(super) fn host(written: Written<'_>) -> Parsed<'_, Registry> {
    let host = registry(written)?;
    let has_port = host.as_str().contains(':') && !host.as_str().ends_with(']');
    let remedy = "has a port, which does not count; write for example \"auth.corp\"";
    match has_port {
        true => Err(written.wrong(&format!("{} {remedy}", written.shown()))),
        false => Ok(host),
    }
}

/// The name of a repository, or the first components of one.
pub(super) fn name(written: Written<'_>) -> Parsed<'_, Name> {
    let name = written.as_text().map(|text| text.trim_end_matches('/'));
    let name = name.and_then(|name| name.parse().ok());
    written.parsed(name, "no repository; write for example \"team\" or \"team/app\"")
}

/// A list of globs over the names of `registry`'s repositories.
pub(super) fn globs<'a>(registry: &Registry) -> impl Fn(Written<'a>) -> Parsed<'a, Vec<Glob>> {
    list_of(move |written| {
        let glob: Glob = written.parsed_from_text(
            "no pattern of repositories; write for example \"team/*\", or \"**\" for all",
        )?;
        match glob.as_str().split('/').next() == Some(registry.as_str()) {
            true => Err(written.wrong(&format!(
                "{} begins with the registry's name; write only what comes after it",
                written.shown()
            ))),
            false => Ok(glob),
        }
    })
}

/// The URL of an endpoint. The message does not show it: it may hold a password by mistake.
pub(super) fn endpoint_url(written: Written<'_>) -> Parsed<'_, Url> {
    let parsed = written.as_text().and_then(|text| Url::parse(text).ok());
    let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let Some(mut url) = parsed.filter(is_web) else {
        return Err(written.wrong("want a URL; write for example \"https://registry.corp\""));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(written.wrong("a URL holds no password; write username and password_file"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(written.wrong("want a URL without \"?\" and \"#\""));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// A path, relative to the file it is written in.
pub(super) fn path(written: Written<'_>) -> Parsed<'_, PathBuf> {
    let path = written.as_text().filter(|path| !path.is_empty());
    let path = path.map(|path| written.origin.directory().join(path));
    written.parsed(path, "no path; write for example \"/var/lib/larder\"")
}

/// The path of a file that can be read.
pub(super) fn readable_file(written: Written<'_>) -> Parsed<'_, PathBuf> {
    let path = path(written)?;
    match fs::read(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(written.wrong(&format!(
            "cannot read {}: {error}; name a file that this user may read",
            path.display()
        ))),
    }
}

/// The path of a file that holds a secret. The message does not show it: it may be the secret itself
/// by mistake.
pub(super) fn secret_file(written: Written<'_>) -> Parsed<'_, PathBuf> {
    let file = path(written)?;
    match read_secret(&file) {
        Ok(_) => Ok(file),
        Err(error) => Err(written.wrong(&format!(
            "cannot use this file: {error}; name a file that holds the secret and that this user may read"
        ))),
    }
}

/// The path of a file as Docker, Podman and Kubernetes keep their credentials in. The message does
/// not show it: it may be the content by mistake, as in Docker's own variable for it.
pub(super) fn docker_config(written: Written<'_>) -> Parsed<'_, PathBuf> {
    let file = path(written)?;
    match DockerConfig::read(&file) {
        Ok(_) => Ok(file),
        Err(error) => Err(written.wrong(&format!(
            "cannot use this file: {error}; name Docker's config.json or a file like it"
        ))),
    }
}

/// What follows `docker-credential-` in the name of a helper.
pub(super) fn helper_name(written: Written<'_>) -> Parsed<'_, String> {
    let name = written.as_text().filter(|name| is_helper_name(name)).map(str::to_owned);
    written
        .parsed(name, "no helper; write for example \"ecr-login\" for docker-credential-ecr-login")
}

/// Whether nothing but a program's name can come of it.
pub(super) fn is_helper_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(is_plain)
}

/// One of a few words.
pub(super) fn one_of<'a, T: Copy>(written: Written<'a>, words: &[(&str, T)]) -> Parsed<'a, T> {
    let text = written.as_text();
    let meant = words.iter().find(|(word, _)| Some(*word) == text);
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let want = format!("none of {}", quoted.join(", "));
    written.parsed(meant.map(|(_, value)| *value), &want)
}

/// A list, whose items `parse` understands. One value stands for a list of one, and bare text is
/// separated by commas.
pub(super) fn list_of<'a, T>(
    parse: impl Fn(Written<'a>) -> Parsed<'a, T>,
) -> impl Fn(Written<'a>) -> Parsed<'a, Vec<T>> {
    move |written| written.items().into_iter().map(&parse).collect()
}

/// A list with at least one item.
pub(super) fn some_of<'a, T>(
    parse: impl Fn(Written<'a>) -> Parsed<'a, T>,
) -> impl Fn(Written<'a>) -> Parsed<'a, Vec<T>> {
    let list = list_of(parse);
    move |written| match list(written)? {
        items if items.is_empty() => Err(written.wrong("is empty; leave the key out or write one")),
        items => Ok(items),
    }
}

impl<'a> Written<'a> {
    /// A mistake in this value.
    pub(super) fn wrong(self, message: &str) -> Wrong<'a> {
        Wrong { origin: self.origin, message: message.to_owned() }
    }

    /// This value if it is text.
    pub(super) fn as_text(self) -> Option<&'a str> {
        match self.value {
            Value::Toml(value) => value.as_str(),
            Value::Bare(text) => Some(text),
        }
    }

    /// The mistake that this value is `what`.
    pub(super) fn is(self, what: &str) -> Wrong<'a> {
        self.wrong(&format!("{} is {what}", self.shown()))
    }

    fn parsed<T>(self, value: Option<T>, otherwise: &str) -> Parsed<'a, T> {
        value.ok_or_else(|| self.is(otherwise))
    }

    fn parsed_from_text<T: FromStr>(self, otherwise: &str) -> Parsed<'a, T> {
        let value = self.as_text().and_then(|text| text.parse().ok());
        self.parsed(value, otherwise)
    }

    /// Whether this is what `[[key]]` makes.
    pub(super) fn is_list_of_tables(self) -> bool {
        let Value::Toml(DeValue::Array(items)) = self.value else {
            return false;
        };
        items.iter().all(|item| item.get_ref().is_table())
    }

    /// The items of a list. One value stands for a list of one, and bare text is separated by commas.
    pub(super) fn items(self) -> Vec<Written<'a>> {
        match self.value {
            Value::Toml(DeValue::Array(items)) => items
                .iter()
                .map(|item| Written {
                    value: Value::Toml(item.get_ref()),
                    origin: self.origin.moved_to(item.span().start),
                })
                .collect(),
            Value::Toml(_) => vec![self],
            Value::Bare(text) => text
                .split(',')
                .map(|item| Written { value: Value::Bare(item.trim()), origin: self.origin })
                .collect(),
        }
    }

    /// A URL or a host with an `@` may hold a password by mistake.
    fn shown(self) -> String {
        if self.as_text().is_some_and(|text| text.contains('@')) {
            return "this text".to_owned();
        }
        match self.value {
            Value::Bare(text) => format!("{text:?}"),
            Value::Toml(DeValue::String(text)) => format!("{text:?}"),
            Value::Toml(DeValue::Integer(number)) => number.to_string(),
            Value::Toml(value) => format!("this {}", value.type_str()),
        }
    }
}

fn refuse_zero(written: Written<'_>, value: Option<Duration>) -> Parsed<'_, ()> {
    match value {
        Some(Duration::ZERO) => Err(written.is("too short; write a time above zero")),
        Some(_) | None => Ok(()),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| *duration <= LONGEST)
}

fn parse_size(text: &str) -> Option<Size> {
    if let Some(number) = text.strip_suffix('%') {
        let percent = number.trim_end().parse().ok();
        return percent.filter(|percent| *percent <= 100).map(Size::Percent);
    }
    // Without a unit nobody knows what was meant.
    let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
    let size: ByteSize = text.parse().ok().filter(|_| has_unit)?;
    Some(Size::Bytes(size.as_u64()))
}
