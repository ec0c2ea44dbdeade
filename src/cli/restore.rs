//! `kinfold restore`: a file or directory as it was.

use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use rustix::fs::renameat_with;
use rustix::io::Errno;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::place;
use crate::cli::when;
use crate::control::types::RawPath;
use crate::control::types::Restore;
use crate::control::types::Restored;
use crate::control::types::Time;
use crate::control::types::WouldRestore;

/// Arguments of `kinfold restore`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file or directory; it may have been deleted
    path: PathBuf,

    /// As it was at this time: one that `kinfold history` prints, or words like `yesterday 18:00`, `2 hours ago` or
    /// `2026-05-31 18:00`, on the clock of this machine [default: as it was before the last change]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Time>,

    /// Put it here instead of back in its place
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,

    /// Out of the history of DEVICE, which has to be connected [default: of this device; what it does not keep is taken
    /// from connected devices that may change the folder]
    #[arg(long, value_name = "DEVICE")]
    from: Option<String>,

    /// Only say what would be brought back, and from where
    #[arg(long)]
    dry_run: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What to do where something lies at a place already.
const NAME_ANOTHER: &str = "nothing is overwritten there: name another place with --to";
/// What to do where a place cannot be written to.
const CHECK_PLACE: &str = "check the permissions and the room there, or name another place with --to";

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let to = args.to.as_deref().map(place::meant).transpose()?;
    let path = place::meant(&args.path)?;
    let wish = Restore { path, at: args.at, to, dry_run: args.dry_run, from: args.from.clone() };
    let restored = match wish.to.clone() {
        Some(to) if !args.dry_run => restore_to(context, wish, to)?,
        _ => context.client()?.restore(&wish)?,
    };
    if args.json {
        output::say_json(&restored)?;
        return Ok(Exit::Done);
    }
    if args.dry_run {
        let row = |file: &WouldRestore| {
            let replaces = if file.replaces { "what lies there goes to history" } else { "" };
            let from = file.from.as_ref().map_or_else(String::new, |from| format!(", from {}", output::escaped(from)));
            let made = format!("{} by {}{from}", output::local_time(file.time), output::escaped(&file.device));
            vec![file.path.to_string(), output::bytes(file.size), made, replaces.to_owned()]
        };
        output::say_columns(&restored.listed.iter().map(row).collect::<Vec<_>>())?;
        let left = restored.files.saturating_sub(restored.listed.len() as u64);
        if left > 0 {
            output::say(format_args!("and {} more", output::counted(left, "file", "files")))?;
        }
    }
    let did = if args.dry_run { "would restore" } else { "restored" };
    let files = output::counted(restored.files, "file", "files");
    let from = match &restored.from[..] {
        [] => String::new(),
        devices => format!("from {}, ", output::escaped(&devices.join(", "))),
    };
    output::say(format_args!("{did} {files}, {}, {from}to {}", output::bytes(restored.bytes), restored.to))?;
    Ok(Exit::Done)
}

/// Has the daemon put it where it may write, and moves it from there: a daemon reaches its folders and its
/// own files, and nothing else.
fn restore_to(context: &Context, wish: Restore, to: RawPath) -> Result<Restored, Failure> {
    let doing = |error: io::Error| Failure::from_error(&error).while_doing("cannot restore").with_hint(CHECK_PLACE);
    let between = tempfile::Builder::new().prefix("restored-").tempdir_in(&context.paths.state_dir).map_err(doing)?;
    let there = between.path().join("it");
    let restored = context.client()?.restore(&Restore { to: Some(RawPath(there.clone())), ..wish })?;
    bring(&there, to.as_path()).map_err(|(path, error)| {
        let hint = if error.kind() == io::ErrorKind::AlreadyExists { NAME_ANOTHER } else { CHECK_PLACE };
        Failure::from_error(&error).while_doing(&format!("cannot write {}", RawPath(path))).with_hint(hint)
    })?;
    Ok(Restored { to, ..restored })
}

/// Moves a file or a tree to where nothing is overwritten. An error comes with the path that it is about.
fn bring(from: &Path, to: &Path) -> Result<(), (PathBuf, io::Error)> {
    let told = |error: io::Error| (to.to_owned(), error);
    let Ok(meta) = fs::symlink_metadata(from) else {
        // A tree of no files.
        return Ok(());
    };
    if meta.is_dir() {
        fs::create_dir_all(to).map_err(told)?;
        for entry in fs::read_dir(from).map_err(told)? {
            let entry = entry.map_err(told)?;
            bring(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    fs::create_dir_all(to.parent().unwrap_or(Path::new("/"))).map_err(told)?;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Another disk, or a file system that cannot rename so.
        Err(Errno::XDEV | Errno::INVAL) => copy(from, to, &meta).map_err(told),
        moved => moved.map_err(|error| told(error.into())),
    }
}

fn copy(from: &Path, to: &Path, meta: &fs::Metadata) -> io::Result<()> {
    if meta.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    let mut copy = File::options().write(true).create_new(true).open(to)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    copy.set_permissions(meta.permissions())?;
    copy.set_modified(meta.modified()?)?;
    copy.sync_all()
}

fn time(text: &str) -> Result<Time, String> {
    when::parse(text, &jiff::Zoned::now()).map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_moved_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("a/to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/f"), "restored").unwrap();
        fs::write(from.join("g"), "g").unwrap();
        bring(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("sub/f")).unwrap(), "restored");
        assert_eq!(fs::read_to_string(to.join("g")).unwrap(), "g");
        fs::write(from.join("g"), "another").unwrap();
        let (path, error) = bring(&from, &to).unwrap_err();
        assert_eq!((path, error.kind()), (to.join("g"), io::ErrorKind::AlreadyExists));
        // From another disk it is copied, by the same rule.
        let meta = fs::metadata(from.join("g")).unwrap();
        assert_eq!(copy(&from.join("g"), &to.join("g"), &meta).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        copy(&from.join("g"), &to.join("h"), &meta).unwrap();
        assert_eq!(fs::read_to_string(to.join("h")).unwrap(), "another");
        assert_eq!(fs::metadata(to.join("h")).unwrap().modified().unwrap(), meta.modified().unwrap());
    }
}
