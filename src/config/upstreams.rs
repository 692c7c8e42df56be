//! `[[upstream]]`: the registries that are built in, with what the configuration changes and adds.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use toml::{Spanned, de::DeValue};
use url::Url;

use super::{
    Cache, ClientCertificate, Credentials, Endpoint, Glob, Proxies, Upstream,
    reader::{Reader, Section},
    value,
    written::{Origin, Value, Written, Wrong},
};
use crate::oci::Registry;

/// The registry that bare names are looked up in, unless another is the default.
pub(super) const DOCKER_HUB: &str = "docker.io";

/// Where Docker Hub is reached; every other registry is reached at its name.
const DOCKER_HUB_ENDPOINT: &str = "https://registry-1.docker.io";

/// The registries that are mirrored without a word of configuration.
const BUILT_IN: [&str; 13] = [
    DOCKER_HUB,
    "ghcr.io",
    "quay.io",
    "registry.k8s.io",
    "gcr.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
    "nvcr.io",
    "registry.gitlab.com",
    "docker.elastic.co",
    "lscr.io",
    "cgr.dev",
    "registry.access.redhat.com",
];

/// How long a tag of a built-in registry is fresh.
const BUILT_IN_TAG_TTL: Duration = Duration::from_secs(60);

/// How long a tag of any other registry is fresh.
const ADDED_TAG_TTL: Duration = Duration::ZERO;

/// How many requests to one upstream may be under way at once unless configured: ten images that
/// containerd's `ctr` pulls by itself, six layers at a time.
const MAX_CONNECTIONS: usize = 64;

/// The least that can be configured: one for blobs and two that are kept for all else.
pub const MIN_CONNECTIONS: usize = 3;

/// An upstream as it is written for itself, without a look at the others.
struct Draft<'a> {
    upstream: Upstream,
    origin: Option<Origin<'a>>,
    stated_default: Option<(bool, Origin<'a>)>,
    stated_offline: Option<bool>,
    aliases: Vec<(Registry, Origin<'a>)>,
    server_names: Vec<(Registry, Origin<'a>)>,
}

impl Upstream {
    /// A warning for each endpoint whose certificate nobody verifies; one in the clear may lead to
    /// TLS on the same host.
    pub(super) fn unverified(&self) -> impl Iterator<Item = String> {
        let unverified = self.endpoints.iter().filter(|endpoint| endpoint.insecure_skip_verify);
        unverified.map(|endpoint| {
            format!(
                "{}: the certificate of {} is not verified (insecure_skip_verify): whoever stands between can read its credentials and change its tags; write ca instead",
                self.registry, endpoint.url
            )
        })
    }
}

type Table<'a> = &'a Spanned<DeValue<'a>>;

/// All upstreams: the built-in ones first (or only those that have an `[[upstream]]`), then the
/// added ones.
pub(super) fn upstreams(
    reader: &mut Reader<'_>,
    with_built_in: bool,
    cache: &Cache,
) -> Vec<Upstream> {
    let environment = Arc::new(Proxies::of_environment(reader));
    let mut drafts: Vec<Draft<'_>> = registries(reader, with_built_in)
        .into_iter()
        .map(|(registry, table)| draft(reader, registry, table, &environment))
        .collect();
    // Who says of one upstream that it is not offline says so while the others are.
    for draft in &mut drafts {
        draft.upstream.offline = draft.stated_offline.unwrap_or(cache.offline);
    }
    choose_default(reader, &mut drafts);
    refuse_shared_names(reader, &drafts);
    refuse_ambiguous_names(reader, &drafts);
    drafts.into_iter().map(|draft| draft.upstream).collect()
}

fn registries<'a>(
    reader: &mut Reader<'a>,
    with_built_in: bool,
) -> Vec<(Registry, Option<Table<'a>>)> {
    let mut registries = Vec::new();
    if with_built_in {
        let built_in = BUILT_IN.iter().filter_map(|name| name.parse().ok());
        registries.extend(built_in.map(|registry: Registry| (registry, None)));
    }
    for table in reader.tables("upstream") {
        let mut section = reader.table("upstream", Some(table), None);
        let Some((registry, origin)) = required_registry(&mut section) else {
            continue;
        };
        match registries.iter_mut().find(|(known, _)| *known == registry) {
            None => registries.push((registry, Some(table))),
            Some((_, place @ None)) => *place = Some(table),
            Some((_, Some(_))) => section.wrong_at(
                origin,
                "registry",
                &format!("{registry} has an [[upstream]] already; write all its keys there"),
            ),
        }
    }
    registries
}

fn required_registry<'a>(section: &mut Section<'_, 'a>) -> Option<(Registry, Origin<'a>)> {
    if !section.has("registry") {
        section.wrong("registry", "is missing; write for example registry = \"ghcr.io\"");
    }
    section.take_written("registry", value::registry)
}

