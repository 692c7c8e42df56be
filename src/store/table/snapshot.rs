//! The table as bytes, part by part, and back: much faster than telling it every row again.
//!
//! The table goes on changing between one part and the next. Links are written as the numbers of
//! slots, none of which comes to mean another digest meanwhile. What changes after the beginning
//! may or may not be in the snapshot, and is told to the index afterwards.

use super::{
    ManifestSlot, PinRow, Table, Verdict,
    changes::Changes,
    names::{RepositoryId, RepositorySlot},
    slots::{Id, Kind, Slot},
};
use crate::{
    oci::{Digest, Repository, Visibility},
    store::{
        encoding::{put_digest, put_time, take, take_digest, take_slice, take_time, take_u32},
        running::Moment,
    },
};

/// Slots in a part.
const SLOTS: usize = 4096;

/// Repositories in a part.
const REPOSITORIES: usize = 64;

/// What a part is of, as its first byte.
const OF_SLOTS: u8 = 1;
const OF_REPOSITORIES: u8 = 2;
const OF_VERDICTS: u8 = 3;
const OF_PINS: u8 = 4;

/// What is so of a slot, as bits. None: it is free.
const USED: u8 = 1;
const PRESENT: u8 = 2;
const MANIFEST: u8 = 4;

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

    /// The slots in the part of this number are remembered by it: returns those that were used
    /// since they, or their files, were last written.
    pub fn settle_part(&mut self, number: usize) -> Vec<(Digest, Moment)> {
        let from = number.saturating_mul(SLOTS);
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

    /// The part of this number. `None`: there are no more.
    pub fn part(&self, number: usize) -> Option<Vec<u8>> {
        // Whatever is added to the table has to be added here, or be known by other means.
        let Table {
            slots,
            repositories,
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
        let of_slots = slots.frozen_end().div_ceil(SLOTS);
        let of_repositories = repositories.len().div_ceil(REPOSITORIES);
        if number < of_slots {
            return Some(self.slots_part(number * SLOTS));
        }
        match number - of_slots {
            number if number < of_repositories => {
                Some(self.repositories_part(number * REPOSITORIES))
            }
            number if number == of_repositories => Some(self.verdicts_part()),
            number if number == of_repositories + 1 => Some(self.pins_part()),
            _ => None,
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

    fn repositories_part(&self, from: usize) -> Vec<u8> {
        let mut part = vec![OF_REPOSITORIES];
        for slot in self.repositories.iter().skip(from).take(REPOSITORIES) {
            put_text(&mut part, &slot.repository.to_string());
            slot.put_meanings(&mut part);
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
                OF_REPOSITORIES => self.take_repository(&mut rest)?,
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

    fn take_repository(&mut self, rest: &mut &[u8]) -> Option<()> {
        let repository: Repository = take_text(rest)?.parse().ok()?;
        let slot = RepositorySlot::take_meanings(repository.clone(), rest)?;
        let id = RepositoryId::at(self.table.repositories.len());
        self.table.repositories.push(slot);
        self.table.repository_ids.insert(repository, id);
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

fn take_pin(rest: &mut &[u8]) -> Option<PinRow> {
    let image = take_text(rest)?.parse().ok()?;
    Some(PinRow { image, held: take_digest(rest)? })
}

/// Appends a text, which is no longer than names are.
pub(super) fn put_text(part: &mut Vec<u8>, text: &str) {
    put_number(part, text.len());
    part.extend_from_slice(text.as_bytes());
}

/// Takes [`put_text`] off the front.
pub(super) fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = take_u32(rest)? as usize;
    std::str::from_utf8(take_slice(rest, length)?).ok()
}

/// Appends how many numbers there are, and each.
pub(super) fn put_numbers(part: &mut Vec<u8>, numbers: impl ExactSizeIterator<Item = usize>) {
    put_number(part, numbers.len());
    numbers.for_each(|number| put_number(part, number));
}

/// Takes [`put_numbers`] off the front.
pub(super) fn take_numbers<'a>(
    rest: &mut &'a [u8],
) -> Option<impl ExactSizeIterator<Item = usize> + 'a> {
    let bytes = (take_u32(rest)? as usize).checked_mul(4)?;
    let (numbers, _) = take_slice(rest, bytes)?.as_chunks::<4>();
    Some(numbers.iter().map(|number| u32::from_le_bytes(*number) as usize))
}

/// Appends a number of slots, of repositories or of bytes in a name, all of which are small.
pub(super) fn put_number(part: &mut Vec<u8>, number: usize) {
    part.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
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
        table.forget(&digest(5000));
        for name in ["ghcr.io/a:v1".to_owned(), format!("quay.io/b@{}", digest(10_000))] {
            assert!(table.pin(&name.parse().unwrap()).is_some());
        }
        table
    }

    fn parts(table: &Table) -> Vec<Vec<u8>> {
        (0..).map_while(|number| table.part(number)).collect()
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
