//! The identity on disk: 32 random bytes in a file that nobody else may read, plain or under a passphrase.
//!
//! Both have the same name, so that there is never a choice between two. A plain one is told by its length, a locked one
//! by its words (see [`Sealed`](crate::keys::sealed)).
//!
//! A crash at any moment leaves the file absent or whole, and where it was locked or unlocked the old one or the new one.
//! At worst a file that ends with `.tmp` stays behind that is never read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use zeroize::Zeroizing;

use crate::disk::atomic::write_atomically;
use crate::keys::identity::Identity;
use crate::keys::passphrase::Passphrase;
use crate::keys::sealed::{Cost, FILE_LEN_MAX, SealError, Sealed};
use crate::keys::seed::{SEED_LEN, Seed};
use crate::model::id::DeviceId;

/// Permission bits of the identity file.
const MODE: u32 = 0o600;

/// What an identity file holds.
#[derive(Debug)]
pub enum KeyFile {
    /// The secret itself.
    Plain(Seed),
    /// The secret under a passphrase.
    Locked(Sealed),
}

/// Why there is no identity to work with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none yet.
    #[error("there is no identity at {}", .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is one already; it is never overwritten.
    #[error("there is an identity at {} already", .path.display())]
    Exists {
        /// Where it lies.
        path: PathBuf,
    },
    /// Others could read or replace the file.
    #[error("{} has mode {mode:o}: others can read it", .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error("{} belongs to user {owner}, not to the user {user} that runs this program", .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs the program.
        user: u32,
    },
    /// The file is no identity: not a regular file, or neither of its length nor a locked one.
    #[error(
        "{} is not an identity: it should be a regular file of {SEED_LEN} bytes, or a locked identity, unchanged",
        .path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("could not {doing} {}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("the system has no randomness to give")]
    Randomness,
    /// It can only be opened with a passphrase.
    #[error("the identity {} is locked with a passphrase", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It has a passphrase already.
    #[error("the identity {} is locked already", .path.display())]
    LockedAlready {
        /// The file.
        path: PathBuf,
    },
    /// It has no passphrase.
    #[error("the identity {} is not locked", .path.display())]
    NotLocked {
        /// The file.
        path: PathBuf,
    },
    /// It has no passphrase, and is to take the place of one that has.
    #[error("the identity {} has no passphrase, and the one that it would replace has", .path.display())]
    LessKept {
        /// The file.
        path: PathBuf,
    },
    /// It was locked as that of another device.
    #[error("the identity {} opens, but it is not that of {device}, as it says", .path.display())]
    OtherDevice {
        /// The file.
        path: PathBuf,
        /// What the file says.
        device: DeviceId,
    },
    /// It cannot be locked or opened.
    #[error("cannot {doing} the identity {}", .path.display())]
    Seal {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SealError,
    },
}

