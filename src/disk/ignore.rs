//! Ignore rules: what a person has asked to leave out.
//!
//! Rules stand in `.kinfoldignore`, in any directory, with the meaning that git gives to `.gitignore`:
//! the last pattern that matches wins, a file nearer to the path wins over one farther up, and what lies
//! below an ignored directory is ignored, come what may. On request `.gitignore` is honoured too, under
//! `.kinfoldignore` of the same directory. The matching itself is the `ignore` crate's; where it
//! understands a line otherwise than git does (braces, blanks at the end, classes of characters), the
//! line is rewritten first.
//!
//! `?` and classes match one byte, as they do for git. Differences that remain: a pattern that is not UTF-8 is
//! passed over. `x**/y` matches as git's manual says, one directory deep; git itself goes deeper.
//!
//! A rule file that cannot be read is an error for its whole directory. Without its rules, what a
//! person wants to keep to themselves would be given away.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::disk::copy::read_full_at;
use crate::disk::fault::is_missing;
use crate::disk::probe::fstat;
use crate::disk::root::Root;
use crate::model::limits::IGNORE_FILE_LEN_MAX;
use crate::model::path::RelPath;
use crate::model::stat::{Kind, Stat};

/// The name of the file with the rules.
pub const IGNORE_FILE: &[u8] = b".kinfoldignore";
const GITIGNORE_FILE: &[u8] = b".gitignore";

/// What the names of our own temporary files in the folder begin with. They are always left out.
pub(crate) const TEMP_PREFIX: &str = ".kinfold-tmp-";

/// Rule files that are kept ready.
const CACHED_MAX: usize = 4096;

/// Whether `.gitignore` files are honoured in a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gitignores {
    /// They are files like any other.
    Unused,
    /// Their rules hold, under those of `.kinfoldignore`.
    Honoured,
}

/// The ignore rules of a folder, read from it as they are needed.
#[derive(Debug)]
pub struct Rules {
    gitignores: Gitignores,
    /// What was read, by directory and file name, with the stat that it had then.
    cache: Mutex<HashMap<RuleFile, (Stat, Arc<Gitignore>)>>,
}

