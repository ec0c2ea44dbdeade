//! What a look at a path shows without reading it.

/// The kind of thing that lies at a path.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A pipe, socket or device: reported, never synced.
    Special,
}

/// The identity and the times of an inode, as the scan cache keeps them.
///
/// Two equal stats mean that nobody wrote in between: the change time cannot be set by a program, so
/// an edit that keeps size and modification time is still seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stat {
    /// What lies there.
    pub kind: Kind,
    /// Permission bits, `0o777` at most.
    pub mode: u16,
    /// Length in bytes.
    pub size: u64,
    /// Modification time, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Change time, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Device of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl Stat {
    /// Returns whether the same file, unchanged, may have been given another name in between.
    ///
    /// A rename of a directory leaves the change times of what lies below it alone.
    pub fn is_same_inode(&self, other: &Self) -> bool {
        self == other
    }
}
