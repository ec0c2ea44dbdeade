//! Reads a file once and makes its recipe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{Advice, fadvise, fdatasync};
use rustix::io::{Errno, read};

use crate::disk::probe::fstat;
use crate::disk::read::open_expected;
use crate::disk::root::{Root, retry};
use crate::engine::chunker::{ChunkBuffer, Chunker};
use crate::engine::effect::HashOutcome;
use crate::model::path::RelPath;
use crate::model::recipe::{ChunkRef, Recipe};
use crate::model::stat::Stat;

/// Whether a file's content is made durable before it is spoken of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// It is left to the system, or to one [`Root::sync`] for many files.
    Later,
    /// It is flushed to the disk before the recipe is returned, so that no record is ahead of it.
    Now,
}

/// Age that a change must have before a file is read, longer than the coarsest tick of kernels whose
/// files have coarse times (10 ms at 100 Hz).
const SETTLED_NS: i64 = 12_000_000;

/// Reads a file that must be `expected`, and returns its recipe.
///
/// The recipe is of one state of the file: its stat was the same before and after. A change is also
/// seen on systems with coarse file times, because a file that changed a moment ago is given that
/// moment before it is read. Sparse files are read as the zeros that they stand for. When `cancel` is
/// set, the answer is [`HashOutcome::Changed`].
pub fn hash_file(
    root: &Root,
    path: &RelPath,
    expected: &Stat,
    durability: Durability,
    cancel: &AtomicBool,
    memory: &mut ChunkBuffer,
) -> HashOutcome {
    match try_hash(root, path, expected, durability, cancel, memory) {
        Ok(Some(recipe)) => HashOutcome::Done { stat: *expected, recipe },
        Ok(None) => HashOutcome::Changed,
        Err(error) => HashOutcome::Failed(io::Error::from(error).to_string()),
    }
}

fn try_hash(
    root: &Root,
    path: &RelPath,
    expected: &Stat,
    durability: Durability,
    cancel: &AtomicBool,
    memory: &mut ChunkBuffer,
) -> Result<Option<Recipe>, Errno> {
    settle(expected.ctime_ns);
    let Some(file) = open_expected(root, path, expected)? else { return Ok(None) };
    let Some(chunks) = read_chunks(file.as_fd(), expected.size, cancel, memory)? else { return Ok(None) };
    if durability == Durability::Now {
        fdatasync(&file)?;
    }
    if fstat(file.as_fd())? != *expected {
        return Ok(None);
    }
    // More chunks than a recipe may have: larger than any file that can be synced.
    Recipe::parse(chunks).map(Some).map_err(|_| Errno::FBIG)
}

/// Reads an open file that should have `size` bytes, and cuts it. `None`: it has another size.
pub(crate) fn read_chunks(
    file: BorrowedFd<'_>,
    size: u64,
    cancel: &AtomicBool,
    memory: &mut ChunkBuffer,
) -> Result<Option<Vec<ChunkRef>>, Errno> {
    if size > 1 << 20 {
        // Only advice: what comes of it changes nothing.
        fadvise(file, 0, None, Advice::Sequential).ok();
    }
    let mut chunks = Vec::new();
    let mut chunker = Chunker::new(size, memory);
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let space = chunker.buffer();
        // The end is known by the size; asking for it would be one more call for each small file.
        let len = retry(|| read(file, &mut *space))?;
        chunker.advance(len);
        if chunker.taken() > size {
            return Ok(None);
        }
        if len == 0 || chunker.taken() == size {
            chunker.end();
        }
        chunks.extend(std::iter::from_fn(|| chunker.next_chunk()));
        if len == 0 || chunker.taken() == size {
            break;
        }
    }
    Ok((chunker.taken() == size).then_some(chunks))
}

