//! Every command, as it helps, as it does what is asked, and as it fails.
//!
//! Scenes run commands one after another, and all that is seen of them is noted. What was noted of one command is its
//! snapshot, `tests/cli/every/seen/COMMAND.snap`, which begins with its help. Of every command in the table that reads
//! the arguments it is demanded that it was seen to end with 0 once, and to fail in three ways that say different
//! things, each with what to do.
//!
//! To add a command, run it in a scene, and look at what `INSTA_UPDATE=always` writes before it is committed.

mod alone;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::thread;

use clap::CommandFactory;
use kinfold::cli::Cli;
use rustix::process::{Pid, Signal, kill_process};

use crate::Device;

/// Failures that each command has to have been seen with.
const FAILURES_MIN: usize = 3;
/// Where the snapshots lie, from this file and from the root of the sources.
const SEEN: &str = "seen";
const SEEN_DIR: &str = "tests/cli/every/seen";

#[test]
fn every_command_helps_succeeds_and_says_what_to_do_where_it_fails() {
    let scenes = [alone::SCENES, together::SCENES].concat();
    let seen = thread::scope(|scope| {
        let played = scenes.iter().map(|scene| {
            scope.spawn(|| {
                let mut seen = Seen::default();
                scene(&mut seen);
                seen
            })
        });
        let played: Vec<_> = played.collect();
        played.into_iter().flat_map(|scene| scene.join().unwrap().runs).collect::<Vec<_>>()
    });
    let mut commands = BTreeMap::new();
    list(&Cli::command(), &mut vec!["kinfold".to_owned()], &mut commands);
    let complaints: Vec<String> = commands
        .iter()
        .filter(|(_, has_others)| !**has_others)
        .flat_map(|(name, _)| complaints(name, &runs_of(name, &seen)))
        .collect();
    insta::with_settings!({ snapshot_path => SEEN, prepend_module_to_snapshot => false, omit_expression => true }, {
        for name in commands.keys() {
            let texts = runs_of(name, &seen).into_iter().map(Run::text);
            let text = std::iter::once(help(name)).chain(texts).collect::<Vec<_>>().join("\n");
            insta::assert_snapshot!(name.replace(' ', "-"), text);
        }
    });
    assert!(complaints.is_empty(), "{complaints:#?}");
    // What is no command any more has no snapshot either.
    let files = fs::read_dir(SEEN_DIR).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.filter(|name| name.ends_with(".snap")).collect();
    assert_eq!(files, commands.keys().map(|name| format!("{}.snap", name.replace(' ', "-"))).collect());
}

/// Lists the names of all commands, and whether they only stand above others.
fn list(command: &clap::Command, path: &mut Vec<String>, found: &mut BTreeMap<String, bool>) {
    found.insert(path.join(" "), command.has_subcommands());
    for below in command.get_subcommands() {
        path.push(below.get_name().to_owned());
        list(below, path, found);
        path.pop();
    }
}

/// Returns what `--help` says.
fn help(name: &str) -> String {
    let device = Device::bare();
    let line = format!("{name} --help");
    let words: Vec<_> = line.split(' ').skip(1).collect();
    let text = device.ok(&words);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    format!("$ {line}\n{text}")
}

fn runs_of<'a>(name: &str, seen: &'a [Run]) -> Vec<&'a Run> {
    seen.iter().filter(|run| run.command == name).collect()
}

/// Says what is missing of a command, and what it should not do.
fn complaints(name: &str, runs: &[&Run]) -> Vec<String> {
    let mut complaints = vec![];
    if !runs.iter().any(|run| run.code == Some(0)) {
        complaints.push(format!("{name}: was not seen to do what is asked"));
    }
    let failures: BTreeSet<&str> =
        runs.iter().filter(|run| run.code != Some(0)).map(|run| &*run.stderr).filter(|text| !text.is_empty()).collect();
    if failures.len() < FAILURES_MIN {
        complaints.push(format!("{name}: was seen to fail in {} ways", failures.len()));
    }
    for failure in failures {
        let has_hint = failure.contains("\nhint: ") || failure.ends_with("For more information, try '--help'.\n");
        let is_told = failure.starts_with("error: ") || failure.contains("\nerror: ");
        let is_raw = ["panicked", "Os {", "Error(", "Some(", "RUST_"].iter().any(|part| failure.contains(part));
        if !is_told || !has_hint || is_raw {
            complaints.push(format!("{name}: {failure}"));
        }
    }
    complaints
}

/// A run of a command.
struct Run {
    /// Which command it is, such as `kinfold folder add`.
    command: String,
    /// What was typed after `kinfold`.
    line: String,
    /// How it ended; nothing where the test ended it.
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn text(&self) -> String {
        let end = self.code.map_or_else(|| "ended by the test".to_owned(), |code| format!("exit {code}"));
        let mut text = format!("$ kinfold {}\n{end}\n", self.line);
        for (name, stream) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !stream.is_empty() {
                text += &format!("--- {name}\n{stream}");
            }
        }
        text
    }
}

