//! From the ignore patterns of Syncthing to those of `.kinfoldignore`.
//!
//! Both leave out paths by patterns, but not by the same rules. There the first pattern that matches
//! decides, here the last; there a pattern may let in again what lies below a directory that another one
//! leaves out, here nothing below such a directory is looked at; there `**` may stand inside a name, and
//! `[…]`, `{…}` and `(?i)` mean what git does not know. So each pattern is taken apart and written anew,
//! as one line or several, last line first. The meaning is that of Syncthing's manual and, where that is
//! silent, of its code (`lib/ignore`, and the `gobwas/glob` library below it).
//!
//! What is left out there is left out here, and nothing else, with one exception: a directory that is left
//! out there is synced here, empty, if something below it may be let in again.
//!
//! A pattern that Syncthing refuses is an error. Without it, more would be given away than before.

use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Ways to read one pattern (alternatives in braces, `**` inside names) before it is refused.
const READINGS_MAX: usize = 1024;
/// Files that may be included.
const INCLUDES_MAX: usize = 64;
/// Longest pattern, in characters.
const PATTERN_LEN_MAX: usize = 4096;
/// Most `?` and `[!…]` in one pattern: each stands for one byte here, and so has to be written four times.
const WIDE_MAX: usize = 4;
/// Deepest nesting of braces.
const BRACES_MAX: usize = 16;

/// What Syncthing never syncs, whatever the patterns say.
const NEVER_SYNCED: &[&str] = &[".syncthing.*", "~syncthing~*", "/.stfolder", "/.stignore", "/.stversions"];

/// Rules in the form of `.kinfoldignore`, and what to tell of them.
#[derive(Debug, Eq, PartialEq)]
pub struct Translated {
    /// The text of the file.
    pub text: String,
    /// How many patterns there were.
    pub patterns: usize,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Why patterns cannot be translated.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("{file}, line {line}: {what}")]
pub struct Untranslatable {
    /// Which file, as it was included.
    pub file: String,
    /// Which line, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// Translates the text of a `.stignore`. `include` reads a file that it includes, by its path from the
/// root of the folder.
pub fn translate(
    text: &str,
    include: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<Translated, Untranslatable> {
    let mut reader = Reader { include, seen: BTreeSet::new(), included: BTreeSet::new(), rules: vec![], notes: vec![] };
    let comments = reader.file(".stignore", text)?;
    let mut writer = Writer::default();
    let last_negation = reader.rules.iter().rposition(|rule| rule.negated);
    let first_negation = reader.rules.iter().position(|rule| rule.negated);
    for (at, rule) in reader.rules.iter().enumerate().rev() {
        // Only what comes before in the file can let in again what this one leaves out.
        writer.rule(rule, first_negation.is_some_and(|first| first < at));
    }
    let mut notes = reader.notes;
    if last_negation.is_some() && writer.opened {
        notes.push(
            "directories that were left out, but may hold what is let in again, are synced without their other content"
                .to_owned(),
        );
    }
    let mut text = String::from("# From the patterns of Syncthing. Here the last line that matches decides.\n");
    for comment in comments {
        text.push_str(&format!("# {comment}\n"));
    }
    text.push_str(&writer.text);
    text.push_str("# What Syncthing never synced.\n");
    for line in NEVER_SYNCED {
        text.push_str(line);
        text.push('\n');
    }
    Ok(Translated { text, patterns: reader.rules.len(), notes })
}

/// One pattern as it was read.
struct Rule {
    comments: Vec<String>,
    negated: bool,
    /// The ways to read it, each as the parts of a path.
    readings: Vec<Reading>,
    /// Whether it stands for what it matches, and not only for what lies below that.
    itself: bool,
}

/// One way to read a pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Reading {
    /// Whether it begins at the root of the folder, and not at any depth.
    rooted: bool,
    parts: Vec<Part>,
}

/// A part of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    /// Any number of directories, also none.
    Dirs,
    /// One name.
    Name(Vec<Glyph>),
}

