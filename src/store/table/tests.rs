//! The table alone.

mod keeping;

use std::time::SystemTime;

use super::*;
use crate::{
    oci::{Algorithm, ImageName},
    store::{budget::Goal, eviction::Selection},
};

impl Table {
    /// What a manifest lists, in order. `None`: it is no manifest, or its file was not read yet.
    pub fn children(&self, digest: &Digest) -> Option<Vec<Digest>> {
        let manifest = self.slots.of(digest)?.manifest.as_ref()?;
        if manifest.kind == Kind::Unread {
            return None;
        }
        Some(self.digests(&manifest.children))
    }

    /// What `index.json` says, read in steps of one name.
    pub fn entries(&self) -> Vec<LayoutEntry> {
        in_steps(|place| self.layout_entries(place, 1))
    }

    /// The index lost everything.
    pub fn mark_all(&mut self) {
        let mut place = Some(Untold::default());
        while let Some(untold) = place {
            place = self.mark_untold(&untold, 1);
        }
    }
}

fn in_steps<T>(step: impl Fn(&Cursor) -> Option<(Vec<T>, Cursor)>) -> Vec<T> {
    let (mut all, mut place) = (Vec::new(), Cursor::default());
    while let Some((some, next)) = step(&place) {
        all.extend(some);
        place = next;
    }
    all
}

fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

fn at(seconds: u32) -> Moment {
    Moment::from_seconds(seconds)
}

