//! `kinfold man`: the manual pages, one a command, and those on the configuration, the protocol, the security and
//! the JSON.
//!
//! Those of the commands are made from the table that also reads the arguments, so they cannot tell of what is not
//! there. The others lie in `man/` of the sources and are part of the program. All are in the language mdoc.

pub mod api;
mod mdoc;
mod notes;

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;

/// Arguments of `kinfold man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory; made where it is missing
    dir: PathBuf,
}

/// The pages that are written by hand: names and texts.
const WRITTEN: &[(&str, &str)] = &[
    ("kinfold-config.5", include_str!("../../../man/kinfold-config.5")),
    ("kinfold-protocol.7", include_str!("../../../man/kinfold-protocol.7")),
    ("kinfold-security.7", include_str!("../../../man/kinfold-security.7")),
];

/// Runs the command.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    let doing = format!("cannot write manual pages into {}", args.dir.display());
    fs::create_dir_all(&args.dir)
        .and_then(|()| pages().iter().try_for_each(|(name, text)| fs::write(args.dir.join(name), text)))
        .map_err(|error| {
            Failure::from_error(&error)
                .while_doing(&doing)
                .with_hint("name a directory that can be made and written to")
        })?;
    Ok(Exit::Done)
}

/// Returns the names and texts of all pages.
fn pages() -> Vec<(String, String)> {
    let mut root = Cli::command();
    // Has the options that count everywhere written into each command.
    root.build();
    let mut pages: Vec<_> = WRITTEN.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    pages.push((api::NAME.to_owned(), api::page()));
    let others: Vec<_> = pages.iter().map(|(name, _)| name.clone()).collect();
    let others: Vec<_> = others.iter().filter_map(|name| name.rsplit_once('.')).collect();
    add_pages(&root, &others, &mut pages);
    pages
}

fn add_pages(command: &clap::Command, others: &[(&str, &str)], pages: &mut Vec<(String, String)>) {
    pages.push((format!("{}.1", mdoc::name_of(command)), mdoc::page(command, others)));
    for below in mdoc::commands_below(command) {
        add_pages(below, others, pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_and_each_note_a_command() {
        let pages = pages();
        let has = |name: &str| pages.iter().any(|(page, _)| *page == format!("{name}.1"));
        assert!(has("kinfold") && has("kinfold-folder") && has("kinfold-folder-add"));
        // What clap adds of its own has none: `kinfold help folder` shows what the pages say.
        assert!(!has("kinfold-help") && !has("kinfold-folder-help"));
        for note in notes::NOTES {
            assert!(has(note.page), "there is no command for the note {}", note.page);
        }
    }
}
