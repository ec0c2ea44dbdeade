//! `kinfold verify`: whether the disk still holds what was written to it.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output::{self, bytes, counted, escaped};
use crate::control::types::Verified;

/// Arguments of `kinfold verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check this folder alone
    folder: Option<String>,

    /// Mend what is damaged from what connected devices have; what lay there goes to history
    #[arg(long)]
    heal: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

const PAUSE: Duration = Duration::from_millis(100);

/// Runs the command. Ends with [`Exit::NeedsPerson`] where something stays damaged.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let client = context.client()?;
    let folder = args.folder.as_deref();
    client.verify(folder, args.heal)?;
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
        bar.set_style(style);
    }
    let all = loop {
        let all = client.verified(folder)?;
        if all.iter().any(|one| !one.begun) {
            return Err(Failure::new(Exit::Failed, "the check was broken off").with_hint("see `kinfold log`"));
        }
        if let Some(one) = all.iter().find(|one| one.stopped) {
            let text = format!("the folder {} is missing, or is not the one it was", escaped(&one.folder));
            return Err(
                Failure::new(Exit::Failed, text).with_hint("the check goes on when it is back; see `kinfold status`")
            );
        }
        if !all.iter().any(|one| one.running) {
            break all;
        }
        bar.set_length(all.iter().map(|one| one.total_bytes).sum());
        bar.set_position(all.iter().map(|one| one.bytes).sum());
        bar.set_message(counted(all.iter().map(|one| one.files).sum(), "file", "files"));
        thread::sleep(PAUSE);
    };
    bar.finish_and_clear();
    if args.json {
        output::say_json(&all)?;
    } else {
        all.iter().flat_map(text).try_for_each(output::say)?;
    }
    Ok(if all.iter().all(|one| one.damaged.is_empty()) { Exit::Done } else { Exit::NeedsPerson })
}

fn text(one: &Verified) -> Vec<String> {
    let name = escaped(&one.folder);
    let mut lines = vec![format!("{name}: {} read ({})", counted(one.files, "file", "files"), bytes(one.bytes))];
    if one.healed > 0 {
        lines.push(format!(
            "{name}: {} whole again; what lay there is in history",
            counted(one.healed, "file is", "files are")
        ));
    }
    for file in &one.damaged {
        lines.push(format!("{}: damaged ({})", file.path, bytes(file.bytes)));
    }
    match (one.damaged.len(), one.healed) {
        (0, 0) => lines.push(format!("{name}: all is as it was written")),
        (0, _) => {}
        _ => lines.push("what to do: check the disk; `kinfold verify --heal` mends what a connected device has whole; if a content is right, `touch` the file".to_owned()),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    use crate::control::types::{Damaged, RawPath};

    #[test]
    fn what_is_damaged_is_named_with_what_to_do() {
        let whole = Verified { folder: "data".to_owned(), files: 3, bytes: 2048, ..Verified::default() };
        assert_eq!(text(&whole), ["data: 3 files read (2.00 KiB)", "data: all is as it was written"]);
        let damaged = vec![Damaged { path: RawPath::from(Path::new("/d/a\u{a}b")), bytes: 1024 }];
        let lines = text(&Verified { damaged, healed: 1, ..whole });
        assert_eq!(lines[1], "data: 1 file is whole again; what lay there is in history");
        assert_eq!(lines[2], "/d/a\\nb: damaged (1.00 KiB)");
        assert!(lines[3].contains("verify --heal"));
    }
}
