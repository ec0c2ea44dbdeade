//! What goes to standard output: text for people, JSON for programs, and never a name that could
//! steer a terminal. A reader that goes away ends the command quietly.

use std::fmt::Display;
use std::io;
use std::io::Write;

use serde::Serialize;

use crate::cli::error::Failure;
use crate::control::types::Time;
use crate::model::path::Escaped;
use crate::model::shell::quoted;

/// Writes a line of text.
pub fn say(line: impl Display) -> Result<(), Failure> {
    write(&format!("{line}\n"))
}

/// Writes a value as indented JSON.
pub fn say_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::from_error(&error))?;
    write(&(ascii_safe(&text) + "\n"))
}

/// Writes a value as one line of JSON.
pub fn say_json_line(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::from_error(&error))?;
    write(&(ascii_safe(&text) + "\n"))
}

/// Writes text as it is.
pub fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Returns a name as it may be shown.
pub fn escaped(name: &str) -> String {
    Escaped(name.as_bytes()).to_string()
}

/// Returns a name as a word of a command line that is shown: it steers neither the terminal nor, once pasted, a shell.
pub fn word(name: &str) -> String {
    quoted(&escaped(name))
}

/// Returns a message as it may be shown; backslashes stay, for names in it are escaped already.
pub fn printable(message: &str) -> String {
    message.split('\\').map(escaped).collect::<Vec<_>>().join("\\")
}

/// Escapes in JSON what would steer a terminal; the JSON stays the same to every reader of it.
fn ascii_safe(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        let steers = c == '\x7f' || (!c.is_ascii() && escaped(c.encode_utf8(&mut [0; 4])).starts_with('\\'));
        if steers {
            let units = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            safe.push_str(&units);
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Lays out rows in columns two spaces apart.
pub fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|at| width(at).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Writes rows in columns.
pub fn say_columns(rows: &[Vec<String>]) -> Result<(), Failure> {
    columns(rows).iter().try_for_each(say)
}

/// Returns a number of bytes for people.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// Returns a count with its noun.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Returns a time on the clock of this machine.
pub fn local_time(time: Time) -> String {
    time.0.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_without_steering_a_terminal() {
        let name = "a\u{202e}\u{9b}\u{7f}é\\\u{1b}";
        let json = ascii_safe(&serde_json::to_string(name).unwrap());
        assert_eq!(json, "\"a\\u202e\\u009b\\u007fé\\\\\\u001b\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), name);
    }

    #[test]
    fn a_word_of_a_command_line_steers_neither_a_terminal_nor_a_shell() {
        assert_eq!(word("Photos-2026"), "Photos-2026");
        assert_eq!(word("it's; rm"), r"'it'\''s; rm'");
        let hostile = word("a\x1b[2J\u{202e}");
        assert!(hostile.starts_with("'a") && !hostile.contains(['\x1b', '\u{202e}']), "{hostile}");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "x".to_owned()], vec!["été".to_owned(), String::new()]];
        assert_eq!(columns(&rows), ["a    x", "été"]);
        assert!(columns(&[]).is_empty());
    }

    #[test]
    fn counts_have_their_noun() {
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(counted(0, "file", "files"), "0 files");
    }
}
