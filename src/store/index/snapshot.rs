//! `index/table`: a snapshot of the whole table, to which sled has what changed since.
//!
//! Rows of sled take fifty times as long to write and to read, and leave more waste than they
//! hold. So once there are many, a new snapshot is taken together with an empty sled in a directory
//! of its own, which then takes the place of `index/`: the two never come apart, and each bears
//! the number of the other.
//!
//! ```text
//! magic, then parts: length, CRC-32, bytes
//! the first part     number of the snapshot, running time, number of slots
//! the last part      empty
//! ```

use std::{
    fs::File,
    io::{self, BufReader, Read, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    oci::Digest,
    store::{
        encoding::take_u32,
        memory::Memory,
        running::Moment,
        table::{PartAt, Restoration, Table},
    },
};

const MAGIC: &[u8; 8] = b"larder\0\x01";

/// No part comes near.
const MAX_PART: usize = 256 << 20;

/// What is written of a snapshot beside the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The first is 1.
    pub number: u32,
    pub running: Moment,
}

/// Where the snapshot of an index is.
pub fn path(index: &Path) -> PathBuf {
    index.join("table")
}

/// Reads the snapshot of an index; the empty one, number 0, when there is none. Blocking.
pub fn read(index: &Path) -> io::Result<(Header, Table)> {
    let file = match File::open(path(index)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        file => file?,
    };
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    let mut part = Vec::new();
    read_part(&mut file, &mut part)?;
    let header = read_header(&part).filter(|_| magic == *MAGIC);
    let (header, slots) = header.ok_or_else(damaged)?;
    let mut restoration = Restoration::of(slots);
    while read_part(&mut file, &mut part)? {
        restoration.take(&part).ok_or_else(damaged)?;
    }
    Ok((header, restoration.finish()))
}

/// Takes the snapshot for an index that is being made; `used` is told what was used since its row
/// or its file was written. Blocking. The table is locked for one part at a time, between
/// [`Table::begin_snapshot`] and [`Table::end_snapshot`].
pub fn write(
    index: &Path,
    header: Header,
    memory: &Memory,
    used: impl Fn(&[(Digest, Moment)]),
) -> io::Result<()> {
    let mut file = io::BufWriter::with_capacity(1 << 20, File::create(path(index))?);
    file.write_all(MAGIC)?;
    let slots = memory.look(|table| table.slots());
    write_part(&mut file, &header_bytes(header, slots))?;
    let mut next = Some(PartAt::default());
    while let Some(at) = next {
        let ((part, after), in_use) =
            memory.with(|table| (table.part(&at), table.settle_part(&at)));
        write_part(&mut file, &part)?;
        used(&in_use);
        next = after;
    }
    write_part(&mut file, &[])?;
    file.into_inner()?.sync_all()
}

fn write_part(file: &mut impl io::Write, part: &[u8]) -> io::Result<()> {
    let length = u32::try_from(part.len()).map_err(io::Error::other)?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(&crc32fast::hash(part).to_le_bytes())?;
    file.write_all(part)
}

/// Tells whether it was not the last.
fn read_part(file: &mut impl Read, part: &mut Vec<u8>) -> io::Result<bool> {
    let (mut length, mut sum) = ([0; 4], [0; 4]);
    file.read_exact(&mut length)?;
    file.read_exact(&mut sum)?;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
    if length > MAX_PART {
        return Err(damaged());
    }
    part.resize(length, 0);
    file.read_exact(part)?;
    if crc32fast::hash(part) != u32::from_le_bytes(sum) {
        return Err(damaged());
    }
    Ok(length > 0)
}

fn header_bytes(header: Header, slots: usize) -> Vec<u8> {
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
    let numbers = [header.number, header.running.seconds(), slots];
    numbers.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn read_header(mut bytes: &[u8]) -> Option<(Header, usize)> {
    let number = take_u32(&mut bytes)?;
    let running = Moment::from_seconds(take_u32(&mut bytes)?);
    let slots = usize::try_from(take_u32(&mut bytes)?).ok()?;
    Some((Header { number, running }, slots))
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the snapshot of the table is damaged")
}
