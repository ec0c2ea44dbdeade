//! Rules of the house that no compiler checks: who may import whom, what pure layers never touch, and
//! that the documents speak of what exists.
//!
//! It reads text and not syntax. What it could not read, such as a grouped import at the root of the
//! crate, is refused.

// The whole crate is a test; the helpers between its tests may unwrap as these do.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One row a folder of `src/`: what it may name as `crate::…` besides itself, and whether it only computes.
const LAYERS: &[(&str, &[&str], Purity)] = &[
    ("model", &[], Purity::Pure),
    ("wire", &["model"], Purity::Pure),
    ("engine", &["model", "wire"], Purity::Pure),
    ("disk", &["model", "engine"], Purity::Shell),
    ("store", &["model", "engine"], Purity::Shell),
    ("net", &["model", "wire", "engine"], Purity::Shell),
    ("keys", &["model", "disk"], Purity::Shell),
    ("config", &["model", "disk"], Purity::Shell),
    ("control", &["model"], Purity::Shell),
    ("daemon", &["model", "wire", "engine", "disk", "store", "net", "keys", "config", "control"], Purity::Shell),
    ("cli", &["model", "keys", "config", "control", "daemon"], Purity::Shell),
];

#[derive(Clone, Copy, Eq, PartialEq)]
enum Purity {
    Pure,
    Shell,
}

/// What the command line may name of the daemon.
const DAEMON_FOR_CLI: &[&str] = &[
    "serve",
    "serve_for",
    "serve_kept",
    "stand_by",
    "ServeOptions",
    "Ended",
    "keep",
    "AGAIN",
    "Unable",
    "look_out",
    "pairing",
    "rotation",
];

/// Words that would give a pure layer a hand on the world, or a fate that no seed reproduces.
const WORLD: &[&str] = &[
    "std::{",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::os::unix::net",
    "Instant::now",
    "SystemTime",
    "OsRng",
    "getrandom",
    "HashMap",
    "HashSet",
    "aws_lc_rs",
    "crossbeam",
    "notify::",
    "rusqlite",
    "rustix",
    "socket2",
    "tokio",
    "tracing",
];

/// What is not left behind in code, in halves so that this file may be read as well.
const UNFINISHED: &[(&str, &str)] = &[("todo", "!("), ("unimplemented", "!("), ("dbg", "!("), ("#[ign", "ore")];

/// Where build machines and people keep their things: no text of the project speaks of them.
const PLACES: &[&str] = &["/root/", "/work/", "/workspace/", "/builds/", "/Users/", "/home/runner/"];

/// Longest file of `src/`, its unit tests left out, in lines: beyond it there is a second idea in it.
const LINES_MAX: usize = 900;

/// Files that are longer and wait to be split, and how long they may be until then. A file may leave this
/// list, none may join it.
const TOO_LONG: &[(&str, usize)] = &[];

#[test]
fn every_folder_of_src_is_a_known_layer() {
    let mut found = Vec::new();
    for entry in fs::read_dir("src").unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let is_known = if entry.path().is_dir() {
            LAYERS.iter().any(|(layer, ..)| *layer == name)
        } else {
            ["lib.rs", "main.rs"].contains(&name.as_str())
        };
        if !is_known {
            found.push(format!("src/{name} has no row in LAYERS of tests/tidy.rs"));
        }
    }
    report(&found);
}

#[test]
fn layers_import_only_what_they_may() {
    let mut found = Vec::new();
    for (layer, allowed, _) in LAYERS {
        for source in Source::all_in(layer) {
            source.for_each_line(Part::Whole, |at, line| {
                found.extend(imports_refused(layer, allowed, line).map(|why| format!("{at}: {why}")));
            });
        }
    }
    report(&found);
}

#[test]
fn no_layer_is_reached_by_climbing_out_of_another() {
    let mut found = Vec::new();
    for source in LAYERS.iter().flat_map(|(layer, ..)| Source::all_in(layer)) {
        let depth = source.depth();
        source.for_each_line(Part::Production, |at, line| {
            if line.contains(&"super::".repeat(depth)) {
                found.push(format!("{at}: `super` climbs to the root of the crate; write `crate::`"));
            }
        });
    }
    report(&found);
}

#[test]
fn pure_layers_do_not_touch_the_world() {
    let mut found = Vec::new();
    for (layer, ..) in LAYERS.iter().filter(|(.., purity)| *purity == Purity::Pure) {
        for source in Source::all_in(layer) {
            source.for_each_line(Part::Production, |at, line| {
                for word in WORLD.iter().filter(|word| line.contains(**word)) {
                    found.push(format!("{at}: `{word}` in a pure layer; make it an argument"));
                }
            });
        }
    }
    report(&found);
}

