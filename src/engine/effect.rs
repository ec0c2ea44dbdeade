//! What the engine asks of the disk, and what the disk answers: data, without a file in sight.

use std::collections::BTreeMap;

use crate::model::id::{ContentId, DeviceTag};
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::recipe::Recipe;
use crate::model::record::{FileBody, Record};
use crate::model::stat::Stat;
use crate::model::version::VersionVector;

/// Names a piece of work that was asked for, so that its answer can be told from others.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct JobId(pub u64);

// ------------------------------------------------------------------------------------------ scan

/// How much of a path a scan looks at.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Depth {
    /// The path alone.
    Entry,
    /// The path and, where it is a directory, all below it.
    Tree,
}

/// What a scan looks at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// The whole folder.
    All,
    /// These paths.
    Paths(BTreeMap<RelPath, Depth>),
}

/// What lies at a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// A regular file or a directory.
    Entry(Stat),
    /// A symbolic link and what it points to.
    Symlink(Stat, Box<[u8]>),
    /// A pipe, socket or device.
    Special,
    /// Something that the ignore rules leave out.
    Ignored,
    /// Something that cannot be looked at.
    Unreadable(String),
}

/// One finding of a scan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ScanItem {
    /// All that lies in one directory (`None`: the root). What the index has there beyond this is gone.
    ///
    /// A directory comes before what lies below it.
    Listing {
        /// Which directory.
        dir: Option<RelPath>,
        /// Names and what they are, in the order of names.
        entries: Vec<(Box<[u8]>, Found)>,
    },
    /// What lies at one path that was asked for; `None`: nothing.
    Path {
        /// Which path.
        path: RelPath,
        /// What lies there.
        found: Option<Found>,
    },
    /// A directory could not be listed. Nothing is known of what lies below it.
    Unlisted {
        /// Which directory.
        dir: Option<RelPath>,
        /// Why.
        detail: String,
    },
}

/// How a scan ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ScanEnd {
    /// It saw all that it was to see, and the root was the folder's root from beginning to end.
    Complete,
    /// The root is missing, or is not the folder's. Nothing that the scan did not see is gone.
    RootMissing(String),
    /// It was broken off.
    Cancelled,
}

/// What came of reading and chunking a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HashOutcome {
    /// The file was the same before and after, and this is its recipe.
    Done {
        /// What it is.
        stat: Stat,
        /// Its chunks.
        recipe: Recipe,
    },
    /// It is not, or no longer, what was expected; look at it again.
    Changed,
    /// It could not be read.
    Failed(String),
}

// ---------------------------------------------------------------------------------------- verify

/// A file whose content is to be compared with what is recorded of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifyItem {
    /// Where it lies.
    pub path: RelPath,
    /// What it must be; another file there now is not compared.
    pub stat: Stat,
    /// The chunks that it should have.
    pub recipe: Recipe,
}

/// What came of comparing a file's content with what is recorded of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum VerifyOutcome {
    /// It holds just that.
    Intact,
    /// It is the same file, unchanged by its stat, and holds something else.
    Damaged {
        /// Bytes of the chunks that are not what they should be.
        bytes: u64,
        /// The system's words, where it could not read them at all.
        detail: String,
    },
    /// It is not, or no longer, what was expected; look at it again.
    Changed,
    /// It could not be opened.
    Failed(String),
}

// --------------------------------------------------------------------------------------- staging

/// Names a staged file. The disk derives the file's name from it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StageId {
    /// The content that is being put together.
    pub content: ContentId,
    /// Tells apart two paths that are to get the same content.
    pub copy: u32,
}

/// A run of a file's chunks that lies here already.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Piece {
    /// Index of the run's first chunk in the recipe.
    pub chunk: u32,
    /// Number of chunks in the run.
    pub chunks: u32,
    /// Which of the sources has it.
    pub source: u32,
    /// Where in that source it begins, in bytes.
    pub offset: u64,
}

/// A file of the folder that content is copied from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// Where it lies.
    pub path: RelPath,
    /// What it must be; another file there now is not used.
    pub stat: Stat,
}

