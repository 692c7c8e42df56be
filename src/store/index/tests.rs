//! The index from one life to the next, over snapshots that are taken in between.

mod no_room;

use std::{fs, path::PathBuf, sync::Arc, time::SystemTime};

use tempfile::TempDir;

use super::{
    snapshot::{self, Header},
    *,
};
use crate::{
    clock::Clock,
    metrics::Metrics,
    oci::{Algorithm, Digest, Manifest, Repository, Visibility},
    store::{
        memory::Memory,
        peak::{Day, Peak},
        running::RunningTime,
        table::{PartAt, Pointer, PointerRow, Proof, Verdict},
    },
};

struct Life {
    data_dir: TempDir,
    directory: Directory,
    memory: Memory,
    peak: Peak,
    keeper: IndexKeeper,
}

impl Life {
    fn new(data_dir: TempDir) -> Life {
        let (directory, lock) = Directory::open(data_dir.path()).unwrap();
        let (index, table, before) = Index::load(&directory).unwrap();
        let memory = Memory::new(table, Arc::new(Metrics::new()));
        let clock = Clock::system();
        let running = RunningTime::resume(before.running, clock.clone());
        let peak = Peak::resume(before.day, running.clone());
        let keeper = IndexKeeper::new(
            directory.clone(),
            memory.clone(),
            running,
            peak.clone(),
            clock,
            Arc::new(lock),
            Some(index),
        );
        Life { data_dir, directory, memory, peak, keeper }
    }

    fn first() -> Life {
        Life::new(tempfile::tempdir().unwrap())
    }

    /// The next life, after a clean end.
    fn next(self) -> Life {
        self.keeper.finish();
        Life::new(self.data_dir)
    }

    fn put(&self, range: std::ops::Range<u32>) {
        self.memory
            .with(|table| range.for_each(|number| table.put_blob(&digest(number), 1, now())));
    }

    fn prove(&self, number: u32) {
        let proof = Proof::Blob;
        self.memory.with(|table| table.prove(&repository(), &digest(number), proof, now()));
    }

    fn point(&self, tag: &str, number: u32) {
        let row = PointerRow { digest: digest(number), checked_at: SystemTime::UNIX_EPOCH };
        self.memory.with(|table| table.point(&repository(), &pointer(tag), &row, now()));
    }

    fn drop_pointer(&self, tag: &str) {
        self.memory.with(|table| table.drop_pointer(&repository(), &pointer(tag)));
    }

    fn pin(&self, name: &str) {
        let image = format!("{}{name}", repository()).parse().unwrap();
        assert!(self.memory.with(|table| table.pin(&image)).is_some(), "{name}");
    }

    fn unpin(&self, name: &str) {
        let image = format!("{}{name}", repository()).parse().unwrap();
        assert!(self.memory.with(|table| table.unpin(&image)), "{name}");
    }

    fn judge(&self, visibility: Visibility) {
        let verdict = Verdict { visibility, checked_at: SystemTime::UNIX_EPOCH };
        self.memory.with(|table| table.judge(&repository(), verdict));
    }

    fn disprove(&self, number: u32) {
        self.memory.with(|table| table.disprove(&repository(), &digest(number)));
    }

    /// Afterwards the index counts as told.
    fn last_use(&self, number: u32) -> Option<Moment> {
        let batch = self.memory.with(|table| {
            table.mark_all();
            table.take_changes(usize::MAX)
        });
        let mut rows = batch.blobs.into_iter();
        rows.find(|(of, _)| *of == digest(number)).map(|(_, row)| row.last_use)
    }

    fn forget(&self, number: u32) {
        self.memory.with(|table| table.forget(&digest(number)));
    }

    fn lose(&self, number: u32) {
        self.memory.with(|table| table.lose(&digest(number)));
    }

