//! ignore.

/// What the names of our own temporary files in the folder begin with.
pub(crate) const TEMP_PREFIX: &str = ".kinfold-tmp-";