/// How to put a file together from what lies here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AssemblePlan {
    /// The file to be.
    pub stage: StageId,
    /// Its chunks.
    pub recipe: Recipe,
    /// Files to copy from.
    pub sources: Vec<Source>,
    /// What to copy, in the order of the recipe, without overlaps.
    pub pieces: Vec<Piece>,
    /// The source that has exactly this content, if one does: cloned or copied as a whole.
    pub whole: Option<u32>,
}

/// What came of putting a file together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AssembleOutcome {
    /// These chunks (by index, rising) are still missing; all others are staged and were checked.
    Staged {
        /// What to fetch.
        missing: Vec<u32>,
    },
    /// The staging file cannot be written.
    Failed(ProblemKind, String),
}

// ---------------------------------------------------------------------------------------- commit

/// What must lie at a path before it is touched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// Just this, unchanged. Of a directory only inode and kind count.
    Stat(Stat),
}

/// What to do at a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Put the complete staged file there, with this mode and modification time.
    Place {
        /// The staged file.
        stage: StageId,
        /// Its mode, time and size.
        body: FileBody,
    },
    /// Rename a file of the folder to there, and give it this mode and modification time.
    Move {
        /// Where it lies now.
        from: RelPath,
        /// What it must be.
        stat: Stat,
        /// Its mode and time to be.
        body: FileBody,
    },
    /// Make a directory.
    MakeDir {
        /// Its mode.
        mode: u16,
    },
    /// Make a symbolic link.
    MakeSymlink {
        /// What it points to.
        target: Box<[u8]>,
    },
    /// Leave the content, set permission bits and, of a file, the modification time.
    SetMeta {
        /// Permission bits.
        mode: u16,
        /// Modification time; `None` leaves it.
        mtime_ns: Option<i64>,
    },
    /// Remove it: a directory only if it is empty.
    Remove,
}

/// What becomes of a file that is replaced or removed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Displaced {
    /// It goes to history.
    History,
    /// It is dropped: its content lies elsewhere.
    Drop,
    /// It becomes a conflict copy of this name; if that is taken, the disk adds a number.
    Copy(RelPath),
}

/// One step of a commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommitItem {
    /// Where.
    pub path: RelPath,
    /// What must lie there before.
    pub expect: Expect,
    /// What to do.
    pub action: Action,
    /// What becomes of the file that is replaced or removed.
    pub displaced: Displaced,
    /// Names the conflict copy of an edit that nobody has seen yet.
    pub by: DeviceTag,
    /// The number of the file system that its directory must lie on; `None`: any. What is put under a mount point while
    /// its file system is away is out of sight once that is back, as if it had been deleted.
    pub dir_dev: Option<u64>,
}

/// Two edits of a file that were made apart, while both of their versions are known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parting {
    /// Of which file.
    pub path: RelPath,
    /// The edit that is held here.
    pub one: PartedSide,
    /// The edit that a peer holds.
    pub other: PartedSide,
}

/// One of two such edits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartedSide {
    /// What it has seen.
    pub version: VersionVector,
    /// What it made of the file.
    pub content: ContentId,
}

impl PartedSide {
    /// Returns the side that a record stands for, if it is of a file.
    pub fn of(record: &Record) -> Option<Self> {
        let content = record.body.file()?.content;
        Some(Self { version: record.version.clone(), content })
    }
}

/// What came of one step of a commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommitOutcome {
    /// It was done, and is durable.
    Done {
        /// What lies at the path now; `None`: nothing.
        stat: Option<Stat>,
        /// The name in history under which the former file is kept.
        kept: Option<String>,
        /// Where the displaced file lies now, if it became a conflict copy.
        aside: Option<(RelPath, Stat)>,
        /// Whether what came out is an edit that nobody had seen, and not what was expected.
        unseen: bool,
    },
    /// What lies there is not what was expected. Nothing was changed; look again.
    Mismatch,
    /// The directory is not empty. Nothing was changed; look at what is in it.
    NotEmpty,
    /// The parent is missing or is not a directory. Nothing was changed.
    NoParent,
    /// The parent lies on another file system than expected. Nothing was changed; look at it.
    OtherFileSystem,
    /// It could not be done. Nothing was changed.
    Failed(ProblemKind, String),
}
