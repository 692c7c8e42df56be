//! The table as bytes, part by part, and back: much faster than telling it every row again.
//!
//! The table goes on changing between one part and the next. Links are written as the numbers of
//! slots, none of which comes to mean another digest meanwhile. What changes after the beginning
//! may or may not be in the snapshot, and is told to the index afterwards.

use super::{
    ManifestSlot, PinRow, Table, Verdict,
    changes::Changes,
    meanings::put_names,
    names::{RepositoryId, RepositorySlot},
    slots::{Id, Kind, Slot},
    walk::{Cursor, Stretch},
};
use crate::{
    oci::{Digest, Repository, Visibility},
    store::{
        encoding::{
            put_digest, put_numbers, put_text, put_time, take, take_digest, take_numbers,
            take_text, take_time, take_u32,
        },
        running::Moment,
    },
};

/// Slots in a part.
const SLOTS: usize = 4096;

/// Names in a part, all of one repository.
const NAMES: usize = 1024;

/// What a part is of, as its first byte.
const OF_SLOTS: u8 = 1;
const OF_NAMES: u8 = 2;
const OF_VERDICTS: u8 = 3;
const OF_PINS: u8 = 4;

/// What is so of a slot, as bits. None: it is free.
const USED: u8 = 1;
const PRESENT: u8 = 2;
const MANIFEST: u8 = 4;

/// Where a part begins.
#[derive(Clone, Debug)]
pub enum PartAt {
    /// At the slot of this number.
    Slot(usize),
    /// At a name; what upstream said of repositories follows behind the last.
    Name(Cursor),
    /// At the first pin.
    Pin,
}

/// A table that is being made from its parts.
#[derive(Debug, Default)]
pub struct Restoration {
    table: Table,
    pins: Vec<PinRow>,
}

/// A snapshot that is being taken.
#[derive(Debug, Default)]
pub(super) struct Ongoing {
    /// What the index had not been told when it began.
    untold: Changes,
    /// Digests whose last use it remembers, and the index does not.
    used: Vec<Id>,
}

impl Table {
    /// Begins a snapshot. Everything known now will be in its parts, so that the index need not be
    /// told of it, unless it comes to nothing.
    pub fn begin_snapshot(&mut self) {
        self.slots.freeze();
        let fresh = Changes { layout: self.changes.layout, ..Changes::default() };
        let untold = std::mem::replace(&mut self.changes, fresh);
        self.ongoing = Ongoing { untold, used: Vec::new() };
    }

    /// The snapshot is whole, and the index goes on from it.
    pub fn end_snapshot(&mut self) {
        self.ongoing = Ongoing::default();
        self.slots.thaw();
    }

    /// The snapshot came to nothing: the index must be told all the same.
    pub fn abandon_snapshot(&mut self) {
        let Ongoing { untold, used } = std::mem::take(&mut self.ongoing);
        self.changes.extend(untold);
        for id in used {
            self.mark_blob(id);
        }
        self.slots.thaw();
    }

    /// The slots in a part are remembered by it: returns those that were used since they, or their files,
    /// were last written.
    pub fn settle_part(&mut self, at: &PartAt) -> Vec<(Digest, Moment)> {
        let PartAt::Slot(from) = *at else {
            return Vec::new();
        };
        let end = self.slots.frozen_end().min(from.saturating_add(SLOTS));
        let mut used = Vec::new();
        for id in (from..end).map(Id::at) {
            let Some(slot) = self.slots.get_mut(id) else {
                continue;
            };
            slot.dirty = false;
            let is_used = slot.remember_use();
            if slot.present && is_used {
                used.push((slot.digest.clone(), slot.last_use.get()));
                self.ongoing.used.push(id);
            }
        }
        used
    }