/// Something that characters of a name match.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Glyph {
    /// Any number of characters.
    Star,
    /// One byte; where a name is ASCII that is one character.
    Any,
    /// One byte of a character that is beyond ASCII.
    Beyond,
    /// This character.
    Char(char),
    /// One of these characters, or none of them. All are ASCII, for here a class stands for one byte.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// What a pattern is made of, before it is cut into the parts of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Glyph(Glyph),
    /// Any number of characters, slashes as well.
    Super,
    Slash,
}

struct Reader<'a> {
    include: &'a mut dyn FnMut(&str) -> Result<String, String>,
    /// Lines that came before: a second one can decide nothing.
    seen: BTreeSet<String>,
    included: BTreeSet<String>,
    rules: Vec<Rule>,
    notes: Vec<String>,
}

impl Reader<'_> {
    /// Reads a file and returns the comments after its last pattern.
    fn file(&mut self, name: &str, text: &str) -> Result<Vec<String>, Untranslatable> {
        let mut comments = vec![];
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            let fail = |what: String| Untranslatable { file: name.to_owned(), line: at + 1, what };
            if let Some(comment) = line.strip_prefix("//") {
                comments.push(comment.trim().to_owned());
                continue;
            }
            if line.is_empty() || !self.seen.insert(line.to_owned()) {
                continue;
            }
            if line.starts_with("#escape") {
                return Err(fail("another escape character (#escape) cannot be translated".to_owned()));
            }
            if let Some(rest) = line.strip_prefix("#include") {
                let path = rest.split_once(' ').map(|(_, path)| path.trim()).unwrap_or_default();
                let left = self.include_file(name, path).map_err(fail)??;
                comments.extend(left);
                continue;
            }
            let comments = std::mem::take(&mut comments);
            let rule = self.rule(line, comments).map_err(|what| fail(format!("`{line}`: {what}")))?;
            self.rules.push(rule);
        }
        Ok(comments)
    }

    fn include_file(&mut self, from: &str, path: &str) -> Result<Result<Vec<String>, Untranslatable>, String> {
        if path.is_empty() {
            return Err("#include names no file".to_owned());
        }
        let dir = from.rsplit_once('/').map_or("", |(dir, _)| dir);
        let name = if dir.is_empty() { path.to_owned() } else { format!("{dir}/{path}") };
        if !self.included.insert(name.clone()) {
            return Err(format!("{name} is included more than once"));
        }
        if self.included.len() > INCLUDES_MAX {
            return Err(format!("more than {INCLUDES_MAX} files are included"));
        }
        let text = (self.include)(&name).map_err(|why| format!("{name} cannot be included: {why}"))?;
        Ok(self.file(&name, &text))
    }

    fn rule(&mut self, line: &str, comments: Vec<String>) -> Result<Rule, String> {
        if line.chars().count() > PATTERN_LEN_MAX {
            return Err(format!("is longer than {PATTERN_LEN_MAX} characters"));
        }
        let (mut negated, mut folded, mut deletable, mut removed) = (false, false, false, false);
        let mut rest = line;
        loop {
            let prefixes =
                [("!", &mut negated), ("(?i)", &mut folded), ("(?d)", &mut deletable), ("(?r)", &mut removed)];
            let found = prefixes.into_iter().find_map(|(prefix, seen)| {
                let after = rest.strip_prefix(prefix).filter(|_| !*seen)?;
                *seen = true;
                Some(after)
            });
            match found {
                Some(after) => rest = after,
                None => break,
            }
        }
        if rest.is_empty() {
            return Err("has no pattern".to_owned());
        }
        if deletable || removed {
            let note = "(?d) has no counterpart: what is left out is never deleted here, also where it keeps a \
                        directory from being deleted";
            if !self.notes.iter().any(|known| known == note) {
                self.notes.push(note.to_owned());
            }
        }
        let (body, mut itself) = match (rest.strip_suffix("/**"), rest.strip_suffix('/')) {
            (Some(body), _) | (None, Some(body)) => (body, false),
            (None, None) => (rest, true),
        };
        // What is left of `/`, `/**` and their kin is the root, which has no name.
        // So is `**`, which matches at any depth from there on.
        let readings = if body.is_empty() || body == "**" {
            itself = false;
            vec![Reading { rooted: true, parts: vec![] }]
        } else {
            let (rooted, body) = match body.strip_prefix('/') {
                Some(body) => (true, body),
                // As is: it may stand for no directory, too.
                None => (false, body.strip_prefix("**/").unwrap_or(body)),
            };
            let tokens = Pattern::read(body, folded)?;
            let mut readings = vec![];
            for tokens in tokens {
                readings.extend(parts(&tokens)?.into_iter().map(|parts| Reading { rooted, parts }));
                if readings.len() > READINGS_MAX {
                    return Err(TOO_MANY.to_owned());
                }
            }
            readings
        };
        Ok(Rule { comments, negated, readings, itself })
    }
}

