//! The staging area: where files are put together before they take their place.
//!
//! A staged file is `.kinfold/staging/<content id>-<copy>`, so that an interrupted transfer goes on
//! where it stopped: what lies there is read and checked against the recipe, never believed. What
//! comes from elsewhere in the folder is checked chunk by chunk too; what comes from the network is a
//! [`VerifiedChunk`]. Chunks that are all zero stay holes.
//!
//! A crash leaves staged files behind; [`sweep`] removes those that nobody asks for any more.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Advice, AtFlags, Dir, Mode, OFlags, chmodat, fadvise, ftruncate, openat, unlinkat};
use rustix::io::Errno;

use crate::disk::copy::{copy_all, next_data, read_full_at, write_all_at};
use crate::disk::fault::{detail, write_problem};
use crate::disk::hash::read_chunks;
use crate::disk::probe::{fstat, lstat};
use crate::disk::read::open_expected;
use crate::disk::root::{Own, Root, retry};
use crate::engine::chunk::VerifiedChunk;
use crate::engine::chunker::{ChunkBuffer, chunk_len_max};
use crate::engine::effect::{AssembleOutcome, AssemblePlan, Piece, StageId};
use crate::model::id::{ChunkId, ContentId};
use crate::model::problem::ProblemKind;
use crate::model::recipe::{ChunkRef, Recipe};
use crate::model::stat::Kind;

/// Staged files that are kept open for the next chunk.
const OPEN_MAX: usize = 64;
/// So much of a file is written before the disk is asked to begin with it.
const WRITEBACK_STEP: u64 = 8 << 20;

/// Why a staged file could not be written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{detail}")]
pub struct StageError {
    /// Which sort of trouble.
    pub kind: ProblemKind,
    /// What was being done, and what the system said.
    pub detail: String,
}

impl StageError {
    fn new(doing: &str, error: Errno) -> Self {
        Self { kind: write_problem(error), detail: detail(doing, error) }
    }
}

/// The memory that [`assemble`] works in, kept from file to file.
#[derive(Debug, Default)]
pub struct Scratch(Vec<u8>);

/// Puts a staged file together from what lies here, and says which chunks are missing.
///
/// All chunks that are not missing were hashed while they lay in the staged file or on their way into
/// it. Sources that are not what they were taken for, or cannot be read, only leave chunks missing.
pub fn assemble(root: &Root, plan: &AssemblePlan, scratch: &mut Scratch) -> AssembleOutcome {
    match try_assemble(root, plan, scratch) {
        Ok(missing) => AssembleOutcome::Staged { missing },
        Err(error) => AssembleOutcome::Failed(write_problem(error), detail("cannot write the staged file", error)),
    }
}

fn try_assemble(root: &Root, plan: &AssemblePlan, scratch: &mut Scratch) -> Result<Vec<u32>, Errno> {
    let file = open_stage(root.own(Own::Staging)?.as_fd(), plan.stage)?;
    let mut stage = Assembly { file: file.as_fd(), recipe: &plan.recipe, have: Vec::new(), scratch: &mut scratch.0 };
    stage.check()?;
    if !stage.is_complete() {
        if let Some(whole) = plan.whole {
            stage.take_whole(root, plan, whole)?;
        }
        stage.take_pieces(root, plan)?;
    }
    if stage.is_complete() {
        retry(|| ftruncate(&file, plan.recipe.size()))?;
    }
    Ok(stage.missing())
}

/// A staged file that is being put together.
struct Assembly<'a> {
    file: BorrowedFd<'a>,
    recipe: &'a Recipe,
    /// Which chunks lie in the file and were hashed there.
    have: Vec<bool>,
    scratch: &'a mut Vec<u8>,
}

