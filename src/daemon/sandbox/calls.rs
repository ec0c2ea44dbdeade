//! Which system calls a daemon makes, and what becomes of the others (seccomp).
//!
//! Two filters. One names what nothing in a daemon ever does and what an intruder does first: running a
//! program, looking into other processes, loading code into the kernel, mounting, other namespaces, other
//! users. That ends the process at once, for it is no longer ours. The other names all that a daemon does;
//! whatever is on neither list is answered with `ENOSYS`, as an older kernel would, since every library has a
//! way for that and most take `EPERM` for the last word. `clone3` is left off both for this reason: its
//! arguments lie in memory where no filter sees them, and glibc falls back to `clone`, whose flags are checked.
//!
//! The lists are those of traces of all tests, and of what glibc, SQLite, tokio and std call where they were
//! not met. No memory can be made executable.

use std::collections::BTreeMap;

use libc::{c_long, c_ulong};
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Calls that are made with any arguments.
const ALLOWED: &[c_long] = &[
    // Files.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_sync_file_range,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_getdents64,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_umask,
    libc::SYS_getcwd,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_memfd_create,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_membarrier,
    // Threads, time and signals.
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpriority,
    libc::SYS_ioprio_get,
    libc::SYS_getcpu,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // Who and where we are.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_times,
    // Waiting, and sockets once they are made.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
];

/// Older names of some of these, which only this processor has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OF_OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_unlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_symlink,
    libc::SYS_readlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_time,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OF_OLD: &[c_long] = &[];

/// Calls that end the process.
const DEADLY: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_personality,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// Namespaces that a new thread would be put into.
const NEW_NAMESPACES: c_ulong = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32 as c_ulong;
/// `PR_SET_VMA`: glibc names its memory.
const PR_SET_VMA: u64 = 0x5356_4d41;
/// `FICLONE` and `FICLONERANGE`: copies that share their blocks.
const CLONES_OF_FILES: [u64; 2] = [0x4004_9409, 0x4020_940d];
/// The bits of the type of a socket that are no flags.
const SOCKET_TYPE: u64 = 0xf;

/// Whose sockets are allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sockets {
    /// Those of a daemon: the network, and which interfaces there are. The control socket is inherited; no other local
    /// one is needed, and who could make one could ask a program outside, such as the service manager, to do what is
    /// refused here.
    Network,
    /// Those of a lookout, which talks to the bus of the system and to no network.
    Bus,
}

/// Puts both filters in force, in this thread and all that it starts.
pub fn confine(sockets: Sockets) -> Result<(), seccompiler::Error> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(seccompiler::Error::Backend)?;
    let deadly: BpfProgram = deadly(arch).map_err(seccompiler::Error::Backend)?;
    let allowed: BpfProgram = allowed(arch, sockets).map_err(seccompiler::Error::Backend)?;
    // In this order: the second one does not allow to install another.
    seccompiler::apply_filter(&deadly)?;
    seccompiler::apply_filter(&allowed)
}

fn deadly(arch: TargetArch) -> Result<BpfProgram, BackendError> {
    let rules = DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, arch)?.try_into()
}