fn descriptors(names: &[&str]) -> String {
    let one = |name: &&str| format!(r#"{{"digest":"{}","size":1}}"#, digest(name));
    names.iter().map(one).collect::<Vec<_>>().join(",")
}

fn image(layers: &[&str]) -> Manifest {
    let (config, layers) = (descriptors(&["config"]), descriptors(layers));
    let json = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#);
    Manifest::parse(json.as_bytes(), None).unwrap()
}

fn index(manifests: &[&str]) -> Manifest {
    let manifests = descriptors(manifests);
    let json = format!(r#"{{"schemaVersion":2,"manifests":[{manifests}]}}"#);
    Manifest::parse(json.as_bytes(), None).unwrap()
}

fn tag(name: &str) -> Pointer {
    Pointer::Tag(name.parse().unwrap())
}

fn tagged(name: &str, seconds: u64) -> PointerRow {
    PointerRow {
        digest: digest(name),
        checked_at: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds),
    }
}

/// Applies everything that changed to a second table, as the index does.
fn replay(table: &mut Table, copy: &mut Table) {
    loop {
        let batch = table.take_changes(2);
        if batch.is_empty() {
            return;
        }
        for digest in &batch.forgotten {
            copy.forget(digest);
        }
        for digest in &batch.lost {
            copy.lose(digest);
        }
        for (repository, digest) in &batch.unproved {
            copy.drop_digests(
                &Target::Repository(repository.clone()),
                std::slice::from_ref(digest),
            );
        }
        for (digest, row) in &batch.blobs {
            copy.restore(digest, row);
        }
        for (repository, pointer, row) in &batch.pointers {
            match row {
                Some(row) => copy.point(repository, pointer, row, at(0)),
                None => copy.drop_pointer(repository, pointer),
            }
        }
        for row in &batch.proofs {
            copy.prove(&row.repository, &row.digest, row.proof, at(0));
        }
        for (image, held) in &batch.pins {
            match held {
                Some(held) => {
                    copy.unpin(image);
                    copy.restore_pin(&PinRow { image: image.clone(), held: held.clone() }, at(0));
                }
                None => assert!(copy.unpin(image)),
            }
        }
    }
}

#[test]
fn forgetting_everything_leaves_nothing() {
    let mut table = Table::default();
    let repository: Repository = "ghcr.io/a".parse().unwrap();
    let tag = tag("v1");
    table.put_manifest(&digest("image"), 10, &image(&["a", "a", "b"]), at(1));
    table.put_manifest(&digest("index"), 20, &index(&["image", "absent"]), at(1));
    table.put_blob(&digest("a"), 30, at(2));
    table.point(&repository, &tag, &tagged("index", 1), at(2));
    table.prove(&repository, &digest("a"), Proof::Blob, at(2));
    assert_eq!(table.totals(), Totals { blobs: 3, bytes: 60, blocks: 3 });
    for name in ["index", "image", "a"] {
        table.forget(&digest(name));
    }
    assert_eq!(table.totals(), Totals::default());
    assert_eq!(table.slots.range(0, 100).count(), 0, "every slot is released");
    assert_eq!(table.meaning(&repository, &tag), None);
    assert_eq!(table.entries(), []);
}

#[test]
fn changes_in_any_steps_make_the_same_table() {
    let (mut table, mut copy) = (Table::default(), Table::default());
    let repository: Repository = "ghcr.io/a".parse().unwrap();
    let tags = ["v1", "v2", "v3"].map(tag);
    for name in ["a", "b", "c"] {
        table.put_blob(&digest(name), 1, at(5));
        table.prove(&repository, &digest(name), Proof::Blob, at(5));
    }
    table.put_manifest(&digest("image"), 10, &image(&["a"]), at(6));
    for tag in &tags {
        table.point(&repository, tag, &tagged("image", 7), at(6));
    }
    replay(&mut table, &mut copy);
    table.forget(&digest("a"));
    table.put_blob(&digest("a"), 2, at(7));
    table.lose(&digest("b"));
    table.lose(&digest("c"));
    table.put_blob(&digest("c"), 3, at(8));
    table.drop_pointer(&repository, &tags[0]);
    replay(&mut table, &mut copy);
    assert_eq!(copy.totals(), table.totals());
    assert_eq!(copy.size(&digest("a")), Some(2));
    assert_eq!(copy.size(&digest("b")), None);
    for name in ["a", "b", "c", "image"] {
        let (name, digest) = (name, digest(name));
        let proved = table.is_proved(&repository, &digest);
        assert_eq!(copy.is_proved(&repository, &digest), proved, "{name}");
    }
    assert!(!table.is_proved(&repository, &digest("a")));
    assert_eq!(copy.entries(), table.entries());
    table.mark_all();
    let mut anew = Table::default();
    replay(&mut table, &mut anew);
    assert_eq!(anew.totals(), table.totals());
    assert_eq!(anew.entries(), table.entries());
    assert_eq!(anew.children(&digest("image")), table.children(&digest("image")));
}

/// However often the index breaks before it has heard of them.
#[test]
fn an_index_that_lost_everything_is_told_of_a_proof_once() {
    let mut table = Table::default();
    table.put_blob(&digest("a"), 1, at(1));
    table.prove(&"ghcr.io/a".parse().unwrap(), &digest("a"), Proof::Blob, at(1));
    for _ in 0..3 {
        table.mark_all();
    }
    assert_eq!(table.take_changes(usize::MAX).proofs.len(), 1);
}

#[test]
fn names_are_met_once_in_steps_of_any_size() {
    let mut table = Table::default();
    let repositories = ["ghcr.io/a", "ghcr.io/b", "quay.io/c"].map(|name| name.parse().unwrap());
    for (repository, names) in repositories.iter().zip([&["x", "y", "z"][..], &[], &["y"]]) {
        table.prove(repository, &digest("blob"), Proof::Blob, at(1));
        for name in names {
            table.put_manifest(&digest(name), 1, &image(&[]), at(1));
            table.prove(repository, &digest(name), Proof::Manifest, at(1));
        }
    }
    let [first, _, last] = &repositories;
    for (repository, name) in [(first, "v1"), (first, "v2"), (last, "v1")] {
        table.point(repository, &tag(name), &tagged("y", 1), at(1));
    }
    table.put_manifest(&digest("list"), 1, &index(&[]), at(1));
    table.point(first, &Pointer::Referrers(digest("x").into()), &tagged("list", 1), at(1));
    let all = (table.entries(), in_steps(|place| table.named(place, 1)));
    assert_eq!((all.0.len(), all.1.len()), (6, 8));
    let target = Target::Repository(first.clone());
    for count in [2, 3, 100] {
        assert_eq!(in_steps(|place| table.layout_entries(place, count)), all.0, "{count}");
        assert_eq!(in_steps(|place| table.named(place, count)).len(), 8, "{count}");
        let seeds = in_steps(|place| table.seeds(&target, place, count));
        let mut seeds: Vec<_> = seeds.into_iter().map(|seed| seed.digest).collect();
        seeds.sort();
        let mut expected = ["x", "y", "z", "list"].map(digest);
        expected.sort();
        assert_eq!(seeds, expected, "{count}");
    }
}

#[test]
fn the_index_is_told_of_uses_that_it_does_not_remember() {
    let mut table = Table::default();
    for name in ["a", "b", "c"] {
        table.put_blob(&digest(name), 1, at(1));
    }
    table.mark_remembered();
    assert_eq!(table.touch(&digest("a"), at(3600)), []);
    let untold = table.touch(&digest("b"), at(3601));
    table.mark_blobs(&untold);
    assert_eq!(table.touch(&digest("b"), at(3602)), [], "it will be told");
    let told = |batch: Batch| batch.used.into_iter().map(|(used, _)| used).collect::<Vec<_>>();
    assert_eq!(told(table.take_changes(9)), [digest("b")]);
    let mut place = Some(0);
    while let Some(from) = place {
        place = table.mark_uses(from, 1);
    }
    assert_eq!(told(table.take_changes(9)), [digest("a")]);
}

#[test]
fn nothing_is_older_than_what_lists_it() {
    let mut table = Table::default();
    table.put_blob(&digest("a"), 1, at(1));
    table.put_manifest(&digest("image"), 1, &image(&["a"]), at(5));
    table.put_manifest(&digest("index"), 1, &index(&["image"]), at(9));
    let unused = |table: &Table, name| {
        let slot = table.slots.of(&digest(name)).unwrap();
        at(100).since(slot.last_use.get()).as_secs()
    };
    for name in ["a", "image", "index"] {
        assert_eq!(unused(&table, name), 91);
    }
    table.use_now(&digest("a"), at(50));
    assert_eq!(unused(&table, "image"), 91);
    table.use_now(&digest("index"), at(40));
    assert_eq!(unused(&table, "image"), 60);
    assert_eq!(unused(&table, "a"), 50, "use never goes back");
}

#[test]
fn nesting_counts_the_longest_chain_of_indexes() {
    let mut table = Table::default();
    table.put_manifest(&digest("image"), 1, &image(&["a"]), at(1));
    assert_eq!(table.nesting_above(&digest("image")), 0);
    assert_eq!(table.nesting_above(&digest("a")), 0);
    table.put_manifest(&digest("i1"), 1, &index(&["image", "x"]), at(1));
    table.put_manifest(&digest("i2"), 1, &index(&["image", "i1"]), at(1));
    assert_eq!(table.nesting_above(&digest("image")), 2);
    assert_eq!(table.nesting_above(&digest("x")), 2);
    for n in 3..20 {
        let below = format!("i{}", n - 1);
        table.put_manifest(&digest(&format!("i{n}")), 1, &index(&[&below]), at(1));
    }
    assert_eq!(table.nesting_above(&digest("image")), MAX_NESTING + 1);
}

/// Where only the order of one moment tells, as after a pull by tag.
#[test]
fn what_lists_others_goes_first() {
    let mut table = Table::default();
    table.put_blob(&digest("a"), 1, at(1));
    table.put_manifest(&digest("image"), 1, &image(&["a"]), at(1));
    table.put_manifest(&digest("inner"), 1, &index(&["image"]), at(1));
    table.put_manifest(&digest("outer"), 1, &index(&["inner", "image"]), at(1));
    let goal = Goal { size: u64::MAX, ..Goal::default() };
    let mut selection = Selection::new(goal, None);
    assert!(table.consider(0, 3, &Keeping::default(), at(2), &mut selection));
    assert!(!table.consider(3, 9, &Keeping::default(), at(2), &mut selection));
    let victims = selection.finish();
    let names = victims.iter().map(|victim| table.still_unused(victim).unwrap().0);
    assert_eq!(names.collect::<Vec<_>>(), ["outer", "inner", "image", "a"].map(digest));
    table.use_now(&digest("image"), at(3));
    let still: Vec<bool> =
        victims.iter().map(|victim| table.still_unused(victim).is_some()).collect();
    assert_eq!(still, [true, true, false, false]);
}

#[test]
fn what_is_withdrawn_twice_is_named_once_it_was_readmitted_twice() {
    let mut table = Table::default();
    let repository: Repository = "ghcr.io/a".parse().unwrap();
    table.put_manifest(&digest("image"), 1, &image(&[]), at(1));
    table.point(&repository, &tag("v1"), &tagged("image", 1), at(1));
    let named = |table: &Table| !table.entries().is_empty();
    let both = [digest("image"), digest("nobody's")];
    assert_eq!(table.withdraw(&both), [digest("image")]);
    assert_eq!(table.withdraw(&both), [digest("image")]);
    table.readmit(&both);
    assert!(!named(&table));
    table.take_layout_change();
    table.readmit(&both);
    assert!(named(&table) && table.layout_has_changed());
    table.withdraw(&both);
    table.readmit_all();
    table.readmit(&both);
    assert!(named(&table));
}

#[test]
fn the_latest_check_of_a_tag_is_restored() {
    let mut table = Table::default();
    let repository: Repository = "ghcr.io/a".parse().unwrap();
    let tag = tag("v1");
    for (name, seconds) in [("old", 5), ("new", 9), ("older", 3)] {
        table.restore_pointer(&repository, &tag, &tagged(name, seconds), at(0));
    }
    assert_eq!(table.meaning(&repository, &tag).unwrap().digest, digest("new"));
}

#[test]
fn a_list_of_referrers_is_an_answer_and_no_content() {
    let (mut table, mut copy) = (Table::default(), Table::default());
    let repository: Repository = "ghcr.io/a".parse().unwrap();
    let referrers = Pointer::Referrers(digest("image").into());
    table.put_manifest(&digest("list"), 10, &index(&["signature"]), at(1));
    table.point(&repository, &referrers, &tagged("list", 1), at(1));
    replay(&mut table, &mut copy);
    for table in [&table, &copy] {
        assert_eq!(table.meaning(&repository, &referrers).unwrap().digest, digest("list"));
        assert!(!table.is_proved(&repository, &digest("list")));
        assert_eq!(table.tags_of(&repository), []);
        assert_eq!(table.shown(0, 9), Some(Vec::new()));
        assert_eq!(table.entries().len(), 1);
    }
    let none = std::time::Duration::ZERO;
    let unreachable = vec![repository.registry().clone()];
    let keeping = Keeping { expire_after: Some(none), unreachable };
    let mut selection = Selection::new(Goal::default(), Some(none));
    assert!(!table.consider(0, 9, &keeping, at(2), &mut selection));
    assert_eq!(selection.finish(), []);

    table.prove(&repository, &digest("list"), Proof::Manifest, at(2));
    table.point(&repository, &referrers, &tagged("list", 2), at(2));
    replay(&mut table, &mut copy);
    assert!(table.is_proved(&repository, &digest("list")));
    assert!(copy.is_proved(&repository, &digest("list")));
    assert_eq!(copy.entries().len(), 2);

    table.forget(&digest("list"));
    assert_eq!(table.meaning(&repository, &referrers), None);
    assert_eq!(table.entries(), []);
}

#[test]
fn an_expected_manifest_is_shown_before_it_is_read() {
    let mut table = Table::default();
    let repository: Repository = "ghcr.io/a".parse().unwrap();
    table.expect_manifest(&digest("image"), 7, "application/x", at(1));
    table.prove(&repository, &digest("image"), Proof::Manifest, at(1));
    assert_eq!(table.see(&digest("image")), Sight::Unread);
    assert_eq!(table.children(&digest("image")), None);
    assert_eq!(table.entries()[0].size, 7);
    table.link_manifest(&digest("image"), &image(&["a"]));
    assert_eq!(table.see(&digest("image")), Sight::Known);
    assert!(table.is_listed(&repository, &digest("a")));
    table.expect_manifest(&digest("image"), 7, "application/y", at(1));
    assert!(table.children(&digest("image")).is_some());
}

fn image_name(name: &str) -> ImageName {
    name.parse().unwrap()
}

#[test]
fn a_pin_holds_everything_below_what_its_name_means() {
    let (mut table, mut copy) = (Table::default(), Table::default());
    let repository: Repository = "ghcr.io/a".parse().unwrap();
    let keeping = Keeping::default();
    table.put_manifest(&digest("old"), 10, &image(&["a"]), at(1));
    table.put_manifest(&digest("new"), 10, &image(&["b"]), at(1));
    table.put_manifest(&digest("index"), 10, &index(&["new"]), at(1));
    table.put_blob(&digest("b"), 10, at(1));
    table.point(&repository, &tag("v1"), &tagged("old", 1), at(1));
    let name = image_name("ghcr.io/a:v1");
    assert_eq!(table.pin(&image_name("ghcr.io/a:v2")), None);
    assert_eq!(table.pin(&name), Some(digest("old")));
    replay(&mut table, &mut copy);
    let is_kept = |table: &Table, name| {
        table.keep(table.slots.find(&digest(name)).unwrap(), &keeping) == Keep::Always
    };
    for table in [&table, &copy] {
        assert!(["old", "a", "config"].into_iter().all(|name| is_kept(table, name)));
        assert!(["index", "new", "b"].into_iter().all(|name| !is_kept(table, name)));
    }
    table.point(&repository, &tag("v1"), &tagged("index", 2), at(2));
    table.drop_pointer(&repository, &tag("v1"));
    replay(&mut table, &mut copy);
    for table in [&table, &copy] {
        assert!(["index", "new", "b", "config"].into_iter().all(|name| is_kept(table, name)));
        assert!(["old", "a"].into_iter().all(|name| !is_kept(table, name)));
    }
    table.mark_all();
    let mut anew = Table::default();
    replay(&mut table, &mut anew);
    assert_eq!(anew.pins().collect::<Vec<_>>(), table.pins().collect::<Vec<_>>());
    assert!(table.unpin(&name) && !table.unpin(&name));
    replay(&mut table, &mut copy);
    assert_eq!(copy.pins().count(), 0);
}

/// A slot that a pin holds is given to no other digest.
#[test]
fn a_pin_outlives_all_that_is_known_of_a_digest() {
    let mut table = Table::default();
    let repository: Repository = "ghcr.io/a".parse().unwrap();
    table.put_manifest(&digest("image"), 10, &image(&[]), at(1));
    table.prove(&repository, &digest("image"), Proof::Manifest, at(1));
    let name = image_name(&format!("ghcr.io/a@{}", digest("image")));
    table.pin(&name).unwrap();
    table.forget(&digest("image"));
    table.put_blob(&digest("other"), 1, at(1));
    assert_eq!(table.held_by(&name), Some(digest("image")));
    assert!(!table.is_held(table.slots.find(&digest("other")).unwrap()));
    table.unpin(&name);
    table.forget(&digest("other"));
    assert_eq!(table.slots.range(0, 100).count(), 0, "every slot is released");
}

#[test]
fn what_a_repository_shows_no_longer_is_told_once() {
    let (mut table, mut copy) = (Table::default(), Table::default());
    let repository: Repository = "ghcr.io/a".parse().unwrap();
    let target = Target::Repository(repository.clone());
    for name in ["a", "b"] {
        table.put_blob(&digest(name), 1, at(1));
        table.prove(&repository, &digest(name), Proof::Blob, at(1));
    }
    replay(&mut table, &mut copy);
    table.drop_digests(&target, &[digest("a"), digest("b")]);
    table.prove(&repository, &digest("b"), Proof::Blob, at(1));
    replay(&mut table, &mut copy);
    for table in [&table, &copy] {
        assert!(!table.is_proved(&repository, &digest("a")));
        assert!(table.is_proved(&repository, &digest("b")));
    }
}