#[test]
fn the_command_line_knows_of_the_daemon_only_how_to_start_it() {
    let mut found = Vec::new();
    for source in Source::all_in("cli") {
        source.for_each_line(Part::Whole, |at, line| {
            found.extend(daemon_refused(line).into_iter().map(|why| format!("{at}: {why}")));
        });
    }
    report(&found);
}

#[test]
fn the_rules_find_what_they_are_for() {
    let refused = |line: &str| imports_refused("engine", &["model", "wire"], line).count();
    for line in [
        "use crate::model::id::DeviceId;",
        "use crate::wire::message::{Message, Want};",
        "use crate::engine::index::Index;",
        "pub(crate) mod tests {",
        "pub(in crate::engine) fn f() {}",
        "let crates = 3;",
    ] {
        assert_eq!(refused(line), 0, "{line}");
    }
    for line in [
        "use crate::disk::root::Root;",
        "let root = crate::disk::root::open();",
        "use crate::{disk, model};",
        "use crate::*;",
        "use crate as house;",
    ] {
        assert_eq!(refused(line), 1, "{line}");
    }
    for line in ["use crate::daemon;", "daemon::serve(paths, options)?;", "use crate::daemon::{ServeOptions, serve};"] {
        assert_eq!(daemon_refused(line), None, "{line}");
    }
    for line in [
        "use crate::daemon::control::Api;",
        "use crate::daemon::{serve, control};",
        "use crate::daemon::*;",
        "use crate::daemon as house;",
        "daemon::control::start();",
    ] {
        assert!(daemon_refused(line).is_some(), "{line}");
    }
    let code = "#[test]\nfn runs() {\n}\n\nfn helper() {\n}\n";
    assert_eq!(["runs", "helper", "none"].map(|name| is_test(code, name)), [true, false, false]);
}

#[test]
fn the_program_itself_only_calls_the_command_line() {
    let mut found = Vec::new();
    Source::read("src/main.rs".into()).for_each_line(Part::Whole, |at, line| {
        if line.contains("kinfold::") && !line.contains("kinfold::cli") {
            found.push(format!("{at}: main.rs parses nothing and decides nothing; it calls cli::run"));
        }
    });
    Source::read("src/lib.rs".into()).for_each_line(Part::Whole, |at, line| {
        if !line.is_empty() && !line.starts_with("pub mod ") {
            found.push(format!("{at}: lib.rs is the map and holds nothing but `pub mod` lines"));
        }
    });
    report(&found);
}

#[test]
fn every_file_says_what_it_is() {
    let found = Source::all()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: begin with `//!` and one sentence on what it is", source.path.display()));
    report(&found.collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_unfinished() {
    let words: Vec<String> = UNFINISHED.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let mut found = Vec::new();
    for source in Source::all() {
        source.for_each_line(Part::Whole, |at, line| {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                found.push(format!("{at}: `{word}` does not stay"));
            }
        });
    }
    report(&found);
}

#[test]
fn files_hold_one_idea() {
    let mut found = Vec::new();
    for source in Source::all_below("src") {
        let path = source.path.display().to_string();
        let lines = source.part(Part::Production).lines().count();
        let allowed = TOO_LONG.iter().find(|(file, _)| *file == path).map_or(LINES_MAX, |(_, lines)| *lines);
        if lines > allowed {
            found.push(format!("{path}: {lines} lines without tests; split it at its second idea"));
        }
        if allowed > LINES_MAX && lines <= LINES_MAX {
            found.push(format!("{path}: is short enough now; take it out of TOO_LONG"));
        }
    }
    report(&found);
}

#[test]
fn no_text_speaks_of_the_machine_it_was_written_on() {
    let mut found = Vec::new();
    for path in texts().into_iter().filter(|path| !path.ends_with("tests/tidy.rs")) {
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for place in PLACES.iter().filter(|place| text.contains(**place)) {
            found.push(format!("{}: speaks of `{place}`", path.display()));
        }
    }
    report(&found);
}

#[test]
fn the_documents_show_the_layers_as_they_are() {
    let mut found = Vec::new();
    for (file, lead) in [("src/lib.rs", "//! "), ("ARCHITECTURE.md", "")] {
        let text = fs::read_to_string(file).unwrap();
        for (layer, allowed, purity) in LAYERS {
            let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
            let kind = if *purity == Purity::Pure { "pure" } else { "shell" };
            let row = format!("{lead}| `{layer}` | {kind} | {allowed} |");
            if !text.lines().any(|line| line.starts_with(&row)) {
                found.push(format!("{file} lacks the row `{row}`"));
            }
        }
    }
    report(&found);
}

#[test]
fn the_documents_name_files_and_tests_that_exist() {
    let code: String = Source::all().iter().map(|source| source.text.as_str()).collect();
    let mut found = Vec::new();
    for file in ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md", "src/lib.rs"] {
        for (number, line) in fs::read_to_string(file).unwrap().lines().enumerate() {
            let (at, is_guard) = (format!("{file}:{}", number + 1), line.contains("Guarded by"));
            for span in code_spans(line) {
                let is_path = ["src/", "tests/", "benches/", ".ci/"].iter().any(|dir| span.starts_with(dir));
                if is_path && !Path::new(span).exists() {
                    found.push(format!("{at}: there is no `{span}`"));
                }
                let is_name = span.contains('_') && span.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                if is_guard && is_name && !code.contains(&format!("fn {span}(")) {
                    found.push(format!("{at}: there is no test `{span}`"));
                }
            }
        }
    }
    report(&found);
}

