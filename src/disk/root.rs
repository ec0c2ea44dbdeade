//! The root of a folder: a held directory handle, under which everything is done.
//!
//! Below the root, paths are resolved by `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`:
//! the kernel itself refuses a path that would leave the root or pass through a symbolic link, also
//! one that was put there a moment ago. The root itself may be reached through a link; it is resolved
//! once, when the folder is opened.
//!
//! A folder is recognised by its marker, `.kinfold/marker`, which holds its id. A root that is missing,
//! has no marker, or is another directory than the one that was opened, is an error ([`Root::check`]),
//! never an empty folder: an unmounted disk must not look like a mass deletion.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, fsync, mkdirat, openat, openat2, renameat_with, statat,
    syncfs, unlinkat,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::path::Arg;

use crate::disk::probe::fstat;
use crate::model::id::{Epoch, FolderId};
use crate::model::path::{OWN_DIR, RelPath};
use crate::model::stat::Stat;

/// The name of the marker in the program's own directory.
const MARKER: &str = "marker";
/// The name of the file beside it that holds the epoch of the index.
const EPOCH: &str = "epoch";
/// Longest of the two that is read, in bytes: 32 digits and a line end, with room to spare.
const MARKER_LEN_MAX: usize = 64;

/// How often a path is resolved anew because something on it was renamed meanwhile.
const RESOLVE_TRIES: u32 = 128;

const DIR: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
/// A handle to look things up from; needs no permission to read the directory.
const DIR_PATH: OFlags = DIR.union(OFlags::PATH);

/// The root of a folder, open.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    folder: FolderId,
    dir: OwnedFd,
    dev: u64,
    ino: u64,
    /// Makes flushes fail, as a disk does that is about to die.
    #[cfg(test)]
    pub(crate) sync_fails: std::sync::atomic::AtomicBool,
}