type RuleFile = (Box<[u8]>, &'static [u8]);

/// The rules that hold in one directory: its own, and those of all above it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Level(Option<Arc<Own>>);

/// The rules of a directory that has some.
#[derive(Debug)]
struct Own {
    above: Level,
    /// Length of the directory's path, with the `/` after it: what patterns do not see.
    prefix: usize,
    /// The first to match decides.
    files: Vec<Arc<Gitignore>>,
}

impl Rules {
    /// Prepares to read the rules of a folder.
    pub fn new(gitignores: Gitignores) -> Self {
        Self { gitignores, cache: Mutex::default() }
    }

    /// Returns whether a path is left out: by a rule for itself, or for a directory above it.
    ///
    /// Whether it is a directory matters to some rules. The path itself need not exist.
    pub fn is_ignored(&self, root: &Root, path: &RelPath, is_dir: bool) -> io::Result<bool> {
        Ok(match self.level_of(root, path.parent().as_ref())? {
            None => true,
            Some(level) => level.ignores(path.as_bytes(), is_dir),
        })
    }

    /// Returns whether a path is a file that rules are read from.
    pub fn is_rule_file(&self, path: &RelPath) -> bool {
        self.rule_files().any(|file| file == path.name())
    }

    fn rule_files(&self) -> impl Iterator<Item = &'static [u8]> + use<> {
        let gitignore = (self.gitignores == Gitignores::Honoured).then_some(GITIGNORE_FILE);
        [IGNORE_FILE].into_iter().chain(gitignore)
    }

    /// Returns the rules that hold in a directory (`None`: the root), or `None` if it is ignored itself.
    pub(crate) fn level_of(&self, root: &Root, dir: Option<&RelPath>) -> io::Result<Option<Level>> {
        let mut level = Level::default();
        let mut ways: Vec<Option<RelPath>> = dir.map(|dir| dir.ancestors().map(Some).collect()).unwrap_or_default();
        ways.insert(0, dir.cloned());
        if dir.is_some() {
            ways.push(None);
        }
        for way in ways.iter().rev() {
            if way.as_ref().is_some_and(|way| level.ignores(way.as_bytes(), true)) {
                return Ok(None);
            }
            match root.dir(way.as_ref()) {
                Ok(open) => level = self.descend(&level, open.as_fd(), way.as_ref(), |_| true)?,
                // There is nothing there that could have rules.
                Err(error) if is_missing(error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(level))
    }

    /// Returns the rules that hold in a directory, from those that hold in the one above it. `has` says
    /// whether the directory has a name.
    pub(crate) fn descend(
        &self,
        above: &Level,
        open: BorrowedFd<'_>,
        dir: Option<&RelPath>,
        has: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Level> {
        let path = dir.map_or(&b""[..], RelPath::as_bytes);
        let mut files = Vec::new();
        for name in self.rule_files().filter(|name| has(name)) {
            files.extend(self.read(open, path, name)?);
        }
        if files.is_empty() {
            return Ok(above.clone());
        }
        let prefix = if dir.is_some() { path.len() + 1 } else { 0 };
        Ok(Level(Some(Arc::new(Own { above: above.clone(), prefix, files }))))
    }

    /// Reads a rule file; `None` if it is missing, no regular file, or without a rule.
    fn read(&self, dir: BorrowedFd<'_>, path: &[u8], name: &'static [u8]) -> io::Result<Option<Arc<Gitignore>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = fstat(file.as_fd())?;
        if stat.kind != Kind::File {
            return Ok(None);
        }
        let key = (path.into(), name);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, rules)) = cache.get(&key)
            && *seen == stat
        {
            return Ok(Some(rules.clone()).filter(|rules| !rules.is_empty()));
        }
        if stat.size > IGNORE_FILE_LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the ignore file is too large"));
        }
        let mut text = vec![0; stat.size as usize + 1];
        let len = read_full_at(file.as_fd(), 0, &mut text)?;
        let rules = Arc::new(parse(&text[..len.min(stat.size as usize)]));
        if cache.len() >= CACHED_MAX {
            cache.clear();
        }
        cache.insert(key, (stat, rules.clone()));
        Ok(Some(rules).filter(|rules| !rules.is_empty()))
    }
}

impl Level {
    /// Returns whether a path right in this directory is left out. Nothing is asked about directories
    /// above it.
    pub(crate) fn ignores(&self, path: &[u8], is_dir: bool) -> bool {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        if name.starts_with(TEMP_PREFIX.as_bytes()) {
            return true;
        }
        let mut level = self;
        while let Some(own) = &level.0 {
            let seen: &Path = Path::new(bytes_as_os(&path[own.prefix..]));
            for rules in &own.files {
                match rules.matched(seen, is_dir) {
                    Match::Whitelist(_) => return false,
                    // `*` leaves out everything, but hardly the rules themselves: they are meant to
                    // reach the other devices. Who does not want that names them.
                    Match::Ignore(glob) if name != IGNORE_FILE || glob.original().contains("kinfoldignore") => {
                        return true;
                    }
                    Match::Ignore(_) | Match::None => {}
                }
            }
            level = &own.above;
        }
        false
    }
}

fn bytes_as_os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

/// Compiles the lines of a rule file. A line that makes no sense is passed over, as git does.
fn parse(text: &[u8]) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    builder.allow_unclosed_class(false);
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    for line in text.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Ok(line) = std::str::from_utf8(line)
            && let Some(line) = as_glob(line)
        {
            builder.add_line(None, &line).ok();
        }
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

