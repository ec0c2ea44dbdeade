//! Records: what the index of one device says of one path.

use std::cmp::Ordering;

use crate::model::id::{ContentId, DeviceTag};
use crate::model::path::RelPath;
use crate::model::version::VersionVector;

/// What a device holds at a path, and which changes led there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Where.
    pub path: RelPath,
    /// Which changes it has seen.
    pub version: VersionVector,
    /// Who made the last change, for people.
    pub by: DeviceTag,
    /// What is there.
    pub body: Body,
}

/// What is at a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// It was deleted.
    Tombstone,
    /// A symbolic link; never followed.
    Symlink {
        /// What it points to, as bytes.
        target: Box<[u8]>,
    },
    /// A regular file.
    File(FileBody),
    /// A directory.
    Dir {
        /// Permission bits, `0o777` at most.
        mode: u16,
    },
}

/// What a record says of a regular file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileBody {
    /// Permission bits, `0o777` at most.
    pub mode: u16,
    /// Time of the last modification, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Length in bytes; what the recipe's chunks add up to.
    pub size: u64,
    /// Which content.
    pub content: ContentId,
}

impl Record {
    /// Says that a device leaves a path out: it neither holds nor wants anything there, whatever lies on its disk. That
    /// is no deletion. It has seen no change, which nothing that is held ever has.
    pub fn withdrawn(path: RelPath, by: DeviceTag) -> Self {
        Self { path, version: VersionVector::default(), by, body: Body::Tombstone }
    }

    /// Whether it says only that its device leaves the path out.
    pub fn is_withdrawn(&self) -> bool {
        self.version.is_empty()
    }
}

impl Body {
    /// Returns whether something is there.
    pub fn is_live(&self) -> bool {
        !matches!(self, Self::Tombstone)
    }

    /// Returns whether a directory is there.
    pub fn is_dir(&self) -> bool {
        matches!(self, Self::Dir { .. })
    }

    /// Returns what is said of the regular file, if one is there.
    pub fn file(&self) -> Option<&FileBody> {
        match self {
            Self::File(file) => Some(file),
            _ => None,
        }
    }

    /// Returns whether a person would find the same thing: kind, content or target. Times and
    /// permission bits do not count.
    pub fn is_same_content(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tombstone, Self::Tombstone) | (Self::Dir { .. }, Self::Dir { .. }) => true,
            (Self::Symlink { target: a }, Self::Symlink { target: b }) => a == b,
            (Self::File(a), Self::File(b)) => a.content == b.content && a.size == b.size,
            _ => false,
        }
    }

    /// Orders two concurrent bodies the same way on every device; the greater wins.
    ///
    /// An edit beats a deletion, for a deletion can be repeated and lost work cannot. A directory
    /// beats a file, for others may have put things into it. Then the later modification wins, and
    /// where clocks agree the larger content id, so that no two different bodies are equal.
    pub fn precedence(&self, other: &Self) -> Ordering {
        let rank = |body: &Self| match body {
            Self::Tombstone => 0,
            Self::Symlink { .. } => 1,
            Self::File(_) => 2,
            Self::Dir { .. } => 3,
        };
        rank(self).cmp(&rank(other)).then_with(|| match (self, other) {
            (Self::Symlink { target: a }, Self::Symlink { target: b }) => a.cmp(b),
            (Self::Dir { mode: a }, Self::Dir { mode: b }) => a.cmp(b),
            (Self::File(a), Self::File(b)) => {
                (a.mtime_ns, a.content, a.size, a.mode).cmp(&(b.mtime_ns, b.content, b.size, b.mode))
            }
            _ => Ordering::Equal,
        })
    }
}
