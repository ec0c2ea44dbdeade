//! Reads files again and compares them with what is recorded of them.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;

use crate::disk::copy::read_full_at;
use crate::disk::probe::fstat;
use crate::disk::read::open_expected;
use crate::disk::root::Root;
use crate::engine::effect::{VerifyItem, VerifyOutcome};
use crate::model::id::ChunkId;
use crate::model::limits::CHUNK_LEN_MAX;
use crate::model::recipe::ChunkRef;

/// Bytes that are read in a second where nobody waits for it.
const PACE: u64 = 32 << 20;
/// Largest page of any machine, in bytes.
const PAGE_LEN_MAX: u64 = 64 << 10;
/// Threads that read at a time where somebody does.
const READERS_MAX: usize = 8;

/// Compares files with their recipes, one outcome an item in the same order.
///
/// What the system has of them in memory is given up first, so that it is the disk that is asked. With
/// `is_slow` one thread reads, and pauses; else several read as fast as they can. When `cancel` is set, the rest
/// is answered with [`VerifyOutcome::Changed`].
pub fn verify(root: &Root, items: &[VerifyItem], is_slow: bool, cancel: &AtomicBool) -> Vec<VerifyOutcome> {
    if is_slow {
        let mut buffer = Vec::new();
        return items.iter().map(|item| verify_file(root, item, is_slow, cancel, &mut buffer)).collect();
    }
    let readers = thread::available_parallelism().map_or(1, usize::from).min(READERS_MAX).min(items.len());
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![VerifyOutcome::Changed; items.len()]);
    thread::scope(|scope| {
        for _ in 0..readers {
            scope.spawn(|| {
                let mut buffer = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else {
                        return;
                    };
                    let outcome = verify_file(root, item, is_slow, cancel, &mut buffer);
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner)[at] = outcome;
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn verify_file(
    root: &Root,
    item: &VerifyItem,
    is_slow: bool,
    cancel: &AtomicBool,
    buffer: &mut Vec<u8>,
) -> VerifyOutcome {
    let file = match open_expected(root, &item.path, &item.stat) {
        Ok(Some(file)) => file,
        Ok(None) => return VerifyOutcome::Changed,
        Err(error) => return VerifyOutcome::Failed(io::Error::from(error).to_string()),
    };
    let file = file.as_fd();
    forget(file, 0, None);
    let (mut bad, mut detail) = (0u64, String::new());
    let mut offset = 0;
    for chunk in item.recipe.chunks() {
        if cancel.load(Ordering::Relaxed) {
            return VerifyOutcome::Changed;
        }
        let mut outcome = read_chunk(file, offset, chunk, buffer);
        if outcome != Ok(true) {
            // A second time, and from the disk, for the error may have been on the way here.
            forget(file, offset, Some(chunk));
            outcome = read_chunk(file, offset, chunk, buffer);
        }
        forget(file, offset, Some(chunk));
        match outcome {
            Ok(true) => {}
            Ok(false) => bad += u64::from(chunk.len),
            Err(Errno::IO | Errno::BADMSG | Errno::UCLEAN) => {
                bad += u64::from(chunk.len);
                detail = "the disk cannot read it".to_owned();
            }
            Err(error) => return VerifyOutcome::Failed(io::Error::from(error).to_string()),
        }
        offset += u64::from(chunk.len);
        if is_slow {
            thread::sleep(Duration::from_nanos(u64::from(chunk.len) * 1_000_000_000 / PACE));
        }
    }
    match fstat(file) {
        Ok(stat) if stat == item.stat => {}
        Ok(_) => return VerifyOutcome::Changed,
        Err(error) => return VerifyOutcome::Failed(io::Error::from(error).to_string()),
    }
    if bad > 0 { VerifyOutcome::Damaged { bytes: bad, detail } } else { VerifyOutcome::Intact }
}

/// Reads one chunk. Returns whether it is what it should be.
fn read_chunk(file: BorrowedFd<'_>, offset: u64, chunk: &ChunkRef, buffer: &mut Vec<u8>) -> Result<bool, Errno> {
    let len = chunk.len as usize;
    // A recipe from the index has no longer ones.
    if len > CHUNK_LEN_MAX {
        return Ok(false);
    }
    buffer.resize(len, 0);
    let read = read_full_at(file, offset, buffer)?;
    Ok(read == len && ChunkId::of(buffer) == chunk.id)
}

/// Has the system forget what it holds in memory of a chunk, or without one of all from `offset` on.
///
/// It keeps pages of which only a part is named, so the range begins where the page does that the chunk shares
/// with the one before. The last page goes with the next chunk: it was read from the disk a moment ago, since all
/// of the file was forgotten first. This is only advice: where it is not taken the file is read all the same.
fn forget(file: BorrowedFd<'_>, offset: u64, chunk: Option<&ChunkRef>) {
    let start = offset / PAGE_LEN_MAX * PAGE_LEN_MAX;
    let len = chunk.and_then(|chunk| NonZeroU64::new(offset - start + u64::from(chunk.len)));
    fadvise(file, start, len, Advice::DontNeed).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::hash::{Durability, hash_file};
    use crate::disk::testing::{Folder, path};
    use crate::engine::chunker::ChunkBuffer;
    use crate::engine::effect::HashOutcome;
    use crate::model::stat::Stat;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn item(folder: &Folder, name: &str) -> VerifyItem {
        let (stat, mut memory) = (folder.stat(name), ChunkBuffer::default());
        let outcome = hash_file(&folder.root, &path(name), &stat, Durability::Later, &NEVER, &mut memory);
        let HashOutcome::Done { stat, recipe } = outcome else { panic!("{outcome:?}") };
        VerifyItem { path: path(name), stat, recipe }
    }

    /// Takes what lies there now for what was there: as if the disk had changed it, and not a program.
    fn unseen(folder: &Folder, item: VerifyItem) -> VerifyItem {
        let stat: Stat = folder.stat(std::str::from_utf8(item.path.as_bytes()).unwrap());
        VerifyItem { stat, ..item }
    }

    #[test]
    fn what_changed_on_its_own_is_damage_and_what_a_program_changed_is_a_change() {
        let folder = Folder::new();
        let mut large: Vec<u8> = (0..1_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        folder.write("large", &large);
        folder.write("small", b"as it was");
        folder.write("empty", b"");
        let items = [item(&folder, "large"), item(&folder, "small"), item(&folder, "empty")];
        for is_slow in [false, true] {
            let all = verify(&folder.root, &items, is_slow, &NEVER);
            assert_eq!(all, [VerifyOutcome::Intact, VerifyOutcome::Intact, VerifyOutcome::Intact]);
        }

        large[2_000_000] ^= 1;
        std::fs::write(folder.at("large"), &large).unwrap();
        assert_eq!(verify(&folder.root, &items, false, &NEVER)[0], VerifyOutcome::Changed);
        let [large, small, empty] = items;
        let hit = large.recipe.chunks().iter().scan(0, |end, chunk| {
            *end += u64::from(chunk.len);
            Some((*end, chunk.len))
        });
        let bytes = hit.into_iter().find(|(end, _)| *end > 2_000_000).unwrap().1.into();
        let items = [unseen(&folder, large), small, empty];
        let damaged = VerifyOutcome::Damaged { bytes, detail: String::new() };
        for is_slow in [false, true] {
            let all = verify(&folder.root, &items, is_slow, &NEVER);
            assert_eq!(all, [damaged.clone(), VerifyOutcome::Intact, VerifyOutcome::Intact]);
        }
        assert_eq!(verify(&folder.root, &items, false, &AtomicBool::new(true))[0], VerifyOutcome::Changed);
    }

    #[test]
    fn a_file_that_lost_its_end_is_damaged_and_one_that_is_gone_has_changed() {
        let folder = Folder::new();
        folder.write("f", b"0123456789");
        folder.write("g", b"x");
        let (f, g) = (item(&folder, "f"), item(&folder, "g"));
        std::fs::write(folder.at("f"), b"01234").unwrap();
        std::fs::remove_file(folder.at("g")).unwrap();
        let outcomes = verify(&folder.root, &[unseen(&folder, f), g], false, &NEVER);
        assert_eq!(outcomes, [VerifyOutcome::Damaged { bytes: 10, detail: String::new() }, VerifyOutcome::Changed]);
    }
}
