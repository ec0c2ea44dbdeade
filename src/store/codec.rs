//! Model values <-> the compact blobs of the `data` columns.
//!
//! Numbers of varying size are LEB128, seven bits to a byte and the lowest first; the rest is
//! little-endian. Every blob ends with a checksum over the row's key and its bytes, so that a row
//! that was damaged, or stands at the wrong place, is refused. What is read is parsed like a peer's
//! word: nothing is allocated for a length that was not checked, and nothing can panic.
//!
//! | blob | fields |
//! |---|---|
//! | entry | head, since (8), version, by (5), body, stat |
//! | remote | version, by (5), kind (1), body, form (1), recipe: nothing, or count and chunks |
//! | kept | kind (1), body, by (5), since (8), file: 0, or 1 + count and bytes |
//! | version | count, then author (8) and counter each |
//! | body | file: mode, size, mtime (8), content (32); directory: mode; link: count and bytes |
//! | chunk | id (32), length (4) |
//!
//! The head of an entry: bits 0-1 the kind (0 deleted, 1 link, 2 file, 3 directory), bit 2 whether a
//! stat follows, bit 3 whether kind, mode, size and mtime of the stat are those of the body and left
//! out, bits 4-5 the recipe: 0 unknown, 1 without chunks, 2 one chunk whose id (32) follows and whose
//! length is the file's size, 3 in the tables, where its number and the count of its chunks follow.
//! The form of a remote: bit 0 whether a recipe follows, bits 1-2 where it stands with the brake (0
//! open, 1 held, 2 held with its directory, 3 cleared).
//! A stat is [kind (1), mode, size, mtime (8)], ctime (8), dev, ino.

use crate::engine::brake::Standing;
use crate::engine::index::{Kept, Local, Remote};
use crate::model::id::{AuthorId, ChunkId, ContentId, DeviceTag, Sequence};
use crate::model::limits::{CHUNK_LEN_MAX, PAGE_CHUNKS_MAX, PATH_LEN_MAX, RECIPE_PAGES_MAX};
use crate::model::limits::{SYMLINK_LEN_MAX, VERSION_AUTHORS_MAX};
use crate::model::path::RelPath;
use crate::model::recipe::{ChunkRef, Recipe};
use crate::model::record::{Body, FileBody, Record};
use crate::model::stat::{Kind, Stat};
use crate::model::version::VersionVector;

/// Bytes of one chunk reference.
pub(crate) const CHUNK_REF_LEN: usize = 36;
/// Bytes of the checksum at the end of a blob.
const SUM_LEN: usize = 4;
/// Most chunks that a recipe can have.
const RECIPE_CHUNKS_MAX: usize = RECIPE_PAGES_MAX * PAGE_CHUNKS_MAX;
/// Longest name of a history file.
const FILE_NAME_LEN_MAX: usize = PATH_LEN_MAX;

/// Why some bytes are no row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Where the recipe of an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StoredRecipe {
    /// Nowhere: it is not known, or what is there is no file.
    Unknown,
    /// The file is empty.
    Empty,
    /// The file is this one chunk, as long as itself.
    Single(ChunkId),
    /// In the tables.
    Parts {
        /// Its number.
        recipe: i64,
        /// The number of its chunks.
        chunks: usize,
    },
}

/// The state of an entry, as searches need it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    Live = 0,
    Copy = 1,
    Deleted = 2,
    IgnoredLive = 3,
    IgnoredDeleted = 4,
}

impl State {
    pub(crate) fn is_live(self) -> bool {
        matches!(self, Self::Live | Self::Copy)
    }

    pub(crate) fn is_ignored(self) -> bool {
        matches!(self, Self::IgnoredLive | Self::IgnoredDeleted)
    }

    pub(crate) fn parse(value: i64) -> Result<Self, Malformed> {
        Ok(match value {
            0 => Self::Live,
            1 => Self::Copy,
            2 => Self::Deleted,
            3 => Self::IgnoredLive,
            4 => Self::IgnoredDeleted,
            _ => return Err(Malformed("an unknown state")),
        })
    }
}

