//! Where the log goes: to the journal under systemd, in colour to a terminal, else as plain lines.

use std::ffi::OsString;
use std::io;
use std::io::IsTerminal;

use clap::Args;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::error::Failure;
use crate::control::log::LogRing;

/// How much is logged, and in which form.
#[derive(Args, Debug)]
pub struct LogArgs {
    /// How much to log: error, warn, info, debug, trace, or rules like `kinfold::net=debug`
    #[arg(long = "log", env = "KINFOLD_LOG", hide_env_values = true, value_name = "LEVEL", value_parser = checked_level)]
    level: Option<String>,

    /// Log lines of JSON
    #[arg(long)]
    log_json: bool,
}

impl LogArgs {
    /// Returns the arguments that stand for these, for a process of ours.
    pub fn as_given(&self, default_level: &str) -> Vec<OsString> {
        let level = self.level.as_deref().filter(|level| !level.is_empty()).unwrap_or(default_level);
        let json = self.log_json.then_some("--log-json");
        ["--log", level].into_iter().chain(json).map(OsString::from).collect()
    }
}

/// Begins to log, and returns the ring that keeps the newest lines for `kinfold log`.
///
/// The ring holds all from `info` up, whatever goes to the log.
pub fn start(args: &LogArgs, default_level: &str) -> Result<LogRing, Failure> {
    // An empty variable says as little as none.
    let level = args.level.as_deref().filter(|level| !level.is_empty()).unwrap_or(default_level);
    let filter = EnvFilter::try_new(level).map_err(|error| Failure::from_error(&error))?;
    let ring = LogRing::default();
    tracing_subscriber::registry()
        .with(ring.clone().with_filter(LevelFilter::INFO))
        .with(form(args.log_json).with_filter(filter))
        .try_init()
        .map_err(|error| Failure::from_error(&error))?;
    Ok(ring)
}

fn form(json: bool) -> Box<dyn Layer<WithRing> + Send + Sync> {
    if !json && is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref()) {
        // Without a journal after all, plain lines still arrive somewhere.
        if let Ok(journal) = tracing_journald::layer() {
            return Box::new(journal);
        }
    }
    // A log that cannot be written must not end the daemon.
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false).log_internal_errors(false);
    match json {
        true => Box::new(lines.json().with_ansi(false)),
        false => Box::new(lines.with_ansi(io::stderr().is_terminal())),
    }
}

type WithRing =
    tracing_subscriber::layer::Layered<tracing_subscriber::filter::Filtered<LogRing, LevelFilter, Registry>, Registry>;

/// Returns whether standard error is the stream `DEVICE:INODE` that systemd connected to the journal;
/// the variable alone may be inherited by a program whose output goes elsewhere.
fn is_journal(stream: Option<&str>) -> bool {
    let Some((dev, ino)) = stream.and_then(|stream| stream.split_once(':')) else { return false };
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    dev.parse() == Ok(stat.st_dev) && ino.parse() == Ok(stat.st_ino)
}

fn checked_level(text: &str) -> Result<String, String> {
    let is_word = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_word && text.parse::<LevelFilter>().is_err() {
        return Err("levels are error, warn, info, debug and trace".to_owned());
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_does_not_exist_is_refused() {
        for level in ["warn", "DEBUG", "off", "kinfold::net=debug,info"] {
            assert_eq!(checked_level(level).as_deref(), Ok(level));
        }
        for level in ["loud", "kinfold=loud"] {
            assert!(checked_level(level).is_err(), "{level}");
        }
    }

    #[test]
    fn an_inherited_journal_variable_is_not_believed() {
        assert!(!is_journal(None));
        assert!(!is_journal(Some("1:1")));
        assert!(!is_journal(Some("x")));
        let stat = rustix::fs::fstat(io::stderr()).unwrap();
        assert!(is_journal(Some(&format!("{}:{}", stat.st_dev, stat.st_ino))));
    }
}