#[test]
fn every_promise_names_a_test() {
    report(&untested_rows("ARCHITECTURE.md", "What we promise", "| promise | test |"));
}

#[test]
fn every_counter_measure_names_a_test() {
    let title = "Attacks, counter-measures, tests";
    report(&untested_rows("SECURITY.md", title, "| attack | counter-measure | test |"));
}

/// Returns the rows of a section's table whose last column does not name tests that exist.
fn untested_rows(file: &str, title: &str, head: &str) -> Vec<String> {
    let code: String = Source::all().iter().map(|source| source.text.as_str()).collect();
    let text = fs::read_to_string(file).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with(title)).unwrap();
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| ") && *line != head).collect();
    let mut found = Vec::new();
    for row in &rows {
        let last_column = row.trim_end_matches('|').trim_end().rsplit("| ").next().unwrap();
        let tests: Vec<_> = code_spans(last_column).collect();
        if tests.is_empty() {
            found.push(format!("{file}: no test guards {row}"));
        }
        for test in tests.iter().filter(|test| !is_test(&code, test)) {
            found.push(format!("{file}: `{test}` is no test"));
        }
    }
    assert!(!rows.is_empty(), "{file}: the table under {title} was not found");
    found
}

/// Whether the code has a test of this name, plain or of the async kind.
fn is_test(code: &str, name: &str) -> bool {
    let Some((before, _)) = code.split_once(&format!("fn {name}(")) else {
        return false;
    };
    let lines = before.trim_end_matches(' ').lines().rev().map(str::trim);
    let mut above = lines.take_while(|line| line.starts_with("#[") || line.starts_with("//") || *line == "async");
    above.any(|line| line == "#[test]" || line.starts_with("#[tokio::test"))
}

#[test]
fn the_commands_in_the_readme_exist() {
    let text = fs::read_to_string("README.md").unwrap();
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start_matches("$ ").split(" #").next().unwrap().trim_end();
        let Some(rest) = line.strip_prefix("kinfold ") else { continue };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let subcommand = words.iter().take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()));
        // An argument in lower case looks like a subcommand: the longest name that is one counts.
        let longest = subcommand.count().min(2);
        let help = (1..=longest).rev().find_map(|len| help_of(&words[..len]));
        let Some(help) = help else {
            found.push(format!("README.md:{}: there is no `{line}`", number + 1));
            continue;
        };
        for option in words.iter().filter(|word| word.starts_with("--")) {
            if !help.contains(*option) {
                found.push(format!("README.md:{}: `{line}` has no {option}", number + 1));
            }
        }
    }
    report(&found);
}

#[test]
fn the_manual_pages_are_those_that_the_program_writes() {
    let dir = tempfile::tempdir().unwrap();
    let written = Command::new(env!("CARGO_BIN_EXE_kinfold")).arg("man").arg(dir.path()).output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (kept, made) = (names(Path::new("man")), names(dir.path()));
    let differs =
        |name: &&std::ffi::OsString| fs::read(Path::new("man").join(name)).ok() != fs::read(dir.path().join(name)).ok();
    let found: Vec<_> = kept.iter().chain(made.iter().filter(|name| !kept.contains(name))).filter(differs).collect();
    let found = found.iter().map(|name| {
        format!("man/{} is another page than the program writes: `rm man/*.1; cargo run -- man man`", name.display())
    });
    report(&found.collect::<Vec<_>>());
}

fn help_of(command: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_kinfold")).args(command).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // `kinfold wait photos --help` is the help of `kinfold wait`.
    let usage = format!("Usage: kinfold {}", command.join(" "));
    (output.status.success() && text.contains(&usage)).then_some(text)
}