    fn put_image(&self, number: u32, config: u32) {
        let config = digest(config);
        let json = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{config}","size":1}},"layers":[]}}"#
        );
        let manifest = Manifest::parse(json.as_bytes(), None).unwrap();
        self.memory.with(|table| table.put_manifest(&digest(number), 1, &manifest, now()));
    }

    /// All that can be told apart from outside, of digests 0 to 20,000.
    fn known(&self) -> Vec<String> {
        let of = |number: u32| {
            let digest = digest(number);
            self.memory.with(|table| {
                let proved = table.is_proved(&repository(), &digest);
                let size = table.size(&digest);
                let known = size.is_some() || proved || table.media_type(&digest).is_some();
                let children = table.children(&digest);
                known.then(|| format!("{number}: {size:?} {proved} {children:?}"))
            })
        };
        let mut known: Vec<String> = (0..20_000).filter_map(of).collect();
        for tag in ["a", "b", "c", "d"] {
            let meaning = self.memory.look(|table| table.meaning(&repository(), &pointer(tag)));
            known.push(format!("{tag}: {meaning:?}"));
        }
        self.memory.with(|table| {
            known.extend(table.pins().map(|pin| format!("{} holds {}", pin.image, pin.held)));
            known.push(format!("{:?}", table.verdict(&repository())));
            known.extend(table.shown_in(&digest(10_000)).iter().map(|shown| format!("{shown:?}")));
        });
        known
    }
}

fn now() -> Moment {
    Moment::default()
}

fn digest(number: u32) -> Digest {
    Digest::of(Algorithm::Sha256, &number.to_le_bytes())
}

fn repository() -> Repository {
    "ghcr.io/a/b".parse().unwrap()
}

fn pointer(tag: &str) -> Pointer {
    Pointer::Tag(tag.parse().unwrap())
}

/// Something of every sort, all of it in a snapshot.
fn snapshotted() -> Life {
    let mut life = Life::first();
    life.put(0..9000);
    life.put_image(10_000, 1);
    (0..9).for_each(|number| life.prove(number));
    life.point("a", 10_000);
    life.point("b", 3);
    life.put_image(10_002, 6);
    life.point("d", 10_002);
    life.pin(":a");
    life.pin(":d");
    life.judge(Visibility::Private);
    assert!(life.keeper.renew());
    life
}

#[test]
fn what_changed_after_a_snapshot_is_known_in_the_next_life() {
    let life = snapshotted();
    let before = life.known();
    let mut life = life.next();
    assert_eq!(life.known(), before);

    life.put(9000..9100);
    life.put_image(10_001, 2);
    life.prove(5000);
    life.point("a", 10_001);
    life.drop_pointer("b");
    life.point("c", 7);
    life.lose(4);
    life.forget(5);
    life.disprove(6);
    life.unpin(":d");
    life.pin(&format!("@{}", digest(10_001)));
    life.judge(Visibility::Public);
    life.keeper.keep_up();
    life.put(5..6);
    life.forget(10_000);
    let known = life.known();
    assert!(known.contains(&"5: Some(1) false None".to_owned()), "proofs went with it");
    let life = life.next();
    assert_eq!(life.known(), known);

    let mut life = life.next();
    assert!(life.keeper.renew());
    assert_eq!(life.next().known(), known);
}

#[test]
fn what_changes_while_a_snapshot_is_taken_is_known_in_the_next_life() {
    let mut life = snapshotted();
    life.forget(8);
    life.forget(8999);
    life.put(9000..9001);
    life.keeper.keep_up();
    let step = std::cell::Cell::new(0);
    let header = Header { number: 2, running: now() };
    renewal::make(&life.directory, header, Day::default(), &life.memory, |_| {
        match step.get() {
            0 => {
                // All of it in what is in the snapshot already, or was free in it.
                life.forget(1);
                life.put_image(12_000, 11_000);
                life.put(11_000..11_003);
                life.put_image(8500, 11_001);
                life.forget(10_000);
                life.point("c", 12_000);
                life.drop_pointer("b");
                life.unpin(":d");
                life.pin(":c");
            }
            1 => {
                life.put(13_000..13_500);
                life.forget(8998);
                life.lose(2);
                life.prove(11_002);
            }
            _ => life.point("d", 13_499),
        }
        step.set(step.get() + 1);
    })
    .unwrap();
    assert!(step.get() > 2, "there are several parts");
    let mut known = life.known();
    life.keeper.close();
    renewal::swap(&life.directory).unwrap();
    life.keeper.keep_up();
    let life = life.next();
    // One that became a manifest meanwhile may have to be read again.
    let read_again = |line: &String| line.starts_with("8500: ");
    known.retain(|line| !read_again(line));
    assert_eq!(
        life.known().into_iter().filter(|line| !read_again(line)).collect::<Vec<_>>(),
        known
    );
    assert!(life.memory.look(|table| table.size(&digest(8500))).is_some());
}