const TOO_MANY: &str = "can be read in too many ways";

/// Reads a pattern into tokens, once for each combination of its alternatives.
struct Pattern<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    folded: bool,
    /// How many `?` and `[!…]` there were.
    wide: usize,
}

impl Pattern<'_> {
    fn read(text: &str, folded: bool) -> Result<Vec<Vec<Token>>, String> {
        let lower: String;
        let text = if folded {
            lower = text.chars().map(lowercase).collect();
            &lower
        } else {
            text
        };
        Pattern { chars: text.chars().peekable(), folded, wide: 0 }.sequence(0)
    }

    /// Reads up to the end, or up to what ends an alternative.
    fn sequence(&mut self, depth: usize) -> Result<Vec<Vec<Token>>, String> {
        if depth > BRACES_MAX {
            return Err(format!("nests braces more than {BRACES_MAX} deep"));
        }
        let mut all: Vec<Vec<Token>> = vec![vec![]];
        while let Some(c) = self.chars.peek().copied() {
            if depth > 0 && matches!(c, ',' | '}') {
                break;
            }
            self.chars.next();
            let next: Vec<Vec<Token>> = match c {
                '*' if self.chars.next_if_eq(&'*').is_some() => vec![vec![Token::Super]],
                '*' => vec![vec![Token::Glyph(Glyph::Star)]],
                '?' => self.any_but(vec![])?,
                '/' => vec![vec![Token::Slash]],
                '[' => self.class()?,
                '{' => self.alternatives(depth)?,
                '\\' => match self.chars.next() {
                    Some('/') => vec![vec![Token::Slash]],
                    Some(c) => self.one_of(&[(c, c)])?,
                    None => continue,
                },
                c => self.one_of(&[(c, c)])?,
            };
            if all.len() * next.len() > READINGS_MAX {
                return Err(TOO_MANY.to_owned());
            }
            all = all.iter().flat_map(|before| next.iter().map(move |after| [&before[..], after].concat())).collect();
        }
        Ok(all)
    }

    fn alternatives(&mut self, depth: usize) -> Result<Vec<Vec<Token>>, String> {
        let mut all = vec![];
        loop {
            all.extend(self.sequence(depth + 1)?);
            // Where the closing brace is missing, the end of the pattern closes it.
            if self.chars.next() != Some(',') {
                return Ok(all);
            }
        }
    }

    /// Reads a class after its `[`: a range or a list of characters, never both.
    fn class(&mut self) -> Result<Vec<Vec<Token>>, String> {
        const BROKEN: &str = "has a class [...] that is none";
        let negated = self.chars.next_if_eq(&'!').is_some();
        let first = *self.chars.peek().ok_or(BROKEN)?;
        let mut ahead = self.chars.clone();
        ahead.next();
        let mut ranges = vec![];
        if ahead.next_if_eq(&'-').is_some() {
            let last = ahead.next().ok_or(BROKEN)?;
            self.chars = ahead;
            if last < first {
                return Err(BROKEN.to_owned());
            }
            ranges.push((first, last));
        } else {
            while let Some(c) = self.chars.next_if(|c| *c != ']') {
                let c = if c == '\\' { self.chars.next().ok_or(BROKEN)? } else { c };
                ranges.push((c, c));
            }
        }
        if ranges.is_empty() || self.chars.next() != Some(']') {
            return Err(BROKEN.to_owned());
        }
        let has_slash = ranges.iter().any(|(from, to)| (*from..=*to).contains(&'/'));
        let mut ways = if negated { self.any_but(ranges)? } else { self.one_of(&ranges)? };
        // Over there a class may match a slash. Here none does, so that is another way to read it.
        if has_slash != negated {
            ways.push(vec![Token::Slash]);
        }
        Ok(ways)
    }

    /// Reads one character out of some, slashes left out. Here a class stands for one byte, so what is beyond
    /// ASCII are ways of their own.
    fn one_of(&self, ranges: &[(char, char)]) -> Result<Vec<Vec<Token>>, String> {
        let beyond: u32 =
            ranges.iter().map(|(from, to)| (*to as u32 + 1).saturating_sub((*from as u32).max(0x80))).sum();
        if beyond > READINGS_MAX as u32 {
            return Err(TOO_MANY.to_owned());
        }
        let mut all: BTreeSet<char> = ranges.iter().flat_map(|(from, to)| *from..=*to).collect();
        if self.folded {
            all = all.iter().flat_map(|c| unfolded(*c)).collect();
        }
        all.remove(&'/');
        let ascii = as_ranges(all.iter().copied().filter(char::is_ascii));
        let ascii = match ascii[..] {
            [] => None,
            [(from, to)] if from == to => Some(Glyph::Char(from)),
            _ => Some(Glyph::Class { negated: false, ranges: ascii }),
        };
        let beyond = all.into_iter().filter(|c| !c.is_ascii()).map(Glyph::Char);
        Ok(ascii.into_iter().chain(beyond).map(|glyph| vec![Token::Glyph(glyph)]).collect())
    }

    /// Reads one character but for some, slashes left out.
    fn any_but(&mut self, ranges: Vec<(char, char)>) -> Result<Vec<Vec<Token>>, String> {
        self.wide += 1;
        if self.wide > WIDE_MAX {
            return Err(format!("has more than {WIDE_MAX} of `?` and `[!...]`, which stand for bytes here"));
        }
        if ranges.iter().any(|(_, to)| !to.is_ascii()) {
            return Err("has a class [!...] of letters beyond ASCII, which there is none for here".to_owned());
        }
        let mut all: BTreeSet<char> = ranges.iter().flat_map(|(from, to)| *from..=*to).collect();
        if self.folded {
            all = all.iter().flat_map(|c| unfolded(*c)).filter(char::is_ascii).collect();
        }
        let ranges = as_ranges(all.into_iter());
        let ascii = if ranges.is_empty() { Glyph::Any } else { Glyph::Class { negated: true, ranges } };
        // Characters of two, three and four bytes.
        let beyond = (2..=4).map(|bytes| vec![Token::Glyph(Glyph::Beyond); bytes]);
        Ok(std::iter::once(vec![Token::Glyph(ascii)]).chain(beyond).collect())
    }
}

