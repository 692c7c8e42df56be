//! `hosts.toml`: which hosts containerd, and Docker with containerd's image store, ask for the
//! images of one registry. It is in a directory of that registry's name.

use toml_edit::{Array, Item, Table};

use super::{
    mirror::Mirror,
    registry::Registry,
    setup::{File, Mistake, Site},
    toml_text::{Toml, implicit_table},
};

/// What stands above a file that Larder makes.
const HEADER: &str = "# Larder is asked first; what it cannot serve comes from `server`.\n";

/// What a mirror may be asked for. Without this line it would be pushed to as well, and some
/// versions refuse a word that they do not know.
const CAPABILITIES: [&str; 2] = ["pull", "resolve"];

/// The files of these registries, each in a directory below `parent`.
pub(super) fn files<'a>(
    parent: &str,
    site: &'a Site,
    registries: impl Iterator<Item = &'a Registry>,
) -> Vec<File<'a>> {
    let file = |registry: &'a Registry| {
        let directory = format!("{parent}/{}", directory(site, parent, &registry.name));
        let names = site.list(&directory);
        let merge = move |existing: &str| merge(existing, registry, &site.mirror, &names);
        File::new(format!("{directory}/hosts.toml"), merge)
    };
    registries.map(file).collect()
}

/// A registry's directory: its name, or the name in which underscores stand about its port, which
/// is looked at first. Docker's certificates are only found in the former.
fn directory(site: &Site, parent: &str, registry: &str) -> String {
    let Some((host, port)) = registry.rsplit_once(':') else {
        return registry.to_owned();
    };
    let other = format!("{host}_{port}_");
    if site.list(parent).contains(&other) { other } else { registry.to_owned() }
}

/// Puts the mirror before all other hosts, unless it is one of them. `names` are those of the
/// directory's files.
fn merge(
    existing: &str,
    registry: &Registry,
    mirror: &Mirror,
    names: &[String],
) -> Result<String, Mistake> {
    let mut toml = Toml::parse(existing)?;
    let wrong = toml.wrong(&["host"], "is no table; write [host.\"https://…\"]");
    if existing.trim().is_empty() {
        toml.set(&[], "server", registry.server.as_str())?;
        set_certificates(&mut toml, names)?;
    }
    let hosts = toml.root().entry("host").or_insert_with(implicit_table);
    // Behind keys with dots, which nothing can stand before, the mirror would not be first.
    let hosts = hosts.as_table_mut().filter(|hosts| !hosts.is_dotted()).ok_or(wrong)?;
    let url = mirror.url();
    if !hosts.iter().any(|(host, _)| host.trim_end_matches('/') == url) {
        hosts.insert(&url, Item::Table(host()));
    }
    Ok(toml.into_text_below(HEADER))
}

/// Names the registry's certificates, which are found by their names only until there is a
/// `hosts.toml` beside them.
fn set_certificates(toml: &mut Toml<'_>, names: &[String]) -> Result<(), Mistake> {
    let authorities: Array = names.iter().filter(|name| name.ends_with(".crt")).collect();
    let pair = |name: &String| {
        let key = format!("{}.key", name.strip_suffix(".cert")?);
        Some(Array::from_iter([name, &key]))
    };
    let clients: Array = names.iter().filter_map(pair).collect();
    for (key, files) in [("ca", authorities), ("client", clients)] {
        if !files.is_empty() {
            toml.set(&[], key, files)?;
        }
    }
    Ok(())
}

fn host() -> Table {
    let mut host = Table::new();
    host.insert("capabilities", Array::from_iter(CAPABILITIES).into());
    // Hosts are asked in the order in which they are written.
    host.set_position(Some(-1));
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(existing: &str) -> Result<String, Mistake> {
        let registry = Registry {
            name: "ghcr.io".to_owned(),
            server: "https://ghcr.io".to_owned(),
            is_default: false,
        };
        merge(existing, &registry, &"http://larder.lan:5000".parse().unwrap(), &[])
    }

    #[test]
    fn the_mirror_is_asked_first() {
        let existing = "# ours\nserver = \"https://ghcr.corp\"\n\n[host.\"https://old.corp\"] # old\n  ca = \"ca.crt\"\n";
        let want = "# ours\nserver = \"https://ghcr.corp\"\n\n[host.\"http://larder.lan:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\n\n[host.\"https://old.corp\"] # old\n  ca = \"ca.crt\"\n";
        assert_eq!(merged(existing).unwrap(), want);
        assert_eq!(merged(want).unwrap(), want);
    }

    #[test]
    fn a_mirror_that_is_there_stays_as_it_is() {
        let existing = "[host.\"http://larder.lan:5000/\"]\ncapabilities = [\"pull\"]\n";
        assert_eq!(merged(existing).unwrap(), existing);
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert_eq!(merged("\nhost = 1\n").unwrap_err().line, Some(2));
        let dotted = "server = \"x\"\nhost.\"https://old.corp\".ca = \"y\"\n";
        assert_eq!(merged(dotted).unwrap_err().line, Some(2));
    }
}