/// Rewrites a line as git understands it into one that the crate understands the same way.
fn as_glob(line: &str) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let line = trim_end(line);
    if matches!(line, "" | "/" | "!" | "!/") {
        return None;
    }
    let (bang, line) = line.strip_prefix('!').map_or(("", line), |line| ("!", line));
    let mut glob = String::from(bang);
    // Said explicitly, because the crate would take the `/` in a rewritten class for an anchor.
    if !line.strip_suffix('/').unwrap_or(line).contains('/') {
        glob.push_str("**/");
    }
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                glob.push('\\');
                glob.push(chars.next()?);
            }
            // Alternatives are no part of gitignore.
            '{' | '}' => glob.extend(['\\', c]),
            '[' => glob.push_str(&class(&mut chars)?),
            // The crate takes away all kinds of blanks at the end, git only spaces.
            _ if c.is_whitespace() && c != ' ' && chars.peek().is_none() => glob.extend(['[', c, ']']),
            _ => glob.push(c),
        }
    }
    Some(glob)
}

/// Takes away spaces at the end that are not escaped.
fn trim_end(line: &str) -> &str {
    let kept = line.trim_end_matches(' ');
    let escapes = kept.bytes().rev().take_while(|b| *b == b'\\').count();
    if escapes % 2 == 1 && kept.len() < line.len() { &line[..kept.len() + 1] } else { kept }
}

/// Rewrites a class of characters, from after its `[`; `None` if it does not end.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let negated = chars.next_if(|c| matches!(c, '!' | '^')).is_some();
    let mut ranges: Vec<(char, char)> = Vec::new();
    let mut first = true;
    loop {
        let c = chars.next()?;
        match c {
            ']' if !first => break,
            '[' if chars.peek() == Some(&':') => ranges.extend(named_class(chars)?),
            _ => {
                let from = if c == '\\' { chars.next()? } else { c };
                let mut ahead = chars.clone();
                if ahead.next() == Some('-') && ahead.peek().is_some_and(|c| *c != ']') {
                    *chars = ahead;
                    let to = chars.next()?;
                    let to = if to == '\\' { chars.next()? } else { to };
                    if from <= to {
                        ranges.push((from, to));
                    }
                } else {
                    ranges.push((from, from));
                }
            }
        }
        first = false;
    }
    Some(write_class(negated, ranges))
}