/// Why a directory cannot be used as a folder's root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Nothing lies there.
    #[error("{} is missing", path.display())]
    Missing {
        /// Where the root should be.
        path: PathBuf,
    },
    /// Something else than a directory lies there.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// Where the root should be.
        path: PathBuf,
    },
    /// The directory is no folder's root. Where one was, its disk is not mounted.
    #[error("{} has no folder marker (.kinfold/marker)", path.display())]
    NoMarker {
        /// Where the root should be.
        path: PathBuf,
    },
    /// The directory is the root of another folder.
    #[error("{} belongs to another folder, {found}", path.display())]
    ForeignMarker {
        /// Where the root should be.
        path: PathBuf,
        /// Which folder's it is.
        found: FolderId,
    },
    /// The marker cannot be understood.
    #[error("{} has a damaged folder marker (.kinfold/marker)", path.display())]
    DamagedMarker {
        /// Where the root should be.
        path: PathBuf,
    },
    /// Another directory, or another file system, is where the root was.
    #[error("{} is not the directory that it was", path.display())]
    Swapped {
        /// Where the root should be.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Root {
    /// Makes a directory the root of a folder, and opens it. A missing directory is made.
    ///
    /// A directory that is this folder's root already is completed and opened. One that is another
    /// folder's is refused, and left as it is.
    pub fn create(path: &Path, folder: FolderId) -> Result<Self, RootError> {
        fs::create_dir_all(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                RootError::NotADirectory { path: path.into() }
            }
            _ => RootError::Io { doing: "make", path: path.into(), source },
        })?;
        let root = Self::hold(path, folder)?;
        match root.read_marker() {
            Ok(()) => {}
            Err(RootError::NoMarker { .. }) => root.write_marker()?,
            Err(other) => return Err(other),
        }
        for own in [Own::Staging, Own::History] {
            root.own(own).map_err(|error| root.io_error("make .kinfold in", error))?;
        }
        Ok(root)
    }

    /// Opens the root of a folder.
    pub fn open(path: &Path, folder: FolderId) -> Result<Self, RootError> {
        let root = Self::hold(path, folder)?;
        root.read_marker()?;
        Ok(root)
    }

    /// Checks that the directory at the root's path is still the one that is held, with its marker.
    ///
    /// What a scan did not find is gone only if this held before and after it.
    pub fn check(&self) -> Result<(), RootError> {
        let now = open_root(&self.path)?;
        let stat = fstat(now.as_fd()).map_err(|error| self.io_error("look at", error))?;
        if (stat.dev, stat.ino) != (self.dev, self.ino) {
            // Say what is there: a mount point whose disk is gone has no marker.
            Self::of(self.path.clone(), self.folder, now, &stat).read_marker()?;
            return Err(RootError::Swapped { path: self.path.clone() });
        }
        self.read_marker()
    }

    /// Returns the absolute path of the root, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns which folder this is the root of.
    pub fn folder(&self) -> FolderId {
        self.folder
    }

    /// Returns what tells this root from another directory that takes its place.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Makes all that was written to the root's file system durable; see [`Root::is_on_its_file_system`].
    ///
    /// One call for many files costs about as much as for one. On an error nobody knows what is durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(self.flush()?)
    }

    /// Returns whether something lies on the root's own file system, and not on one mounted below.
    pub fn is_on_its_file_system(&self, stat: &Stat) -> bool {
        stat.dev == self.dev
    }

    pub(crate) fn flush(&self) -> Result<(), Errno> {
        #[cfg(test)]
        if self.sync_fails.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Errno::IO);
        }
        // `syncfs` wants a handle that is more than `O_PATH`; the held one is.
        retry(|| syncfs(&self.dir))
    }

    fn hold(path: &Path, folder: FolderId) -> Result<Self, RootError> {
        let resolved = fs::canonicalize(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => RootError::Missing { path: path.into() },
            io::ErrorKind::NotADirectory => RootError::NotADirectory { path: path.into() },
            _ => RootError::Io { doing: "open", path: path.into(), source },
        })?;
        let dir = open_root(&resolved)?;
        let stat = fstat(dir.as_fd()).map_err(|error| io_error(&resolved, "look at", error))?;
        Ok(Self::of(resolved, folder, dir, &stat))
    }

    fn of(path: PathBuf, folder: FolderId, dir: OwnedFd, stat: &Stat) -> Self {
        let (dev, ino) = (stat.dev, stat.ino);
        Self {
            path,
            folder,
            dir,
            dev,
            ino,
            #[cfg(test)]
            sync_fails: false.into(),
        }
    }

    /// Checks that the marker names this folder.
    fn read_marker(&self) -> Result<(), RootError> {
        let no_marker = || RootError::NoMarker { path: self.path.clone() };
        let text = match self.read_own(MARKER, MARKER_LEN_MAX) {
            Ok(Some(text)) => text,
            Ok(None) => return Err(no_marker()),
            Err(error) => return Err(self.io_error("read the marker of", error)),
        };
        let found = std::str::from_utf8(&text).ok().and_then(|text| FolderId::parse(text.trim_end()));
        match found {
            Some(found) if found == self.folder => Ok(()),
            Some(found) => Err(RootError::ForeignMarker { path: self.path.clone(), found }),
            None => Err(RootError::DamagedMarker { path: self.path.clone() }),
        }
    }

    fn read_own(&self, name: &str, len_max: usize) -> Result<Option<Vec<u8>>, Errno> {
        let own = match openat(&self.dir, OWN_DIR, DIR_PATH, Mode::empty()) {
            Ok(own) => own,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error),
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match openat(&own, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; len_max];
        let mut len = 0;
        while len < len_max {
            match retry(|| rustix::io::read(&file, &mut bytes[len..]))? {
                0 => break,
                read => len += read,
            }
        }
        bytes.truncate(len);
        Ok(Some(bytes))
    }

    /// Writes the marker, whole or not at all, durably, and never over another.
    fn write_marker(&self) -> Result<(), RootError> {
        let write = || {
            make_dir(self.dir.as_fd(), OWN_DIR, 0o700)?;
            self.write_own(MARKER, format!("{}\n", self.folder).as_bytes(), false)?;
            fsync(&self.dir)
        };
        write().map_err(|error| self.io_error("write the marker of", error))?;
        self.read_marker()
    }

    /// Writes one of our own files, whole or not at all, durably.
    fn write_own(&self, name: &str, bytes: &[u8], replaces: bool) -> Result<(), Errno> {
        let own = openat(&self.dir, OWN_DIR, DIR | OFlags::RDONLY, Mode::empty())?;
        let draft = format!("{name}-{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&own, &draft, flags, Mode::from_raw_mode(0o600))?;
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[retry(|| rustix::io::write(&file, rest))?..];
        }
        fsync(&file)?;
        if replaces {
            rustix::fs::renameat(&own, &draft, &own, name)?;
            return fsync(&own);
        }
        match renameat_with(&own, &draft, &own, name, RenameFlags::NOREPLACE) {
            // Somebody else was faster; whose it is will be seen.
            Err(Errno::EXIST) => unlinkat(&own, &draft, AtFlags::empty())?,
            // Only here: its absence was just seen, and nobody but us writes one.
            Err(error) if crate::disk::fault::is_unsupported(error) => {
                rustix::fs::renameat(&own, &draft, &own, name)?;
            }
            other => other?,
        }
        fsync(&own)
    }

    /// Returns the epoch that was last written here, if any.
    pub fn epoch(&self) -> Result<Option<Epoch>, RootError> {
        let text = self.read_own(EPOCH, MARKER_LEN_MAX).map_err(|error| self.io_error("read the epoch of", error))?;
        Ok(text.and_then(|text| Epoch::parse(std::str::from_utf8(&text).ok()?.trim_end())))
    }

    /// Writes down an epoch, durably.
    pub fn set_epoch(&self, epoch: Epoch) -> Result<(), RootError> {
        let write = || self.write_own(EPOCH, format!("{epoch}\n").as_bytes(), true);
        write().map_err(|error| self.io_error("write the epoch of", error))
    }

    fn io_error(&self, doing: &'static str, error: Errno) -> RootError {
        io_error(&self.path, doing, error)
    }

    /// Opens something below the root.
    pub(crate) fn open_beneath(&self, path: impl Arg + Copy, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_beneath(self.dir.as_fd(), path, flags)
    }

    /// Opens a directory (`None`: the root) to look things up from.
    pub(crate) fn dir(&self, dir: Option<&RelPath>) -> Result<OwnedFd, Errno> {
        match dir {
            None => self.root_handle(),
            Some(dir) => self.open_beneath(dir.as_path(), DIR_PATH),
        }
    }

    /// Opens a directory (`None`: the root) to list it, or to make it durable.
    pub(crate) fn dir_to_read(&self, dir: Option<&RelPath>) -> Result<OwnedFd, Errno> {
        match dir {
            // Not a copy of the held handle: two that list share its position.
            None => openat(&self.dir, c".", DIR | OFlags::RDONLY, Mode::empty()),
            Some(dir) => self.open_beneath(dir.as_path(), DIR | OFlags::RDONLY),
        }
    }

    /// Opens the directory that holds a path.
    pub(crate) fn parent(&self, path: &RelPath) -> Result<OwnedFd, Errno> {
        let bytes = path.as_bytes();
        match bytes.iter().rposition(|b| *b == b'/') {
            None => self.root_handle(),
            Some(at) => self.open_beneath(&bytes[..at], DIR_PATH),
        }
    }

    fn root_handle(&self) -> Result<OwnedFd, Errno> {
        fcntl_dupfd_cloexec(&self.dir, 0)
    }

    /// Opens one of the program's own directories; makes it if a person has removed it.
    pub(crate) fn own(&self, own: Own) -> Result<OwnedFd, Errno> {
        let name = own.name();
        let dir = openat(&self.dir, OWN_DIR, DIR_PATH, Mode::empty())?;
        match openat(&dir, name, DIR | OFlags::RDONLY, Mode::empty()) {
            Err(Errno::NOENT) => {
                make_dir(dir.as_fd(), name.as_bytes(), 0o700)?;
                openat(&dir, name, DIR | OFlags::RDONLY, Mode::empty())
            }
            other => other,
        }
    }
}