fn draft<'a>(
    reader: &mut Reader<'a>,
    registry: Registry,
    table: Option<Table<'a>>,
    environment: &Arc<Proxies>,
) -> Draft<'a> {
    let mut section = reader.table("upstream", table, Some(variables_of(&registry)));
    let origin = section.origin();
    let is_built_in = BUILT_IN.contains(&registry.as_str());
    let tag_ttl = if is_built_in { BUILT_IN_TAG_TTL } else { ADDED_TAG_TTL };
    // Who adds a registry does so for what is in it. A public one, though, has images for everyone,
    // and an account there is often one to have more pulls with: it may see more than is meant.
    let shared = if is_built_in { Vec::new() } else { vec![Glob::everything()] };
    let aliases = names(&mut section, "aliases");
    let server_names = names(&mut section, "server_names");
    let texts = |names: &[(Registry, _)]| names.iter().map(|(name, _)| name.to_string()).collect();
    let upstream = Upstream {
        endpoints: endpoints(&mut section, &registry, environment),
        aliases: texts(&aliases),
        server_names: texts(&server_names),
        default: false,
        tag_ttl: section.take("tag_ttl", value::duration).unwrap_or(tag_ttl),
        share_private: section.take("share_private", value::globs(&registry)).unwrap_or(shared),
        trusted_realms: trusted_realms(&mut section),
        max_connections: section.take("max_connections", connections).unwrap_or(MAX_CONNECTIONS),
        quota_reserve: section.take("quota_reserve", value::pulls).unwrap_or(0),
        offline: false,
        registry,
    };
    Draft {
        upstream,
        origin,
        stated_default: section.take_written("default", value::boolean),
        stated_offline: section.take("offline", value::boolean),
        aliases,
        server_names,
    }
}

/// A list of hosts, and where each is written.
fn names<'a>(section: &mut Section<'_, 'a>, key: &str) -> Vec<(Registry, Origin<'a>)> {
    let name = |item: Written<'a>| Ok((value::registry(item)?, item.origin));
    section.take(key, value::list_of(name)).unwrap_or_default()
}

/// `LARDER_UPSTREAM_DOCKER_IO_`
fn variables_of(registry: &Registry) -> String {
    let name = registry.as_str().to_uppercase();
    let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
    format!("LARDER_UPSTREAM_{name}_")
}

fn trusted_realms(section: &mut Section<'_, '_>) -> Vec<String> {
    let hosts = section.take("trusted_realms", value::list_of(value::host));
    let hosts = hosts.unwrap_or_default();
    hosts.iter().map(Registry::to_string).collect()
}