impl KeyError {
    /// Returns what to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Permissions { path, .. } => return Some(format!("run `chmod 600 {}`", path.display())),
            Self::Owner { .. } => "run this as the user whose device it is",
            Self::Malformed { .. } | Self::OtherDevice { .. } => {
                "bring the file back from a copy; or put it away and run `kinfold init`: then this is another device"
            }
            Self::Io { .. } => "check the permissions of the file and its directory",
            Self::LockedAlready { .. } => "`kinfold key change` puts another passphrase on it",
            Self::NotLocked { .. } => "`kinfold key lock` puts a passphrase on it",
            Self::LessKept { .. } => "run `kinfold key rotate --cancel`, and begin again",
            Self::Seal { source: SealError::Wrong, .. } => {
                "nothing was changed; upper and lower case count, and a file that was changed since it was locked never \
                 opens"
            }
            Self::Seal { source: SealError::Memory { .. }, .. } => "end other programs first",
            Self::Seal { .. } => "nothing was changed; bring the file back from a copy",
            Self::Missing { .. } | Self::Exists { .. } | Self::Randomness | Self::Locked { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// What became of the bytes of a plain file whose place a locked one took.
#[derive(Debug)]
pub enum Remains {
    /// They were written over, as far as a program can.
    Overwritten,
    /// The file has another name, and was left alone.
    OtherName,
    /// They could not be written over.
    Kept(io::Error),
}

impl KeyFile {
    /// Reads an identity file, refusing one that others could have read or put there.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let file = open(path)?;
        check(path, &file.metadata().map_err(|source| io_error("look at", path, source))?)?;
        Self::read_from(file, path)
    }

    /// Reads an identity that a service manager hands over. It says who may read it, by means that the permission bits
    /// do not show.
    pub fn read_credential(path: &Path) -> Result<Self, KeyError> {
        Self::read_from(open(path)?, path)
    }

    fn read_from(file: File, path: &Path) -> Result<Self, KeyError> {
        let malformed = || KeyError::Malformed { path: path.to_owned() };
        // As long as it can get, for a vector that grows leaves what it held behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * FILE_LEN_MAX));
        let read = file.take(FILE_LEN_MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|source| io_error("read", path, source))?;
        if let Ok(seed) = Seed::try_from(bytes.as_slice()) {
            return Ok(Self::Plain(seed));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
        text.parse().map(Self::Locked).map_err(|_| malformed())
    }

    /// Returns the id of the device. That of a locked one is what the file says, until it is opened.
    pub fn device_id(&self) -> DeviceId {
        match self {
            Self::Plain(seed) => Identity::from_seed(seed).device_id(),
            Self::Locked(sealed) => sealed.device_id(),
        }
    }
}

/// Opens a locked identity that was read from `path`.
pub fn open_locked(sealed: &Sealed, passphrase: &Passphrase, path: &Path) -> Result<Identity, KeyError> {
    Ok(Identity::from_seed(&seed_of(sealed, passphrase, path)?))
}

/// Puts a passphrase on an identity file that has none. On `Err` all is as it was.
pub fn lock(path: &Path, passphrase: &Passphrase, cost: Cost) -> Result<Remains, KeyError> {
    let _turn = take_turn(path)?;
    let KeyFile::Plain(seed) = KeyFile::read(path)? else {
        return Err(KeyError::LockedAlready { path: path.to_owned() });
    };
    // Opened before it loses its name, if its mode allows that.
    let old = OpenOptions::new().write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path);
    replace(path, sealed_text(path, &seed, passphrase, cost)?.as_bytes())?;
    // The new one is durable now, under the name.
    Ok(old.and_then(|old| overwrite(&old)).unwrap_or_else(Remains::Kept))
}

/// Puts another passphrase on a locked identity file. On `Err` all is as it was.
pub fn change(path: &Path, old: &Passphrase, new: &Passphrase, cost: Cost) -> Result<(), KeyError> {
    let _turn = take_turn(path)?;
    let seed = seed_of(&read_locked(path)?, old, path)?;
    replace(path, sealed_text(path, &seed, new, cost)?.as_bytes())
}

/// Takes the passphrase off an identity file. On `Err` all is as it was.
pub fn unlock(path: &Path, passphrase: &Passphrase) -> Result<(), KeyError> {
    let _turn = take_turn(path)?;
    let seed = seed_of(&read_locked(path)?, passphrase, path)?;
    replace(path, seed.as_bytes())
}

/// Makes the identity that the device of the one at `present` is going to have, durably: under the same passphrase, where
/// that has one. Returns both. What there is at `next` is replaced.
pub fn create_next(
    present: &Path,
    next: &Path,
    passphrase: Option<&Passphrase>,
) -> Result<(Identity, Identity), KeyError> {
    let seed = Seed::random().ok_or(KeyError::Randomness)?;
    let (own, text) = match (KeyFile::read(present)?, passphrase) {
        (KeyFile::Plain(own), _) => (own, None),
        (KeyFile::Locked(_), None) => return Err(KeyError::Locked { path: present.to_owned() }),
        (KeyFile::Locked(sealed), Some(passphrase)) => {
            let own = seed_of(&sealed, passphrase, present)?;
            (own, Some(sealed_text(next, &seed, passphrase, sealed.cost())?))
        }
    };
    sweep(next)?;
    create(next, text.as_ref().map_or(seed.as_bytes().as_slice(), |text| text.as_bytes()))?;
    Ok((Identity::from_seed(&own), Identity::from_seed(&seed)))
}

/// Puts the identity at `next` in the place of the one at `path`, whose key is gone with that.
///
/// On `Ok` the change survives a power cut. On `Err` there is the old one or the new at `path`, whole; a crash leaves the
/// same.
///
/// # Errors
/// [`KeyError::LessKept`] if the one has a passphrase and the other has none: what a person has locked stays locked.
pub fn succeed(path: &Path, next: &Path) -> Result<(), KeyError> {
    let _turn = take_turn(path)?;
    if let (KeyFile::Locked(_), KeyFile::Plain(_)) = (KeyFile::read(path)?, KeyFile::read(next)?) {
        return Err(KeyError::LessKept { path: next.to_owned() });
    }
    let replaced = fs::rename(next, path).and_then(|()| File::open(parent_of(path))?.sync_all());
    replaced.map_err(|source| io_error("replace", path, source))
}

/// Takes an identity away, and what crashes have left beside it while it was made: that may hold its key. Returns whether
/// it was there.
pub fn sweep(path: &Path) -> Result<bool, KeyError> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let mut was_there = false;
    for entry in fs::read_dir(parent_of(path)).map_err(|source| io_error("look for drafts of", path, source))? {
        let entry = entry.map_err(|source| io_error("look for drafts of", path, source))?;
        let found = entry.file_name();
        let Some(rest) = found.as_encoded_bytes().strip_prefix(name) else { continue };
        if rest.is_empty() || (rest.starts_with(b".") && rest.ends_with(b".tmp")) {
            fs::remove_file(entry.path()).map_err(|source| io_error("remove", &entry.path(), source))?;
            was_there |= rest.is_empty();
        }
    }
    Ok(was_there)
}

