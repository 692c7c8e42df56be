//! containerd's own `config.toml`, in which one key says where the `hosts.toml` files are. The
//! section's name depends on the file's version.

use toml_edit::TableLike;

use super::{setup::Mistake, toml_text::Toml};

/// containerd's configuration.
pub(super) const PATH: &str = "/etc/containerd/config.toml";

/// Holds a directory for each registry.
pub(super) const CERTS_D: &str = "/etc/containerd/certs.d";

/// The key for containerd 1.x, as it is shown.
pub(super) const SECTION_OF_1: &str = "\
version = 2
[plugins.\"io.containerd.grpc.v1.cri\".registry]
config_path = \"/etc/containerd/certs.d\"
";

/// The key for containerd 2.x, as it is shown.
pub(super) const SECTION_OF_2: &str = "\
version = 3
[plugins.\"io.containerd.cri.v1.images\".registry]
config_path = \"/etc/containerd/certs.d\"
";

const CONFIG_PATH: &str = "config_path";

/// Names of the plugin that pulls images, as a file may disable it.
const PLUGINS: [&str; 3] = ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"];

/// Sets the key, unless the plugin is disabled or the key names the directory already.
///
/// # Errors
/// When the file is not what containerd would read, has the key for another directory, or has
/// settings with which containerd would no longer load the plugin.
pub(super) fn merge(existing: &str) -> Result<String, Mistake> {
    let mut toml = Toml::parse(existing)?;
    if is_disabled(&toml) {
        return Ok(existing.to_owned());
    }
    let registry = ["plugins", plugin(&toml)?, "registry"];
    refuse_inline_settings(&toml, &registry)?;
    let key = [registry.as_slice(), &[CONFIG_PATH]].concat();
    match toml.text(&key)? {
        None | Some("") => toml.set(&registry, CONFIG_PATH, CERTS_D)?,
        Some(list) if list.split(':').any(|directory| directory == CERTS_D) => {}
        Some(other) => {
            let message = format!("is {other:?}; move its directories to {CERTS_D} and name that");
            return Err(toml.wrong(&key, &message));
        }
    }
    Ok(toml.into_text())
}

fn is_disabled(toml: &Toml<'_>) -> bool {
    let disabled = toml.get(&["disabled_plugins"]).and_then(|list| list.as_array());
    let mut names = disabled.into_iter().flatten().filter_map(|name| name.as_str());
    names.any(|name| PLUGINS.contains(&name))
}

/// The plugin's name in a file of this version. Without a version a file is of the first.
fn plugin(toml: &Toml<'_>) -> Result<&'static str, Mistake> {
    let version = match toml.get(&["version"]) {
        None => 1,
        Some(version) => version.as_integer().unwrap_or(0),
    };
    match version {
        1 => Ok("cri"),
        2 => Ok("io.containerd.grpc.v1.cri"),
        3.. => Ok("io.containerd.cri.v1.images"),
        _ => Err(toml.wrong(&["version"], "is none of 1, 2, 3")),
    }
}

/// Refuses what containerd refuses beside the key.
fn refuse_inline_settings(toml: &Toml<'_>, registry: &[&str; 3]) -> Result<(), Mistake> {
    let [plugins, plugin, registry] = *registry;
    let mirrors = [plugins, plugin, registry, "mirrors"];
    let configs = [plugins, plugin, registry, "configs"];
    let table = |path| toml.get(path).and_then(|item| item.as_table_like());
    let has_tls = |configs: &dyn TableLike| {
        configs.iter().any(|(_, host)| host.get("tls").is_some_and(|tls| !tls.is_none()))
    };
    let moved = "cannot stand beside config_path; move it to hosts.toml files";
    if table(&mirrors).is_some_and(|mirrors| !mirrors.is_empty()) {
        return Err(toml.wrong(&mirrors, moved));
    }
    if table(&configs).is_some_and(has_tls) {
        return Err(toml.wrong(&configs, &format!("with tls {moved}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_goes_where_the_version_has_it() {
        for (existing, section) in [
            ("", "[plugins.cri.registry]"),
            ("version = 2\n", "[plugins.\"io.containerd.grpc.v1.cri\".registry]"),
            ("version = 3\n", "[plugins.\"io.containerd.cri.v1.images\".registry]"),
        ] {
            let merged = merge(existing).unwrap();
            let section = format!("{section}\nconfig_path = \"{CERTS_D}\"\n");
            assert!(merged.starts_with(existing) && merged.ends_with(&section), "{merged}");
            assert_eq!(merge(&merged).unwrap(), merged);
        }
        for shown in [SECTION_OF_1, SECTION_OF_2] {
            assert_eq!(merge(shown).unwrap(), shown);
        }
    }

    #[test]
    fn what_is_written_in_full_is_changed_in_place() {
        let before = "version = 3\n[plugins]\n  [plugins.'io.containerd.cri.v1.images'] # images\n    snapshotter = 'overlayfs'\n    [plugins.'io.containerd.cri.v1.images'.registry]\n      config_path = ''\n      [plugins.'io.containerd.cri.v1.images'.registry.mirrors]\n";
        let after = before.replace("''", "\"/etc/containerd/certs.d\"");
        assert_eq!(merge(before).unwrap(), after);
    }

    #[test]
    fn what_needs_no_change_is_not_touched() {
        for existing in [
            "disabled_plugins = [\"cri\"]\n#root = \"/var/lib/containerd\"\n",
            "version = 3\nplugins.'io.containerd.cri.v1.images'.registry.config_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n",
        ] {
            assert_eq!(merge(existing).unwrap(), existing);
        }
    }

    #[test]
    fn what_would_break_containerd_is_refused() {
        let section = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry";
        for (existing, line) in [
            ("version = \"two\"".to_owned(), 1),
            (format!("{section}]\nconfig_path = \"/etc/hosts.d\"\n"), 3),
            (format!("{section}.mirrors.\"docker.io\"]\nendpoint = []\n"), 2),
            (format!("{section}.configs.\"a.b\".tls]\nca_file = \"x\"\n"), 2),
        ] {
            let mistake = merge(&existing).unwrap_err();
            assert_eq!(mistake.line, Some(line), "{existing}{mistake}");
        }
        assert!(merge(&format!("{section}.configs.\"a.b\".auth]\nusername = \"x\"\n")).is_ok());
    }
}
