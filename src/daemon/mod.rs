//! The daemon: what connects all other layers and runs until it is told to stop.

pub mod control;

use crate::config::paths::Paths;
use crate::control::log::LogRing;

/// What a daemon is started with, besides its configuration.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// The newest lines of the log, for `kinfold log`.
    pub log: LogRing,
}

/// Runs the daemon until a signal or a client ends it.
pub fn serve(paths: Paths, options: ServeOptions) -> anyhow::Result<()> {
    let ServeOptions { log: _ } = options;
    anyhow::bail!("this build has no daemon for {}", paths.config_file.display())
}