/// Also by one that is killed right after it was renewed.
#[test]
fn the_peak_of_the_day_is_known_in_the_next_life() {
    let life = Life::first();
    life.peak.see(1000);
    let mut life = life.next();
    assert_eq!(life.peak.see(1), 1000);
    life.peak.see(2000);
    assert!(life.keeper.renew());
    let Life { data_dir, keeper, .. } = life;
    drop(keeper);
    assert_eq!(Life::new(data_dir).peak.see(1), 2000);
}

#[test]
fn wherever_it_is_stopped_an_index_is_found_whole() {
    type Stop = fn(&Directory);
    let stops: [(&str, Stop); 4] = [
        ("in the snapshot", |directory| {
            let snapshot = snapshot::path(&directory.next_index());
            let bytes = fs::read(&snapshot).unwrap();
            fs::remove_dir_all(directory.next_index()).unwrap();
            fs::create_dir(directory.next_index()).unwrap();
            fs::write(snapshot, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("before the first rename", |_| ()),
        ("between the renames", |directory| {
            fs::rename(directory.index(), directory.last_index()).unwrap();
        }),
        ("after the second", |directory| {
            fs::rename(directory.index(), directory.last_index()).unwrap();
            fs::rename(directory.next_index(), directory.index()).unwrap();
        }),
    ];
    for (name, stop) in stops {
        let mut life = snapshotted();
        let known = life.known();
        let header = Header { number: 2, running: now() };
        renewal::make(&life.directory, header, Day::default(), &life.memory, |_| ()).unwrap();
        life.keeper.close();
        stop(&life.directory);
        let Life { data_dir, keeper, directory, .. } = life;
        drop((keeper, directory));
        let life = Life::new(data_dir);
        assert_eq!(life.known(), known, "{name}");
        assert!(!life.directory.next_index().exists(), "{name}");
        assert!(!life.directory.last_index().exists(), "{name}");
    }
}

#[test]
fn a_snapshot_that_is_damaged_or_of_another_time_is_refused() {
    let mut life = snapshotted();
    let path: PathBuf = snapshot::path(&life.directory.index());
    let earlier = fs::read(&path).unwrap();
    assert!(life.keeper.renew());
    let whole = fs::read(&path).unwrap();
    let Life { directory, keeper, data_dir: _data_dir, .. } = life;
    keeper.finish();
    let load = |bytes: Option<&[u8]>| {
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        Index::load(&directory).map(|(index, ..)| index.close())
    };
    assert!(load(Some(&earlier)).is_err(), "an earlier one");
    assert!(load(None).is_err(), "none");
    for end in [0, 7, 30, whole.len() / 2, whole.len() - 1] {
        assert!(load(Some(&whole[..end])).is_err(), "cut at {end}");
    }
    for place in [0, 9, 14, 20, 60, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[place] ^= 0x10;
        assert!(load(Some(&flipped)).is_err(), "flipped at {place}");
    }
    assert!(load(Some(&whole)).is_ok());
}

#[test]
fn much_is_told_by_a_snapshot_and_little_by_rows() {
    let mut life = Life::first();
    life.put(0..100);
    life.keeper.keep_up();
    let path = snapshot::path(&life.directory.index());
    assert!(!path.exists());
    life.put(100..20_000);
    life.keeper.keep_up();
    let first = fs::metadata(&path).unwrap().modified().unwrap();
    life.put(20_000..20_100);
    life.keeper.keep_up();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), first);
    assert_eq!(life.memory.look(|table| table.backlog()), 0);
    assert_eq!(life.next().memory.look(|table| table.totals().blobs), 20_100);
}

#[test]
fn an_overgrown_sled_gives_way_to_a_snapshot() {
    let mut life = snapshotted();
    let path = snapshot::path(&life.directory.index());
    let first = fs::metadata(&path).unwrap().modified().unwrap();
    let sled = File::options().write(true).open(life.directory.index().join("db")).unwrap();
    let known = life.known();
    life.keeper.keep_up();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), first);
    sled.set_len(64 << 20).unwrap();
    life.keeper.keep_up();
    assert_ne!(fs::metadata(&path).unwrap().modified().unwrap(), first);
    assert!(fs::metadata(life.directory.index().join("db")).unwrap().len() < 4 << 20);
    assert_eq!(life.next().known(), known);
}