fn connections(written: Written<'_>) -> Result<usize, Wrong<'_>> {
    let count = value::positive_count(written)?;
    match count {
        ..MIN_CONNECTIONS => Err(written.wrong(&format!(
            "{count} is too few: two are kept for manifests and tokens; write {MIN_CONNECTIONS} or more"
        ))),
        MIN_CONNECTIONS.. => Ok(count),
    }
}

/// What is stated of the way to an endpoint, in its own table or in the section.
#[derive(Default)]
struct Stated {
    credentials: Credentials,
    ca: Option<PathBuf>,
    client_certificate: Option<ClientCertificate>,
    insecure_skip_verify: Option<bool>,
    proxies: Option<Arc<Proxies>>,
}

impl Stated {
    fn read(section: &mut Section<'_, '_>, credentials: Credentials) -> Stated {
        Stated {
            credentials,
            ca: section.take("ca", value::readable_file),
            client_certificate: ClientCertificate::read(section),
            insecure_skip_verify: section.take("insecure_skip_verify", value::boolean),
            proxies: Proxies::read(section).map(Arc::new),
        }
    }

    /// The endpoint at `url`. Who Larder is stays on the host of `home`, the first endpoint;
    /// everything else that the section states holds for all endpoints without their own.
    fn endpoint(
        self,
        url: Url,
        section: &Stated,
        home: &Url,
        environment: &Arc<Proxies>,
    ) -> Endpoint {
        let at_home = inherits_credentials(&url, home).then_some(section);
        let credentials = match at_home {
            Some(section) if self.credentials.is_empty() => section.credentials.clone(),
            Some(_) | None => self.credentials,
        };
        let certificate = self.client_certificate;
        let proxies = self.proxies.or_else(|| section.proxies.clone());
        let is_unverified = self.insecure_skip_verify.or(section.insecure_skip_verify);
        Endpoint {
            url,
            credentials,
            ca: self.ca.or_else(|| section.ca.clone()),
            client_certificate: certificate.or_else(|| at_home?.client_certificate.clone()),
            insecure_skip_verify: is_unverified.unwrap_or(false),
            proxies: proxies.unwrap_or_else(|| Arc::clone(environment)),
        }
    }
}

fn endpoints(
    section: &mut Section<'_, '_>,
    registry: &Registry,
    environment: &Arc<Proxies>,
) -> Vec<Endpoint> {
    let credentials = Credentials::read_with_prefixes(section, registry);
    let stated = Stated::read(section, credentials);
    let written = section.take("endpoints", value::some_of(Ok));
    let endpoints: Vec<(Url, Stated)> = match written {
        Some(items) => items.into_iter().filter_map(|item| endpoint(section, item)).collect(),
        None => default_url(registry).into_iter().map(|url| (url, Stated::default())).collect(),
    };
    let Some(home) = endpoints.first().map(|(url, _)| url.clone()) else {
        return Vec::new();
    };
    let whole = |(url, own): (Url, Stated)| own.endpoint(url, &stated, &home, environment);
    endpoints.into_iter().map(whole).collect()
}

fn endpoint<'a>(section: &mut Section<'_, 'a>, item: Written<'a>) -> Option<(Url, Stated)> {
    if !matches!(item.value, Value::Toml(DeValue::Table(_))) {
        let url = section.parse("endpoints", item, value::endpoint_url)?;
        return Some((url, Stated::default()));
    }
    let mut keys = section.below("endpoints", item)?;
    if !keys.has("url") {
        keys.wrong("url", "is missing; write for example url = \"https://registry.corp\"");
    }
    let url = keys.take("url", value::endpoint_url);
    let credentials = Credentials::read(&mut keys);
    let stated = Stated::read(&mut keys, credentials);
    Some((url?, stated))
}

fn default_url(registry: &Registry) -> Option<Url> {
    let url = match registry.as_str() {
        DOCKER_HUB => DOCKER_HUB_ENDPOINT.to_owned(),
        host => format!("https://{host}"),
    };
    Url::parse(&url).ok()
}

/// On the same host, and not in the clear if `home` is reached over TLS.
fn inherits_credentials(url: &Url, home: &Url) -> bool {
    url.host() == home.host() && (url.scheme() == "https" || home.scheme() == "http")
}

