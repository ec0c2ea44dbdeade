//! What a process can give up by itself: privileges, core dumps, being looked into by its own user.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use anyhow::{Context, bail};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Capabilities that a daemon run by root keeps, for root's folders may hold files of others. They let it
/// past the permission bits of files, which then only the rules for files bound.
const OF_ROOT: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::FOWNER);
/// The highest number that a capability may have; kernels know 41 of them today.
const CAPABILITIES_MAX: u32 = 63;

/// Makes the keeper useless to whoever gets into it. What cannot be had is had again in the daemon, which
/// says so.
pub fn harden_keeper() {
    rustix::thread::set_no_new_privs(true).ok();
    forbid_dumps().ok();
}

/// Takes what the keeper hands to a daemon: its life, and the control socket in the place of standard output.
///
/// # Errors
/// This process was not started by a keeper.
pub fn inherit(keeper: i32) -> anyhow::Result<UnixListener> {
    bind_to(keeper)?;
    let stdout = io::stdout();
    if !matches!(rustix::net::sockopt::socket_acceptconn(stdout.as_fd()), Ok(true)) {
        bail!("the keeper handed no control socket over");
    }
    let socket: OwnedFd = stdout.as_fd().try_clone_to_owned().context("cannot take the control socket")?;
    Ok(socket.into())
}

/// Binds the life of this process to that of the one that started it.
///
/// # Errors
/// That is not the one with this process id.
pub fn bind_to(parent: i32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("cannot be bound to its parent")?;
    // It may have died before we were bound to it.
    if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
        bail!("this is how the daemon starts its own inner process; run `kinfold serve`");
    }
    Ok(())
}

/// Bounds the memory that this process may take for itself.
pub fn bound_memory(bytes: u64) -> io::Result<()> {
    let bound = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    rustix::process::setrlimit(Resource::Data, bound)?;
    Ok(())
}

/// Makes that neither this process nor what it starts can become more than it is, by set-uid programs or
/// others.
pub fn forbid_new_privileges() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Makes that no core file is written and that other processes of the same user cannot look into the memory
/// where the keys are.
pub fn forbid_dumps() -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if rustix::process::getrlimit(Resource::Core) != none {
        rustix::process::setrlimit(Resource::Core, none)?;
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Gives up all capabilities, those of root over files left out, and `low_port` keeps the one to listen on a
/// port below 1024. Also those that could come back through programs that are started.
pub fn drop_capabilities(low_port: bool) -> io::Result<()> {
    let of_root = if rustix::process::geteuid().is_root() { OF_ROOT } else { CapabilitySet::empty() };
    let of_port = if low_port { CapabilitySet::NET_BIND_SERVICE } else { CapabilitySet::empty() };
    keep_capabilities(of_root | of_port)
}

/// Gives up all capabilities but these, as far as they were there.
pub fn keep_capabilities(wanted: CapabilitySet) -> io::Result<()> {
    let had = rustix::thread::capabilities(None)?;
    let kept = had.permitted & wanted;
    // The bounding set is of use only to programs that are started. Whoever may not drop from it gains
    // nothing by it either.
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..=CAPABILITIES_MAX {
            let one = CapabilitySet::from_bits_retain(1 << number);
            if !kept.contains(one) && matches!(rustix::thread::capability_is_in_bounding_set(one), Ok(true)) {
                rustix::thread::remove_capability_from_bounding_set(one)?;
            }
        }
    }
    if !had.permitted.is_empty() {
        rustix::thread::clear_ambient_capability_set()?;
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets)?;
    }
    Ok(())
}