/// The program's own directories in a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Own {
    /// Files that are being put together.
    Staging,
    /// What was replaced or removed.
    History,
    /// What small texts were lately.
    Bases,
}

impl Own {
    const fn name(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::History => "history",
            Self::Bases => "bases",
        }
    }
}

/// Directory handles by path, for a batch of operations that mostly stay in one directory.
///
/// A handle goes with its directory when that is renamed, so this lives no longer than a batch, and
/// [`Parents::forget`] is called where the batch itself changes directories.
pub(crate) struct Parents<'r> {
    root: &'r Root,
    last: Option<(Box<[u8]>, Rc<OwnedFd>)>,
}

impl<'r> Parents<'r> {
    pub(crate) fn new(root: &'r Root) -> Self {
        Self { root, last: None }
    }

    /// Returns the directory that holds a path.
    pub(crate) fn of(&mut self, path: &RelPath) -> Result<Rc<OwnedFd>, Errno> {
        let bytes = path.as_bytes();
        let parent = &bytes[..bytes.len() - path.name().len()];
        if let Some((held, dir)) = &self.last
            && **held == *parent
        {
            return Ok(dir.clone());
        }
        let dir = Rc::new(self.root.parent(path)?);
        self.last = Some((parent.into(), dir.clone()));
        Ok(dir)
    }

    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}

