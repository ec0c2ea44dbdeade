//! Problems: one path could not be handled. Data, not an error: the folder goes on.

use crate::model::path::RelPath;

/// One path that could not be handled, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Which path; `None` for the folder as a whole.
    pub path: Option<RelPath>,
    /// Which sort of trouble.
    pub kind: ProblemKind,
    /// The system's own words, or other detail.
    pub detail: String,
}

/// The sorts of trouble, by what a person can do about them.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ProblemKind {
    /// It could not be read: permissions, or a failing disk.
    Unreadable,
    /// It is a pipe, a socket or a device.
    Special,
    /// Its name cannot be synced.
    Name,
    /// It could not be written here: permissions, or a read-only disk.
    Unwritable,
    /// The disk is full.
    DiskFull,
    /// It changes faster than it can be read.
    Busy,
    /// A file system that was mounted here is gone, or another is in its place.
    MountChanged,
    /// Not all directories can be watched.
    WatchLimit,
    /// The folder's root is missing, or is not the folder that it was.
    RootMissing,
    /// No peer that is connected has the content.
    ContentMissing,
    /// A peer announced what it may not, or what cannot be.
    Refused,
    /// It holds something else than what was written there, although nobody wrote to it since.
    Damaged,
}

impl ProblemKind {
    /// Says what happened, for people.
    pub fn what(self) -> &'static str {
        match self {
            Self::Unreadable => "cannot be read",
            Self::Special => "is a pipe, socket or device and is not synced",
            Self::Name => "has a name that cannot be synced",
            Self::Unwritable => "cannot be written here",
            Self::DiskFull => "does not fit: the disk is full",
            Self::Busy => "changes faster than it can be read",
            Self::MountChanged => "another file system is mounted here than before",
            Self::WatchLimit => "not all directories can be watched (inotify limit)",
            Self::RootMissing => "the folder is missing, or is not the one it was; it is stopped",
            Self::ContentMissing => "no connected device has its content",
            Self::Refused => "was announced by a device but cannot be taken",
            Self::Damaged => "is damaged: its content changed although nobody wrote to it",
        }
    }

    /// Says what to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Unreadable => "check its permissions, and the disk",
            Self::Special => "ignore it in .kinfoldignore to silence this",
            Self::Name => "rename it",
            Self::Unwritable => "check the permissions of its directory, and whether the disk is read-only",
            Self::DiskFull => "free some space; the transfer goes on by itself",
            Self::Busy => "it is tried again when it rests",
            Self::MountChanged => "mount the disk again; nothing was deleted",
            Self::WatchLimit => {
                "raise fs.inotify.max_user_watches; until then changes are found by scanning every minute"
            }
            Self::RootMissing => {
                "mount the disk or bring the folder back; to give the folder up, run `kinfold folder remove`"
            }
            Self::ContentMissing => "connect the device that has it",
            Self::Refused => "look at `kinfold log`, and check that device",
            Self::Damaged => {
                "check the disk; `kinfold verify --heal` mends it from another device; if the content is right, `touch` it"
            }
        }
    }
}
