//! How long content is kept, by its users and the rules for them.

use std::time::{Duration, Instant};

use super::*;
use crate::config;

const RULES: &str = r#"
[cache]
expire_after = "30s"
[[cache.rule]]
match = "docker.io/a/x:short*"
expire_after = "10s"
[[cache.rule]]
match = "docker.io/a/x:long*"
expire_after = "50s"
[[cache.rule]]
match = "docker.io/a/x:pinned"
pin = true
[[cache.rule]]
match = "docker.io/a/never"
expire_after = "never"
[[cache.rule]]
match = "docker.io/a/brief"
expire_after = "5s"
"#;

/// A table with these rules, and the question how long something is kept.
struct Kept {
    table: Table,
    keeping: Keeping,
}

impl Kept {
    fn new() -> Kept {
        let cache = config::fuzzing::from_text(RULES).unwrap().cache;
        let mut table = Table::default();
        table.apply_rules(cache.rules);
        let keeping = Keeping { expire_after: cache.expire_after, unreachable: Vec::new() };
        Kept { table, keeping }
    }

    /// An image `name` with these layers, by a tag of this repository.
    fn image(&mut self, repository: &str, tagged_as: &str, name: &str, layers: &[&str]) {
        self.table.put_manifest(&digest(name), 1, &image(layers), at(1));
        self.point(repository, tagged_as, name);
    }

    fn point(&mut self, repository: &str, tagged_as: &str, name: &str) {
        self.table.point(&of(repository), &tag(tagged_as), &tagged(name, 1), at(1));
    }

    fn of(&self, name: &str) -> Keep {
        let id = self.table.slots.find(&digest(name)).unwrap();
        self.table.keep(id, &self.keeping)
    }
}

fn of(repository: &str) -> Repository {
    format!("docker.io/a/{repository}").parse().unwrap()
}

fn seconds(seconds: u64) -> Keep {
    Keep::For(Duration::from_secs(seconds))
}

#[test]
fn the_user_that_keeps_longest_decides_at_every_level() {
    let mut kept = Kept::new();
    kept.image("x", "short", "one", &["shared", "own"]);
    assert_eq!([kept.of("one"), kept.of("own"), kept.of("shared")], [seconds(10); 3]);
    kept.image("x", "1", "two", &["shared"]);
    assert_eq!([kept.of("two"), kept.of("own"), kept.of("shared")], [30, 10, 30].map(seconds));
    kept.image("x", "long", "three", &["shared"]);
    assert_eq!(kept.of("shared"), seconds(50));
    kept.table.put_manifest(&digest("index"), 1, &index(&["one", "absent"]), at(1));
    kept.point("x", "pinned", "index");
    let pinned = ["index", "one", "own", "shared", "absent"].map(|name| kept.of(name));
    assert_eq!(pinned, [Keep::Always; 5]);
    assert_eq!(kept.of("two"), seconds(30));

    kept.table.drop_pointer(&of("x"), &tag("pinned"));
    // Nothing has a tag any more that lists it.
    assert_eq!(kept.of("index"), seconds(30));
    kept.table.forget(&digest("index"));
    assert_eq!(kept.of("one"), seconds(10));
    kept.point("never", "1", "one");
    assert_eq!([kept.of("one"), kept.of("own")], [Keep::WhileThereIsRoom; 2]);
}

#[test]
fn what_a_manifest_lists_is_used_for_itself_only_without_it() {
    let mut kept = Kept::new();
    kept.image("brief", "1", "one", &["layer"]);
    kept.table.put_manifest(&digest("index"), 1, &index(&["one"]), at(1));
    kept.point("x", "short", "index");
    // As clients do: they ask for the image of an index by digest, and for its layers.
    kept.table.prove(&of("x"), &digest("one"), Proof::Manifest, at(1));
    kept.table.prove(&of("x"), &digest("layer"), Proof::Blob, at(1));
    assert_eq!([kept.of("one"), kept.of("layer")], [seconds(10); 2]);
    kept.table.prove(&of("y"), &digest("layer"), Proof::Blob, at(1));
    assert_eq!([kept.of("one"), kept.of("layer")], [10, 30].map(seconds));
    // A list of referrers has no tag.
    let pointer = Pointer::Referrers(digest("one").into());
    kept.table.put_manifest(&digest("list"), 1, &index(&["signature"]), at(1));
    kept.table.point(&of("brief"), &pointer, &tagged("list", 1), at(1));
    assert_eq!([kept.of("list"), kept.of("signature")], [seconds(5); 2]);
}

#[test]
fn a_tag_that_moves_takes_its_rule_with_it() {
    let mut kept = Kept::new();
    kept.image("x", "long", "old", &[]);
    kept.point("x", "long-2", "old");
    kept.image("x", "short", "new", &[]);
    for _ in 0..2 {
        kept.point("x", "long", "new");
        assert_eq!([kept.of("old"), kept.of("new")], [seconds(50); 2]);
    }
    kept.point("x", "long-2", "new");
    assert_eq!([kept.of("old"), kept.of("new")], [30, 50].map(seconds));
    let rules = std::mem::take(&mut kept.table.rules);
    kept.table.apply_rules(Rules::default());
    assert_eq!(kept.of("new"), seconds(30));
    kept.table.apply_rules(rules);
    assert_eq!(kept.of("new"), seconds(50), "as if they had been in force from the beginning");
}

#[test]
fn nothing_of_an_unreachable_registry_ends_and_pins_still_hold() {
    let mut kept = Kept::new();
    kept.image("x", "short", "one", &["layer"]);
    kept.image("x", "pinned", "two", &["layer"]);
    kept.keeping.unreachable.push("docker.io".parse().unwrap());
    assert_eq!(kept.of("one"), Keep::WhileThereIsRoom);
    assert_eq!(kept.of("layer"), Keep::Always);
}

/// No question takes longer because a repository has many tags, and few because many share a layer.
#[test]
fn many_tags_and_users_do_not_hold_the_table() {
    let mut kept = Kept::new();
    kept.image("x", "short", "one", &["base"]);
    for number in 0..50_000 {
        kept.point("x", &format!("short-{number}"), "one");
    }
    for number in 0..10_000 {
        let (repository, name) = (format!("r{number}"), format!("image {number}"));
        kept.image(&repository, "1", &name, &["base"]);
        kept.table.prove(&of(&repository), &digest("base"), Proof::Blob, at(1));
    }
    let begun = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(kept.of("one"), seconds(10));
    }
    assert_eq!(kept.of("base"), seconds(30));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn what_a_rule_has_pinned_since_it_was_chosen_stays() {
    let mut kept = Kept::new();
    kept.image("other", "v1", "image", &["layer"]);
    let goal = Goal { size: u64::MAX, ..Goal::default() };
    let mut selection = Selection::new(goal, None);
    kept.table.consider(0, 9, &kept.keeping, at(2), &mut selection);
    let victims = selection.finish();
    let leaves = |table: &Table| victims.iter().all(|one| table.still_unused(one).is_some());
    assert!(victims.len() == 1 && leaves(&kept.table));
    kept.point("x", "pinned", "image");
    assert!(!leaves(&kept.table));
}