/// Returns the small letter of a character, which is one character as well.
fn lowercase(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        // The only one whose small form Unicode writes with two.
        _ if c == 'İ' => 'i',
        _ => c,
    }
}

/// Capitals beyond ASCII, each after its small letter.
static CAPITALS: LazyLock<BTreeSet<(char, char)>> = LazyLock::new(|| {
    let pairs = ('\u{80}'..=char::MAX).map(|c| (lowercase(c), c));
    pairs.filter(|(lower, c)| lower != c).collect()
});

/// Returns the characters that have this small letter. Those beyond ASCII whose small letter is ASCII, the
/// sign of the kelvin and a Turkish letter, are left out: they would double each pattern with a `k` or an `i`.
fn unfolded(lower: char) -> Vec<char> {
    if lowercase(lower) != lower {
        // In a range from small letter to small letter; no small letter itself.
        return if lower.is_ascii() { vec![] } else { unfolded(lowercase(lower)) };
    }
    if lower.is_ascii() {
        return vec![lower.to_ascii_uppercase(), lower];
    }
    let capitals = CAPITALS.range((lower, '\0')..=(lower, char::MAX)).map(|(_, capital)| *capital);
    std::iter::once(lower).chain(capitals).collect()
}

/// Joins characters, in order, into ranges.
fn as_ranges(chars: impl Iterator<Item = char>) -> Vec<(char, char)> {
    let mut ranges: Vec<(char, char)> = vec![];
    for c in chars {
        match ranges.last_mut() {
            Some((_, to)) if *to as u32 + 1 == c as u32 => *to = c,
            _ => ranges.push((c, c)),
        }
    }
    ranges
}