/// An entry as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) local: Local,
    pub(crate) state: State,
    pub(crate) recipe: StoredRecipe,
}

/// Returns the path as a key whose order is that of paths.
pub(crate) fn path_key(path: &RelPath) -> Vec<u8> {
    path.as_bytes().iter().map(|b| if *b == b'/' { 0 } else { *b }).collect()
}

/// Reads a path from its key.
pub(crate) fn path_of_key(key: &[u8]) -> Result<RelPath, Malformed> {
    if key.contains(&b'/') {
        return Err(Malformed("a path key contains a slash"));
    }
    let bytes: Vec<u8> = key.iter().map(|b| if *b == 0 { b'/' } else { *b }).collect();
    RelPath::parse(&bytes).map_err(|_| Malformed("a path that cannot be"))
}

/// Computes the checksum of parts of known length.
pub(crate) fn sum_of(bytes: &[u8]) -> u32 {
    let hash = blake3::hash(bytes);
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// What a checksum covers beside the blob: which row it stands in.
pub(crate) struct RowKey(Vec<u8>);

impl RowKey {
    /// The key of an entry: its whole path and the columns that are searched by.
    pub(crate) fn entry(path: &RelPath, state: State, sequence: Sequence) -> Self {
        let mut key = Vec::with_capacity(256);
        key.push(b'e');
        key.push(state as u8);
        key.extend_from_slice(&sequence.0.to_le_bytes());
        key.extend_from_slice(path.as_bytes());
        Self(key)
    }

    /// The key of a part of a recipe.
    pub(crate) fn part(part: i64) -> Self {
        let mut key = vec![b'p'];
        key.extend_from_slice(&part.to_le_bytes());
        Self(key)
    }

    /// The key of what a peer holds.
    pub(crate) fn remote(path_key: &[u8], peer: i64) -> Self {
        let mut key = vec![b'r'];
        key.extend_from_slice(&peer.to_le_bytes());
        key.extend_from_slice(path_key);
        Self(key)
    }

    /// The key of a former version.
    pub(crate) fn kept(path_key: &[u8], until_ns: i64) -> Self {
        let mut key = vec![b'k'];
        key.extend_from_slice(&until_ns.to_le_bytes());
        key.extend_from_slice(path_key);
        Self(key)
    }

    /// The key of the only row of a table.
    pub(crate) fn single(tag: u8) -> Self {
        Self(vec![tag])
    }

    pub(crate) fn seal(mut self, blob: &mut Vec<u8>) {
        self.0.extend_from_slice(blob);
        blob.extend_from_slice(&sum_of(&self.0).to_le_bytes());
    }

    fn unseal(self, blob: &[u8]) -> Result<Reader<'_>, Malformed> {
        self.unsealed(blob).map(Reader)
    }

    /// Returns the bytes before the checksum, if that is right.
    pub(crate) fn unsealed(mut self, blob: &[u8]) -> Result<&[u8], Malformed> {
        let at = blob.len().checked_sub(SUM_LEN).ok_or(Malformed("a row is too short"))?;
        let (payload, sum) = blob.split_at(at);
        self.0.extend_from_slice(payload);
        if sum != sum_of(&self.0).to_le_bytes() {
            return Err(Malformed("a row does not match its checksum"));
        }
        Ok(payload)
    }
}