    /// A part, and where the next one begins, if there are more.
    pub fn part(&self, at: &PartAt) -> (Vec<u8>, Option<PartAt>) {
        // Whatever is added to the table has to be added here, or be known by other means.
        let Table {
            slots,
            repositories: _,
            verdicts: _,
            pins: _,
            repository_ids: _,
            rules: _,
            withdrawn: _,
            adopted: _,
            media_types: _,
            totals: _,
            changes: _,
            ongoing: _,
        } = self;
        match at {
            PartAt::Slot(from) => {
                let next = Some(from.saturating_add(SLOTS)).filter(|to| *to < slots.frozen_end());
                let next = next.map_or_else(|| PartAt::Name(Cursor::default()), PartAt::Slot);
                (self.slots_part(*from), Some(next))
            }
            PartAt::Name(place) => match self.stretch(place, NAMES) {
                Some(stretch) => (names_part(&stretch), Some(PartAt::Name(stretch.next))),
                None => (self.verdicts_part(), Some(PartAt::Pin)),
            },
            PartAt::Pin => (self.pins_part(), None),
        }
    }

    /// How many slots the parts have.
    pub fn slots(&self) -> usize {
        self.slots.frozen_end()
    }

    fn slots_part(&self, from: usize) -> Vec<u8> {
        let mut part = vec![OF_SLOTS];
        for number in from..self.slots.frozen_end().min(from + SLOTS) {
            match self.slots.get(Id::at(number)) {
                Some(slot) => put_slot(&mut part, slot),
                None => part.push(0),
            }
        }
        part
    }

    fn verdicts_part(&self) -> Vec<u8> {
        let mut part = vec![OF_VERDICTS];
        for (repository, verdict) in &self.verdicts {
            put_text(&mut part, &repository.to_string());
            part.push(u8::from(verdict.visibility == Visibility::Public));
            put_time(&mut part, verdict.checked_at);
        }
        part
    }

    /// With digests, since what is pinned meanwhile may have a slot that is in no part.
    fn pins_part(&self) -> Vec<u8> {
        let mut part = vec![OF_PINS];
        for row in self.pins() {
            put_text(&mut part, &row.image.to_string());
            put_digest(&mut part, &row.held);
        }
        part
    }

    /// Nothing may be older than what lists it.
    fn use_all_listed(&mut self) {
        for parent in (0..self.slots.end()).map(Id::at) {
            let slot = self.slots.get(parent);
            let listed = slot.and_then(|slot| Some((slot.manifest.as_ref()?, slot.last_use.get())));
            let listed = listed.map(|(manifest, last_use)| (manifest.children.clone(), last_use));
            let (children, last_use) = listed.unwrap_or_default();
            for child in children {
                self.use_below(child, last_use);
            }
        }
    }
}

impl Default for PartAt {
    fn default() -> PartAt {
        PartAt::Slot(0)
    }
}

impl Restoration {
    /// With room for so many slots.
    pub fn of(slots: usize) -> Restoration {
        let mut table = Table::default();
        table.slots.reserve(slots);
        Restoration { table, pins: Vec::new() }
    }

    /// Takes a part; they come in order. `None`: it is not what [`Table::part`] made.
    pub fn take(&mut self, part: &[u8]) -> Option<()> {
        let (of, mut rest) = part.split_first()?;
        while !rest.is_empty() {
            match *of {
                OF_SLOTS => self.take_slot(&mut rest)?,
                OF_NAMES => self.take_names(&mut rest)?,
                OF_VERDICTS => self.take_verdict(&mut rest)?,
                OF_PINS => self.pins.push(take_pin(&mut rest)?),
                _ => return None,
            }
        }
        Some(())
    }

    /// The table. The index knows everything in it. Parts of different moments are made to agree.
    pub fn finish(self) -> Table {
        let Restoration { mut table, pins } = self;
        table.slots.link_parents();
        table.use_all_listed();
        let Table { slots, repositories, .. } = &mut table;
        for (id, repository) in (0..).map(RepositoryId::at).zip(repositories) {
            repository.retain(|id| slots.get(id).is_some());
            for named in repository.named() {
                if let Some(slot) = slots.get_mut(named) {
                    slot.edges.add_repository(id);
                }
            }
        }
        for row in &pins {
            table.restore_pin(row, Moment::default());
        }
        table.mark_remembered();
        table
    }