/// What plays, and what is seen of it.
type Scene = fn(&mut Seen);

/// All that was seen so far.
#[derive(Default)]
struct Seen {
    runs: Vec<Run>,
}

impl Seen {
    /// Runs a command to its end.
    fn run(&mut self, device: &Device, line: &str) {
        self.with(device, line, |_| {});
    }

    /// Runs a command with a text in its standard input.
    fn given(&mut self, device: &Device, line: &str, stdin: &str) {
        let output = device.command(&as_words(&words(line))).write_stdin(stdin).output().unwrap();
        self.note(device, line, &output, str::to_owned);
    }

    /// Runs a command in another way than usual.
    fn with(&mut self, device: &Device, line: &str, adjust: impl FnOnce(&mut Command)) {
        let mut command = device.process(&as_words(&words(line)));
        adjust(&mut command);
        self.note(device, line, &command.output().unwrap(), str::to_owned);
    }

    /// Runs a command of whose output only a part is the same on all machines.
    fn part(&mut self, device: &Device, line: &str, shown: impl Fn(&str) -> String) {
        let output = device.process(&as_words(&words(line))).output().unwrap();
        self.note(device, line, &output, shown);
    }

    /// Runs a command to where it has nowhere to write.
    fn full(&mut self, device: &Device, line: &str) {
        self.with(device, line, |command| {
            command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
        });
        let run = self.runs.last_mut().unwrap();
        run.line += " > /dev/full";
    }

    /// Runs a command that goes on for ever, and ends it as a service manager does once it has said something.
    fn until(&mut self, device: &Device, line: &str, said: &str) {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = device.process(&as_words(&words(line)));
        let mut child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
        drop(command);
        let (mut lines, mut seen) = (BufReader::new(reader), String::new());
        while !seen.lines().last().is_some_and(|line| line.contains(said)) {
            assert!(lines.read_line(&mut seen).unwrap() > 0, "{line} ended: {seen}");
        }
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        lines.read_to_string(&mut seen).unwrap();
        let output = Output { status: child.wait().unwrap(), stdout: vec![], stderr: vec![] };
        self.note(device, line, &output, |_| format!("[..] {said} [..]\n"));
    }

    fn note(&mut self, device: &Device, line: &str, output: &Output, shown: impl Fn(&str) -> String) {
        let text = |stream: &[u8]| without_marks(&without_times(&device.stable(&String::from_utf8_lossy(stream))));
        self.runs.push(Run {
            command: command_of(&words(line)),
            line: device.stable(line),
            code: output.status.code(),
            stdout: shown(&text(&output.stdout)),
            stderr: text(&output.stderr),
        });
    }
}

/// Tells the words of a line apart as a shell does.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    for (at, part) in line.split('\'').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

fn as_words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Returns the name of the command that some words begin with.
fn command_of(words: &[String]) -> String {
    let mut words = words.iter().map(String::as_str).peekable();
    if words.next_if_eq(&"--home").is_some() {
        words.next();
    }
    let (root, mut name) = (Cli::command(), "kinfold".to_owned());
    let mut command = &root;
    for word in words {
        let Some(below) = command.find_subcommand(word) else { break };
        name = format!("{name} {word}");
        command = below;
    }
    name
}

/// Puts a name in the place of what tells conflict copies apart.
fn without_marks(text: &str) -> String {
    let mut parts = text.split(".conflict-");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |seen, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '-');
        format!("{seen}.conflict-[mark]{rest}")
    })
}

/// Puts a name in the place of each time, as `2026-05-31 18:00:00` or `2026-05-31T18:00:00Z` with any fraction.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| {
        let form = "dddd-dd-dd?dd:dd:dd";
        word.len() >= form.len()
            && form.bytes().zip(word.bytes()).all(|(form, byte)| match form {
                b'd' => byte.is_ascii_digit(),
                b'?' => byte == b' ' || byte == b'T',
                _ => byte == form,
            })
    };
    let (mut seen, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        // Those of the test itself are in years that no clock shows.
        if rest.starts_with("20") && is_time(rest) {
            seen += "[time]";
            rest = rest[19..].trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == 'Z');
        } else {
            seen.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    seen
}

/// A daemon of a device, which ends with it.
struct Daemon(Child);

impl Daemon {
    /// Starts it, and waits until it answers.
    fn of(device: &Device) -> Self {
        let log = fs::File::create(device.path("log")).unwrap();
        let mut command = device.process(&["serve"]);
        let daemon = Self(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        wait_until("the daemon answers", || device.command(&["status"]).output().unwrap().status.success());
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).ok();
        self.0.wait().ok();
    }
}

/// Waits until something is so, for longer than that takes on any machine.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(120), "waited in vain: {what}");
        thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Writes a file, and the directories above it.
fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
