//! A command as a manual page in mdoc, the language that says what a word is and not how it looks.
//!
//! Each sentence and each line of a long one stands on a line of its own, as the language asks for, so that
//! `mandoc -Tlint` has nothing to say.

use std::fmt::Write;

use clap::Arg;
use clap::Command;

use crate::cli::man::notes;

/// When the pages were last looked through. A page must bear a date, and it must not depend on when it is built.
pub(super) const DATE: &str = "November 26, 2026";
/// Longest line of prose in the source of a page.
const LINE_LEN: usize = 78;

/// Returns the name of a command's page: `kinfold-folder-add`.
pub fn name_of(command: &Command) -> String {
    full_name(command).replace(' ', "-")
}

/// Returns the commands right below one that have pages.
pub fn commands_below(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set())
}

/// Returns the page of a command; `others` are the names and sections of pages that are not about commands.
pub fn page(command: &Command, others: &[(&str, &str)]) -> String {
    let mut page = Page::default();
    let note = notes::of(&name_of(command));
    let own_exits = note.map_or(&[][..], |note| note.exits);
    page.head(command);
    page.synopsis(command);
    page.description(command, note.map_or(&[], |note| note.about));
    page.options(command);
    page.commands(command);
    if full_name(command) == "kinfold" {
        page.environment();
        page.files();
    }
    // The page of the program lists all that its commands may end with.
    let exits = if full_name(command) == "kinfold" { &notes::EXITS[notes::EXITS_OF_ALL..] } else { own_exits };
    page.exit_status(exits);
    page.examples(note.map_or(&[], |note| note.examples));
    page.see_also(command, others);
    page.0
}

fn full_name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or(command.get_name())
}

