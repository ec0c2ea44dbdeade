//! Copies between open files inside the kernel, holes kept.

use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite};

use crate::disk::probe::fstat;
use crate::disk::root::retry;

const COPY_LEN: usize = 256 << 10;

/// Makes `to` a copy of `from`: a clone that shares its blocks where the file system can.
///
/// What `to` held before is replaced, but beyond what `from` has nothing is promised on an error.
pub(crate) fn copy_all(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    // Why it did not work matters little; copying finds the reason again if there is one.
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    ftruncate(to, 0)?;
    let size = fstat(from)?.size;
    let mut at = 0;
    while let Some((data, hole)) = next_data(from, at, size)? {
        copy_range(from, to, data, hole)?;
        at = hole;
    }
    retry(|| ftruncate(to, size))
}

/// Returns the next run of bytes at or after `at` that is no hole, up to `end`.
///
/// A file system that knows no holes has one run.
pub(crate) fn next_data(file: BorrowedFd<'_>, at: u64, end: u64) -> Result<Option<(u64, u64)>, Errno> {
    if at >= end {
        return Ok(None);
    }
    let data = match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, end))),
        Err(error) => return Err(error),
    };
    if data >= end {
        return Ok(None);
    }
    let hole = seek(file, SeekFrom::Hole(data)).unwrap_or(end);
    Ok(Some((data, hole.min(end).max(data + 1))))
}

fn copy_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, mut at: u64, end: u64) -> Result<(), Errno> {
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        let (mut source, mut target) = (at, at);
        match copy_file_range(from, Some(&mut source), to, Some(&mut target), len) {
            // The file became shorter; whoever asked compares its stat.
            Ok(0) => return Ok(()),
            Ok(copied) => at += copied as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return copy_by_hand(from, to, at, end);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn copy_by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>, mut at: u64, end: u64) -> Result<(), Errno> {
    let mut buffer = vec![0; COPY_LEN];
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(COPY_LEN);
        let read = retry(|| pread(from, &mut buffer[..len], at))?;
        if read == 0 {
            return Ok(());
        }
        write_all_at(to, at, &buffer[..read])?;
        at += read as u64;
    }
    Ok(())
}

/// Writes all of `bytes` at a place in a file.
pub(crate) fn write_all_at(file: BorrowedFd<'_>, mut at: u64, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = retry(|| pwrite(file, bytes, at))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        at += written as u64;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Fills `buffer` from a place in a file; returns how much there was before the file's end.
pub(crate) fn read_full_at(file: BorrowedFd<'_>, at: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut len = 0;
    while len < buffer.len() {
        match retry(|| pread(file, &mut buffer[len..], at + len as u64))? {
            0 => break,
            read => len += read,
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn file(dir: &tempfile::TempDir, name: &str) -> File {
        File::options().create(true).truncate(true).read(true).write(true).open(dir.path().join(name)).unwrap()
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (file(&dir, "from"), file(&dir, "to"));
        to.write_all_at(&[9; 100_000], 0).unwrap();
        from.write_all_at(b"begin", 0).unwrap();
        from.write_all_at(b"middle", 8 << 20).unwrap();
        from.set_len(16 << 20).unwrap();
        copy_all(from.as_fd(), to.as_fd()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("to")).unwrap(), std::fs::read(dir.path().join("from")).unwrap());
        assert!(to.metadata().unwrap().blocks() <= 64);
    }

    #[test]
    fn copying_by_hand_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (file(&dir, "from"), file(&dir, "to"));
        let bytes: Vec<u8> = (0..700_000u32).map(|n| (n / 3) as u8).collect();
        from.write_all_at(&bytes, 0).unwrap();
        copy_by_hand(from.as_fd(), to.as_fd(), 0, 700_000).unwrap();
        assert_eq!(std::fs::read(dir.path().join("to")).unwrap(), bytes);
    }
}