    fn take_slot(&mut self, rest: &mut &[u8]) -> Option<()> {
        let [flags] = take(rest)?;
        if flags & USED == 0 {
            self.table.slots.push_free();
            return Some(());
        }
        let digest = take_digest(rest)?;
        let last_use = Moment::from_seconds(take_u32(rest)?);
        let mut slot = Slot::unknown(digest, last_use);
        slot.size = u64::from_le_bytes(take(rest)?);
        slot.present = flags & PRESENT != 0;
        for repository in take_numbers(rest)? {
            slot.edges.add_repository(RepositoryId::at(repository));
        }
        if flags & MANIFEST != 0 {
            slot.manifest = Some(Box::new(self.take_manifest(rest)?));
        }
        if slot.present {
            self.table.totals.enter(slot.size);
        }
        self.table.slots.push(slot);
        Some(())
    }

    fn take_manifest(&mut self, rest: &mut &[u8]) -> Option<ManifestSlot> {
        let kind = match take(rest)? {
            [0] => Kind::Unread,
            [1] => Kind::Image,
            [2] => Kind::Index,
            _ => return None,
        };
        let media_type = self.table.media_types.share(take_text(rest)?);
        let children = take_numbers(rest)?.map(Id::at).collect();
        Some(ManifestSlot { media_type, kind, children })
    }

    /// A repository has its number by when it is first met.
    fn take_names(&mut self, rest: &mut &[u8]) -> Option<()> {
        let repository: Repository = take_text(rest)?.parse().ok()?;
        let mut more = RepositorySlot::take_names(repository.clone(), rest)?;
        let Table { repositories, repository_ids, .. } = &mut self.table;
        let known = repository_ids.get(&repository);
        if let Some(known) = known.and_then(|id| repositories.get_mut(id.index())) {
            known.append(&mut more);
            return Some(());
        }
        repository_ids.insert(repository, RepositoryId::at(repositories.len()));
        repositories.push(more);
        Some(())
    }

    fn take_verdict(&mut self, rest: &mut &[u8]) -> Option<()> {
        let repository = take_text(rest)?.parse().ok()?;
        let visibility = match take(rest)? {
            [0] => Visibility::Private,
            [1] => Visibility::Public,
            _ => return None,
        };
        let checked_at = take_time(rest)?;
        self.table.verdicts.insert(repository, Verdict { visibility, checked_at });
        Some(())
    }
}

fn names_part(stretch: &Stretch<'_>) -> Vec<u8> {
    let mut part = vec![OF_NAMES];
    put_text(&mut part, &stretch.repository.repository.to_string());
    put_names(&mut part, &stretch.names);
    part
}

fn take_pin(rest: &mut &[u8]) -> Option<PinRow> {
    let image = take_text(rest)?.parse().ok()?;
    Some(PinRow { image, held: take_digest(rest)? })
}

