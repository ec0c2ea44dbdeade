//! The configuration file on disk: one lock for all who edit it, and writes that are all or nothing.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use crate::config::error::ConfigError;
use crate::model::limits::CONFIG_LEN_MAX;

/// Permission bits of a file that is made new.
const NEW_FILE_MODE: u32 = 0o600;

/// Reads the whole file.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
        _ => ConfigError::Io { doing: "read", path: path.to_owned(), source },
    })?;
    let mut text = String::new();
    file.take(CONFIG_LEN_MAX + 1).read_to_string(&mut text).map_err(ConfigError::io("read", path))?;
    if text.len() as u64 > CONFIG_LEN_MAX {
        return Err(ConfigError::TooLong { path: path.to_owned() });
    }
    Ok(text)
}

/// Puts `text` in the place of the file.
///
/// On `Ok` it survives a power cut. On `Err` the file holds all of the old text or all of the new. A
/// symbolic link stays one: the file that it points to is replaced, so that a configuration kept
/// elsewhere stays there. Permission bits are kept.
pub fn write(path: &Path, text: &str) -> Result<(), ConfigError> {
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(source) if source.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(source) => return Err(ConfigError::Io { doing: "write", path: path.to_owned(), source }),
    };
    replace(&target, text).map_err(ConfigError::io("write", path))
}

fn replace(target: &Path, text: &str) -> io::Result<()> {
    let staged = beside(target, ".new");
    let mode = fs::metadata(target).map_or(NEW_FILE_MODE, |meta| meta.permissions().mode() & 0o777);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(NEW_FILE_MODE).open(&staged)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&staged, target)?;
    File::open(target.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The right to edit the configuration; given back when dropped, or when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody else edits the configuration in `dir`. Makes the directory where it is missing.
    pub fn take(dir: &Path) -> Result<Self, ConfigError> {
        create_private_dir(dir).map_err(ConfigError::io("create", dir))?;
        let path = dir.join("config.lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(NEW_FILE_MODE)
            .open(&path)
            .map_err(ConfigError::io("open", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|errno| ConfigError::Io {
            doing: "lock",
            path,
            source: errno.into(),
        })?;
        Ok(Self { _file: file })
    }
}

/// Makes a directory, and those above it, for this user alone. One that exists is left as it is.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_file_stays_linked_and_keeps_its_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.toml"), dir.path().join("config.toml"));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write(&link, "new").unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_new_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        write(&path, "x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, NEW_FILE_MODE);
    }

    #[test]
    fn a_file_without_end_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "#".repeat(CONFIG_LEN_MAX as usize + 1)).unwrap();
        assert!(matches!(read(&path), Err(ConfigError::TooLong { .. })));
        assert!(matches!(read(&dir.path().join("none")), Err(ConfigError::Missing { .. })));
    }

    #[test]
    fn two_editors_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let other = File::open(dir.path().join("config.lock")).unwrap();
        assert!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(lock);
        assert!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).is_ok());
    }
}