/// The source of a page, as far as it is written.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// Returns what was written.
    pub(super) fn into_source(self) -> String {
        self.0
    }

    /// Writes a line that begins with a macro.
    pub(super) fn request(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    /// Writes prose: a sentence a line, long ones cut between words.
    pub(super) fn prose(&mut self, text: &str) {
        for sentence in sentences(text) {
            let mut line = String::new();
            for word in sentence.split_whitespace().map(escaped) {
                if !line.is_empty() && line.len() + 1 + word.len() > LINE_LEN {
                    self.line(&line);
                    line.clear();
                }
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(&word);
            }
            self.line(&line);
        }
    }

    /// Writes a line that is no macro, whatever it begins with.
    fn line(&mut self, line: &str) {
        if line.starts_with(['.', '\'']) {
            self.0.push_str("\\&");
        }
        self.request(line);
    }

    fn head(&mut self, command: &Command) {
        self.request(format!(".Dd {DATE}"));
        self.request(format!(".Dt {} 1", name_of(command).to_uppercase()));
        self.request(".Os");
        self.request(".Sh NAME");
        self.request(format!(".Nm {}", name_of(command)));
        self.request(format!(".Nd {}", decapitalised(&about(command))));
    }

    fn synopsis(&mut self, command: &Command) {
        self.request(".Sh SYNOPSIS");
        self.request(format!(".Nm {}", full_name(command)));
        for arg in options_of(command) {
            let words = in_mdoc(arg, Place::Synopsis);
            self.request(if arg.is_required_set() { format!(".{words}") } else { format!(".Op {words}") });
        }
        for arg in positionals_of(command) {
            let more = if arg.get_num_args().is_some_and(|n| n.max_values() > 1) { " ..." } else { "" };
            let words = format!("Ar {}{more}", value_of(arg));
            self.request(if arg.is_required_set() { format!(".{words}") } else { format!(".Op {words}") });
        }
        if commands_below(command).next().is_some() {
            let words = "Ar COMMAND";
            let is_needed = command.is_subcommand_required_set();
            self.request(if is_needed { format!(".{words}") } else { format!(".Op {words}") });
        }
    }

    fn description(&mut self, command: &Command, paragraphs: &[&str]) {
        self.request(".Sh DESCRIPTION");
        self.prose(&format!("{}.", about(command).trim_end_matches('.')));
        for paragraph in paragraphs {
            self.request(".Pp");
            self.prose(paragraph);
        }
    }

    fn options(&mut self, command: &Command) {
        let args: Vec<_> = positionals_of(command).chain(options_of(command)).collect();
        self.request(".Pp");
        self.request("These are its arguments and options:");
        self.request(".Bl -tag -width Ds");
        for arg in args {
            self.request(match arg.is_positional() {
                true => format!(".It Ar {}", value_of(arg)),
                false => format!(".It {}", in_mdoc(arg, Place::List)),
            });
            self.prose(&format!("{}.", said_of(arg).trim_end_matches('.')));
            let values = arg.get_possible_values();
            if !values.is_empty() && arg.get_action().takes_values() {
                self.values(&values);
            }
        }
        self.request(".El");
    }

    fn values(&mut self, values: &[clap::builder::PossibleValue]) {
        if values.iter().all(|value| value.get_help().is_none()) {
            let names: Vec<_> = values.iter().map(|value| value.get_name()).collect();
            return self.prose(&format!("One of: {}.", names.join(", ")));
        }
        self.request("One of:");
        self.request(".Bl -tag -width Ds -compact");
        for value in values {
            self.request(format!(".It Cm {}", value.get_name()));
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            self.prose(&format!("{}.", help.trim_end_matches('.')));
        }
        self.request(".El");
    }

    fn commands(&mut self, command: &Command) {
        if commands_below(command).next().is_none() {
            return;
        }
        self.request(".Ss Commands");
        self.request(".Bl -tag -width Ds");
        for below in commands_below(command) {
            self.request(format!(".It Xr {} 1", name_of(below)));
            self.prose(&format!("{}.", about(below).trim_end_matches('.')));
        }
        self.request(".El");
    }

    fn environment(&mut self) {
        self.request(".Sh ENVIRONMENT");
        self.request(".Bl -tag -width Ds");
        for (name, meaning) in notes::ENVIRONMENT {
            self.request(format!(".It Ev {name}"));
            self.prose(meaning);
        }
        self.request(".El");
    }

    fn files(&mut self) {
        self.request(".Sh FILES");
        self.request(".Bl -tag -width Ds");
        for (place, meaning) in notes::FILES {
            self.request(format!(".It Pa {}", escaped(place)));
            self.prose(meaning);
        }
        self.request(".El");
    }

    fn exit_status(&mut self, exits: &[(u8, &str)]) {
        self.request(".Sh EXIT STATUS");
        self.request(".Bl -tag -width Ds -compact");
        let of_all = &notes::EXITS[..notes::EXITS_OF_ALL];
        for (code, meaning) in of_all.iter().chain(exits) {
            self.request(format!(".It {code}"));
            self.prose(meaning);
        }
        self.request(".El");
    }

    fn examples(&mut self, examples: &[(&str, &str)]) {
        if examples.is_empty() {
            return;
        }
        self.request(".Sh EXAMPLES");
        for (n, (what, line)) in examples.iter().enumerate() {
            if n > 0 {
                self.request(".Pp");
            }
            self.prose(what);
            self.request(format!(".Dl {}", escaped(line)));
        }
    }

    fn see_also(&mut self, command: &Command, others: &[(&str, &str)]) {
        let own = name_of(command);
        let above = own.rsplit_once('-').map(|(above, _)| above.to_owned());
        let mut pages: Vec<(String, String)> = above.map(|name| (name, "1".to_owned())).into_iter().collect();
        if own != "kinfold" && !pages.iter().any(|(name, _)| name == "kinfold") {
            pages.insert(0, ("kinfold".to_owned(), "1".to_owned()));
        }
        if own == "kinfold" {
            pages.extend(others.iter().map(|(name, section)| ((*name).to_owned(), (*section).to_owned())));
        }
        pages.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
        self.request(".Sh SEE ALSO");
        let last = pages.len().saturating_sub(1);
        for (n, (name, section)) in pages.iter().enumerate() {
            let comma = if n < last { " ," } else { "" };
            self.request(format!(".Xr {name} {section}{comma}"));
        }
    }
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// Begins in lower case, for the line that `apropos` lists.
fn decapitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

fn positionals_of(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_positionals().filter(|arg| !arg.is_hide_set())
}

/// The options, in the order of their names.
fn options_of(command: &Command) -> impl Iterator<Item = &Arg> {
    let mut options: Vec<_> =
        command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set()).collect();
    options.sort_by_key(|arg| arg.get_long());
    options.into_iter()
}