/// Waits until a change that comes now would show in the change time.
fn settle(ctime_ns: i64) {
    // A clock before 1970 or a file from the future: its next change will show.
    let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else { return };
    let age = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX).saturating_sub(ctime_ns);
    if (0..SETTLED_NS).contains(&age) {
        thread::sleep(Duration::from_nanos((SETTLED_NS - age).unsigned_abs()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::{Folder, path};
    use crate::engine::chunker::chunk_all;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    fn hash(folder: &Folder, at: &str, expected: &Stat) -> HashOutcome {
        let mut memory = ChunkBuffer::default();
        let never = AtomicBool::new(false);
        hash_file(&folder.root, &path(at), expected, Durability::Now, &never, &mut memory)
    }

    #[test]
    fn a_recipe_is_that_of_the_bytes() {
        let folder = Folder::new();
        let mut memory = ChunkBuffer::default();
        for len in [0, 1, 5000, 16 << 10, 2_000_000, 300_000] {
            let bytes: Vec<u8> = (0..len).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            folder.write("f", &bytes);
            let stat = folder.stat("f");
            let never = AtomicBool::new(false);
            let outcome = hash_file(&folder.root, &path("f"), &stat, Durability::Later, &never, &mut memory);
            assert_eq!(outcome, HashOutcome::Done { stat, recipe: chunk_all(&bytes) });
        }
    }

    #[test]
    fn a_sparse_file_is_read_as_zeros() {
        let folder = Folder::new();
        let file = File::create(folder.at("sparse")).unwrap();
        file.set_len(5 << 20).unwrap();
        file.write_all_at(b"data", 3 << 20).unwrap();
        let stat = folder.stat("sparse");
        let recipe = chunk_all(&folder.read("sparse"));
        assert_eq!(hash(&folder, "sparse", &stat), HashOutcome::Done { stat, recipe });
    }

    #[test]
    fn another_file_than_the_expected_is_a_change() {
        let folder = Folder::new();
        folder.write("f", b"before");
        let stat = folder.stat("f");
        folder.write("f", b"after!");
        assert_eq!(hash(&folder, "f", &stat), HashOutcome::Changed);
        std::fs::remove_file(folder.at("f")).unwrap();
        assert_eq!(hash(&folder, "f", &stat), HashOutcome::Changed);
        std::fs::create_dir(folder.at("f")).unwrap();
        assert_eq!(hash(&folder, "f", &stat), HashOutcome::Changed);
        assert_eq!(hash(&folder, "f", &folder.stat("f")), HashOutcome::Changed);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_a_change() {
        let folder = Folder::new();
        let file = File::options().create(true).truncate(true).write(true).open(folder.at("f")).unwrap();
        file.set_len(64 << 20).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|threads| {
            threads.spawn(|| {
                let mut byte = 0u8;
                while !stop.load(Ordering::Relaxed) {
                    byte = byte.wrapping_add(1);
                    file.write_all_at(&[byte], 1000).unwrap();
                    thread::yield_now();
                }
            });
            // The size never changes, only bytes that were read already.
            for _ in 0..5 {
                assert_eq!(hash(&folder, "f", &folder.stat("f")), HashOutcome::Changed);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(matches!(hash(&folder, "f", &folder.stat("f")), HashOutcome::Done { .. }));
    }

    #[test]
    fn an_edit_right_after_reading_shows_in_the_stat() {
        let folder = Folder::new();
        for round in 0..20u8 {
            folder.write("f", &[round; 100]);
            let stat = folder.stat("f");
            assert!(matches!(hash(&folder, "f", &stat), HashOutcome::Done { .. }));
            folder.write("f", &[round + 100; 100]);
            assert_ne!(folder.stat("f"), stat);
        }
    }

    #[test]
    fn a_cancelled_reading_has_no_result() {
        let folder = Folder::new();
        folder.write("f", b"x");
        let cancelled = AtomicBool::new(true);
        let mut memory = ChunkBuffer::default();
        let stat = folder.stat("f");
        let outcome = hash_file(&folder.root, &path("f"), &stat, Durability::Later, &cancelled, &mut memory);
        assert_eq!(outcome, HashOutcome::Changed);
    }
}