impl Assembly<'_> {
    /// Finds out which chunks the staged file has.
    fn check(&mut self) -> Result<(), Errno> {
        let size = fstat(self.file)?.size;
        let mut zeros = Zeros::of(self.recipe);
        let mut data = next_data(self.file, 0, size)?;
        self.have.clear();
        for (at, chunk) in self.recipe.places() {
            let end = at + u64::from(chunk.len);
            while data.is_some_and(|(_, hole)| hole <= at) {
                data = next_data(self.file, at, size)?;
            }
            let is_hole = data.is_none_or(|(data, _)| data >= end);
            let has = if is_hole {
                zeros.is_zero(chunk)
            } else {
                // A chunk that cannot be read back is fetched; writing it will show what is wrong.
                end <= size && read_chunk(self.file, at, chunk, self.scratch).unwrap_or(false)
            };
            self.have.push(has);
        }
        Ok(())
    }

    /// Copies a source that should have the same content, and checks what came of it.
    fn take_whole(&mut self, root: &Root, plan: &AssemblePlan, whole: u32) -> Result<(), Errno> {
        let Some(source) = plan.sources.get(whole as usize) else { return Ok(()) };
        let Ok(Some(from)) = open_expected(root, &source.path, &source.stat) else { return Ok(()) };
        match copy_all(from.as_fd(), self.file) {
            Ok(()) => {}
            Err(error) if is_no_room(error) => return Err(error),
            // The source failed; what did arrive is checked like all else.
            Err(_) => {}
        }
        self.check()
    }

    fn take_pieces(&mut self, root: &Root, plan: &AssemblePlan) -> Result<(), Errno> {
        let places: Vec<(u64, ChunkRef)> = self.recipe.places().collect();
        let mut open: Option<(u32, Option<OwnedFd>)> = None;
        for piece in &plan.pieces {
            let Some(source) = plan.sources.get(piece.source as usize) else { continue };
            if open.as_ref().is_none_or(|(held, _)| *held != piece.source) {
                open = Some((piece.source, open_expected(root, &source.path, &source.stat).unwrap_or(None)));
            }
            if let Some((_, Some(from))) = &open {
                self.take_piece(from.as_fd(), piece, &places)?;
            }
        }
        Ok(())
    }

    fn take_piece(&mut self, from: BorrowedFd<'_>, piece: &Piece, places: &[(u64, ChunkRef)]) -> Result<(), Errno> {
        let run = piece.chunk as usize..(piece.chunk as usize).saturating_add(piece.chunks as usize);
        let mut offset = piece.offset;
        for n in run {
            let Some((at, chunk)) = places.get(n).copied() else { break };
            if !self.have[n] && matches!(read_chunk(from, offset, chunk, self.scratch), Ok(true)) {
                write_chunk_at(self.file, at, &self.scratch[..chunk.len as usize])?;
                self.have[n] = true;
            }
            offset = offset.saturating_add(u64::from(chunk.len));
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.have.iter().all(|has| *has)
    }

    fn missing(&self) -> Vec<u32> {
        (0u32..).zip(&self.have).filter(|(_, has)| !**has).map(|(n, _)| n).collect()
    }
}

/// Reads a chunk and returns whether it is the one.
fn read_chunk(file: BorrowedFd<'_>, at: u64, chunk: ChunkRef, scratch: &mut Vec<u8>) -> Result<bool, Errno> {
    let len = chunk.len as usize;
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    let bytes = &mut scratch[..len];
    Ok(read_full_at(file, at, bytes)? == len && ChunkId::of(bytes) == chunk.id)
}

/// Writes a chunk to its place; one that is all zero is left a hole where nothing lies there yet.
fn write_chunk_at(file: BorrowedFd<'_>, at: u64, bytes: &[u8]) -> Result<(), Errno> {
    if is_zero(bytes) && next_data(file, at, at + bytes.len() as u64)?.is_none() {
        return Ok(());
    }
    write_all_at(file, at, bytes)
}

/// Has the disk begin with what was written of a large file, so that the flush before its commit finds
/// little left to do. The advice that the pages are not needed does just that for those that are dirty
/// (posix_fadvise(2)); it waits for nothing, and what comes of it changes no content.
fn begin_writeback(file: BorrowedFd<'_>, at: u64, len: u64) {
    let step = (at + len) / WRITEBACK_STEP;
    if let Some(before) = step.checked_sub(1)
        && step > at / WRITEBACK_STEP
    {
        fadvise(file, before * WRITEBACK_STEP, NonZeroU64::new(WRITEBACK_STEP), Advice::DontNeed).ok();
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        // Each byte equals the one before it: one comparison of memory, where a loop would take long.
        [first, rest @ ..] => *first == 0 && *rest == bytes[..rest.len()],
    }
}

/// Knows the ids of the chunks of zeros that a recipe may have: the longest ones, and the last.
///
/// Others exist only where the recipe is not of our chunker, and then are merely fetched.
struct Zeros {
    known: Vec<ChunkRef>,
}

