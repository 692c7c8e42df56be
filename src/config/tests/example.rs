//! `config.example.toml`: every key, each with its default.

use std::collections::BTreeSet;

use super::*;

const EXAMPLE: &str = include_str!("../../../config.example.toml");

/// Keys that hold tables with keys of their own.
const LISTS_OF_TABLES: [&str; 3] = ["cache.rule", "upstream.credentials", "upstream.endpoints"];

/// The example with every key uncommented, up to the upstreams and from there on.
fn uncommented_example(setting: &Setting) -> (String, String) {
    let is_prose = |line: &str| line.starts_with("# ") && !line.starts_with("#  ");
    let lines = EXAMPLE.lines().filter(|line| !is_prose(line));
    let lines: Vec<&str> = lines.map(|line| line.strip_prefix('#').unwrap_or(line)).collect();
    let directory = setting.directory.path().to_str().unwrap();
    let text = lines.join("\n").replace("/etc/larder", directory);
    let (settings, upstreams) = text.split_once("[[upstream]]").unwrap();
    (settings.to_owned(), format!("[[upstream]]{upstreams}"))
}

#[test]
fn the_example_as_it_stands_changes_nothing() {
    assert_eq!(format!("{:?}", load(EXAMPLE)), format!("{:?}", load("")));
}

#[test]
fn the_example_shows_the_defaults() {
    let files = Setting::new("");
    let (settings, _) = uncommented_example(&files);
    let load = |text: &str| {
        let setting =
            Setting::new(text).with_variable("HOME", "/root").with_flag("listen", "0.0.0.0:5000");
        let mut config = setting.load();
        config.written_at = Places::default();
        config
    };
    let (mut shown, defaults) = (load(&settings), load(""));
    // The default's floor is in the comment above the key.
    assert_eq!(shown.cache.min_free, Some(Size::Percent(5)));
    shown.cache.min_free = None;
    // The default is to have none of these, which no value shows.
    assert!(shown.tls.take().is_some());
    assert!(shown.admin.token_file.take().is_some());
    assert!(!shown.cache.rules.is_empty());
    shown.cache.rules = Rules::default();
    assert_eq!(format!("{shown:?}"), format!("{defaults:?}"));

    let listen = settings.lines().find(|line| line.starts_with("listen")).unwrap();
    assert_eq!(super::load(listen).listen, super::load("").listen);
}

#[test]
fn the_example_holds_every_key_and_no_other() {
    let mut setting = Setting::new("");
    let (settings, upstreams) = uncommented_example(&setting);
    let text = settings + &upstreams;
    let document = Document { path: setting.sources.file.as_deref().unwrap(), text: &text };
    let table = DeTable::parse(&text).unwrap();
    let mut written = BTreeSet::new();
    collect_keys(&toml::from_str(&text).unwrap(), "", &mut written);

    setting.sources.env.clear();
    let mut reader = Reader::new(&setting.sources, document, table.get_ref());
    Config::read(&mut reader, &setting.sources);
    assert_eq!(reader.known_keys, written);
    reader.finish().unwrap();
}

fn collect_keys(table: &toml::Table, prefix: &str, keys: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        let items = value.as_array().into_iter().flatten();
        let tables: Vec<_> =
            items.filter_map(toml::Value::as_table).chain(value.as_table()).collect();
        for table in &tables {
            collect_keys(table, &format!("{path}."), keys);
        }
        if tables.is_empty() || LISTS_OF_TABLES.contains(&path.as_str()) {
            keys.insert(path);
        }
    }
}