pub(crate) fn encode_entry(local: &Local, state: State, recipe: StoredRecipe) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    let record = &local.record;
    let implied = local.stat.is_some_and(|stat| implied_stat(&record.body).is_some_and(|i| agrees(&i, &stat)));
    let recipe_bits = match recipe {
        StoredRecipe::Unknown => 0,
        StoredRecipe::Empty => 1,
        StoredRecipe::Single(_) => 2,
        StoredRecipe::Parts { .. } => 3,
    };
    out.push(kind_bits(&record.body) | u8::from(local.stat.is_some()) << 2 | u8::from(implied) << 3 | recipe_bits << 4);
    put_i64(&mut out, local.since_ns);
    put_version(&mut out, &record.version);
    out.extend_from_slice(&record.by.0);
    put_body(&mut out, &record.body);
    match recipe {
        StoredRecipe::Unknown | StoredRecipe::Empty => {}
        StoredRecipe::Single(chunk) => out.extend_from_slice(&chunk.0),
        StoredRecipe::Parts { recipe, chunks } => {
            put_u64(&mut out, recipe as u64);
            put_u64(&mut out, chunks as u64);
        }
    }
    if let Some(stat) = &local.stat {
        if !implied {
            out.push(stat_kind_bits(stat.kind));
            put_u64(&mut out, u64::from(stat.mode));
            put_u64(&mut out, stat.size);
            put_i64(&mut out, stat.mtime_ns);
        }
        put_i64(&mut out, stat.ctime_ns);
        put_u64(&mut out, stat.dev);
        put_u64(&mut out, stat.ino);
    }
    RowKey::entry(&record.path, state, local.sequence).seal(&mut out);
    out
}

pub(crate) fn decode_entry(path: RelPath, state: State, sequence: Sequence, blob: &[u8]) -> Result<Entry, Malformed> {
    let mut reader = RowKey::entry(&path, state, sequence).unseal(blob)?;
    let head = reader.u8()?;
    let since_ns = reader.i64()?;
    let version = reader.version()?;
    let by = DeviceTag(reader.array()?);
    let body = reader.body(head & 3)?;
    let recipe = match (head >> 4 & 3, &body) {
        (0, _) => StoredRecipe::Unknown,
        (1, Body::File(_)) => StoredRecipe::Empty,
        (2, Body::File(file)) if (1..=CHUNK_LEN_MAX as u64).contains(&file.size) => {
            StoredRecipe::Single(ChunkId(reader.array()?))
        }
        (3, Body::File(_)) => StoredRecipe::Parts {
            recipe: i64::try_from(reader.u64()?).map_err(|_| Malformed("a recipe's number is out of bounds"))?,
            chunks: reader.count(RECIPE_CHUNKS_MAX)?,
        },
        _ => return Err(Malformed("a recipe of what is no such file")),
    };
    let stat = match head >> 2 & 3 {
        0 => None,
        1 => Some(Stat {
            kind: reader.stat_kind()?,
            mode: reader.u16()?,
            size: reader.u64()?,
            mtime_ns: reader.i64()?,
            ctime_ns: reader.i64()?,
            dev: reader.u64()?,
            ino: reader.u64()?,
        }),
        3 => {
            let implied = implied_stat(&body).ok_or(Malformed("a stat that nothing implies"))?;
            Some(Stat { ctime_ns: reader.i64()?, dev: reader.u64()?, ino: reader.u64()?, ..implied })
        }
        _ => return Err(Malformed("an unknown form of stat")),
    };
    reader.finish()?;
    if (body.is_live() == matches!(state, State::Deleted | State::IgnoredDeleted)) || head >> 6 != 0 {
        return Err(Malformed("a state that does not fit its row"));
    }
    let record = Record { path, version, by, body };
    Ok(Entry { local: Local { record, sequence, stat, ignored: state.is_ignored(), since_ns }, state, recipe })
}

pub(crate) fn encode_remote(path_key: &[u8], peer: i64, remote: &Remote) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    put_version(&mut out, &remote.record.version);
    out.extend_from_slice(&remote.record.by.0);
    out.push(kind_bits(&remote.record.body));
    put_body(&mut out, &remote.record.body);
    let standing = match remote.standing {
        Standing::Open => 0,
        Standing::Held => 1,
        Standing::HeldDir => 2,
        Standing::Cleared => 3,
        Standing::Apart => 4,
    };
    out.push(standing << 1 | u8::from(remote.recipe.is_some()));
    if let Some(recipe) = &remote.recipe {
        put_u64(&mut out, recipe.chunks().len() as u64);
        put_chunks(&mut out, recipe.chunks());
    }
    RowKey::remote(path_key, peer).seal(&mut out);
    out
}

