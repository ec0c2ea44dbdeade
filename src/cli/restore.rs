//! `kinfold restore`: a file or directory as it was.

use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use rustix::fs::renameat_with;
use rustix::io::Errno;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::place;
use crate::control::types::RawPath;
use crate::control::types::Restore;
use crate::control::types::Restored;
use crate::control::types::Time;

/// Arguments of `kinfold restore`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file or directory; it may have been deleted
    path: PathBuf,

    /// As it was at this time: a time that `kinfold history` prints, or `2026-05-31 18:00` on the clock
    /// of this machine [default: as it was before the last change]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Time>,

    /// Put it here instead of back in its place
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
}

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let to = args.to.as_deref().map(place::meant).transpose()?;
    let path = place::meant(&args.path)?;
    let restored = match to {
        None => context.client()?.restore(&Restore { path, at: args.at, to: None })?,
        Some(to) => restore_to(context, path, args.at, to)?,
    };
    let files = output::counted(restored.files, "file", "files");
    output::say(format_args!("restored {files}, {}, to {}", output::bytes(restored.bytes), restored.to))?;
    Ok(Exit::Done)
}

/// Has the daemon put it where it may write, and moves it from there: a daemon reaches its folders and its
/// own files, and nothing else.
fn restore_to(context: &Context, path: RawPath, at: Option<Time>, to: RawPath) -> Result<Restored, Failure> {
    let doing = |error: io::Error| Failure::from_error(&error).while_doing("cannot restore");
    let between = tempfile::Builder::new().prefix("restored-").tempdir_in(&context.paths.state_dir).map_err(doing)?;
    let there = between.path().join("it");
    let restore = Restore { path, at, to: Some(RawPath(there.clone())) };
    let restored = context.client()?.restore(&restore)?;
    bring(&there, to.as_path())
        .map_err(|(path, error)| Failure::from_error(&error).while_doing(&format!("cannot write {}", RawPath(path))))?;
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
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Time(time));
    }
    let local = text.parse::<DateTime>().ok().and_then(|time| time.to_zoned(TimeZone::system()).ok());
    local
        .map(|time| Time(time.timestamp()))
        .ok_or_else(|| "write it like 2026-05-31T18:00:00Z or 2026-05-31 18:00".to_owned())
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

    #[test]
    fn times_are_read_as_people_and_programs_write_them() {
        let check = |text: &str, expected: &str| assert_eq!(time(text).unwrap().to_string(), expected);
        check("2026-05-31T18:00:00Z", "2026-05-31T18:00:00Z");
        check("2026-05-31T18:00:00.123456789Z", "2026-05-31T18:00:00.123456789Z");
        check("2026-05-31T18:00:00+02:00", "2026-05-31T16:00:00Z");
        let local = |text: &str| {
            let time = text.parse::<DateTime>().unwrap().to_zoned(TimeZone::system()).unwrap();
            time.timestamp().to_string()
        };
        check("2026-05-31 18:00", &local("2026-05-31T18:00:00"));
        check("2026-05-31 18:00:07", &local("2026-05-31T18:00:07"));
        for text in ["", "yesterday", "18:00", "2026-13-01 00:00"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