/// Reads `:name:]` after a `[` inside a class.
fn named_class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Vec<(char, char)>> {
    let name: String = chars.by_ref().skip(1).take_while(|c| *c != ':').collect();
    chars.next_if_eq(&']')?;
    let ranges: &[(char, char)] = match name.as_str() {
        "alpha" => &[('a', 'z'), ('A', 'Z')],
        "digit" => &[('0', '9')],
        "alnum" => &[('a', 'z'), ('A', 'Z'), ('0', '9')],
        "upper" => &[('A', 'Z')],
        "lower" => &[('a', 'z')],
        "xdigit" => &[('0', '9'), ('a', 'f'), ('A', 'F')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "graph" => &[('!', '~')],
        "print" => &[(' ', '~')],
        _ => return None,
    };
    Some(ranges.to_vec())
}

/// Writes a class so that no character in it has a meaning of its own, and that never matches `/`.
fn write_class(negated: bool, ranges: Vec<(char, char)>) -> String {
    let mut text = String::from(if negated { "[!" } else { "[" });
    let (mut bracket, mut dash, mut marks) = (false, false, String::new());
    let mut rest = String::new();
    for (from, to) in ranges {
        // Each special character stands by itself, so ranges are cut around them.
        let mut at = from as u32;
        while at <= to as u32 {
            let special = (at..=to as u32).find(|c| "!-/]^".chars().any(|s| s as u32 == *c));
            let end = special.unwrap_or(to as u32 + 1);
            if at < end
                && let (Some(a), Some(b)) = (char::from_u32(at), char::from_u32(end - 1))
            {
                rest.extend([a, '-', b]);
            }
            match special.and_then(char::from_u32) {
                Some(']') => bracket = true,
                Some('-') => dash = true,
                Some('/') | None => {}
                Some(mark) => marks.push(mark),
            }
            at = end + 1;
        }
    }
    if negated {
        rest.push('/');
    }
    // Where each means itself: `]` first, `!` and `^` not first, `-` last.
    if bracket {
        text.push(']');
    }
    text.push_str(&rest);
    if text == "[" && !marks.is_empty() {
        // Only marks: the first would negate. NUL, which no name has, comes before them.
        text.push('\u{0}');
    }
    text.push_str(&marks);
    if dash {
        text.push('-');
    }
    if text == "[" {
        // Nothing at all matches, for no name has this.
        text.push('\u{0}');
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::{Folder, path};
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// Asks git which of the paths are ignored.
    fn git_says(dir: &Path, paths: &[&str]) -> BTreeSet<String> {
        let mut git = Command::new("git")
            .args(["-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-z", "--stdin"])
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("git is needed for this test");
        let asked: Vec<u8> = paths.iter().flat_map(|path| [path.as_bytes(), b"\0"].concat()).collect();
        git.stdin.take().unwrap().write_all(&asked).unwrap();
        let said = git.wait_with_output().unwrap();
        assert!(said.status.code().is_some_and(|code| code <= 1), "git failed");
        let said = String::from_utf8(said.stdout).unwrap();
        said.split('\0').filter(|path| !path.is_empty()).map(str::to_string).collect()
    }

    /// A git repository that is a folder of ours too, with some paths (`/` at the end: a directory).
    struct Table<'a> {
        folder: Folder,
        paths: Vec<&'a str>,
    }

    impl<'a> Table<'a> {
        fn new(paths: &[&'a str]) -> Self {
            let folder = Folder::new();
            let made = Command::new("git").args(["init", "-q"]).current_dir(folder.root.path()).status();
            assert!(made.expect("git is needed for this test").success());
            for at in paths {
                match at.strip_suffix('/') {
                    Some(dir) => fs::create_dir_all(folder.at(dir)).unwrap(),
                    None => folder.write(at, b""),
                }
            }
            Self { folder, paths: paths.iter().map(|at| at.trim_end_matches('/')).collect() }
        }

        /// Writes rule files, by directory, and compares with git.
        fn check(&self, rules: &[(&str, &str)]) {
            for (dir, text) in rules {
                self.folder.write(&format!("{dir}.gitignore"), text.as_bytes());
                self.folder.write(&format!("{dir}.kinfoldignore"), text.as_bytes());
            }
            let git = git_says(self.folder.root.path(), &self.paths);
            for gitignores in [Gitignores::Unused, Gitignores::Honoured] {
                let ours = Rules::new(gitignores);
                for at in &self.paths {
                    let is_dir = self.folder.at(at).is_dir();
                    let ignored = ours.is_ignored(&self.folder.root, &path(at), is_dir).unwrap();
                    assert_eq!(ignored, git.contains(*at), "{at:?} under {rules:?}, {gitignores:?}");
                }
            }
            for (dir, _) in rules {
                fs::remove_file(self.folder.at(&format!("{dir}.gitignore"))).unwrap();
                fs::remove_file(self.folder.at(&format!("{dir}.kinfoldignore"))).unwrap();
            }
        }
    }

    #[test]
    fn patterns_mean_what_git_says_they_mean() {
        const PATHS: &[&str] = &[
            "foo",
            "bar",
            "foo.o",
            "foo.txt",
            "a/foo",
            "a/b/foo",
            "a/b/c/foo",
            "a/bar/x",
            "build/x",
            "src/build/x",
            "doc/frotz/y",
            "a/doc/frotz/z",
            "x.log",
            "logs/x.log",
            "logs/keep.log",
            "logs/deep/x.log",
            "#hash",
            "!bang",
            "sp ace",
            "tail ",
            "tab\t",
            "a{b,c}d",
            "abd",
            "acd",
            "[x]",
            "x",
            "back\\slash",
            "q?",
            "qq",
            "star*",
            "starry",
            "-dash",
            "]br",
            "^hat",
            ".hidden",
            "A",
            "Z9",
            "m5",
            "dir.d/in",
            "deep/a/b/c/d/e",
            "foobar",
            "barfoo",
            "abc/x/y",
            "abc/z",
            "é",
            "xéy",
        ];
        let table = Table::new(PATHS);
        for pattern in [
            "é",
            "x??y",
            "x?y",
            "[é]",
            "[é][é]",
            "[!é]",
            "[! -~][! -~]",
            "[ã-ê]",
            "foo",
            "/foo",
            "foo/",
            "*.o",
            "a/foo",
            "/a/foo",
            "a/*",
            "a/**",
            "**/foo",
            "a/**/foo",
            "**",
            "*",
            "/*",
            "build/",
            "/build/",
            "doc/frotz",
            "doc/frotz/",
            "/doc/frotz/",
            "*.log",
            "logs/*.log",
            "logs/**",
            "logs/**/x.log",
            "#hash",
            "\\#hash",
            "\\!bang",
            "sp ace",
            "sp\\ ace",
            "tail ",
            "tail\\ ",
            "tail\\  ",
            "tab\t",
            "a{b,c}d",
            "{foo,bar}",
            "[x]",
            "\\[x\\]",
            "back\\\\slash",
            "back\\slash",
            "q?",
            "q\\?",
            "star\\*",
            "star*",
            "[-]dash",
            "[]]br",
            "[\\]]br",
            "[\\^]hat",
            "[!a]",
            "[^a-z]",
            "[a-z]oo",
            "[A-Z]*",
            "[[:upper:]]",
            "[[:alpha:]][[:digit:]]",
            "[[:punct:]]dash",
            "[[:nope:]]",
            "[abc",
            "foo\\",
            "*/foo",
            "*/*/foo",
            "a/*/foo",
            "**/b/foo",
            "b/foo",
            "/",
            "//",
            "foo**",
            "**foo",
            "dir.d/",
            "deep/**/e",
            "deep/**",
            ".*",
            "f[!o]o",
            "fo[o]bar",
            "a[+-0]foo",
            "a[!x]foo",
            "abc/**/y",
            "abc/*",
            "?",
            "??",
            "foo/**",
            "foo/*",
            "./foo",
            "a//foo",
            "a/./foo",
            "foo.",
            "FOO",
            "[]-a]",
            "[a-]",
            "[--0]dash",
            "\\foo",
            "f\\oo",
            "foo\r",
            "\u{feff}foo",
            "x ",
            " x",
            "*foo",
            "foo*",
            "*o*",
            "a/b/c/",
            "a/b/c",
            "**/",
            "/**",
            "/**/foo",
            "!foo",
        ] {
            table.check(&[("", &format!("{pattern}\n"))]);
        }
    }

    #[test]
    fn the_last_pattern_and_the_nearest_file_win() {
        const PATHS: &[&str] = &[
            "a.log",
            "keep.log",
            "d/a.log",
            "d/keep.log",
            "d/e/a.log",
            "d/e/keep.log",
            "d/only",
            "out/x",
            "out/keep/y",
            "tmp/x",
            "tmp/keep",
            "d/out/x",
            "d/e/",
            "empty/",
        ];
        let table = Table::new(PATHS);
        for rules in [
            &[("", "*.log\n!keep.log\n")][..],
            &[("", "!keep.log\n*.log\n")],
            &[("", "*.log\n"), ("d/", "!*.log\n")],
            &[("", "*.log\n"), ("d/", "!*.log\n"), ("d/e/", "*.log\n!/keep.log\n")],
            &[("", "out/\n!out/keep\n!out/keep/y\n")],
            &[("", "out/*\n!out/keep\n")],
            &[("", "d/\n"), ("d/", "!only\n")],
            &[("", "*\n!*/\n!keep.log\n")],
            &[("", "/*\n!/d\n/d/*\n!/d/e\n")],
            &[("d/", "/a.log\nout\n")],
            &[("d/", "/e/keep.log\ne/a.log\n")],
            &[("", "tmp/*\n!tmp/keep\n# comment\n\n   \nempty\n")],
            &[("", "*.log\r\n!keep.log\r\n")],
        ] {
            table.check(rules);
        }
    }

    #[test]
    fn kinfoldignore_wins_over_gitignore_of_the_same_directory() {
        let folder = Folder::new();
        folder.write(".gitignore", b"a\nb\n");
        folder.write(".kinfoldignore", b"!a\nc\n");
        for at in ["a", "b", "c"] {
            folder.write(at, b"");
        }
        let ignored = |gitignores| {
            let rules = Rules::new(gitignores);
            ["a", "b", "c"].map(|at| rules.is_ignored(&folder.root, &path(at), false).unwrap())
        };
        assert_eq!(ignored(Gitignores::Unused), [false, false, true]);
        assert_eq!(ignored(Gitignores::Honoured), [false, true, true]);
    }

    #[test]
    fn a_change_of_the_rules_is_seen() {
        let folder = Folder::new();
        let rules = Rules::new(Gitignores::Unused);
        let is_ignored = || rules.is_ignored(&folder.root, &path("d/f"), false).unwrap();
        assert!(!is_ignored());
        folder.write("d/.kinfoldignore", b"f");
        assert!(is_ignored());
        assert!(is_ignored());
        folder.write("d/.kinfoldignore", b"g");
        assert!(!is_ignored());
        folder.write(".kinfoldignore", b"d/");
        assert!(is_ignored());
        fs::remove_file(folder.at(".kinfoldignore")).unwrap();
        assert!(!is_ignored());
    }

    #[test]
    fn the_rules_themselves_are_left_out_only_by_name() {
        let folder = Folder::new();
        let rules = Rules::new(Gitignores::Unused);
        for (text, ignored) in [("*", false), (".*", false), (".kinfoldignore", true), ("*\n!.kinfoldignore", false)] {
            folder.write(".kinfoldignore", text.as_bytes());
            assert_eq!(rules.is_ignored(&folder.root, &path(".kinfoldignore"), false).unwrap(), ignored, "{text}");
        }
    }

    #[test]
    fn our_own_temporary_files_are_always_left_out() {
        let folder = Folder::new();
        let rules = Rules::new(Gitignores::Unused);
        assert!(rules.is_ignored(&folder.root, &path("d/.kinfold-tmp-1"), false).unwrap());
        assert!(!rules.is_ignored(&folder.root, &path("d/.kinfold"), true).unwrap());
    }

    #[test]
    fn rules_that_cannot_be_read_are_an_error_and_links_are_no_rules() {
        let folder = Folder::new();
        let rules = Rules::new(Gitignores::Unused);
        let file = fs::File::create(folder.at(".kinfoldignore")).unwrap();
        file.set_len(IGNORE_FILE_LEN_MAX + 1).unwrap();
        assert!(rules.is_ignored(&folder.root, &path("f"), false).is_err());
        fs::remove_file(folder.at(".kinfoldignore")).unwrap();
        folder.write("elsewhere", b"f");
        std::os::unix::fs::symlink("elsewhere", folder.at(".kinfoldignore")).unwrap();
        assert!(!rules.is_ignored(&folder.root, &path("f"), false).unwrap());
    }

    #[test]
    fn names_that_are_not_utf_8_match_too() {
        let folder = Folder::new();
        let rules = Rules::new(Gitignores::Unused);
        folder.write(".kinfoldignore", b"*.log\n");
        for (name, ignored) in [(&b"\xff.log"[..], true), (b"\xff.txt", false)] {
            let path = RelPath::parse(name).unwrap();
            assert_eq!(rules.is_ignored(&folder.root, &path, false).unwrap(), ignored, "{path}");
        }
    }
}