#[allow(clippy::unnecessary_cast, reason = "musl has other types for some of these numbers")]
fn allowed(arch: TargetArch, sockets: Sockets) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_OF_OLD).map(|call| (*call, Vec::new())).collect();
    let exec = libc::PROT_EXEC as u64;
    let prctl = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_GET_DUMPABLE, libc::PR_GET_NO_NEW_PRIVS];
    let prctl = prctl.map(|what| what as u64).into_iter().chain([PR_SET_VMA]);
    // The last is the number of a network interface.
    let ioctl = [
        libc::FIONBIO,
        libc::FIONREAD,
        libc::FIOCLEX,
        libc::TCGETS,
        libc::TIOCGWINSZ,
        libc::TIOCOUTQ,
        libc::SIOCGIFINDEX,
    ];
    let ioctl = ioctl.map(|what| what as u64).into_iter().chain(CLONES_OF_FILES);
    let own = u64::from(std::process::id());
    let local = (0, Dword, Eq, libc::AF_UNIX as u64);
    let stream = (1, Dword, MaskedEq(SOCKET_TYPE), libc::SOCK_STREAM as u64);
    let sockets = match sockets {
        Sockets::Network => network_sockets()?,
        Sockets::Bus => vec![rule(&[local.clone(), stream.clone()])?],
    };
    let checked = [
        (libc::SYS_socket, sockets),
        // By which tokio hears of signals. A pair of datagram sockets could be sent elsewhere.
        (libc::SYS_socketpair, vec![rule(&[local, stream])?]),
        (libc::SYS_clone, vec![rule(&[(0, Qword, MaskedEq(NEW_NAMESPACES), 0)])?]),
        (libc::SYS_mmap, vec![rule(&[(2, Dword, MaskedEq(exec), 0)])?]),
        (libc::SYS_mprotect, vec![rule(&[(2, Dword, MaskedEq(exec), 0)])?]),
        (libc::SYS_prctl, prctl.map(|what| rule(&[(0, Dword, Eq, what)])).collect::<Result<_, _>>()?),
        (libc::SYS_ioctl, ioctl.map(|what| rule(&[(1, Dword, Eq, what)])).collect::<Result<_, _>>()?),
        // Only to read one's own limits.
        (libc::SYS_prlimit64, vec![rule(&[(0, Dword, Eq, 0), (2, Qword, Eq, 0)])?]),
        (libc::SYS_setpriority, vec![rule(&[(0, Dword, Eq, libc::PRIO_PROCESS as u64)])?]),
        (libc::SYS_tgkill, vec![rule(&[(0, Dword, Eq, own)])?]),
    ];
    rules.extend(checked);
    let not_there = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, not_there, SeccompAction::Allow, arch)?.try_into()
}

fn network_sockets() -> Result<Vec<SeccompRule>, BackendError> {
    let mut sockets =
        vec![rule(&[(0, Dword, Eq, libc::AF_NETLINK as u64), (2, Dword, Eq, libc::NETLINK_ROUTE as u64)])?];
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            sockets.push(rule(&[(0, Dword, Eq, family as u64), (1, Dword, MaskedEq(SOCKET_TYPE), kind as u64)])?);
        }
    }
    Ok(sockets)
}

type Condition = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);