impl Zeros {
    fn of(recipe: &Recipe) -> Self {
        // A file of one chunk is rarely all zero, and small: not worth the hashing.
        let [.., _, last] = recipe.chunks() else { return Self { known: Vec::new() } };
        let longest = chunk_len_max(recipe.size()) as u32;
        let zero = |len: u32| ChunkRef { id: ChunkId::of(&vec![0; len as usize]), len };
        let known = if recipe.chunks().iter().any(|c| c.len == longest) {
            vec![zero(longest), zero(last.len)]
        } else {
            Vec::new()
        };
        Self { known }
    }

    fn is_zero(&mut self, chunk: ChunkRef) -> bool {
        self.known.contains(&chunk)
    }
}

fn is_no_room(error: Errno) -> bool {
    write_problem(error) == ProblemKind::DiskFull || error == Errno::ROFS
}

/// The staged files that chunks are arriving for. One for each folder; shared between threads.
#[derive(Debug, Default)]
pub struct Staging {
    held: Mutex<Held>,
}

/// Handles that are kept for the next chunk: looking names up again costs more than writing a small file.
#[derive(Debug, Default)]
struct Held {
    /// The staging area, and the root it belongs to.
    dir: Option<((u64, u64), Arc<OwnedFd>)>,
    /// Staged files, the most recently used last.
    files: Vec<(StageId, Arc<OwnedFd>)>,
}

impl Staging {
    /// Writes a chunk to its place in a staged file, which is made if it is missing.
    ///
    /// That the chunk is the one that the recipe has at this place is for the caller to know.
    pub fn write_chunk(
        &self,
        root: &Root,
        stage: StageId,
        offset: u64,
        chunk: &VerifiedChunk,
    ) -> Result<(), StageError> {
        let write = || {
            let file = self.file(root, stage)?;
            write_chunk_at(file.as_fd(), offset, chunk.bytes())?;
            begin_writeback(file.as_fd(), offset, chunk.bytes().len() as u64);
            Ok(())
        };
        write().map_err(|error| StageError::new("cannot write the staged file", error))
    }

    /// Gives a staged file that has all its chunks its exact size, and lets go of it.
    ///
    /// It is not durable yet; committing it makes it so.
    pub fn finish(&self, root: &Root, stage: StageId, size: u64) -> Result<(), StageError> {
        let finish = || {
            // Most have it already: only where the end is a hole, or a longer try lay there, it is missing.
            // One that vanished must not come back empty, for nobody would look at its content again.
            let found = lstat(self.dir(root)?.as_fd(), stage_name(stage).as_bytes())?.ok_or(Errno::NOENT)?;
            if found.size == size {
                return Ok(());
            }
            let file = self.file(root, stage)?;
            retry(|| ftruncate(&*file, size))
        };
        let result = finish().map_err(|error| StageError::new("cannot finish the staged file", error));
        self.forget(stage);
        result
    }

    /// Gives a staged file its exact size and cuts it into chunks, for nobody knew its recipe beforehand. `None` where
    /// no recipe has so many chunks, or `cancel` is set.
    pub fn recipe(
        &self,
        root: &Root,
        stage: StageId,
        size: u64,
        cancel: &AtomicBool,
        memory: &mut ChunkBuffer,
    ) -> Result<Option<Recipe>, StageError> {
        let mut cut = || {
            let file = self.file(root, stage)?;
            retry(|| ftruncate(&*file, size))?;
            read_chunks(file.as_fd(), size, cancel, memory)
        };
        let chunks = cut().map_err(|error| StageError::new("cannot read the staged file", error));
        self.forget(stage);
        Ok(chunks?.and_then(|chunks| Recipe::parse(chunks).ok()))
    }

    /// Removes a staged file, if there is one.
    pub fn discard(&self, root: &Root, stage: StageId) -> Result<(), StageError> {
        self.forget(stage);
        let discard = || match unlinkat(&*self.dir(root)?, stage_name(stage), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        };
        discard().map_err(|error| StageError::new("cannot remove the staged file", error))
    }

    fn file(&self, root: &Root, stage: StageId) -> Result<Arc<OwnedFd>, Errno> {
        let held = self.lock().take(stage);
        let file = match held {
            Some(file) => file,
            None => Arc::new(self.open(root, stage)?),
        };
        let files = &mut self.lock().files;
        if files.len() >= OPEN_MAX {
            files.remove(0);
        }
        files.push((stage, file.clone()));
        Ok(file)
    }

    fn open(&self, root: &Root, stage: StageId) -> Result<OwnedFd, Errno> {
        match open_stage(self.dir(root)?.as_fd(), stage) {
            // The directory that is held was removed; it is made anew.
            Err(Errno::NOENT) => {
                self.lock().dir = None;
                open_stage(self.dir(root)?.as_fd(), stage)
            }
            other => other,
        }
    }