fn read_locked(path: &Path) -> Result<Sealed, KeyError> {
    match KeyFile::read(path)? {
        KeyFile::Locked(sealed) => Ok(sealed),
        KeyFile::Plain(_) => Err(KeyError::NotLocked { path: path.to_owned() }),
    }
}

fn seed_of(sealed: &Sealed, passphrase: &Passphrase, path: &Path) -> Result<Seed, KeyError> {
    let opened = sealed.open(passphrase);
    let seed = opened.map_err(|source| KeyError::Seal { doing: "unlock", path: path.to_owned(), source })?;
    let device = sealed.device_id();
    if Identity::from_seed(&seed).device_id() != device {
        return Err(KeyError::OtherDevice { path: path.to_owned(), device });
    }
    Ok(seed)
}

/// Returns what a locked file holds, once it was seen to open: there will be no other copy of the secret.
fn sealed_text(path: &Path, seed: &Seed, passphrase: &Passphrase, cost: Cost) -> Result<String, KeyError> {
    let text = || {
        let text = Sealed::seal(seed, Identity::from_seed(seed).device_id(), passphrase, cost)?.to_string();
        let opened = text.parse::<Sealed>()?.open(passphrase)?;
        assert!(opened.as_bytes() == seed.as_bytes(), "what was locked opens to something else");
        Ok(text)
    };
    text().map_err(|source| KeyError::Seal { doing: "lock", path: path.to_owned(), source })
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    write_atomically(path, bytes, MODE).map_err(|source| io_error("replace", path, source))
}

/// Writes over a file that has just lost its name.
fn overwrite(old: &File) -> io::Result<Remains> {
    if old.metadata()?.nlink() > 0 {
        return Ok(Remains::OtherName);
    }
    old.write_all_at(&[0; SEED_LEN], 0)?;
    old.sync_all()?;
    Ok(Remains::Overwritten)
}

