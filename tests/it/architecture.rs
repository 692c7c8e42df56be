//! Imports point one way, foreign types stay where they belong, files stay short.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each module's layer, and its place among the siblings of that layer: it may use what is in a
/// lower layer, and siblings of a lower place. What is no module stands in `lib.rs`.
const MODULES: [(&str, u32, u32); 26] = [
    ("oci", 0, 0),
    ("metrics", 0, 0),
    ("clock", 0, 0),
    ("sendfile", 0, 0),
    ("finding", 0, 0),
    ("certificate", 0, 1),
    ("config", 1, 0),
    ("store", 2, 0),
    ("upstream", 2, 0),
    ("mirror", 3, 0),
    ("bundle", 3, 1),
    ("routes", 4, 0),
    ("response", 4, 1),
    ("access", 4, 2),
    ("pulls", 4, 3),
    ("account", 4, 4),
    ("refused", 4, 4),
    ("handler", 4, 5),
    ("admin", 4, 5),
    ("server", 5, 0),
    ("announce", 6, 0),
    ("assembly", 6, 0),
    ("schedule", 6, 0),
    ("signals", 6, 0),
    ("cli", 6, 0),
    ("main", 6, 0),
];

/// The top file.
const LIB: (&str, u32, u32) = ("lib", 6, 0);

/// Modules that start, print and parse arguments.
const TOP: [&str; 7] = ["announce", "assembly", "cli", "lib", "main", "schedule", "signals"];

/// Modules that speak HTTP to clients.
const SURFACE: [&str; 7] =
    ["routes", "response", "access", "account", "handler", "admin", "server"];

/// A crate, and the only modules (or files) that may name its types.
fn homes(name: &str) -> Option<Vec<&'static str>> {
    let homes: &[&[&str]] = match name {
        "sha2" => &[&["oci/digest"]],
        "prometheus" => &[&["metrics"]],
        "x509_parser" => &[&["certificate"]],
        "toml" => &[&["config"]],
        "toml_edit" | "yaml_serde" => &[&["cli/configure"]],
        "humantime" => &[&["config", "store/layout", "admin"], &TOP],
        "bytesize" => &[&["config"], &TOP],
        "sled" | "crc32fast" => &[&["store/index"]],
        "hyper_rustls" => &[&["upstream"]],
        "rustls" => &[&["upstream", "server"]],
        "hyper" | "hyper_util" => &[&["upstream", "server"], &TOP],
        "http" | "http_body" | "http_body_util" => &[&["upstream"], &SURFACE, &TOP],
        "crossbeam_utils" => &[&["store/memory"]],
        "moka" => &[&["mirror"]],
        "clap" | "indicatif" | "tracing_subscriber" => &[&TOP],
        _ => return None,
    };
    Some(homes.concat())
}

/// A source file without its tests and comments.
struct Source {
    /// `store/index` for `src/store/index.rs` and `src/store/index/mod.rs`.
    path: String,
    text: String,
}

impl Source {
    fn read(file: &Path, root: &Path) -> Source {
        let path = file.strip_prefix(root).unwrap().with_extension("");
        let path = path.to_str().unwrap().trim_end_matches("/mod").to_owned();
        let text = fs::read_to_string(file).unwrap();
        // Unit tests come last in a file, and may name anything.
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = |line: &&str| !line.trim_start().starts_with("//");
        let text = text.lines().filter(code).collect::<Vec<_>>().join("\n");
        Source { path, text }
    }

    fn module(&self) -> &str {
        self.path.split('/').next().unwrap()
    }

    /// Modules at the crate's root that this file names.
    fn named_modules(&self) -> BTreeSet<String> {
        let depth = match self.path.as_str() {
            "lib" | "main" => 0,
            path => path.split('/').count(),
        };
        let from_here = match depth {
            0 => "crate::".to_owned(),
            depth => "super::".repeat(depth),
        };
        let mut named = BTreeSet::new();
        for root in ["crate::", "larder::", &from_here] {
            for place in starts_of(&self.text, root) {
                named.extend(heads(&self.text[place + root.len()..]));
            }
        }
        named
    }

