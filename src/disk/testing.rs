//! A real folder in a temporary directory, for the tests of this layer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::disk::probe::probe;
use crate::disk::root::Root;
use crate::engine::effect::Found;
use crate::model::id::FolderId;
use crate::model::path::RelPath;
use crate::model::stat::Stat;

pub(crate) struct Folder {
    pub(crate) root: Root,
    _dir: Option<TempDir>,
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

impl Folder {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::create(&dir.path().join("folder"), FolderId([7; 16])).unwrap();
        Self { root, _dir: Some(dir) }
    }

    /// Opens a folder that somebody else made.
    pub(crate) fn opened(at: &Path) -> Self {
        Self { root: Root::open(at, FolderId([7; 16])).unwrap(), _dir: None }
    }

    /// Returns the absolute path of something in the folder.
    pub(crate) fn at(&self, rel: &str) -> PathBuf {
        self.root.path().join(rel)
    }

    pub(crate) fn write(&self, rel: &str, bytes: &[u8]) {
        fs::create_dir_all(self.at(rel).parent().unwrap()).unwrap();
        fs::write(self.at(rel), bytes).unwrap();
    }

    pub(crate) fn read(&self, rel: &str) -> Vec<u8> {
        fs::read(self.at(rel)).unwrap_or_else(|error| panic!("{rel}: {error}"))
    }

    pub(crate) fn set_mode(&self, rel: &str, mode: u32) {
        fs::set_permissions(self.at(rel), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn probe(&self, rel: &str) -> Option<Found> {
        probe(&self.root, &path(rel)).unwrap()
    }

    pub(crate) fn stat(&self, rel: &str) -> Stat {
        self.stat_of(&path(rel))
    }

    pub(crate) fn stat_of(&self, rel: &RelPath) -> Stat {
        match probe(&self.root, rel).unwrap() {
            Some(Found::Entry(stat) | Found::Symlink(stat, _)) => stat,
            other => panic!("{rel}: {other:?}"),
        }
    }

    /// Returns the names in a directory, sorted.
    pub(crate) fn names(&self, rel: &str) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(self.at(rel)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}
