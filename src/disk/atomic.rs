//! Writes small files of the program's own, such as keys and configuration, whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Replaces a file by one with these bytes and this mode.
///
/// On `Ok` the new content survives a power cut. On `Err` the file has all of the old content or all of
/// the new. The mode holds from the first moment on: a secret is never readable by others, not even
/// while it is written. A symbolic link at `path` is replaced, not followed.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut draft_name = std::ffi::OsString::from(".");
    draft_name.push(name);
    draft_name.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    let draft = dir.join(draft_name);
    let written = write_draft(&draft, bytes, mode).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The first error is the one to tell.
        fs::remove_file(&draft).ok();
        return written;
    }
    File::open(dir)?.sync_all()
}

fn write_draft(draft: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // A draft of that name can only be left from a process with this id that died.
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(mode & 0o600).open(draft)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("key");
        for (bytes, mode) in [(&b"first"[..], 0o600), (b"second, longer", 0o644), (b"", 0o400)] {
            write_atomically(&at, bytes, mode).unwrap();
            assert_eq!(fs::read(&at).unwrap(), bytes);
            assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("victim"), b"victim").unwrap();
        std::os::unix::fs::symlink("victim", dir.path().join("key")).unwrap();
        write_atomically(&dir.path().join("key"), b"key", 0o600).unwrap();
        assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"victim");
        assert!(!fs::symlink_metadata(dir.path().join("key")).unwrap().is_symlink());
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(write_atomically(&dir.path().join("taken"), b"x", 0o600).is_err());
        assert!(write_atomically(&dir.path().join("missing/file"), b"x", 0o600).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