    /// Whether this file names something of a crate.
    fn names_crate(&self, name: &str) -> bool {
        !starts_of(&self.text, &format!("{name}::")).is_empty()
            || self.text.contains(&format!("use {name};"))
    }
}

/// Where `word` stands in `text` as the start of a path.
fn starts_of(text: &str, word: &str) -> Vec<usize> {
    let is_start = |place: &usize| {
        let before = text[..*place].chars().next_back().unwrap_or(' ');
        !(before.is_alphanumeric() || before == '_' || before == ':')
    };
    let places = text.match_indices(word).map(|(place, _)| place);
    places.filter(is_start).collect()
}

/// The first names of what follows `crate::`, be it a path or a group in braces.
fn heads(rest: &str) -> Vec<String> {
    let name = |text: &str| {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let text = text.trim_start();
        text[..text.find(|letter| !is_part(letter)).unwrap_or(text.len())].to_owned()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut names = vec![name(group)];
    let mut depth = 1;
    for (place, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(name(&group[place + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Layer and place of a module; what is no module stands in `lib.rs`.
fn layer(module: &str) -> (u32, u32) {
    let known = MODULES.iter().find(|(name, ..)| *name == module);
    let (_, layer, place) = known.unwrap_or(&LIB);
    (*layer, *place)
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in directory.read_dir().unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// All but the property tests, which are files of their own.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = files_below(&root);
    let files = files.iter().filter(|file| !file.ends_with("properties.rs"));
    files.map(|file| Source::read(file, &root)).collect()
}

/// Whether a file of the first module may name the second. Within the top layer all may.
fn may_use(user: &str, used: &str) -> bool {
    let both_top = layer(user).0 == LIB.1 && layer(used).0 == LIB.1;
    user == used || both_top || layer(used) < layer(user)
}

/// A lower layer knows nothing of a higher one, nor siblings of each other.
#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for source in sources() {
        for used in source.named_modules() {
            if !may_use(source.module(), &used) {
                wrong.push(format!("src/{} uses crate::{used}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "against the layers: {wrong:#?}");
}

/// Every module has its place in the table above.
#[test]
fn every_module_has_a_layer() {
    for source in sources() {
        let module = source.module();
        let known = module == LIB.0 || MODULES.iter().any(|(name, ..)| *name == module);
        assert!(known, "src/{module} has no layer");
    }
}

/// A library that changes, or has to go, is met in one place.
#[test]
fn foreign_types_stay_at_home() {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let names = manifest.lines().filter_map(|line| line.split_once(" = "));
    let crates: Vec<String> = names.map(|(name, _)| name.replace('-', "_")).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        for name in &crates {
            let Some(homes) = homes(name) else { continue };
            let is_home =
                |home: &&str| source.path == *home || source.path.starts_with(&format!("{home}/"));
            if source.names_crate(name) && !homes.iter().any(is_home) {
                wrong.push(format!("src/{} names {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "far from home: {wrong:#?}");
}

/// A file that passes 500 lines holds more than one idea.
#[test]
fn files_are_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["src", "tests"].iter().flat_map(|directory| files_below(&root.join(directory))) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines", file.display());
    }
}

/// The reader of imports understands how they are written here.
#[test]
fn imports_are_found_in_every_form() {
    let source = Source {
        path: "store/index".to_owned(),
        text: "use crate::{clock::Clock, oci::{Digest, Tag}, Larder};\n\
               use super::super::config;\nlet x = crate::upstream::Error;\nuse super::blob;"
            .to_owned(),
    };
    let named: Vec<String> = source.named_modules().into_iter().collect();
    assert_eq!(named, ["Larder", "clock", "config", "oci", "upstream"]);
    assert!(!may_use("store", "upstream") && !may_use("store", "mirror"));
    assert!(may_use("store", "config") && may_use("handler", "routes"));
    assert!(!may_use("routes", "handler") && may_use("cli", "run"));
}