    /// Returns the staging area of a root.
    fn dir(&self, root: &Root) -> Result<Arc<OwnedFd>, Errno> {
        let mut held = self.lock();
        match &held.dir {
            Some((of, dir)) if *of == root.identity() => Ok(dir.clone()),
            _ => {
                let dir = Arc::new(root.own(Own::Staging)?);
                held.files.clear();
                held.dir = Some((root.identity(), dir.clone()));
                Ok(dir)
            }
        }
    }

    fn forget(&self, stage: StageId) {
        self.lock().take(stage);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // A thread that panicked while it held the lock left lists that are still lists.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn take(&mut self, stage: StageId) -> Option<Arc<OwnedFd>> {
        let at = self.files.iter().rposition(|(held, _)| *held == stage)?;
        Some(self.files.remove(at).1)
    }
}

/// Removes what earlier runs left in the staging area: staged files that `keep` does not want, and
/// unfinished files of other kinds, each if it was last written before `before_ns`.
///
/// Returns how many were removed. Those that are wanted are gone on with by [`assemble`].
pub fn sweep(root: &Root, keep: impl Fn(StageId) -> bool, before_ns: i64) -> Result<usize, StageError> {
    let sweep = || {
        let dir = root.own(Own::Staging)?;
        let mut removed = 0;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || parse_stage_name(name).is_some_and(&keep) {
                continue;
            }
            let Some(stat) = lstat(dir.as_fd(), name)? else { continue };
            if stat.mtime_ns.max(stat.ctime_ns) < before_ns {
                let flags = match stat.kind {
                    Kind::Dir => AtFlags::REMOVEDIR,
                    _ => AtFlags::empty(),
                };
                // What cannot be removed stays; it is only space.
                removed += usize::from(unlinkat(&dir, name, flags).is_ok());
            }
        }
        Ok(removed)
    };
    sweep().map_err(|error| StageError::new("cannot sweep the staging area", error))
}

/// Returns the name of a staged file.
pub(crate) fn stage_name(stage: StageId) -> String {
    format!("{}-{}", stage.content, stage.copy)
}

fn parse_stage_name(name: &[u8]) -> Option<StageId> {
    let (content, copy) = name.split_at_checked(64)?;
    let content = data_encoding::HEXLOWER.decode(content).ok()?.try_into().ok()?;
    let copy = std::str::from_utf8(copy.strip_prefix(b"-")?).ok()?.parse().ok()?;
    Some(StageId { content: ContentId(content), copy })
}

fn open_stage(staging: BorrowedFd<'_>, stage: StageId) -> Result<OwnedFd, Errno> {
    open_own(staging, &stage_name(stage), OFlags::RDWR | OFlags::CREATE)
}

