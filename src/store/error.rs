//! Why the index failed, by what to do about it.

use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::store::codec::Malformed;

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The index was written by a newer program. Nothing was changed; the person has to update.
    #[error("the index {path:?} has format {found}, this kinfold knows formats up to {known}: update kinfold")]
    Newer {
        /// The index.
        path: PathBuf,
        /// Its format version.
        found: i64,
        /// The newest format version that this program knows.
        known: i64,
    },
    /// What the file holds cannot be. Put it aside, say so, and build a new index from the disk.
    #[error("the index is damaged: {what} (in {table})")]
    Corrupt {
        /// The table that was read, or "file" where it is the file as a whole.
        table: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Another process holds the index. Two daemons must not share a folder.
    #[error("the index is in use by another process")]
    Busy,
    /// The disk that holds the index is full. All since the last commit was taken back.
    #[error("no space is left on the disk that holds the index")]
    Full,
    /// The file could not be read or written.
    #[error("the index could not be read or written ({table})")]
    Io {
        /// The table in question, or "file".
        table: &'static str,
        /// What SQLite or the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The index has given out its last sequence.
    #[error("the index has given out its last sequence")]
    Exhausted,
    /// A mistake of this program.
    #[error("the index was used wrongly ({table})")]
    Bug {
        /// The table in question.
        table: &'static str,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// Sorts what SQLite said by what the caller has to do.
    pub(crate) fn from_sqlite(table: &'static str, source: rusqlite::Error) -> Self {
        use rusqlite::Error as Sqlite;
        match source.sqlite_error_code() {
            // A constraint fails only where a table and its index disagree: all that is inserted was
            // looked for before.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation) => {
                Self::Corrupt { table, what: source.to_string() }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory
                | ErrorCode::NoLargeFileSupport
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::Io { table, source: Box::new(source) },
            // Values of a type that the schema does not have come from a damaged file, and so does a
            // schema in which a name is missing ("SQL logic error").
            None | Some(ErrorCode::Unknown)
                if !matches!(source, Sqlite::InvalidParameterCount(..) | Sqlite::InvalidParameterName(_)) =>
            {
                Self::Corrupt { table, what: source.to_string() }
            }
            _ => Self::Bug { table, source },
        }
    }

    pub(crate) fn corrupt(table: &'static str, what: impl Into<String>) -> Self {
        Self::Corrupt { table, what: what.into() }
    }
}

/// Says which table a failure was met in.
pub(crate) trait At<T> {
    /// Turns the error into a [`StoreError`] about `table`.
    fn at(self, table: &'static str) -> Result<T, StoreError>;
}

impl<T> At<T> for Result<T, rusqlite::Error> {
    fn at(self, table: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::from_sqlite(table, error))
    }
}

impl<T> At<T> for Result<T, rusqlite::types::FromSqlError> {
    fn at(self, table: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::corrupt(table, error.to_string()))
    }
}

impl<T> At<T> for Result<T, Malformed> {
    fn at(self, table: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::corrupt(table, error.0))
    }
}
