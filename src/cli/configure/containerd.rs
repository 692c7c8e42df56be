//! containerd, for Kubernetes, nerdctl and ctr.

use super::{
    containerd_toml, hosts_toml,
    setup::{File, Setup, Site},
};

/// What containerd has to be told.
pub(super) fn setup(site: &Site) -> Setup<'_> {
    let mut files = hosts_toml::files(containerd_toml::CERTS_D, site, site.registries.iter());
    files.push(File::if_there(containerd_toml::PATH, containerd_toml::merge));
    Setup { files, notes: notes(site) }
}

fn notes(site: &Site) -> Vec<String> {
    let mut notes = vec![
        format!(
            "Kubernetes finds these files if {} says where they are, then:\n\
             systemctl restart containerd. In containerd 1.x:\n\
             \n{}\nIn containerd 2.x, whose files may also be of version 2 as above:\n\
             \n{}",
            containerd_toml::PATH,
            containerd_toml::SECTION_OF_1,
            containerd_toml::SECTION_OF_2,
        ),
        "It must be this one directory: with a list of several, which containerd 2.2 has by\n\
         default, some versions find none. registry.mirrors and registry.configs.*.tls in the same\n\
         file keep the plugin from loading once config_path is set."
            .to_owned(),
        format!(
            "nerdctl finds the files by itself; ctr with --hosts-dir {}.\n\
             Changes of these files need no restart.",
            containerd_toml::CERTS_D
        ),
        "From containerd 2.2 on, \"referrers\" may be added to the capabilities, so that signatures\n\
         come through the mirror too. Older versions refuse the file for it."
            .to_owned(),
    ];
    if !site.mirror.is_plain() {
        notes.push(
            "If the mirror's certificate is of a private authority, name its file in each\n\
             hosts.toml, below the mirror:\n  ca = \"/etc/ssl/certs/larder-ca.pem\""
                .to_owned(),
        );
    }
    notes
}
