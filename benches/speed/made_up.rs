//! Files and records that nobody wrote: the same in every run.

use kinfold::engine::index::Local;
use kinfold::model::id::{AuthorId, ChunkId, DeviceTag, Sequence};
use kinfold::model::path::RelPath;
use kinfold::model::recipe::{ChunkRef, Recipe};
use kinfold::model::record::{Body, FileBody, Record};
use kinfold::model::stat::{Kind, Stat};
use kinfold::model::version::VersionVector;

/// Returns bytes without any pattern.
pub fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key("kinfold bench noise").finalize_xof().fill(&mut bytes);
    bytes
}

/// Returns the path of file `n`, of 50 to a directory and 5000 to a directory above.
pub fn path(n: u64) -> RelPath {
    RelPath::parse(format!("d{:03}/e{:04}/f{n:06}.txt", n / 5000, n / 50).as_bytes()).unwrap()
}

/// Returns a recipe of so many chunks, each of which is in no other file.
pub fn recipe(n: u64, chunks: u64) -> Recipe {
    let chunk = |k: u64| ChunkRef { id: ChunkId::of(&(n << 32 | k).to_le_bytes()), len: 60_000 };
    Recipe::parse((0..chunks).map(chunk).collect()).unwrap()
}

/// Returns the version of a change that this author counts as its `count`th.
pub fn version(author: u64, count: u64) -> VersionVector {
    VersionVector::parse(vec![(AuthorId(author), count)]).unwrap()
}

/// Returns what an index holds of file `n`.
pub fn local(n: u64, sequence: Sequence, recipe: &Recipe) -> Local {
    let mtime_ns = 1_700_000_000_000_000_000 + n as i64;
    let body = FileBody { mode: 0o644, mtime_ns, size: recipe.size(), content: recipe.content_id() };
    let stat = Stat {
        kind: Kind::File,
        mode: body.mode,
        size: body.size,
        mtime_ns,
        ctime_ns: mtime_ns,
        dev: 1,
        ino: 1_000_000 + n,
    };
    let record =
        Record { path: path(n), version: version(7, sequence.0), by: DeviceTag([1; 5]), body: Body::File(body) };
    Local { record, sequence, stat: Some(stat), ignored: false, since_ns: mtime_ns }
}