/// Cuts tokens into the parts of a path; once for each way in which a `**` may stand for slashes or not.
/// What no path can match is left out.
fn parts(tokens: &[Token]) -> Result<Vec<Vec<Part>>, String> {
    let mut all: Vec<Vec<Part>> = vec![vec![]];
    let names: Vec<&[Token]> = tokens.split(|token| *token == Token::Slash).collect();
    for (at, name) in names.iter().enumerate() {
        let ways: Vec<Vec<Part>> = if name.is_empty() {
            vec![]
        } else if name.iter().all(|token| *token == Token::Super) {
            let any = Part::Name(vec![Glyph::Star]);
            match (at, names.len()) {
                // All of it: everything.
                (_, 1) => vec![vec![Part::Dirs, any]],
                // One directory or more.
                (at, count) if at + 1 < count => vec![vec![any, Part::Dirs]],
                _ => vec![vec![Part::Dirs, any]],
            }
        } else {
            within_name(name)?
        };
        if all.len() * ways.len() > READINGS_MAX {
            return Err(TOO_MANY.to_owned());
        }
        all = all.iter().flat_map(|before| ways.iter().map(move |after| [&before[..], after].concat())).collect();
    }
    Ok(all)
}

/// Reads what stands between two slashes. Each `**` is either a `*`, or ends a name, spans directories and
/// begins another name.
fn within_name(tokens: &[Token]) -> Result<Vec<Vec<Part>>, String> {
    let mut all: Vec<(Vec<Part>, Vec<Glyph>)> = vec![(vec![], vec![])];
    for token in tokens {
        match token {
            Token::Glyph(glyph) => all.iter_mut().for_each(|(_, name)| add(name, glyph.clone())),
            Token::Super => {
                let spanning: Vec<_> = all
                    .iter()
                    .map(|(parts, name)| {
                        let (mut parts, mut name) = (parts.clone(), name.clone());
                        add(&mut name, Glyph::Star);
                        parts.extend([Part::Name(name), Part::Dirs]);
                        (parts, vec![Glyph::Star])
                    })
                    .collect();
                all.iter_mut().for_each(|(_, name)| add(name, Glyph::Star));
                all.extend(spanning);
            }
            Token::Slash => {}
        }
        if all.len() > READINGS_MAX {
            return Err(TOO_MANY.to_owned());
        }
    }
    let whole = |(mut parts, name): (Vec<Part>, Vec<Glyph>)| {
        parts.push(Part::Name(name));
        parts
    };
    Ok(all.into_iter().map(whole).collect())
}

/// Adds a glyph to a name; two stars in a row would span directories.
fn add(name: &mut Vec<Glyph>, glyph: Glyph) {
    if glyph != Glyph::Star || name.last() != Some(&Glyph::Star) {
        name.push(glyph);
    }
}

