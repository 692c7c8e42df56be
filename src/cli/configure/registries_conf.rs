//! `registries.conf`: which mirrors Podman, Buildah, Skopeo and CRI-O ask, in a drop-in of our own.

use std::collections::BTreeMap;

use toml_edit::{ArrayOfTables, Item, Table, TableLike, Value};

use super::{
    mirror::Mirror,
    registry::Registry,
    setup::{File, Mistake, Setup, Site},
    toml_text::{Toml, set_in},
};

/// The file that is read first.
const MAIN: &str = "/etc/containers/registries.conf";

/// The files that are read then, in the order of their names.
const DROP_INS: &str = "/etc/containers/registries.conf.d";

/// Our drop-in.
const PATH: &str = "/etc/containers/registries.conf.d/50-larder.conf";

/// What stands above a file that Larder makes.
const HEADER: &str = "# Larder is asked first; what it cannot serve comes from `location`.\n\n";

/// What Podman, Buildah and Skopeo have to be told.
pub(super) fn podman(site: &Site) -> Setup<'_> {
    let mut notes = vec![
        "It holds from the next pull on. Without root the directory may also be\n\
         ~/.config/containers/registries.conf.d; if ~/.config/containers/registries.conf exists,\n\
         it must be."
            .to_owned(),
    ];
    notes.extend(common_notes(site));
    Setup { files: files(site), notes }
}

/// What CRI-O has to be told.
pub(super) fn crio(site: &Site) -> Setup<'_> {
    let mut notes = vec!["Then: systemctl reload crio.".to_owned()];
    notes.extend(common_notes(site));
    Setup { files: files(site), notes }
}

fn common_notes(site: &Site) -> Vec<String> {
    let mut notes = vec![
        "Podman, Buildah, Skopeo and CRI-O share this file. Where unqualified names are looked up\n\
         (unqualified-search-registries) is not changed. If several files have a [[registry]] of\n\
         the same prefix, only the last of them counts; --write adds the mirror to that one."
            .to_owned(),
    ];
    if !site.mirror.is_plain() {
        notes.push(format!(
            "If the mirror's certificate is of a private authority, put that into\n\
             /etc/containers/certs.d/{}/ca.crt.",
            site.mirror.authority()
        ));
    }
    notes
}

/// Our drop-in, and before it the files that have some of the registries already: of two tables
/// for one prefix only that of the later file counts, with all that is in it.
fn files(site: &Site) -> Vec<File<'_>> {
    let elsewhere = definitions(site);
    let path_of = |registry: &Registry| elsewhere.get(&registry.name).map_or(PATH, String::as_str);
    let mut files: BTreeMap<&str, Vec<&Registry>> = BTreeMap::new();
    for registry in &site.registries {
        files.entry(path_of(registry)).or_default().push(registry);
    }
    let file = |(path, registries): (&str, Vec<_>)| {
        File::new(path, move |existing| merge(existing, &registries, &site.mirror))
    };
    files.into_iter().map(file).collect()
}

/// Which file has the table of a prefix that counts.
fn definitions(site: &Site) -> BTreeMap<String, String> {
    let drop_ins = site.list(DROP_INS).into_iter().filter(|name| name.ends_with(".conf"));
    let drop_ins = drop_ins.map(|name| format!("{DROP_INS}/{name}"));
    let mut definitions = BTreeMap::new();
    for path in [MAIN.to_owned()].into_iter().chain(drop_ins) {
        let text = site.read(&path).unwrap_or_default();
        // What cannot be read defines nothing; the client will say so.
        let Ok(toml) = Toml::parse(&text) else { continue };
        let prefixes = tables(&toml).filter_map(prefix);
        definitions.extend(prefixes.map(|prefix| (prefix.to_owned(), path.clone())));
    }
    definitions
}

/// The tables of all registries, also where they are written inline.
fn tables<'a>(toml: &'a Toml<'_>) -> impl Iterator<Item = &'a dyn TableLike> {
    let item = toml.get(&["registry"]);
    let apart = item.and_then(Item::as_array_of_tables).into_iter().flatten();
    let inline = item.and_then(Item::as_array).into_iter().flatten();
    let inline = inline.filter_map(Value::as_inline_table);
    apart.map(|table| table as &dyn TableLike).chain(inline.map(|table| table as &dyn TableLike))
}

fn merge(existing: &str, registries: &[&Registry], mirror: &Mirror) -> Result<String, Mistake> {
    let mut toml = Toml::parse(existing)?;
    let wrong = toml.wrong(&["registry"], "is no list of tables; write [[registry]]");
    let item = toml.root().entry("registry").or_insert_with(|| ArrayOfTables::new().into());
    let tables = item.as_array_of_tables_mut().ok_or(wrong)?;
    for registry in registries {
        add(tables, registry, mirror)?;
    }
    Ok(toml.into_text_below(HEADER))
}

/// Puts the mirror first among those of a registry, unless it is one of them.
fn add(tables: &mut ArrayOfTables, registry: &Registry, mirror: &Mirror) -> Result<(), Mistake> {
    let is_it = |table: &&mut Table| prefix(*table) == Some(&registry.name);
    let Some(table) = tables.iter_mut().find(is_it) else {
        tables.push(registry_table(registry, mirror));
        return Ok(());
    };
    let item = table.entry("mirror").or_insert_with(|| ArrayOfTables::new().into());
    let Some(mirrors) = item.as_array_of_tables_mut() else {
        let name = &registry.name;
        let message = format!("mirror of {name} is no list of tables; write [[registry.mirror]]");
        return Err(Mistake::of_all(message));
    };
    let location = location(registry, mirror);
    let is_ours = |table: &&mut Table| text(*table, "location") == Some(&location);
    if let Some(ours) = mirrors.iter_mut().find(is_ours) {
        set_insecure(ours, mirror);
        return Ok(());
    }
    let ours = mirror_table(registry, mirror);
    *mirrors = std::iter::once(ours).chain(std::mem::take(mirrors)).collect();
    Ok(())
}

fn registry_table(registry: &Registry, mirror: &Mirror) -> Table {
    let mut table = Table::new();
    table.insert("location", registry.name.as_str().into());
    if registry.is_plain() {
        table.insert("insecure", true.into());
    }
    table.insert("mirror", ArrayOfTables::from_iter([mirror_table(registry, mirror)]).into());
    table
}

fn mirror_table(registry: &Registry, mirror: &Mirror) -> Table {
    let mut table = Table::new();
    table.insert("location", location(registry, mirror).into());
    set_insecure(&mut table, mirror);
    table
}

/// Without it Podman speaks TLS only. With it, a certificate may be any, so it stays where it is.
fn set_insecure(table: &mut Table, mirror: &Mirror) {
    if mirror.is_plain() {
        set_in(table, "insecure", true);
    }
}

/// What Podman puts in the place of the registry's name.
fn location(registry: &Registry, mirror: &Mirror) -> String {
    format!("{}/{}", mirror.authority(), registry.name)
}

/// What a `[[registry]]` is for; its location unless it says otherwise.
fn prefix(table: &dyn TableLike) -> Option<&str> {
    text(table, "prefix").or_else(|| text(table, "location"))
}

fn text<'a>(table: &'a dyn TableLike, key: &str) -> Option<&'a str> {
    table.get(key).and_then(Item::as_str)
}
