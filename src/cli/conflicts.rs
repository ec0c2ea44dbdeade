//! `kinfold conflicts`: edits that were made apart, both of which were kept.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use clap::ValueEnum;
use similar::TextDiff;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::place;
use crate::control::client::Client;
use crate::control::types::Conflict;
use crate::control::types::ConflictSide;
use crate::control::types::Keep;
use crate::control::types::KeepConflict;
use crate::control::types::MergeConflict;
use crate::control::types::RawPath;

/// Arguments of `kinfold conflicts`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    list: ListArgs,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the conflicts of all folders
    List(ListArgs),
    /// Show both sides of a conflict, and how they differ where they are text
    Show {
        /// The file or its conflict copy
        path: PathBuf,
    },
    /// Put both sides of a conflict into one, where they are texts and the edits do not overlap
    ///
    /// The merged text takes the plain name, and both sides go to the history. Where the edits overlap, or where it is
    /// not known here what the file was before them, nothing is changed.
    Merge {
        /// The file or its conflict copy
        path: PathBuf,

        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Settle a conflict
    Keep {
        /// The file or its conflict copy
        path: PathBuf,

        /// Which side stays under the plain name
        side: Side,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Side {
    /// The edit made on this device; the other goes to the history
    Mine,
    /// The other edit; the one made on this device goes to the history
    Theirs,
    /// Both stay as two ordinary files
    Both,
    /// What has the plain name, now that you have merged the other into it; the other goes to the history
    Merged,
}

/// Conflicts of which it is tried whether they can be merged, to say so.
const TRIED_MAX: usize = 20;
/// Longest files that are compared.
const DIFF_LEN_MAX: u64 = 4 << 20;
/// Lines of a comparison that are shown.
const DIFF_LINES_MAX: usize = 500;
/// After so long a comparison need not be the shortest any more.
const DIFF_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the command. A list ends with [`Exit::NeedsPerson`] where it is not empty.
pub fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    match args.command.unwrap_or(Command::List(args.list)) {
        Command::List(args) => list(context, args.json),
        Command::Show { path } => show(context, &place::meant(&path)?),
        Command::Merge { path, dry_run, json } => merge(context, place::meant(&path)?, dry_run, json),
        Command::Keep { path, side } => {
            let keep = match side {
                Side::Mine => Keep::Mine,
                Side::Theirs => Keep::Theirs,
                Side::Both => Keep::Both,
                Side::Merged => Keep::Merged,
            };
            context.client()?.keep(&KeepConflict { path: place::meant(&path)?, keep })?;
            Ok(Exit::Done)
        }
    }
}

fn list(context: &Context, json: bool) -> Result<Exit, Failure> {
    let conflicts = context.client()?.conflicts(None)?;
    if json {
        output::say_json(&conflicts)?;
    } else {
        let client = context.client()?;
        let row = |(at, conflict): (usize, &Conflict)| {
            let made = format!("{} on {}", output::local_time(conflict.time), output::escaped(&conflict.device));
            let merges = if at < TRIED_MAX && can_merge(&client, &conflict.path) { "can be merged" } else { "" };
            vec![output::escaped(&conflict.folder), made, conflict.path.to_string(), merges.to_owned()]
        };
        output::say_columns(&conflicts.iter().enumerate().map(row).collect::<Vec<_>>())?;
    }
    Ok(if conflicts.is_empty() { Exit::Done } else { Exit::NeedsPerson })
}

fn show(context: &Context, path: &RawPath) -> Result<Exit, Failure> {
    let conflicts = context.client()?.conflicts(None)?;
    let found: Vec<_> = conflicts.iter().filter(|conflict| conflict.path == *path || conflict.of == *path).collect();
    let Some(first) = found.first() else {
        return Err(Failure::new(Exit::Failed, format!("there is no conflict at {path}"))
            .with_hint("see `kinfold conflicts list`"));
    };
    let side = |path: &RawPath, side: Option<&ConflictSide>, what: &str| match side {
        Some(side) => {
            let made = format!("{} on {}", output::local_time(side.time), output::escaped(&side.device));
            vec![path.to_string(), output::bytes(side.size), made, what.to_owned()]
        }
        None => vec![path.to_string(), "not there".to_owned()],
    };
    let mut rows = vec![side(&first.of, first.winner.as_ref(), "has the name")];
    for conflict in &found {
        let copy = ConflictSide { device: conflict.device.clone(), time: conflict.time, size: conflict.size };
        let what = if conflict.is_mine { "mine, beside it" } else { "beside it" };
        rows.push(side(&conflict.path, Some(&copy), what));
    }
    output::say_columns(&rows)?;
    for conflict in &found {
        difference(&conflict.of, &conflict.path).iter().try_for_each(output::say)?;
    }
    let client = context.client()?;
    for conflict in found.iter().take(TRIED_MAX).filter(|conflict| can_merge(&client, &conflict.path)) {
        output::say("")?;
        output::say(format_args!(
            "{}: the edits do not overlap; `kinfold conflicts merge PATH` makes both",
            conflict.path
        ))?;
    }
    Ok(Exit::Done)
}

/// Whether both sides can be put into one. Where that cannot be told it cannot.
fn can_merge(client: &Client, path: &RawPath) -> bool {
    client.merge(&MergeConflict { path: path.clone(), dry_run: true }).is_ok()
}

fn merge(context: &Context, path: RawPath, dry_run: bool, json: bool) -> Result<Exit, Failure> {
    let merged = context.client()?.merge(&MergeConflict { path, dry_run })?;
    if json {
        output::say_json(&merged)?;
    } else {
        let (verb, size) = (if dry_run { "would merge" } else { "merged" }, output::bytes(merged.size));
        output::say(format_args!("{verb} {} into {}, {size}", merged.copy, merged.path))?;
    }
    Ok(Exit::Done)
}

/// Returns how two files differ, where both are text, or why that is not shown.
fn difference(of: &RawPath, copy: &RawPath) -> Vec<String> {
    let (of_text, copy_text) = match (text_of(of), text_of(copy)) {
        (Ok(of), Ok(copy)) => (of, copy),
        (Err(why), _) => return vec![String::new(), format!("{of}: {why}")],
        (_, Err(why)) => return vec![String::new(), format!("{copy}: {why}")],
    };
    if of_text == copy_text {
        return vec![String::new(), "both hold the same".to_owned()];
    }
    let diff = TextDiff::configure().deadline(Instant::now() + DIFF_PATIENCE).diff_lines(&of_text, &copy_text);
    let mut lines = vec![String::new(), format!("--- {of}"), format!("+++ {copy}")];
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        lines.push(hunk.header().to_string());
        for change in hunk.iter_changes() {
            // Lines are escaped as names are, but for tabs: they are content that anybody may have written.
            let line = change.value().trim_end_matches(['\n', '\r']);
            let shown: Vec<_> = line.split('\t').map(output::printable).collect();
            lines.push(format!("{}{}", change.tag(), shown.join("\t")));
        }
        if lines.len() > DIFF_LINES_MAX {
            lines.truncate(DIFF_LINES_MAX);
            lines.push("and more".to_owned());
            break;
        }
    }
    lines
}

