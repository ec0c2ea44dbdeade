//! Reads files of the folder, as long as they are what they were taken for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::disk::copy::read_full_at;
use crate::disk::fault::is_missing;
use crate::disk::history;
use crate::disk::probe::fstat;
use crate::disk::root::Root;
use crate::model::path::RelPath;
use crate::model::stat::{Kind, Stat};

/// A file that is read in pieces, for peers that ask for its chunks.
#[derive(Debug)]
pub struct Reader {
    file: OwnedFd,
    stat: Stat,
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not, or no longer, the file that was expected. A scan finds out what it is.
    #[error("the file changed")]
    Changed,
    /// The system refused.
    #[error("the file cannot be read")]
    Io(#[source] io::Error),
}

impl Reader {
    /// Opens a file that must be just this one, unchanged.
    pub fn open(root: &Root, path: &RelPath, stat: &Stat) -> Result<Self, ReadError> {
        match open_expected(root, path, stat) {
            Ok(Some(file)) => Ok(Self { file, stat: *stat }),
            Ok(None) => Err(ReadError::Changed),
            Err(error) => Err(ReadError::Io(error.into())),
        }
    }

    /// Opens a former version that must have this size.
    pub fn open_kept(root: &Root, kept: &str, size: u64) -> Result<Self, ReadError> {
        let io = |error: Errno| ReadError::Io(error.into());
        let file = OwnedFd::from(history::open(root, kept).map_err(ReadError::Io)?);
        let stat = fstat(file.as_fd()).map_err(io)?;
        if stat.kind != Kind::File || stat.size != size {
            return Err(ReadError::Changed);
        }
        Ok(Self { file, stat })
    }

    /// Fills `buffer` from a place in the file.
    ///
    /// On `Ok` the bytes are from the file as it was expected; it was still that after reading.
    pub fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let io = |error: Errno| ReadError::Io(error.into());
        let read = read_full_at(self.file.as_fd(), offset, buffer).map_err(io)?;
        if read < buffer.len() || fstat(self.file.as_fd()).map_err(io)? != self.stat {
            return Err(ReadError::Changed);
        }
        Ok(())
    }
}

/// Opens a regular file for reading if it is just the expected one; `None` if it is not.
pub(crate) fn open_expected(root: &Root, path: &RelPath, expected: &Stat) -> Result<Option<OwnedFd>, Errno> {
    if expected.kind != Kind::File {
        return Ok(None);
    }
    let file = match open_to_read(root, path) {
        Ok(file) => file,
        Err(error) if is_missing(error) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok((fstat(file.as_fd())? == *expected).then_some(file))
}

/// Opens something to read it. A pipe in its place does not block, and the access time stays where
/// the system lets it.
fn open_to_read(root: &Root, path: &RelPath) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    match root.open_beneath(path.as_path(), flags | OFlags::NOATIME) {
        // Only the owner may ask for that.
        Err(Errno::PERM) => root.open_beneath(path.as_path(), flags),
        // A socket, or a device without a driver: not a regular file.
        Err(Errno::NXIO | Errno::NODEV) => Err(Errno::NOENT),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::{Folder, path};

    #[test]
    fn a_reader_serves_only_the_file_that_was_expected() {
        let folder = Folder::new();
        folder.write("f", b"0123456789");
        let stat = folder.stat("f");
        let reader = Reader::open(&folder.root, &path("f"), &stat).unwrap();
        let mut buffer = [0; 4];
        reader.read_exact_at(3, &mut buffer).unwrap();
        assert_eq!(&buffer, b"3456");
        assert!(matches!(reader.read_exact_at(8, &mut buffer), Err(ReadError::Changed)));

        folder.set_mode("f", 0o600);
        assert!(matches!(reader.read_exact_at(3, &mut buffer), Err(ReadError::Changed)));
        assert!(matches!(Reader::open(&folder.root, &path("f"), &stat), Err(ReadError::Changed)));
        assert!(matches!(Reader::open(&folder.root, &path("missing"), &stat), Err(ReadError::Changed)));
    }

    #[test]
    fn a_pipe_or_a_link_in_place_of_the_file_is_a_change() {
        let folder = Folder::new();
        folder.write("f", b"x");
        let stat = folder.stat("f");
        std::fs::rename(folder.at("f"), folder.at("g")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.at("f"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert!(matches!(Reader::open(&folder.root, &path("f"), &stat), Err(ReadError::Changed)));
        std::fs::remove_file(folder.at("f")).unwrap();
        std::os::unix::fs::symlink("g", folder.at("f")).unwrap();
        assert!(matches!(Reader::open(&folder.root, &path("f"), &stat), Err(ReadError::Changed)));
    }
}