/// Returns why a line imports what it may not.
fn imports_refused<'a>(
    layer: &'a str,
    allowed: &'a [&'a str],
    line: &'a str,
) -> impl Iterator<Item = String> + use<'a> {
    after_word(line, "crate").filter_map(move |rest| {
        if rest.starts_with(')') {
            return None;
        }
        let Some(path) = rest.strip_prefix("::") else {
            return Some("the crate itself is not a name to pass on".to_owned());
        };
        match ident(path) {
            "" => Some("name one layer a line: `use crate::layer::…`".to_owned()),
            module if module == layer || allowed.contains(&module) => None,
            module => Some(format!("{layer} may not import {module}")),
        }
    })
}

/// Returns why a line of the command line names more of the daemon than it may.
fn daemon_refused(line: &str) -> Option<String> {
    for rest in after_word(line, "daemon") {
        if rest.starts_with(" as ") {
            return Some("the daemon keeps its name".to_owned());
        }
        let Some(path) = rest.strip_prefix("::") else { continue };
        let names = match path.strip_prefix('{').and_then(|group| group.split_once('}')) {
            Some((group, _)) => group.split(',').map(str::trim).collect(),
            None => vec![path.split(|c: char| !is_ident(c) && c != ':').next().unwrap()],
        };
        if let Some(name) = names.iter().find(|name| !DAEMON_FOR_CLI.contains(*name)) {
            return Some(format!("cli may not use daemon::{name}"));
        }
    }
    None
}

/// Returns what follows each place where `word` stands as a whole word.
fn after_word<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(word).filter_map(move |(at, _)| {
        let rest = &line[at + word.len()..];
        let is_whole = !line[..at].ends_with(is_ident) && !rest.starts_with(is_ident);
        is_whole.then_some(rest)
    })
}

fn ident(text: &str) -> &str {
    &text[..text.find(|c| !is_ident(c)).unwrap_or(text.len())]
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns what stands between single backticks.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn report(found: &[String]) {
    let list = found.iter().fold(String::new(), |mut list, line| {
        writeln!(list, "  {line}").unwrap();
        list
    });
    assert!(found.is_empty(), "\n{list}");
}

/// Which part of a file a rule is about.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Part {
    Whole,
    Production,
}

/// A file of Rust.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        Self { path, text }
    }

    fn all_in(layer: &str) -> Vec<Self> {
        Self::all_below(&format!("src/{layer}"))
    }

    fn all_below(dir: &str) -> Vec<Self> {
        let mut paths = Vec::new();
        walk(Path::new(dir), &mut paths);
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
        paths.into_iter().map(Self::read).collect()
    }

    fn all() -> Vec<Self> {
        ["src", "tests", "benches"].into_iter().flat_map(Self::all_below).collect()
    }

    /// Returns how many modules deep the file is: 1 is a layer itself.
    fn depth(&self) -> usize {
        let parts = self.path.components().count() - 1;
        if self.path.ends_with("mod.rs") { parts - 1 } else { parts }
    }

    /// Returns a part of the text. Unit tests stand at the end, or in files of their own.
    fn part(&self, part: Part) -> &str {
        if part == Part::Whole {
            return &self.text;
        }
        let name = self.path.file_stem().unwrap().to_str().unwrap();
        if ["tests", "testing"].contains(&name) || name.ends_with("_tests") {
            return "";
        }
        let tests = self.text.match_indices("#[cfg(test)]\n").find(|(at, attribute)| {
            let item = self.text[at + attribute.len()..].lines().find(|line| !line.starts_with("#["));
            item.is_some_and(|item| item.contains("mod ") && item.ends_with('{'))
        });
        &self.text[..tests.map_or(self.text.len(), |(at, _)| at)]
    }

    /// Calls `check` with the place and the text of each line that is not a comment.
    fn for_each_line(&self, part: Part, mut check: impl FnMut(String, &str)) {
        for (number, line) in self.part(part).lines().enumerate() {
            if !line.trim_start().starts_with("//") {
                check(format!("{}:{}", self.path.display(), number + 1), line);
            }
        }
    }
}

/// Returns all files of the project that people wrote.
fn texts() -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for dir in ["src", "tests", "benches", ".ci"] {
        walk(Path::new(dir), &mut paths);
    }
    let at_the_top = fs::read_dir(".").unwrap().map(|entry| entry.unwrap().path());
    // In a second work tree `.git` is a file.
    paths.extend(at_the_top.filter(|path| path.is_file() && !path.ends_with(".git")));
    paths
}

fn walk(dir: &Path, paths: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, paths);
        } else {
            paths.push(path);
        }
    }
}