fn put_slot(part: &mut Vec<u8>, slot: &Slot) {
    let present = if slot.present { PRESENT } else { 0 };
    let manifest = if slot.manifest.is_some() { MANIFEST } else { 0 };
    part.push(USED | present | manifest);
    put_digest(part, &slot.digest);
    part.extend(slot.last_use.get().seconds().to_le_bytes());
    part.extend(slot.size.to_le_bytes());
    put_numbers(part, slot.edges.repositories().iter().map(|id| id.index()));
    let Some(manifest) = &slot.manifest else {
        return;
    };
    part.push(match manifest.kind {
        Kind::Unread => 0,
        Kind::Image => 1,
        Kind::Index => 2,
    });
    put_text(part, &manifest.media_type);
    put_numbers(part, manifest.children.iter().map(|id| id.index()));
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        oci::{Algorithm, Manifest},
        store::table::{Pointer, PointerRow, Proof},
    };

    fn digest(number: u32) -> Digest {
        let algorithm = if number == 3 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        Digest::of(algorithm, &number.to_le_bytes())
    }

    fn image(config: u32, layers: [u32; 2]) -> Manifest {
        let [one, two] = layers.map(digest);
        let json = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":1}},"layers":[{{"digest":"{one}","size":1}},{{"digest":"{two}","size":1}}]}}"#,
            digest(config),
        );
        Manifest::parse(json.as_bytes(), None).unwrap()
    }

    fn filled() -> Table {
        let mut table = Table::default();
        let now = Moment::from_seconds(7);
        let repositories =
            ["ghcr.io/a", "quay.io/b"].map(|name| name.parse::<Repository>().unwrap());
        let checked_at = SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 5);
        for number in 0..9000 {
            table.put_blob(&digest(number), u64::from(number), now);
        }
        table.put_manifest(&digest(10_000), 9, &image(1, [2, 3]), now);
        table.put_manifest(&digest(10_001), 9, &image(1, [2, 9999]), Moment::from_seconds(9));
        table.expect_manifest(&digest(10_002), 4, "application/x", now);
        for repository in &repositories {
            table.prove(repository, &digest(2), Proof::Blob, now);
            let row = PointerRow { digest: digest(10_000), checked_at };
            table.point(repository, &Pointer::Tag("v1".parse().unwrap()), &row, now);
            let row = PointerRow { digest: digest(10_001), checked_at };
            table.point(repository, &Pointer::Referrers(digest(3).into()), &row, now);
            table.judge(repository, Verdict { visibility: Visibility::Private, checked_at });
        }
        for number in 0..=NAMES {
            let row = PointerRow { digest: digest(10_001), checked_at };
            let pointer = Pointer::Tag(format!("nightly-{number}").parse().unwrap());
            table.point(&repositories[0], &pointer, &row, now);
        }
        table.forget(&digest(5000));
        for name in ["ghcr.io/a:v1".to_owned(), format!("quay.io/b@{}", digest(10_000))] {
            assert!(table.pin(&name.parse().unwrap()).is_some());
        }
        table
    }

    fn parts(table: &Table) -> Vec<Vec<u8>> {
        let (mut parts, mut next) = (Vec::new(), Some(PartAt::default()));
        while let Some(at) = next {
            let (part, after) = table.part(&at);
            parts.push(part);
            next = after;
        }
        parts
    }

    fn restored(table: &Table) -> Table {
        let mut restoration = Restoration::of(table.slots());
        for part in parts(table) {
            restoration.take(&part).unwrap();
        }
        restoration.finish()
    }

    #[test]
    fn a_table_is_the_same_after_its_parts_are_put_together() {
        let table = filled();
        let copy = restored(&table);
        assert_eq!((copy.backlog(), table.backlog() > 0), (0, true));
        assert_eq!(copy.totals(), table.totals());
        assert_eq!(copy.pins().collect::<Vec<_>>(), table.pins().collect::<Vec<_>>());
        assert_eq!(copy.pins().count(), 2);
        for number in 0..11_000 {
            let digest = digest(number);
            assert_eq!(copy.size(&digest), table.size(&digest));
            assert_eq!(copy.children(&digest), table.children(&digest));
            assert_eq!(copy.media_type(&digest), table.media_type(&digest));
            assert_eq!(copy.is_config(&digest), table.is_config(&digest));
            let last_use = |table: &Table| table.slots.of(&digest).map(|slot| slot.last_use.get());
            assert_eq!(last_use(&copy), last_use(&table));
            for repository in table.shown(0, 9).unwrap() {
                let proved = table.is_proved(&repository, &digest);
                assert_eq!(copy.is_proved(&repository, &digest), proved);
                assert_eq!(copy.verdict(&repository), table.verdict(&repository));
            }
        }
        assert_eq!(copy.entries(), table.entries());
        // Verdicts are in no order.
        let parts =
            |table| parts(table).into_iter().filter(|part| part.first() != Some(&OF_VERDICTS));
        assert!(parts(&copy).eq(parts(&table)));
    }

    #[test]
    fn what_is_restored_can_be_taken_apart() {
        let mut copy = restored(&filled());
        copy.put_blob(&digest(20_000), 1, Moment::default());
        assert_eq!(copy.slots(), filled().slots(), "a free slot is used first");
        for number in 0..=20_000 {
            copy.forget(&digest(number));
        }
        for pin in copy.pins().collect::<Vec<_>>() {
            assert!(copy.unpin(&pin.image));
        }
        assert_eq!(copy.slots.range(0, usize::MAX).count(), 0, "every slot is released");
    }

    #[test]
    fn no_cut_part_is_taken() {
        for part in parts(&filled()).iter().rev() {
            let taken = |end: usize| Restoration::default().take(&part[..end]).is_some();
            let cuts = (0..part.len()).rev().take(300).filter(|end| taken(*end)).count();
            assert!(cuts <= 60, "only where one ends may it be cut: {cuts}");
        }
    }
}