/// Docker Hub, unless another registry says that it is the default or Docker Hub that it is not.
fn choose_default<'a>(reader: &mut Reader<'a>, drafts: &mut [Draft<'a>]) {
    let mut chosen: Option<Registry> = None;
    for draft in drafts.iter_mut() {
        let Some((true, origin)) = draft.stated_default else {
            continue;
        };
        match &chosen {
            None => {
                chosen = Some(draft.upstream.registry.clone());
                draft.upstream.default = true;
            }
            Some(other) => {
                let message = format!("{other} is the default already; only one registry can be");
                reader.wrong(origin, "upstream.default", &message);
            }
        }
    }
    let is_hub = |draft: &&mut Draft<'_>| draft.upstream.registry.as_str() == DOCKER_HUB;
    if chosen.is_none()
        && let Some(hub) = drafts.iter_mut().find(is_hub)
    {
        hub.upstream.default = hub.stated_default.is_none();
    }
}

/// Whose a name is, and where that is written; `None` for a registry that is built in.
#[derive(Clone, Copy)]
struct Owner<'d, 'a> {
    registry: &'d Registry,
    origin: Option<Origin<'a>>,
}

type Owners<'d, 'a> = BTreeMap<&'d Registry, Owner<'d, 'a>>;

/// No name leads to two registries.
fn refuse_shared_names<'a>(reader: &mut Reader<'a>, drafts: &[Draft<'a>]) {
    let mut owners = Owners::new();
    for draft in drafts {
        let registry = &draft.upstream.registry;
        owners.insert(registry, Owner { registry, origin: draft.origin });
    }
    for draft in drafts {
        for (alias, origin) in &draft.aliases {
            let owner = Owner { registry: &draft.upstream.registry, origin: Some(*origin) };
            if let Some(first) = owners.insert(alias, owner) {
                refuse_second(reader, *origin, "upstream.aliases", alias, &first);
            }
        }
    }
    refuse_shared_hosts(reader, drafts, &owners);
}

/// Nor does a host, which may be a name of its own registry.
fn refuse_shared_hosts<'a>(reader: &mut Reader<'a>, drafts: &[Draft<'a>], owners: &Owners<'_, 'a>) {
    let mut hosts = Owners::new();
    for draft in drafts {
        let registry = &draft.upstream.registry;
        for (host, origin) in &draft.server_names {
            let named = owners.get(host).filter(|owner| owner.registry != registry).copied();
            let known = hosts.insert(host, Owner { registry, origin: Some(*origin) });
            if let Some(first) = known.or(named) {
                refuse_second(reader, *origin, "upstream.server_names", host, &first);
            }
        }
    }
}

fn refuse_second<'a>(
    reader: &mut Reader<'a>,
    origin: Origin<'a>,
    key: &str,
    name: &Registry,
    first: &Owner<'_, 'a>,
) {
    let place = first.origin.map_or_else(|| "built in".to_owned(), |origin| origin.to_string());
    let message =
        format!("{name} is already a name of {} ({place}); choose another", first.registry);
    reader.wrong(origin, key, &message);
}

/// Refuses names that could as well be the first component of a repository at the default registry.
fn refuse_ambiguous_names<'a>(reader: &mut Reader<'a>, drafts: &[Draft<'a>]) {
    let Some(default) = drafts.iter().find(|draft| draft.upstream.default) else {
        return;
    };
    let default = &default.upstream.registry;
    let mut refuse = |name: &Registry, origin: Option<Origin<'a>>, key: &str| {
        if !is_unmistakable(name.as_str()) {
            let message = format!(
                "{name} could be a repository of {default}, where bare names are looked up; \
                 write a name with a dot, such as {name}.local"
            );
            reader.wrong(origin, key, &message);
        }
    };
    for draft in drafts {
        refuse(&draft.upstream.registry, draft.origin, "upstream.registry");
        for (alias, origin) in &draft.aliases {
            refuse(alias, Some(*origin), "upstream.aliases");
        }
    }
}

/// Whether a name is a host by Docker's rule, so that no repository name begins with it.
pub(super) fn is_unmistakable(name: &str) -> bool {
    name == "localhost" || name.contains(['.', ':'])
}