/// Writes rules, the one that decides least first.
#[derive(Default)]
struct Writer {
    text: String,
    /// Whether anything is left out so far.
    leaves_out: bool,
    /// Whether a directory was let in only for what lies below it.
    opened: bool,
    /// Whether all directories were let in, and nothing was left out since.
    all_open: bool,
}

impl Writer {
    /// Writes a rule. `reopened` says whether a later line may let in again something below what it leaves out.
    fn rule(&mut self, rule: &Rule, reopened: bool) {
        for comment in &rule.comments {
            self.text.push_str(&format!("# {comment}\n"));
        }
        if rule.negated {
            // With nothing left out so far there is nothing to let in again.
            if self.leaves_out {
                rule.readings.iter().for_each(|reading| self.let_in(reading, rule.itself));
            }
            return;
        }
        for reading in &rule.readings {
            if rule.itself {
                self.line("", reading.rooted, &reading.parts, "");
            }
            // What lies below a directory that is left out is left out anyway, unless that is opened again; and
            // `*` matches at any depth.
            let is_all = !reading.rooted && reading.parts == [Part::Name(vec![Glyph::Star])];
            if !rule.itself || (reopened && !is_all) {
                self.line("", reading.rooted, &reading.parts, "/**");
            }
            self.leaves_out = true;
            self.all_open = false;
        }
    }

    fn let_in(&mut self, reading: &Reading, itself: bool) {
        let parents = if itself { reading.parts.len().saturating_sub(1) } else { reading.parts.len() };
        if !reading.rooted {
            if !self.all_open {
                self.text.push_str("!*/\n");
                self.all_open = true;
                self.opened = true;
            }
        } else {
            for end in 1..=parents {
                self.line("!", true, &reading.parts[..end], "/");
                self.opened = true;
            }
        }
        if itself {
            self.line("!", reading.rooted, &reading.parts, "");
        }
        self.line("!", reading.rooted, &reading.parts, "/**");
    }

    fn line(&mut self, bang: &str, rooted: bool, parts: &[Part], end: &str) {
        let names: Vec<String> = parts.iter().map(Part::written).collect();
        let whole = names.join("/");
        let lead = match (rooted, parts.len(), end) {
            (true, ..) => "/",
            (false, 0 | 1, "" | "/") => "",
            (false, ..) => "**/",
        };
        let mut line = match parts {
            [] => format!("{lead}{}", end.trim_start_matches('/')),
            _ => format!("{lead}{whole}{end}"),
        };
        // What would be taken for a comment or for a negation.
        if bang.is_empty() && line.starts_with(['#', '!']) {
            line.insert(0, '\\');
        }
        if let Some(kept) = line.strip_suffix(' ') {
            line = format!("{kept}\\ ");
        }
        self.text.push_str(&format!("{bang}{line}\n"));
    }
}

impl Part {
    fn written(&self) -> String {
        match self {
            Self::Dirs => "**".to_owned(),
            Self::Name(glyphs) => glyphs.iter().map(Glyph::written).collect(),
        }
    }
}

impl Glyph {
    fn written(&self) -> String {
        match self {
            Self::Star => "*".to_owned(),
            Self::Any => "?".to_owned(),
            Self::Beyond => "[! -~]".to_owned(),
            Self::Char(c @ ('*' | '?' | '[' | '\\')) => format!("\\{c}"),
            // At the end of a line it would be taken for a part of that.
            Self::Char('\r') => "[\r]".to_owned(),
            Self::Char(c) => c.to_string(),
            Self::Class { negated, ranges } => {
                let escaped = |c: char| if "]\\^!-[".contains(c) { format!("\\{c}") } else { c.to_string() };
                let range = |(from, to): &(char, char)| match from == to {
                    true => escaped(*from),
                    false => format!("{}-{}", escaped(*from), escaped(*to)),
                };
                let inside: String = ranges.iter().map(range).collect();
                format!("[{}{inside}]", if *negated { "!" } else { "" })
            }
        }
    }
}