/// Waits until nobody else is replacing the file, and keeps others from it until the result is dropped.
fn take_turn(path: &Path) -> Result<File, KeyError> {
    let dir = parent_of(path);
    let turn = File::open(dir).and_then(|dir| {
        rustix::fs::flock(&dir, FlockOperation::LockExclusive)?;
        Ok(dir)
    });
    match turn {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KeyError::Missing { path: path.to_owned() }),
        turn => turn.map_err(|source| io_error("lock the directory of", path, source)),
    }
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> KeyError {
    KeyError::Io { doing, path: path.to_owned(), source }
}

fn open(path: &Path) -> Result<File, KeyError> {
    // NOFOLLOW: a link could lead anywhere. NONBLOCK: opening a pipe would wait for its writer.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    match opened.and_then(|file| Ok((file.metadata()?.is_file(), file))) {
        Ok((true, file)) => Ok(file),
        Ok((false, _)) => Err(KeyError::Malformed { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KeyError::Missing { path: path.to_owned() }),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            Err(KeyError::Malformed { path: path.to_owned() })
        }
        Err(error) => Err(io_error("open", path, error)),
    }
}

/// Checks the open file, not its name: what is checked is what is read.
fn check(path: &Path, found: &fs::Metadata) -> Result<(), KeyError> {
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        return Err(KeyError::Owner { path: path.to_owned(), owner: found.uid(), user });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Writes a file that did not exist: under another name first, then linked, which fails where something
/// has the name. So the name never stands for half a secret.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let staged = staged_path(path)?;
    let written = write_staged(&staged, bytes).and_then(|()| fs::hard_link(&staged, path));
    let removed = fs::remove_file(&staged);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(KeyError::Exists { path: path.to_owned() }),
        written => written
            .and(removed)
            .and_then(|()| File::open(parent_of(path))?.sync_all())
            .map_err(|source| KeyError::Io { doing: "create", path: path.to_owned(), source }),
    }
}

