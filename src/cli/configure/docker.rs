//! Docker Engine, with either of its image stores.

use super::{
    daemon_json::{self, Listed, Place},
    hosts_toml,
    registry::Registry,
    setup::{File, Setup, Site},
};

/// Docker's configuration.
const DAEMON_JSON: &str = "/etc/docker/daemon.json";

/// Holds a directory for each registry.
const CERTS_D: &str = "/etc/docker/certs.d";

/// What Docker has to be told.
pub(super) fn setup(site: &Site) -> Setup<'_> {
    let lists = lists(site);
    let mut files = Vec::new();
    if !lists.is_empty() {
        files.push(File::new(DAEMON_JSON, move |existing| daemon_json::merge(existing, &lists)));
    }
    // For Docker Hub it would only put other registry-mirrors out of force.
    let by_hosts = |registry: &&Registry| !(registry.is_docker_hub() && registry.is_default);
    files.extend(hosts_toml::files(CERTS_D, site, site.registries.iter().filter(by_hosts)));
    Setup { files, notes: notes(site) }
}

/// The keys of daemon.json, and what each lists.
fn lists(site: &Site) -> Vec<Listed> {
    let mut lists = Vec::new();
    if serves_bare_names(site) {
        lists.push(Listed {
            key: "registry-mirrors",
            text: site.mirror.url(),
            place: Place::First,
        });
    }
    if site.mirror.is_plain() {
        // The engine drops the scheme with a warning. But without it, `docker build` in many
        // versions asks the mirror by https, and then the registry itself. The last entry counts.
        lists.push(Listed {
            key: "insecure-registries",
            text: site.mirror.url(),
            place: Place::Last,
        });
    }
    lists
}

/// Whether the mirror may stand in for Docker Hub: the engine does not say which registry it means.
fn serves_bare_names(site: &Site) -> bool {
    site.registries.iter().any(|registry| registry.is_docker_hub() && registry.is_default)
}

fn notes(site: &Site) -> Vec<String> {
    let mirror = site.mirror.authority();
    let mut notes = vec![
        "Then: systemctl reload docker. Without root the files are ~/.config/docker/daemon.json\n\
         and ~/.config/docker/certs.d."
            .to_owned(),
    ];
    notes.push(if serves_bare_names(site) {
        "registry-mirrors is for docker.io only: Docker's classic image store asks no mirror for\n\
         other registries. It reads nothing of the hosts.toml files; the containerd image store,\n\
         the default of new installations since Docker 29, does."
            .to_owned()
    } else {
        "There is no registry-mirrors here: Docker uses it for docker.io without saying so, and\n\
         docker.io is not this mirror's default. The hosts.toml files are for the containerd image\n\
         store, the default of new installations since Docker 29; the classic one ignores them."
            .to_owned()
    });
    if let Some(other) = site.registries.iter().find(|registry| !registry.is_docker_hub()) {
        notes.push(format!(
            "With either store, any registry can be pulled from by name:\n  \
             docker pull {mirror}/{}/OWNER/IMAGE:TAG",
            other.name
        ));
    }
    if !site.mirror.is_plain() {
        notes.push(format!(
            "If the mirror's certificate is of a private authority, put that into\n\
             {CERTS_D}/{mirror}/ca.crt, and into each hosts.toml, below the mirror:\n  \
             ca = \"{CERTS_D}/{mirror}/ca.crt\""
        ));
        notes.push(format!(
            "Where http://{mirror} is still in daemon.json or a hosts.toml, take it out: the mirror\n\
             would be asked without TLS."
        ));
    }
    notes
}