/// Opens something below a directory; the kernel refuses ways out and symbolic links on the way.
pub(crate) fn open_beneath(dir: BorrowedFd<'_>, path: impl Arg + Copy, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Something was renamed on the way, and the kernel cannot tell whether the path escaped.
            Err(Errno::AGAIN) if tries < RESOLVE_TRIES => tries += 1,
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Makes a directory for the program's own use, if it is missing.
fn make_dir(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<(), Errno> {
    match mkdirat(dir, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens a directory by its absolute path. It is opened for reading, as `syncfs` wants it.
fn open_root(path: &Path) -> Result<OwnedFd, RootError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry(|| openat(CWD, path, flags, Mode::empty())).map_err(|error| match error {
        Errno::NOENT => RootError::Missing { path: path.into() },
        Errno::NOTDIR => match statat(CWD, path, AtFlags::empty()) {
            Ok(_) => RootError::NotADirectory { path: path.into() },
            Err(_) => RootError::Missing { path: path.into() },
        },
        _ => io_error(path, "open", error),
    })
}

fn io_error(path: &Path, doing: &'static str, error: Errno) -> RootError {
    RootError::Io { doing, path: path.into(), source: error.into() }
}

/// Repeats a call that a signal broke off.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::probe::lstat;
    use crate::disk::testing::{Folder, path};
    use std::os::unix::fs::symlink;

    const OURS: FolderId = FolderId([7; 16]);
    const THEIRS: FolderId = FolderId([8; 16]);

    #[test]
    fn a_folder_is_recognised_by_its_marker() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("new/folder");
        assert!(matches!(Root::open(&at, OURS), Err(RootError::Missing { .. })));
        drop(Root::create(&at, OURS).unwrap());
        drop(Root::create(&at, OURS).unwrap());
        drop(Root::open(&at, OURS).unwrap());
        assert_eq!(fs::read_to_string(at.join(".kinfold/marker")).unwrap(), format!("{OURS}\n"));
        for refused in [Root::open(&at, THEIRS), Root::create(&at, THEIRS)] {
            assert!(matches!(refused, Err(RootError::ForeignMarker { found: OURS, .. })));
        }
        fs::write(at.join(".kinfold/marker"), b"what").unwrap();
        assert!(matches!(Root::open(&at, OURS), Err(RootError::DamagedMarker { .. })));
        assert!(matches!(Root::create(&at, OURS), Err(RootError::DamagedMarker { .. })));
        fs::remove_dir_all(at.join(".kinfold")).unwrap();
        assert!(matches!(Root::open(&at, OURS), Err(RootError::NoMarker { .. })));
        fs::write(dir.path().join("file"), b"").unwrap();
        for refused in [Root::open(&dir.path().join("file"), OURS), Root::create(&dir.path().join("file"), OURS)] {
            assert!(matches!(refused, Err(RootError::NotADirectory { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_root_that_vanished_lost_its_marker_or_was_swapped_is_noticed() {
        let folder = Folder::new();
        folder.root.check().unwrap();
        let aside = folder.root.path().with_extension("aside");
        fs::rename(folder.root.path(), &aside).unwrap();
        assert!(matches!(folder.root.check(), Err(RootError::Missing { .. })));
        fs::create_dir(folder.root.path()).unwrap();
        assert!(matches!(folder.root.check(), Err(RootError::NoMarker { .. })));
        fs::remove_dir(folder.root.path()).unwrap();
        drop(Root::create(folder.root.path(), OURS).unwrap());
        assert!(matches!(folder.root.check(), Err(RootError::Swapped { .. })));
        fs::remove_dir_all(folder.root.path()).unwrap();
        fs::rename(&aside, folder.root.path()).unwrap();
        folder.root.check().unwrap();
        fs::remove_file(folder.at(".kinfold/marker")).unwrap();
        assert!(matches!(folder.root.check(), Err(RootError::NoMarker { .. })));
    }

    #[test]
    fn a_root_may_be_reached_through_a_link_but_its_own_directory_may_not_be_one() {
        let folder = Folder::new();
        let dir = tempfile::tempdir().unwrap();
        symlink(folder.root.path(), dir.path().join("link")).unwrap();
        let root = Root::open(&dir.path().join("link"), OURS).unwrap();
        assert_eq!(root.path(), folder.root.path());

        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        symlink(folder.at(".kinfold"), other.join(".kinfold")).unwrap();
        assert!(matches!(Root::open(&other, OURS), Err(RootError::NoMarker { .. })));
        assert!(Root::create(&other, OURS).is_err());
    }

    #[test]
    fn no_directory_is_opened_through_a_symbolic_link() {
        let folder = Folder::new();
        folder.write("real/deep/f", b"x");
        symlink("real", folder.at("link")).unwrap();
        symlink("/", folder.at("slash")).unwrap();
        assert!(folder.root.dir(Some(&path("real/deep"))).is_ok());
        assert!(folder.root.dir(Some(&path("link/deep"))).is_err());
        assert!(folder.root.dir(Some(&path("link"))).is_err());
        assert!(folder.root.parent(&path("link/f")).is_err());
        assert!(folder.root.dir(Some(&path("slash/etc"))).is_err());
        assert!(open_beneath(folder.root.dir.as_fd(), c"..", DIR_PATH).is_err());
    }

    #[test]
    fn handles_of_a_batch_follow_the_path() {
        let folder = Folder::new();
        folder.write("a/f", b"1");
        folder.write("b/f", b"22");
        let mut parents = Parents::new(&folder.root);
        for (at, size) in [("a/f", 1), ("b/f", 2), ("b/f", 2), ("a/f", 1)] {
            let stat = lstat(parents.of(&path(at)).unwrap().as_fd(), path(at).name()).unwrap().unwrap();
            assert_eq!(stat.size, size);
        }
        assert!(parents.of(&path("missing/f")).is_err());
        assert!(parents.of(&path("a/f")).is_ok());
        parents.forget();
        assert!(parents.of(&path("a/f")).is_ok());
    }
}