#[test]
fn a_snapshot_that_fails_leaves_everything_to_be_told() {
    let mut life = snapshotted();
    life.forget(3);
    life.point("c", 7);
    life.put(9000..9010);
    let later = Moment::from_seconds(1);
    life.memory.with(|table| {
        table.use_now(&digest(70), later);
        table.begin_snapshot();
        table.settle_part(&PartAt::default());
    });
    life.forget(4);
    life.memory.with(|table| table.abandon_snapshot());
    let known = life.known();
    life.keeper.keep_up();
    let life = life.next();
    assert_eq!(life.known(), known);
    assert_eq!(life.last_use(70), Some(later));
}

#[test]
fn what_was_used_is_shown_when_a_snapshot_remembers_it() {
    let life = snapshotted();
    let later = Moment::from_seconds(5000);
    life.memory.with(|table| {
        table.use_now(&digest(7), later);
        table.use_now(&digest(8888), later);
    });
    let told = std::cell::RefCell::new(Vec::new());
    let header = Header { number: 2, running: later };
    let note = |used: &[(Digest, Moment)]| told.borrow_mut().extend_from_slice(used);
    renewal::make(&life.directory, header, Day::default(), &life.memory, note).unwrap();
    assert_eq!(told.into_inner(), [(digest(7), later), (digest(8888), later)]);
    assert_eq!(life.last_use(7), Some(later));
}

#[test]
fn what_changed_between_the_parts_of_a_snapshot_agrees_without_the_rows() {
    let mut life = snapshotted();
    let header = Header { number: 2, running: now() };
    let step = std::cell::Cell::new(0);
    let later = Moment::from_seconds(77);
    renewal::make(&life.directory, header, Day::default(), &life.memory, |_| {
        if step.replace(1) == 0 {
            // What it lists is in a part that is written; it, and where it was shown, is not.
            life.memory.with(|table| table.use_now(&digest(10_000), later));
            life.point("c", 2);
        }
    })
    .unwrap();
    life.keeper.close();
    renewal::swap(&life.directory).unwrap();
    // Killed before any row was written.
    let Life { data_dir, keeper, directory, .. } = life;
    drop((keeper, directory));
    let life = Life::new(data_dir);
    assert_eq!((life.last_use(10_000), life.last_use(1)), (Some(later), Some(later)));
    let meant = life.memory.look(|table| table.meaning(&repository(), &pointer("c")));
    assert_eq!(meant.map(|meant| meant.digest), Some(digest(2)));
    life.forget(2);
    life.put(19_000..19_001);
    assert!(life.memory.look(|table| table.meaning(&repository(), &pointer("c"))).is_none());
}

#[test]
fn what_a_repository_shows_again_after_a_removal_it_shows_as_that_only() {
    let mut life = snapshotted();
    life.disprove(10_002);
    life.keeper.keep_up();
    life.prove(10_002);
    let entries = |life: &Life| life.memory.look(|table| table.entries().len());
    let before = entries(&life);
    let life = life.next();
    assert_eq!(entries(&life), before);
}