fn write_staged(staged: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(staged)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn staged_path(path: &Path) -> Result<PathBuf, KeyError> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| KeyError::Randomness)?;
    Ok(path.with_added_extension(format!("{:016x}.tmp", u64::from_le_bytes(random))))
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use crate::keys::sealed::tests::{CHEAP, passphrase};

    /// A directory, and the path of an identity in it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        (dir, path)
    }

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn an_identity_is_the_same_when_opened_again() {
        let (dir, path) = place();
        let made = Identity::create(&path).unwrap();
        let opened = Identity::open(&path).unwrap();
        assert_eq!(made.device_id(), opened.device_id());
        assert_eq!(made.private_key(), opened.private_key());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, MODE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_identity_is_never_overwritten() {
        let (dir, path) = place();
        write(&path, b"something", 0o600);
        assert!(matches!(Identity::create(&path), Err(KeyError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"something");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_dangling_link_in_its_place_is_not_followed() {
        let (dir, path) = place();
        let elsewhere = dir.path().join("elsewhere");
        symlink(&elsewhere, &path).unwrap();
        assert!(matches!(Identity::create(&path), Err(KeyError::Exists { .. })));
        assert!(!elsewhere.exists());
        Identity::create(&elsewhere).unwrap();
        assert!(matches!(Identity::open(&path), Err(KeyError::Malformed { .. })));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let (_dir, path) = place();
        Identity::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o610, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::open(&path).err().unwrap();
            assert!(matches!(error, KeyError::Permissions { mode: found, .. } if found == mode));
            assert_eq!(error.hint(), Some(format!("run `chmod 600 {}`", path.display())));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(Identity::open(&path).is_ok());
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        let (dir, path) = place();
        assert!(matches!(Identity::open(&path), Err(KeyError::Missing { .. })));
        for len in [0, 31, 33] {
            write(&path, &vec![7; len], 0o600);
            assert!(matches!(Identity::open(&path), Err(KeyError::Malformed { .. })), "{len} bytes");
        }
        assert!(matches!(Identity::open(dir.path()), Err(KeyError::Malformed { .. })));
        write(&path, &vec![b'x'; 1 << 20], 0o600);
        assert!(matches!(Identity::open(&path), Err(KeyError::Malformed { .. })));
        assert!(matches!(Identity::create(&dir.path().join("no/where")), Err(KeyError::Io { .. })));
    }

    #[test]
    fn an_identity_is_locked_changed_and_unlocked_and_stays_the_same() {
        let (dir, path) = place();
        let made = Identity::create(&path).unwrap();
        let plain = fs::read(&path).unwrap();
        let (one, two) = (passphrase("one"), passphrase("two"));
        let device_of = |word: &Passphrase| {
            let sealed = read_locked(&path).unwrap();
            open_locked(&sealed, word, &path).map(|identity| identity.device_id())
        };
        assert!(matches!(lock(&path, &one, CHEAP), Ok(Remains::Overwritten)));
        assert!(matches!(Identity::open(&path), Err(KeyError::Locked { .. })));
        assert_eq!(KeyFile::read(&path).unwrap().device_id(), made.device_id());
        assert_eq!(device_of(&one).unwrap(), made.device_id());
        assert!(device_of(&two).is_err());

        change(&path, &one, &two, CHEAP).unwrap();
        assert_eq!(device_of(&two).unwrap(), made.device_id());
        assert!(device_of(&one).is_err());

        unlock(&path, &two).unwrap();
        assert_eq!(fs::read(&path).unwrap(), plain);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, MODE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_does_not_go_changes_nothing() {
        let (dir, path) = place();
        assert!(matches!(lock(&path, &passphrase("one"), CHEAP), Err(KeyError::Missing { .. })));
        let nowhere = dir.path().join("no/where");
        assert!(matches!(lock(&nowhere, &passphrase("one"), CHEAP), Err(KeyError::Missing { .. })));
        Identity::create(&path).unwrap();
        let stays = |what: &str, error: KeyError, before: &[u8]| {
            assert_eq!(fs::read(&path).unwrap(), before, "{what}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{what}");
            error
        };
        let plain = fs::read(&path).unwrap();
        let refused = stays("unlock", unlock(&path, &passphrase("one")).unwrap_err(), &plain);
        assert!(matches!(refused, KeyError::NotLocked { .. }));
        let refused = change(&path, &passphrase("one"), &passphrase("two"), CHEAP).unwrap_err();
        assert!(matches!(stays("change", refused, &plain), KeyError::NotLocked { .. }));
        let too_dear = Cost::dearer_than_allowed();
        let refused = lock(&path, &passphrase("one"), too_dear).unwrap_err();
        assert!(matches!(stays("dear", refused, &plain), KeyError::Seal { .. }));

        lock(&path, &passphrase("one"), CHEAP).unwrap();
        let locked = fs::read(&path).unwrap();
        let refused = lock(&path, &passphrase("two"), CHEAP).unwrap_err();
        assert!(matches!(stays("lock", refused, &locked), KeyError::LockedAlready { .. }));
        let refused = unlock(&path, &passphrase("two")).unwrap_err();
        assert!(matches!(stays("wrong", refused, &locked), KeyError::Seal { source: SealError::Wrong, .. }));
    }

    #[test]
    fn the_bytes_of_a_plain_file_are_overwritten_unless_it_has_another_name() {
        let (dir, path) = place();
        Identity::create(&path).unwrap();
        let old = File::open(&path).unwrap();
        assert!(matches!(lock(&path, &passphrase("one"), CHEAP), Ok(Remains::Overwritten)));
        let mut left = [1; SEED_LEN];
        old.read_exact_at(&mut left, 0).unwrap();
        assert_eq!(left, [0; SEED_LEN]);

        unlock(&path, &passphrase("one")).unwrap();
        let copy = dir.path().join("copy");
        fs::hard_link(&path, &copy).unwrap();
        let plain = fs::read(&copy).unwrap();
        assert!(matches!(lock(&path, &passphrase("one"), CHEAP), Ok(Remains::OtherName)));
        assert_eq!(fs::read(&copy).unwrap(), plain);
    }

    #[test]
    fn a_locked_identity_that_is_not_that_of_its_device_is_refused() {
        let (_dir, path) = place();
        let device = DeviceId::from_public_key([1; 32]);
        let sealed = Sealed::seal(&Seed::random().unwrap(), device, &passphrase("one"), CHEAP).unwrap();
        write(&path, sealed.to_string().as_bytes(), 0o600);
        let refused = unlock(&path, &passphrase("one")).unwrap_err();
        assert!(matches!(refused, KeyError::OtherDevice { device: said, .. } if said == device));
    }

    #[test]
    fn the_next_identity_takes_the_place_and_leaves_nothing_of_the_former() {
        let (dir, path) = place();
        let next = dir.path().join("identity.next");
        let own = Identity::create(&path).unwrap();
        assert!(matches!(succeed(&path, &next), Err(KeyError::Missing { .. })), "there is none");
        write(&next, b"left by a crash", 0o644);
        let (present, made) = create_next(&path, &next, None).unwrap();
        assert_eq!(present.device_id(), own.device_id());
        assert_ne!(made.device_id(), own.device_id());
        assert_eq!(Identity::open(&next).unwrap().private_key(), made.private_key());
        succeed(&path, &next).unwrap();
        assert_eq!(Identity::open(&path).unwrap().device_id(), made.device_id());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, MODE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_next_identity_of_a_locked_one_is_locked_alike_or_takes_no_place() {
        let (dir, path) = place();
        let next = dir.path().join("identity.next");
        Identity::create(&path).unwrap();
        lock(&path, &passphrase("one"), CHEAP).unwrap();
        let locked = fs::read(&path).unwrap();
        assert!(matches!(create_next(&path, &next, None), Err(KeyError::Locked { .. })));
        let wrong = create_next(&path, &next, Some(&passphrase("two")));
        assert!(matches!(wrong, Err(KeyError::Seal { source: SealError::Wrong, .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is made without the passphrase");

        let (_, made) = create_next(&path, &next, Some(&passphrase("one"))).unwrap();
        let sealed = read_locked(&next).unwrap();
        assert_eq!((sealed.device_id(), sealed.cost()), (made.device_id(), CHEAP));
        assert_eq!(open_locked(&sealed, &passphrase("one"), &next).unwrap().private_key(), made.private_key());
        unlock(&next, &passphrase("one")).unwrap();
        assert!(matches!(succeed(&path, &next), Err(KeyError::LessKept { .. })));
        assert_eq!(fs::read(&path).unwrap(), locked);
        lock(&next, &passphrase("one"), CHEAP).unwrap();
        succeed(&path, &next).unwrap();
        assert_eq!(KeyFile::read(&path).unwrap().device_id(), made.device_id());
    }

    #[test]
    fn an_identity_is_swept_with_its_drafts_and_nothing_else() {
        let (dir, path) = place();
        for name in ["identity", "identity.0123456789abcdef.tmp", "identity.next", "identity2.tmp", "other.tmp"] {
            write(&dir.path().join(name), b"something", 0o600);
        }
        assert!(sweep(&path).unwrap() && !sweep(&path).unwrap());
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["identity.next", "identity2.tmp", "other.tmp"]);
    }

    #[test]
    fn a_credential_may_have_the_bits_that_its_manager_gives_it() {
        let (_dir, path) = place();
        let made = Identity::create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        assert_eq!(KeyFile::read_credential(&path).unwrap().device_id(), made.device_id());
        assert!(KeyFile::read(&path).is_err());
    }
}