fn text_of(path: &RawPath) -> Result<String, String> {
    let mut bytes = vec![];
    let read = File::open(path.as_path()).and_then(|file| file.take(DIFF_LEN_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(error.to_string()),
        Ok(_) if bytes.len() as u64 > DIFF_LEN_MAX => Err("too long to be compared here".to_owned()),
        Ok(_) if bytes.contains(&0) => Err("is no text".to_owned()),
        Ok(_) => String::from_utf8(bytes).map_err(|_| "is no text".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::path::Path;

    #[test]
    fn differences_are_shown_escaped_and_only_of_text() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            RawPath::from(path.as_path())
        };
        let of = file("a", b"one\ntwo\nthree\n");
        let copy = file("b", b"one\ntwo \x1b[31m\tand \\ more\nthree\n");
        let lines = difference(&of, &copy);
        assert_eq!(lines[3..], ["@@ -1,3 +1,3 @@", " one", "-two", "+two \\u{1b}[31m\tand \\ more", " three"]);
        assert_eq!(difference(&of, &of)[1], "both hold the same");
        assert!(difference(&of, &file("c", b"\xff"))[1].ends_with("c: is no text"));
        assert!(difference(&of, &file("d", b"a\0b"))[1].ends_with("d: is no text"));
        let missing = RawPath::from(Path::new("/nowhere/at/all"));
        assert!(difference(&missing, &of)[1].starts_with("/nowhere/at/all: No such file"));
        let long = file("e", &vec![b'x'; DIFF_LEN_MAX as usize + 1]);
        assert!(difference(&of, &long)[1].ends_with("too long to be compared here"));
        let many: String = (0..DIFF_LINES_MAX * 2).map(|n| format!("{n}\n")).collect();
        assert_eq!(difference(&of, &file("f", many.as_bytes())).last().unwrap(), "and more");
    }
}
