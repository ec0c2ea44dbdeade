//! What a daemon takes from itself before it listens to anybody, so that whoever takes it over gains little.
//!
//! It is done before the first thread, for what a thread gives up the others keep. None of it can be undone;
//! see `keeper` for who starts a daemon that needs more.

mod calls;
mod files;
pub mod process;

use std::path::Path;

use anyhow::bail;
use rustix::thread::CapabilitySet;

use crate::config::paths::Paths;
use crate::config::{Config, SandboxMode};
use crate::control::types::{RawPath, SandboxStatus};

pub use files::Covered;

/// What is in force.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// For `status`.
    pub status: SandboxStatus,
    /// What the rules for files were made of; `None` where there are none.
    covered: Option<Covered>,
}

impl Sandbox {
    /// Returns whether this process can do what a configuration asks for.
    pub fn suffices(&self, config: &Config) -> bool {
        self.covered.as_ref().is_none_or(|covered| covered.suffices(config))
    }
}

/// What a daemon takes from itself, for people.
const PRIVILEGES: &str = "privileges";
const DUMPS: &str = "memory dumps";
const FILES: &str = "files";
const TRUNCATION: &str = "emptying of files";
const PORTS: &str = "TCP ports";
const SCOPES: &str = "signals";
const CALLS: &str = "system calls";

/// Takes from this process all that it does not need. No thread may have been started.
///
/// # Errors
/// A sandbox is required, and a part of it cannot be had.
pub fn enter(paths: &Paths, config: &Config, required: bool) -> anyhow::Result<Sandbox> {
    let mode = if required { SandboxMode::Required } else { config.sandbox };
    let mut status = SandboxStatus { mode: mode.as_str().to_owned(), ..SandboxStatus::default() };
    let mut covered = None;
    if mode == SandboxMode::Off {
        return Ok(Sandbox { status, covered });
    }
    note(&mut status, DUMPS, process::forbid_dumps().map_err(|error| error.to_string()));
    let low_port = config.network.listen.iter().any(|address| (1..1024).contains(&address.port()));
    let privileges = process::forbid_new_privileges().and_then(|()| process::drop_capabilities(low_port));
    note(&mut status, PRIVILEGES, privileges.map_err(|error| error.to_string()));
    if is_alone() {
        let made_of = Covered::by(config);
        match files::confine(paths, &made_of) {
            Ok(rules) => {
                covered = Some(made_of);
                note(&mut status, FILES, Ok(()));
                for (part, has, since) in
                    [(TRUNCATION, rules.truncation, "6.2"), (PORTS, rules.ports, "6.7"), (SCOPES, rules.scopes, "6.12")]
                {
                    let result = if has { Ok(()) } else { Err(format!("the kernel is older than Linux {since}")) };
                    note(&mut status, part, result);
                }
                status.places = rules.places.iter().map(|place| RawPath::from(place.as_path())).collect();
            }
            Err(error) => note(&mut status, FILES, Err(chain(&error))),
        }
        note(&mut status, CALLS, calls::confine(calls::Sockets::Network).map_err(|error| chain(&error)));
    } else {
        note(&mut status, FILES, Err("a thread was started before".to_owned()));
    }
    if mode == SandboxMode::Required && !status.missing.is_empty() {
        bail!("a sandbox is required and cannot be had whole: {}", status.missing.join("; "));
    }
    for missing in &status.missing {
        tracing::warn!("not confined by {missing}");
    }
    tracing::info!("confined: {}", status.in_force.join(", "));
    Ok(Sandbox { status, covered })
}

/// Takes from this process all that a lookout does not need, as far as that can be had: it reaches no file and no
/// network, starts nothing, and takes no more memory than this. The units for systemd let nobody set such a bound; there
/// that of the bus on its messages is the only one. No thread may have been started.
pub fn enter_as_lookout(memory_bytes_max: u64) {
    // What is missing here is missing in the daemon as well, which says so.
    process::forbid_dumps().ok();
    process::forbid_new_privileges().and_then(|()| process::keep_capabilities(CapabilitySet::empty())).ok();
    process::bound_memory(memory_bytes_max).ok();
    files::confine_to_nothing().ok();
    calls::confine(calls::Sockets::Bus).ok();
}

fn note(status: &mut SandboxStatus, part: &str, result: Result<(), String>) {
    match result {
        Ok(()) => status.in_force.push(part.to_owned()),
        Err(why) => status.missing.push(format!("{part}: {why}")),
    }
}

/// Returns whether this process has one thread.
fn is_alone() -> bool {
    std::fs::read_dir(Path::new("/proc/self/task")).is_ok_and(|tasks| tasks.count() == 1)
}

fn chain(error: &dyn std::error::Error) -> String {
    crate::daemon::hub::chain(error)
}