pub(crate) fn decode_remote(path: RelPath, path_key: &[u8], peer: i64, blob: &[u8]) -> Result<Remote, Malformed> {
    let mut reader = RowKey::remote(path_key, peer).unseal(blob)?;
    let version = reader.version()?;
    let by = DeviceTag(reader.array()?);
    let kind = reader.u8()?;
    let body = reader.body(kind)?;
    let form = reader.u8()?;
    let standing = match form >> 1 {
        0 => Standing::Open,
        1 => Standing::Held,
        2 => Standing::HeldDir,
        3 => Standing::Cleared,
        4 => Standing::Apart,
        _ => return Err(Malformed("an unknown form of a peer's record")),
    };
    let recipe = if form & 1 == 1 {
        let count = reader.count(RECIPE_CHUNKS_MAX)?;
        let chunks = parse_chunks(reader.take(count * CHUNK_REF_LEN)?)?;
        Some(Recipe::parse(chunks).map_err(|_| Malformed("a recipe that cannot be"))?)
    } else {
        None
    };
    reader.finish()?;
    Ok(Remote { record: Record { path, version, by, body }, recipe, standing })
}

pub(crate) fn encode_kept(path_key: &[u8], kept: &Kept) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    out.push(kind_bits(&kept.body));
    put_body(&mut out, &kept.body);
    out.extend_from_slice(&kept.by.0);
    put_i64(&mut out, kept.since_ns);
    match &kept.file {
        None => out.push(0),
        Some(file) => {
            out.push(1);
            put_bytes(&mut out, file.as_bytes());
        }
    }
    RowKey::kept(path_key, kept.until_ns).seal(&mut out);
    out
}

pub(crate) fn decode_kept(path_key: &[u8], until_ns: i64, blob: &[u8]) -> Result<Kept, Malformed> {
    let mut reader = RowKey::kept(path_key, until_ns).unseal(blob)?;
    let path = path_of_key(path_key)?;
    let kind = reader.u8()?;
    let body = reader.body(kind)?;
    let by = DeviceTag(reader.array()?);
    let since_ns = reader.i64()?;
    let file = match reader.u8()? {
        0 => None,
        1 => {
            let bytes = reader.bytes(FILE_NAME_LEN_MAX)?;
            Some(String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a file name that is not text"))?)
        }
        _ => return Err(Malformed("an unknown form of file name")),
    };
    reader.finish()?;
    Ok(Kept { path, body, by, since_ns, until_ns, file })
}

pub(crate) fn encode_part(part: i64, chunks: &[ChunkRef]) -> Vec<u8> {
    let mut out = Vec::with_capacity(chunks.len() * CHUNK_REF_LEN + SUM_LEN);
    put_chunks(&mut out, chunks);
    RowKey::part(part).seal(&mut out);
    out
}

pub(crate) fn decode_part(part: i64, blob: &[u8]) -> Result<Vec<ChunkRef>, Malformed> {
    parse_chunks(RowKey::part(part).unseal(blob)?.0)
}

fn implied_stat(body: &Body) -> Option<Stat> {
    let (kind, mode, size, mtime_ns) = match body {
        Body::File(file) => (Kind::File, file.mode, file.size, file.mtime_ns),
        _ => return None,
    };
    Some(Stat { kind, mode, size, mtime_ns, ctime_ns: 0, dev: 0, ino: 0 })
}

fn agrees(implied: &Stat, stat: &Stat) -> bool {
    let shown = |s: &Stat| (s.kind, s.mode, s.size, s.mtime_ns);
    shown(implied) == shown(stat)
}

fn kind_bits(body: &Body) -> u8 {
    match body {
        Body::Tombstone => 0,
        Body::Symlink { .. } => 1,
        Body::File(_) => 2,
        Body::Dir { .. } => 3,
    }
}

fn stat_kind_bits(kind: Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Dir => 1,
        Kind::Symlink => 2,
        Kind::Special => 3,
    }
}

fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_version(out: &mut Vec<u8>, version: &VersionVector) {
    put_u64(out, version.counters().len() as u64);
    for (author, counter) in version.counters() {
        out.extend_from_slice(&author.0.to_le_bytes());
        put_u64(out, *counter);
    }
}