/// All of the conditions on arguments, which count from 0.
fn rule(conditions: &[Condition]) -> Result<SeccompRule, BackendError> {
    let condition =
        |(argument, len, op, value): &Condition| SeccompCondition::new(*argument, len.clone(), op.clone(), *value);
    SeccompRule::new(conditions.iter().map(condition).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType};

    /// Tells a child what to try.
    const ATTEMPT: &str = "KINFOLD_ATTEMPT";
    /// Tells it to try that as a lookout, and not as a daemon.
    const AS_LOOKOUT: &str = "KINFOLD_ATTEMPT_AS_LOOKOUT";

    /// What a confined process tries. What cannot be told by an error ends it, or does not.
    fn attempt(name: &str) -> Result<(), Errno> {
        let socket = |family, kind| rustix::net::socket(family, kind, None).map(drop);
        let packet = AddressFamily::from_raw(libc::AF_PACKET as u16);
        let pair = |kind| {
            let flags = rustix::net::SocketFlags::CLOEXEC;
            rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None).map(drop)
        };
        match name {
            "tcp" => socket(AddressFamily::INET6, SocketType::STREAM),
            "a raw socket" => socket(AddressFamily::INET, SocketType::RAW),
            "a packet socket" => socket(packet, SocketType::DGRAM),
            "a local socket" => socket(AddressFamily::UNIX, SocketType::STREAM),
            "a pair of streams" => pair(SocketType::STREAM),
            "a pair for datagrams" => pair(SocketType::DGRAM),
            "a thread" => std::thread::Builder::new().spawn(|| {}).map(drop).map_err(|_| Errno::NOSYS),
            "a device" => {
                let mode = rustix::fs::Mode::RUSR;
                let kind = rustix::fs::FileType::CharacterDevice;
                rustix::fs::mknodat(rustix::fs::CWD, "/nowhere/device", kind, mode, 0)
            }
            "a limit of its own" => {
                let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
                rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)
            }
            "typing into a terminal" => {
                let stdin = std::io::stdin();
                rustix::termios::tcsetpgrp(stdin.as_fd(), rustix::process::getpid())
            }
            "a program" => match Command::new("/bin/true").status() {
                // The process that was to become it is ended, not this one.
                Ok(status) if status.signal() == Some(libc::SIGSYS) => Err(Errno::NOSYS),
                Ok(_) => Ok(()),
                Err(_) => Err(Errno::NOSYS),
            },
            "the host's name" => rustix::system::sethostname(b"mine"),
            "another root" => rustix::process::chroot("/"),
            "privileges" => {
                let sets = rustix::thread::capabilities(None)?;
                rustix::thread::set_capabilities(None, sets)
            }
            other => panic!("{other} is no attempt"),
        }
    }

    /// The child's part of the test below; without the variable it does nothing.
    #[test]
    fn what_a_confined_process_tries() {
        let Ok(name) = std::env::var(ATTEMPT) else { return };
        let as_lookout = std::env::var_os(AS_LOOKOUT).is_some();
        confine(if as_lookout { Sockets::Bus } else { Sockets::Network }).unwrap();
        let code = match attempt(&name) {
            Ok(()) => 10,
            Err(Errno::NOSYS) => 11,
            Err(_) => 12,
        };
        std::process::exit(code);
    }

    /// Says what becomes of an attempt.
    fn outcome_as(sockets: Sockets, name: &str) -> &'static str {
        let me = std::env::current_exe().unwrap();
        let test = "daemon::sandbox::calls::tests::what_a_confined_process_tries";
        let mut command = Command::new(me);
        command.args(["--exact", test, "--test-threads=1"]).env(ATTEMPT, name);
        if sockets == Sockets::Bus {
            command.env(AS_LOOKOUT, "1");
        }
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        match (status.code(), status.signal()) {
            (Some(10), _) => "done",
            (Some(11), _) => "unknown call",
            (_, Some(libc::SIGSYS)) => "ended",
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn a_lookout_talks_to_a_bus_and_to_no_network() {
        for name in ["a local socket", "a thread"] {
            assert_eq!(outcome_as(Sockets::Bus, name), "done", "{name}");
        }
        for name in ["tcp", "a raw socket", "a packet socket", "a pair for datagrams", "a program"] {
            assert_eq!(outcome_as(Sockets::Bus, name), "unknown call", "{name}");
        }
        assert_eq!(outcome_as(Sockets::Bus, "another root"), "ended");
    }

    #[test]
    fn what_a_daemon_never_does_is_refused_or_ends_it() {
        let outcome = |name: &str| outcome_as(Sockets::Network, name);
        for name in ["tcp", "a thread", "a pair of streams"] {
            assert_eq!(outcome(name), "done", "{name}");
        }
        let refused = [
            "a raw socket",
            "a packet socket",
            "a local socket",
            "a pair for datagrams",
            "a device",
            "a limit of its own",
            "typing into a terminal",
            "a program",
        ];
        for name in refused {
            assert_eq!(outcome(name), "unknown call", "{name}");
        }
        for name in ["the host's name", "another root", "privileges"] {
            assert_eq!(outcome(name), "ended", "{name}");
        }
    }

    #[test]
    fn both_lists_are_filters_for_each_processor() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64, TargetArch::riscv64] {
            assert!(deadly(arch).is_ok());
            assert!([Sockets::Network, Sockets::Bus].iter().all(|sockets| allowed(arch, *sockets).is_ok()));
        }
        assert!(DEADLY.iter().all(|call| !ALLOWED.contains(call) && !ALLOWED_OF_OLD.contains(call)));
    }
}