fn said_of(arg: &Arg) -> String {
    if arg.get_id() == "help" {
        // What clap says of it tells of a second, shorter help.
        return "Print help".to_owned();
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    match arg.get_env().and_then(|env| env.to_str()) {
        Some(env) => format!("{}. The environment variable {env} says the same", help.trim_end_matches('.')),
        None => help,
    }
}

fn value_of(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Where an option is named.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Place {
    Synopsis,
    List,
}

fn in_mdoc(arg: &Arg, place: Place) -> String {
    let short = arg.get_short().map(|short| format!("Fl {short}"));
    let long = arg.get_long().map(|long| format!("Fl -{long}"));
    let value = if arg.get_action().takes_values() { format!(" Ar {}", value_of(arg)) } else { String::new() };
    let names: Vec<String> = short.into_iter().chain(long).collect();
    // A synopsis has each option once, by its long name.
    match place {
        Place::Synopsis => format!("{}{value}", names.last().map_or("", String::as_str)),
        Place::List => format!("{}{value}", names.join(" , ")),
    }
}

/// Cuts a text after each of its sentences.
fn sentences(text: &str) -> Vec<&str> {
    let ends = text.match_indices(". ").map(|(at, _)| at + 1).chain([text.len()]);
    let mut from = 0;
    ends.map(|end| {
        let sentence = text[from..end].trim();
        from = end;
        sentence
    })
    .filter(|sentence| !sentence.is_empty())
    .collect()
}

/// Writes a word so that it is shown as it is; what stands between backticks is set in bold.
fn escaped(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    let ticks = word.matches('`').count();
    let mut is_bold = false;
    for c in word.chars() {
        match c {
            '\\' => text.push_str("\\e"),
            '-' => text.push_str("\\-"),
            '~' => text.push_str("\\(ti"),
            // A phrase of several words opens in one and closes in another.
            '`' if ticks == 1 => text.push_str(if word.starts_with(['`', '(']) { "\\fB" } else { "\\fP" }),
            '`' => {
                is_bold = !is_bold;
                text.push_str(if is_bold { "\\fB" } else { "\\fP" });
            }
            '"' => text.push_str("\\(dq"),
            c if c.is_ascii() => text.push(c),
            // Whatever reads the page need not know of encodings.
            c => {
                // Writing to a String cannot fail.
                write!(text, "\\[u{:04X}]", u32::from(c)).ok();
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> String {
        let mut page = Page::default();
        page.prose(text);
        page.0
    }

    #[test]
    fn a_sentence_has_a_line_and_a_long_one_several() {
        assert_eq!(source("One. Two"), "One.\nTwo\n");
        let long = source(&"word ".repeat(40));
        assert!(long.lines().count() > 2 && long.lines().all(|line| line.len() <= LINE_LEN), "{long}");
    }

    #[test]
    fn no_text_becomes_a_macro_or_an_escape() {
        assert_eq!(source(".Sh is no section"), "\\&.Sh is no section\n");
        assert_eq!(source("'a' \\fB"), "\\&'a' \\efB\n");
        assert_eq!(source("`kinfold id` and `up`, ~ é"), "\\fBkinfold id\\fP and \\fBup\\fP, \\(ti \\[u00E9]\n");
        assert_eq!(source("--json"), "\\-\\-json\n");
    }

    #[test]
    fn options_are_told_with_their_values_and_variables() {
        let arg = |text: &'static str| Arg::new(text).long(text).help("Says so");
        let with_value = arg("home").value_name("DIR").env("KINFOLD_HOME");
        assert_eq!(in_mdoc(&with_value, Place::List), "Fl -home Ar DIR");
        assert_eq!(said_of(&with_value), "Says so. The environment variable KINFOLD_HOME says the same");
        let short = arg("follow").short('f').action(clap::ArgAction::SetTrue);
        assert_eq!(in_mdoc(&short, Place::List), "Fl f , Fl -follow");
        assert_eq!(in_mdoc(&short, Place::Synopsis), "Fl -follow");
    }
}