/// Opens a file in the staging area.
pub(crate) fn open_own(staging: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    match openat(staging, name, flags, mode) {
        // A commit that was broken off gave it the mode of the file to be.
        Err(Errno::ACCESS) => {
            chmodat(staging, name, mode, AtFlags::empty())?;
            openat(staging, name, flags, mode)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::{Folder, path};
    use crate::engine::chunker::chunk_all;
    use crate::engine::effect::Source;
    use std::os::unix::fs::MetadataExt;

    const NONE: [u32; 0] = [];

    fn noise(seed: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn plan(bytes: &[u8]) -> AssemblePlan {
        let recipe = chunk_all(bytes);
        let stage = StageId { content: recipe.content_id(), copy: 0 };
        AssemblePlan { stage, recipe, sources: Vec::new(), pieces: Vec::new(), whole: None }
    }

    fn run(folder: &Folder, plan: &AssemblePlan) -> Vec<u32> {
        match assemble(&folder.root, plan, &mut Scratch::default()) {
            AssembleOutcome::Staged { missing } => missing,
            AssembleOutcome::Failed(kind, detail) => panic!("{kind:?}: {detail}"),
        }
    }

    fn source(folder: &Folder, at: &str) -> Source {
        Source { path: path(at), stat: folder.stat(at) }
    }

    fn staged(folder: &Folder, plan: &AssemblePlan) -> Vec<u8> {
        folder.read(&format!(".kinfold/staging/{}", stage_name(plan.stage)))
    }

    fn fetch(folder: &Folder, staging: &Staging, plan: &AssemblePlan, bytes: &[u8], wanted: &[u32]) {
        for (n, (at, chunk)) in plan.recipe.places().enumerate() {
            if wanted.contains(&(n as u32)) {
                let chunk = VerifiedChunk::hash(bytes[at as usize..][..chunk.len as usize].to_vec());
                staging.write_chunk(&folder.root, plan.stage, at, &chunk).unwrap();
            }
        }
    }

    #[test]
    fn a_file_that_is_nowhere_is_all_missing_and_comes_chunk_by_chunk() {
        let folder = Folder::new();
        let bytes = noise(1, 1_000_000);
        let plan = plan(&bytes);
        let all: Vec<u32> = (0..plan.recipe.chunks().len() as u32).collect();
        assert_eq!(run(&folder, &plan), all);
        let staging = Staging::default();
        fetch(&folder, &staging, &plan, &bytes, &all);
        staging.finish(&folder.root, plan.stage, plan.recipe.size()).unwrap();
        assert_eq!(staged(&folder, &plan), bytes);
        assert_eq!(run(&folder, &plan), NONE);
        staging.discard(&folder.root, plan.stage).unwrap();
        staging.discard(&folder.root, plan.stage).unwrap();
        assert_eq!(folder.names(".kinfold/staging"), Vec::<String>::new());
    }

    #[test]
    fn an_empty_file_is_complete_at_once() {
        let folder = Folder::new();
        let plan = plan(b"");
        assert_eq!(run(&folder, &plan), NONE);
        assert_eq!(staged(&folder, &plan), b"");
    }

    #[test]
    fn what_was_fetched_before_a_crash_is_not_fetched_again() {
        let folder = Folder::new();
        let bytes = noise(2, 2_000_000);
        let plan = plan(&bytes);
        let all: Vec<u32> = (0..plan.recipe.chunks().len() as u32).collect();
        fetch(&folder, &Staging::default(), &plan, &bytes, &all[3..7]);
        let mut missing = all.clone();
        missing.drain(3..7);
        assert_eq!(run(&folder, &plan), missing);
    }

    #[test]
    fn a_staged_file_is_not_believed() {
        let folder = Folder::new();
        let bytes = noise(3, 1_000_000);
        let plan = plan(&bytes);
        let mut wrong = bytes.clone();
        let at = plan.recipe.places().nth(2).unwrap().0 as usize;
        wrong[at + 5] ^= 1;
        wrong.extend_from_slice(b"and more than there should be");
        folder.write(&format!(".kinfold/staging/{}", stage_name(plan.stage)), &wrong);
        assert_eq!(run(&folder, &plan), [2]);
        let staging = Staging::default();
        fetch(&folder, &staging, &plan, &bytes, &[2]);
        staging.finish(&folder.root, plan.stage, plan.recipe.size()).unwrap();
        assert_eq!(staged(&folder, &plan), bytes);
    }

    #[test]
    fn a_source_with_the_same_content_is_copied_whole_and_checked() {
        let folder = Folder::new();
        let bytes = noise(4, 1_000_000);
        let mut plan = plan(&bytes);
        folder.write("same", &bytes);
        plan.sources = vec![source(&folder, "same")];
        plan.whole = Some(0);
        assert_eq!(run(&folder, &plan), NONE);
        assert_eq!(staged(&folder, &plan), bytes);

        // Rotten on the disk: the stat says nothing of it.
        let mut rotten = bytes.clone();
        rotten[0] ^= 1;
        folder.write("same", &rotten);
        plan.sources = vec![source(&folder, "same")];
        plan.stage.copy = 1;
        assert_eq!(run(&folder, &plan), [0]);
    }

    #[test]
    fn pieces_come_from_where_they_lie_if_they_are_what_they_should_be() {
        let folder = Folder::new();
        let bytes = noise(5, 1_500_000);
        let mut plan = plan(&bytes);
        let places: Vec<_> = plan.recipe.places().collect();
        let (from, to) = (places[2].0 as usize, places[6].0 as usize);
        folder.write("other", &[&b"header"[..], &bytes[from..to], b"trailer"].concat());
        folder.write("liar", &noise(6, 1_500_000));
        plan.sources = vec![source(&folder, "other"), source(&folder, "liar")];
        plan.pieces = vec![
            Piece { chunk: 0, chunks: 2, source: 1, offset: 0 },
            Piece { chunk: 2, chunks: 4, source: 0, offset: 6 },
            Piece { chunk: 6, chunks: 9999, source: 0, offset: u64::MAX - 3 },
            Piece { chunk: 7, chunks: 1, source: 7, offset: 0 },
        ];
        let mut missing: Vec<u32> = (0..places.len() as u32).collect();
        missing.drain(2..6);
        assert_eq!(run(&folder, &plan), missing);

        // Another file there now is not used.
        folder.set_mode("other", 0o600);
        plan.stage.copy = 1;
        assert_eq!(run(&folder, &plan).len(), places.len());
    }

    #[test]
    fn sparse_stays_sparse() {
        let folder = Folder::new();
        let mut bytes = vec![0; 8 << 20];
        bytes[3 << 20] = 1;
        let plan = plan(&bytes);
        let missing = run(&folder, &plan);
        assert!(missing.len() <= 3, "zeros are not fetched: {missing:?}");
        let staging = Staging::default();
        let all: Vec<u32> = (0..plan.recipe.chunks().len() as u32).collect();
        fetch(&folder, &staging, &plan, &bytes, &all);
        staging.finish(&folder.root, plan.stage, plan.recipe.size()).unwrap();
        assert_eq!(staged(&folder, &plan), bytes);
        let at = folder.at(&format!(".kinfold/staging/{}", stage_name(plan.stage)));
        assert!(std::fs::metadata(at).unwrap().blocks() * 512 <= 1 << 20);
    }

    #[test]
    fn zeros_are_written_where_something_else_lies() {
        let folder = Folder::new();
        let mut bytes = vec![0; 1 << 20];
        bytes.extend(noise(7, 100_000));
        let plan = plan(&bytes);
        folder.write(&format!(".kinfold/staging/{}", stage_name(plan.stage)), &noise(8, 1_200_000));
        let missing = run(&folder, &plan);
        assert_eq!(missing.len(), plan.recipe.chunks().len());
        let staging = Staging::default();
        fetch(&folder, &staging, &plan, &bytes, &missing);
        staging.finish(&folder.root, plan.stage, plan.recipe.size()).unwrap();
        assert_eq!(staged(&folder, &plan), bytes);
    }

    #[test]
    fn more_files_than_are_kept_open_are_written_all_the_same() {
        let folder = Folder::new();
        let staging = Staging::default();
        let plans: Vec<_> = (0..100u8).map(|n| (plan(&[n; 100]), [n; 100])).collect();
        for half in [0, 50] {
            for (plan, bytes) in &plans {
                let chunk = VerifiedChunk::hash(bytes[half..half + 50].to_vec());
                staging.write_chunk(&folder.root, plan.stage, half as u64, &chunk).unwrap();
            }
        }
        assert!(staging.lock().files.len() <= OPEN_MAX);
        for (plan, bytes) in &plans {
            staging.finish(&folder.root, plan.stage, 100).unwrap();
            assert_eq!(staged(&folder, plan), bytes);
        }
    }

    #[test]
    fn a_staged_file_that_vanished_is_not_finished_with_zeros() {
        let folder = Folder::new();
        let staging = Staging::default();
        let plan = plan(&[7; 100]);
        staging.write_chunk(&folder.root, plan.stage, 0, &VerifiedChunk::hash(vec![7; 100])).unwrap();
        std::fs::remove_file(folder.at(&format!(".kinfold/staging/{}", stage_name(plan.stage)))).unwrap();
        let finished = staging.finish(&folder.root, plan.stage, 100);
        assert!(finished.is_err());
        assert_eq!(folder.names(".kinfold/staging"), Vec::<String>::new());
    }

    #[test]
    fn a_staging_area_that_was_removed_is_made_anew() {
        let folder = Folder::new();
        let staging = Staging::default();
        for n in 1..3u8 {
            let plan = plan(&[n; 100]);
            staging.write_chunk(&folder.root, plan.stage, 0, &VerifiedChunk::hash(vec![n; 100])).unwrap();
            assert_eq!(staged(&folder, &plan), [n; 100]);
            std::fs::remove_dir_all(folder.at(".kinfold/staging")).unwrap();
        }
    }

    #[test]
    fn a_sweep_removes_what_nobody_wants() {
        let folder = Folder::new();
        let (wanted, unwanted) = (plan(b"wanted"), plan(b"unwanted"));
        run(&folder, &wanted);
        run(&folder, &unwanted);
        folder.write(".kinfold/staging/leftover", b"x");
        let keep = |stage| stage == wanted.stage;
        assert_eq!(sweep(&folder.root, keep, 0).unwrap(), 0);
        assert_eq!(sweep(&folder.root, keep, i64::MAX).unwrap(), 2);
        assert_eq!(folder.names(".kinfold/staging"), [stage_name(wanted.stage)]);
    }
}
