//! ignore.
