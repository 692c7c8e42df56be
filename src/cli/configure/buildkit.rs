//! BuildKit's daemon, as a service or as the container that buildx starts.

use super::{
    setup::{File, Mistake, Setup, Site},
    toml_text::Toml,
};

/// BuildKit's configuration.
const PATH: &str = "/etc/buildkit/buildkitd.toml";

/// What stands above a file that Larder makes.
const HEADER: &str = "# Larder is asked first; what it cannot serve comes from the registry.\n";

/// What BuildKit has to be told.
pub(super) fn setup(site: &Site) -> Setup<'_> {
    let mut notes = vec![
        "Then: systemctl restart buildkit, or for a builder of buildx, which is a container and\n\
         reads no file of the host, not even Docker's:\n  \
         docker buildx create --use --buildkitd-config /etc/buildkit/buildkitd.toml\n\
         Without root the file is ~/.config/buildkit/buildkitd.toml."
            .to_owned(),
    ];
    if site.mirror.is_plain() {
        notes.push(format!(
            "The builder must be able to reach {} from inside its container: localhost there is\n\
             the container itself.",
            site.mirror.authority()
        ));
    } else {
        notes.push(format!(
            "If the mirror's certificate is of a private authority, name its file too:\n  \
             [registry.\"{}\"]\n  ca = [\"/etc/buildkit/larder-ca.pem\"]",
            site.mirror.authority()
        ));
    }
    Setup { files: vec![File::new(PATH, |existing| merge(existing, site))], notes }
}

fn merge(existing: &str, site: &Site) -> Result<String, Mistake> {
    let mut toml = Toml::parse(existing)?;
    let mirror = site.mirror.authority();
    for registry in &site.registries {
        // BuildKit puts the path of a mirror behind /v2/.
        let location = format!("{mirror}/{}", registry.name);
        let table = ["registry", &registry.name];
        toml.list_first(&table, "mirrors", &location)?;
        if registry.is_plain() && toml.get(&["registry", &registry.name, "http"]).is_none() {
            toml.set(&table, "http", true)?;
        }
    }
    if site.mirror.is_plain() || toml.get(&["registry", mirror, "http"]).is_some() {
        toml.set(&["registry", mirror], "http", site.mirror.is_plain())?;
    }
    Ok(toml.into_text_below(HEADER))
}

#[cfg(test)]
mod tests {
    use super::{super::registry::Registry, *};

    fn site(mirror: &str) -> Site {
        let registry = |name: &str, server: &str| Registry {
            name: name.to_owned(),
            server: server.to_owned(),
            is_default: false,
        };
        Site {
            mirror: mirror.parse().unwrap(),
            registries: vec![
                registry("docker.io", "https://registry-1.docker.io"),
                registry("r.corp:5000", "http://r.corp:5000"),
            ],
            root: None,
        }
    }

    #[test]
    fn what_is_there_stays() {
        let site = site("http://m:5000");
        let before = "debug = true # why\n[registry.\"docker.io\"]\n  mirrors = [\"old\"]\n  ca=[\"x\"]\n[worker.oci]\n  gc = true\n";
        let after = "debug = true # why\n[registry.\"docker.io\"]\n  mirrors = [\"m:5000/docker.io\", \"old\"]\n  ca=[\"x\"]\n\n[registry.\"r.corp:5000\"]\nmirrors = [\"m:5000/r.corp:5000\"]\nhttp = true\n\n[registry.\"m:5000\"]\nhttp = true\n[worker.oci]\n  gc = true\n";
        assert_eq!(merge(before, &site).unwrap(), after);
        assert_eq!(merge(after, &site).unwrap(), after);
    }

    #[test]
    fn a_mirror_that_speaks_tls_now_is_asked_by_it() {
        let plain = merge("", &site("http://m:5000")).unwrap();
        let tls = plain
            .replace("[registry.\"m:5000\"]\nhttp = true", "[registry.\"m:5000\"]\nhttp = false");
        assert_ne!(tls, plain);
        assert_eq!(merge(&plain, &site("https://m:5000")).unwrap(), tls);
        assert_eq!(merge(&tls, &site("http://m:5000")).unwrap(), plain);
    }
}