fn put_body(out: &mut Vec<u8>, body: &Body) {
    match body {
        Body::Tombstone => {}
        Body::Symlink { target } => put_bytes(out, target),
        Body::Dir { mode } => put_u64(out, u64::from(*mode)),
        Body::File(file) => {
            put_u64(out, u64::from(file.mode));
            put_u64(out, file.size);
            put_i64(out, file.mtime_ns);
            out.extend_from_slice(&file.content.0);
        }
    }
}

fn put_chunks(out: &mut Vec<u8>, chunks: &[ChunkRef]) {
    for chunk in chunks {
        out.extend_from_slice(&chunk.id.0);
        out.extend_from_slice(&chunk.len.to_le_bytes());
    }
}

fn parse_chunks(bytes: &[u8]) -> Result<Vec<ChunkRef>, Malformed> {
    if !bytes.len().is_multiple_of(CHUNK_REF_LEN) {
        return Err(Malformed("a list of chunks is cut off"));
    }
    let parse = |bytes: &[u8]| {
        let mut reader = Reader(bytes);
        Ok(ChunkRef { id: ChunkId(reader.array()?), len: u32::from_le_bytes(reader.array()?) })
    };
    bytes.chunks_exact(CHUNK_REF_LEN).map(parse).collect()
}

/// The bytes of a blob that were not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed("a row is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("a row is cut off"))
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is out of bounds"))
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        u16::try_from(self.u64()?).map_err(|_| Malformed("a mode is out of bounds"))
    }

    fn count(&mut self, max: usize) -> Result<usize, Malformed> {
        match usize::try_from(self.u64()?) {
            Ok(count) if count <= max => Ok(count),
            _ => Err(Malformed("a count is out of bounds")),
        }
    }

    fn bytes(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let len = self.count(max)?;
        self.take(len)
    }

    fn version(&mut self) -> Result<VersionVector, Malformed> {
        let count = self.count(VERSION_AUTHORS_MAX)?;
        let mut counters = Vec::with_capacity(count);
        for _ in 0..count {
            counters.push((AuthorId(u64::from_le_bytes(self.array()?)), self.u64()?));
        }
        VersionVector::parse(counters).map_err(|_| Malformed("a version that cannot be"))
    }

    fn body(&mut self, kind: u8) -> Result<Body, Malformed> {
        Ok(match kind {
            0 => Body::Tombstone,
            1 => Body::Symlink { target: self.bytes(SYMLINK_LEN_MAX)?.into() },
            2 => {
                let (mode, size, mtime_ns) = (self.u16()?, self.u64()?, self.i64()?);
                Body::File(FileBody { mode, mtime_ns, size, content: ContentId(self.array()?) })
            }
            3 => Body::Dir { mode: self.u16()? },
            _ => return Err(Malformed("an unknown kind")),
        })
    }

    fn stat_kind(&mut self) -> Result<Kind, Malformed> {
        Ok(match self.u8()? {
            0 => Kind::File,
            1 => Kind::Dir,
            2 => Kind::Symlink,
            3 => Kind::Special,
            _ => return Err(Malformed("an unknown kind of stat")),
        })
    }

    fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("a row is too long")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn local() -> Local {
        let body = Body::File(FileBody { mode: 0o644, mtime_ns: -5, size: 70_000, content: ContentId([7; 32]) });
        let version = VersionVector::parse(vec![(AuthorId(1), 300), (AuthorId(u64::MAX), 1)]).unwrap();
        let path = RelPath::parse(b"a/b \xff").unwrap();
        let stat =
            Stat { kind: Kind::File, mode: 0o644, size: 70_000, mtime_ns: -5, ctime_ns: 9, dev: 1, ino: u64::MAX };
        let record = Record { path, version, by: DeviceTag([1, 2, 3, 4, 5]), body };
        Local { record, sequence: Sequence(77), stat: Some(stat), ignored: false, since_ns: i64::MIN }
    }

    fn check(local: &Local, recipe: StoredRecipe) {
        let state = match (local.ignored, local.record.body.is_live()) {
            (false, true) => State::Live,
            (false, false) => State::Deleted,
            (true, true) => State::IgnoredLive,
            (true, false) => State::IgnoredDeleted,
        };
        let blob = encode_entry(local, state, recipe);
        let entry = decode_entry(local.record.path.clone(), state, local.sequence, &blob).unwrap();
        assert_eq!((&entry.local, entry.recipe), (local, recipe));
        for at in 0..blob.len() {
            let mut wrong = blob.clone();
            wrong[at] ^= 1 << (at % 8);
            assert!(decode_entry(local.record.path.clone(), state, local.sequence, &wrong).is_err());
            assert!(decode_entry(local.record.path.clone(), state, local.sequence, &blob[..at]).is_err());
        }
        let elsewhere = RelPath::parse(b"elsewhere").unwrap();
        assert!(decode_entry(elsewhere, state, local.sequence, &blob).is_err());
        assert!(decode_entry(local.record.path.clone(), state, Sequence(local.sequence.0 + 1), &blob).is_err());
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_or_not_at_all() {
        let file = local();
        check(&file, StoredRecipe::Unknown);
        check(&file, StoredRecipe::Empty);
        check(&file, StoredRecipe::Single(ChunkId([9; 32])));
        check(&file, StoredRecipe::Parts { recipe: 1 << 40, chunks: 1000 });
        let mut touched = file.clone();
        touched.stat = touched.stat.map(|stat| Stat { mode: 0o600, kind: Kind::Special, ..stat });
        check(&touched, StoredRecipe::Unknown);
        let mut dir = file.clone();
        dir.record.body = Body::Dir { mode: 0o755 };
        dir.ignored = true;
        check(&dir, StoredRecipe::Unknown);
        let mut link = file.clone();
        link.record.body = Body::Symlink { target: (*b"../\xff").into() };
        check(&link, StoredRecipe::Unknown);
        let mut gone = file;
        gone.record.body = Body::Tombstone;
        gone.stat = None;
        check(&gone, StoredRecipe::Unknown);
    }

    #[test]
    fn a_part_stands_only_at_its_place() {
        let chunks = vec![ChunkRef { id: ChunkId([1; 32]), len: 5 }; 3];
        let blob = encode_part(12, &chunks);
        assert_eq!(decode_part(12, &blob), Ok(chunks));
        assert!(decode_part(13, &blob).is_err());
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        assert_eq!(Reader(&[[0xff; 9].as_slice(), &[1]].concat()).u64(), Ok(u64::MAX));
        assert!(Reader(&[[0xff; 9].as_slice(), &[2]].concat()).u64().is_err());
        assert!(Reader(&[0x80; 12]).u64().is_err());
    }

    proptest! {
        #[test]
        fn numbers_survive(value: u64) {
            let mut out = Vec::new();
            put_u64(&mut out, value);
            prop_assert_eq!(Reader(&out).u64(), Ok(value));
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            // The checksum is taken out of the way, for it would hide the parsers behind it.
            let path = || RelPath::parse(b"p").unwrap();
            let mut blob = bytes.clone();
            RowKey::entry(&path(), State::Live, Sequence(1)).seal(&mut blob);
            drop(decode_entry(path(), State::Live, Sequence(1), &blob));
            let mut blob = bytes.clone();
            RowKey::remote(b"p", 1).seal(&mut blob);
            drop(decode_remote(path(), b"p", 1, &blob));
            let mut blob = bytes.clone();
            RowKey::kept(b"p", 1).seal(&mut blob);
            drop(decode_kept(b"p", 1, &blob));
            let mut blob = bytes;
            RowKey::part(1).seal(&mut blob);
            drop(decode_part(1, &blob));
        }

        #[test]
        fn keys_are_ordered_as_paths(a in "[a-c/.-]{1,6}", b in "[a-c/.-]{1,6}") {
            if let (Ok(a), Ok(b)) = (RelPath::parse(a.as_bytes()), RelPath::parse(b.as_bytes())) {
                prop_assert_eq!(path_key(&a).cmp(&path_key(&b)), a.cmp(&b));
                prop_assert_eq!(path_of_key(&path_key(&a)), Ok(a));
            }
        }
    }
}
