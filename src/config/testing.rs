//! A configuration on the disk, for tests: the one of device [`OWN`], in a directory that goes with it.

use std::fs;
use std::path::PathBuf;

use crate::config::edit::{Edit, NewFolder, init};
use crate::config::paths::Paths;
use crate::config::{Config, Device};
use crate::model::id::{DeviceId, FolderId};

/// The device whose configuration it is.
pub const OWN: u8 = 1;

/// Id of the device with a number.
pub fn id(n: u8) -> DeviceId {
    DeviceId::from_public_key([n; 32])
}

/// A device as a person adds it, without an address.
pub fn device(name: &str, n: u8) -> Device {
    Device::new(name, id(n), vec![])
}

/// The program's files, and room beside them for folders.
pub struct Home {
    pub dir: tempfile::TempDir,
    pub paths: Paths,
}

impl Home {
    /// A first configuration, as `kinfold init` writes it.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(&dir.path().join("home")).unwrap();
        init(&paths, "h0", &[]).unwrap();
        Self { dir, paths }
    }

    /// A configuration with a text of its own.
    pub fn with_text(text: &str) -> Self {
        let home = Self::new();
        fs::write(&home.paths.config_file, text).unwrap();
        home
    }

    /// A configuration that trusts devices "two" and "three", with the numbers that they are called by.
    pub fn of_three() -> Self {
        let home = Self::new();
        home.change(|edit| {
            for (name, n) in [("two", 2), ("three", 3)] {
                edit.add_device(&id(OWN), &device(name, n)).unwrap();
            }
        });
        home
    }

    pub fn text(&self) -> String {
        fs::read_to_string(&self.paths.config_file).unwrap()
    }

    pub fn config(&self) -> Config {
        Config::load(&self.paths).unwrap()
    }

    pub fn edit(&self) -> Edit {
        Edit::open(&self.paths).unwrap()
    }

    /// Edits the configuration and saves it.
    pub fn change<T>(&self, change: impl FnOnce(&mut Edit) -> T) -> T {
        let mut edit = self.edit();
        let result = change(&mut edit);
        edit.save().unwrap();
        result
    }

    /// A directory beside the program's files, made where it is missing.
    pub fn place(&self, name: &str) -> PathBuf {
        let path = self.dir.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A folder at [`Home::place`] that nobody shares.
    pub fn folder(&self, name: &str, n: u8) -> NewFolder {
        NewFolder { name: name.to_owned(), path: self.place(name), id: FolderId([n; 16]), shares: vec![] }
    }
}
