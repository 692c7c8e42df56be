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

/// The files of these registries, each in a directory below `directory`.
pub(super) fn files<'a>(
    directory: &str,
    site: &'a Site,
    registries: impl Iterator<Item = &'a Registry>,
) -> Vec<File<'a>> {
    let file = |registry: &'a Registry| {
        let path = format!("{directory}/{}/hosts.toml", registry.name);
        File::new(path, |existing| merge(existing, registry, &site.mirror))
    };
    registries.map(file).collect()
}

/// Puts the mirror before all other hosts, unless it is one of them.
fn merge(existing: &str, registry: &Registry, mirror: &Mirror) -> Result<String, Mistake> {
    let mut toml = Toml::parse(existing)?;
    let wrong = toml.wrong(&["host"], "is no table; write [host.\"https://…\"]");
    if existing.trim().is_empty() {
        toml.set(&[], "server", registry.server.as_str())?;
    }
    let hosts = toml.root().entry("host").or_insert_with(implicit_table);
    let hosts = hosts.as_table_mut().ok_or(wrong)?;
    let url = mirror.url();
    if !hosts.iter().any(|(host, _)| host.trim_end_matches('/') == url) {
        hosts.insert(&url, Item::Table(host()));
    }
    Ok(toml.into_text_below(HEADER))
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
        merge(existing, &registry, &"http://larder.lan:5000".parse().unwrap())
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
    }
}
