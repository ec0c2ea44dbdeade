//! Reads a file once and makes its recipe.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{Advice, fadvise, fdatasync};
use rustix::io::{Errno, pread};

use crate::disk::probe::fstat;
use crate::disk::read::open_expected;
use crate::disk::root::{Root, retry};
use crate::engine::chunker::{ChunkBuffer, Chunker, chunk_len_max};
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

/// Smallest file that several threads read, in bytes.
const SHARED_LEN_MIN: u64 = 48 << 20;
/// How much of it one of them cuts at a time: large enough that where sections meet costs little, small
/// enough that a disk with moving heads reads them nearly in order.
const SECTION_LEN: u64 = 16 << 20;
/// Threads that read one file, at most.
const READERS_MAX: usize = 8;

/// Whether a file is being read by several threads. Where many large files wait, each thread has one of its
/// own to read, and more threads would only take more memory.
static IS_SHARING: AtomicBool = AtomicBool::new(false);

/// The right to read a file with several threads, until it is dropped.
struct SharedTurn;

impl SharedTurn {
    fn take() -> Option<Self> {
        let taken = IS_SHARING.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok().then_some(Self)
    }
}

impl Drop for SharedTurn {
    fn drop(&mut self) {
        IS_SHARING.store(false, Ordering::Release);
    }
}

/// A chunk and where it begins.
type Placed = (u64, ChunkRef);

/// What [`read_chunks`] does, for large files: several threads read, cut and hash a section each.
///
/// Where a chunk ends depends on nothing but where it begins and what follows. So a section may be cut
/// from its first byte on as if a chunk began there: as soon as one of its cuts is also one of the chunks
/// that come from the section before, all that follow are the file's own. What lies between is cut again.
fn read_chunks_shared(
    file: BorrowedFd<'_>,
    size: u64,
    section_len: u64,
    readers: usize,
    cancel: &AtomicBool,
    memory: &mut ChunkBuffer,
) -> Result<Option<Vec<ChunkRef>>, Errno> {
    // A run of zeros has its cuts at multiples of this.
    let section_len = section_len.next_multiple_of(chunk_len_max(size) as u64);
    let count = size.div_ceil(section_len);
    let (next, given_up) = (AtomicU64::new(0), AtomicBool::new(false));
    let read_sections = |memory: &mut ChunkBuffer| {
        let mut sections = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || given_up.load(Ordering::Relaxed) {
                return Ok(Some(sections));
            }
            let end = (number + 1) * section_len;
            match cut_from(file, size, number * section_len, |at| at >= end, cancel, memory) {
                Ok(Some(chunks)) => sections.push((number, chunks)),
                other => {
                    given_up.store(true, Ordering::Relaxed);
                    return other.map(|_| None);
                }
            }
        }
    };
    let results: Vec<Result<_, Errno>> = thread::scope(|scope| {
        let others: Vec<_> = (1..readers).map(|_| scope.spawn(|| read_sections(&mut ChunkBuffer::default()))).collect();
        let own = read_sections(memory);
        let others = others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        std::iter::once(own).chain(others).collect()
    });
    let mut sections = BTreeMap::new();
    for result in results {
        let Some(read) = result? else { return Ok(None) };
        sections.extend(read);
    }
    let mut chunks: Vec<ChunkRef> = Vec::new();
    let mut at = 0;
    for (_, section) in sections {
        let is_cut = |at: u64| section.binary_search_by_key(&at, |(start, _)| *start);
        let last_end = section.last().map_or(0, |(start, chunk)| start + u64::from(chunk.len));
        if at < last_end && is_cut(at).is_err() {
            let stop = |at| at >= last_end || is_cut(at).is_ok();
            let Some(between) = cut_from(file, size, at, stop, cancel, memory)? else { return Ok(None) };
            at = between.last().map_or(at, |(start, chunk)| start + u64::from(chunk.len));
            chunks.extend(between.into_iter().map(|(_, chunk)| chunk));
        }
        if let Ok(first) = is_cut(at) {
            chunks.extend(section[first..].iter().map(|(_, chunk)| *chunk));
            at = last_end;
        }
    }
    let has_grown = retry(|| pread(file, &mut [0; 1], size))? > 0;
    Ok((at == size && !has_grown).then_some(chunks))
}

/// Cuts a file of `size` bytes from `begin` on, until a chunk has ended where `stop` says so, or the file
/// has. `None`: it has another size, as far as was seen.
fn cut_from(
    file: BorrowedFd<'_>,
    size: u64,
    begin: u64,
    stop: impl Fn(u64) -> bool,
    cancel: &AtomicBool,
    memory: &mut ChunkBuffer,
) -> Result<Option<Vec<Placed>>, Errno> {
    let mut chunks = Vec::new();
    let mut chunker = Chunker::new(size, memory);
    let mut at = begin;
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let read_to = begin + chunker.taken();
        let left = size.saturating_sub(read_to);
        // The end is known by the size; asking for it would be one more call for each small file.
        let len = retry(|| pread(file, chunker.buffer(), read_to))? as u64;
        if len > left || (len == 0 && left > 0) {
            return Ok(None);
        }
        chunker.advance(len as usize);
        if len == left {
            chunker.end();
        }
        while let Some(chunk) = chunker.next_chunk() {
            chunks.push((at, chunk));
            at += u64::from(chunk.len);
            if stop(at) {
                return Ok(Some(chunks));
            }
        }
        if len == left {
            return Ok(Some(chunks));
        }
    }
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
    if size >= SHARED_LEN_MIN
        && let Some(_turn) = SharedTurn::take()
    {
        let readers = thread::available_parallelism().map_or(1, usize::from).min(READERS_MAX);
        return read_chunks_shared(file, size, SECTION_LEN, readers, cancel, memory);
    }
    let chunks = cut_from(file, size, 0, |_| false, cancel, memory)?;
    Ok(chunks.map(|chunks| chunks.into_iter().map(|(_, chunk)| chunk).collect()))
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
    fn a_recipe_is_the_same_however_many_threads_read() {
        let folder = Folder::new();
        let noise: Vec<u8> = (0..9_000_001u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut with_zeros = noise.clone();
        with_zeros[2_000_000..6_500_000].fill(0);
        // Sections of these never meet: after the noise there are only cuts at the greatest length, and not
        // where the sections begin.
        let shifted = [&noise[..100_000], &vec![0; 8_900_001]].concat();
        let never = AtomicBool::new(false);
        let mut memory = ChunkBuffer::default();
        for bytes in [&noise, &with_zeros, &vec![0; 9_000_001], &shifted] {
            folder.write("f", bytes);
            let size = bytes.len() as u64;
            let mut read = |size, section_len, readers| {
                let file = open_expected(&folder.root, &path("f"), &folder.stat("f")).unwrap().unwrap();
                read_chunks_shared(file.as_fd(), size, section_len, readers, &never, &mut memory).unwrap()
            };
            for (section_len, readers) in [(1, 3), (1 << 20, 1), (3 << 20, 2), (64 << 20, 2)] {
                let chunks = read(size, section_len, readers);
                assert_eq!(chunks.as_deref(), Some(chunk_all(bytes).chunks()), "{section_len}");
            }
            for wrong in [size - 1, size + 1] {
                assert_eq!(read(wrong, 1 << 20, 2), None, "{wrong}");
            }
        }
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
