//! What an error number of the system means to the engine.

use std::io;

use rustix::io::Errno;

use crate::model::problem::ProblemKind;

/// Returns whether the error says that nothing lies at a path: it, or a directory above it, is
/// missing, or what should be a directory is something else.
///
/// A symbolic link in place of a directory counts as that (`ELOOP`, and `EXDEV` where the link leads
/// out of the root): links are never followed, so nothing lies below them.
pub(crate) fn is_missing(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV)
}

/// Returns whether the error says that the file system does not know the operation.
pub(crate) fn is_unsupported(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

/// Returns which sort of trouble kept something from being written.
pub(crate) fn write_problem(error: Errno) -> ProblemKind {
    match error {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => ProblemKind::DiskFull,
        Errno::NAMETOOLONG | Errno::ILSEQ => ProblemKind::Name,
        _ => ProblemKind::Unwritable,
    }
}

/// Says what was being done and what the system said to it.
pub(crate) fn detail(doing: &str, error: Errno) -> String {
    format!("{doing}: {}", io::Error::from(error))
}
