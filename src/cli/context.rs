//! What most commands need: the places of this device, its identity, its configuration, its daemon.

use std::path::Path;
use std::path::PathBuf;

use crate::cli::error::Failure;
use crate::cli::unlock;
use crate::config::Config;
use crate::config::edit::Edit;
use crate::config::paths::Paths;
use crate::control::client::Client;
use crate::control::client::ControlError;
use crate::model::id::DeviceId;

/// The device that the command line works on.
#[derive(Debug)]
pub struct Context {
    /// Where it keeps its files.
    pub paths: Paths,
    /// The directory that was given for all of them.
    pub home: Option<PathBuf>,
}

impl Context {
    /// Finds the device, below `home` where that is given.
    pub fn new(home: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self { paths: Paths::resolve(home)?, home: home.map(Path::to_owned) })
    }

    /// Reads this device's id.
    pub fn own_id(&self) -> Result<DeviceId, Failure> {
        match unlock::find(&self.paths)? {
            Some(found) => Ok(found.file.device_id()),
            // One that only the daemon was given.
            None => self.client()?.status().map(|status| status.device.id).map_err(|_| unlock::missing(&self.paths)),
        }
    }

    /// Reads the configuration.
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.paths)?)
    }

    /// Returns a client of this device's daemon, running or not.
    pub fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(&self.paths.socket)?)
    }

    /// Changes the configuration, and has a running daemon read it anew.
    ///
    /// It does so even where nothing changed: an earlier change may be one that it did not take.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Edit) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut edit = Edit::open(&self.paths)?;
        let result = change(&mut edit)?;
        edit.save()?;
        self.reload()?;
        Ok(result)
    }

    /// Has a running daemon look at configuration and keys anew.
    pub fn reload(&self) -> Result<(), Failure> {
        match self.client()?.reload() {
            Ok(()) | Err(ControlError::NoDaemon { .. }) => Ok(()),
            Err(error) => {
                Err(Failure::from(error).while_doing("the change was saved, but the running daemon did not take it"))
            }
        }
    }
}
