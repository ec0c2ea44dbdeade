//! The census: what people wrote, what they destroyed themselves, and where all the rest has to be.
//!
//! Each writing has a number of its own, its *token*, that stands in the content as a line. The ledger knows
//! of each token whether some person has replaced or deleted it, knowing that it was there, and on which
//! devices; and of each device which tokens have ever been seen there. So in the end it can be said of each
//! token where it must be: in a live file everywhere, or in the history of every device that a sync took it from.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The number of a writing.
pub type Token = u64;

/// Length of the line that holds a token, in bytes.
pub const LINE_LEN: usize = 18;

/// Returns the line that a token is in a content; all are equally long.
pub fn line(token: Token) -> String {
    format!("tok {token:013}\n")
}

/// Finds the tokens in a content.
pub fn tokens(bytes: &[u8]) -> BTreeSet<Token> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.filter_map(|line| std::str::from_utf8(line.strip_prefix(b"tok ")?).ok()?.parse().ok()).collect()
}

/// What all people did, and what was seen of it.
pub struct Ledger {
    begun: Instant,
    next: AtomicU64,
    /// Set when people and troubles are to end.
    pub is_over: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Hashes of all contents that a file ever had by a person's hand, between two writes of one saving, too.
    legal: HashSet<[u8; 32]>,
    /// What was written, and how.
    owed: BTreeMap<Token, String>,
    /// On which devices a person has replaced or deleted a content that he saw.
    destroyed: BTreeMap<Token, BTreeSet<usize>>,
    /// Written through a handle to a file whose name was given to another one at that moment.
    strays: BTreeSet<Token>,
    /// Of each device, how often something was destroyed there that its person had no chance to see.
    unseen: BTreeMap<usize, usize>,
    /// What each device was seen to have.
    seen: BTreeMap<usize, BTreeSet<Token>>,
    operations: usize,
    journal: Vec<String>,
    violations: Vec<String>,
}

impl Ledger {
    pub fn new() -> Self {
        let state = State { legal: HashSet::from([hash(b"")]), ..State::default() };
        Self {
            begun: Instant::now(),
            next: AtomicU64::new(1),
            is_over: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Notes that somebody did something.
    pub fn say(&self, what: String) {
        let at = self.begun.elapsed().as_millis();
        self.state.lock().unwrap().journal.push(format!("{at} {what}"));
    }

    pub fn new_token(&self) -> Token {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A file is about to have this content.
    pub fn allow(&self, content: &[u8]) {
        self.state.lock().unwrap().legal.insert(hash(content));
    }

    /// A token was written, and lay where it was meant to be afterwards.
    pub fn wrote(&self, token: Token, story: String) {
        self.say(format!("#{token} {story}"));
        self.state.lock().unwrap().owed.insert(token, story);
    }

    /// A token was written, but its name may have been another file's by then.
    pub fn strayed(&self, token: Token, story: String) {
        self.wrote(token, format!("{story}, astray"));
        self.state.lock().unwrap().strays.insert(token);
    }

    /// A person of a device destroyed what he saw.
    pub fn destroyed(&self, device: usize, gone: impl IntoIterator<Item = Token>, story: &str) {
        for token in gone {
            self.say(format!("#{token} destroyed on {device}: {story}"));
            self.state.lock().unwrap().destroyed.entry(token).or_default().insert(device);
        }
    }

    /// A person of a device destroyed something else than what he saw.
    pub fn destroyed_unseen(&self, device: usize, story: &str) {
        self.say(format!("something was destroyed unseen on {device}: {story}"));
        *self.state.lock().unwrap().unseen.entry(device).or_default() += 1;
    }

    /// A person finished something.
    pub fn did(&self) {
        self.state.lock().unwrap().operations += 1;
    }

    /// Something happened that must never happen.
    pub fn violated(&self, what: String) {
        eprintln!("{what}");
        self.say(what.clone());
        self.state.lock().unwrap().violations.push(what);
    }

    fn saw(&self, device: usize, tokens: BTreeSet<Token>) {
        self.state.lock().unwrap().seen.entry(device).or_default().extend(tokens);
    }

    fn is_legal(&self, content: &[u8]) -> bool {
        self.state.lock().unwrap().legal.contains(&hash(content))
    }
}

fn hash(content: &[u8]) -> [u8; 32] {
    *blake3::hash(content).as_bytes()
}

/// What was found in a file or as the target of a link.
pub fn content(path: &Path) -> Option<Vec<u8>> {
    match fs::symlink_metadata(path).ok()? {
        meta if meta.is_file() => fs::read(path).ok(),
        meta if meta.is_symlink() => Some(fs::read_link(path).ok()?.as_os_str().as_bytes().to_vec()),
        _ => None,
    }
}

/// Lists all that lies below a directory, Kinfold's own things left out.
pub fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if dir == root && entry.file_name() == ".kinfold" {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    // The order of a directory is the file system's, and a seed should not depend on it.
    found.sort();
    found
}

/// Looks at a device's files again and again: what is there, and whether somebody wrote just that.
pub struct Observer<'a> {
    pub device: usize,
    pub root: &'a Path,
    pub ledger: &'a Ledger,
    known: HashMap<PathBuf, Look>,
    suspects: HashMap<PathBuf, Look>,
}

/// What tells one state of a file from another.
type Look = (u64, u64, i64, i64, i64, i64);

fn look(path: &Path) -> Option<Look> {
    let meta = fs::symlink_metadata(path).ok().filter(|meta| !meta.is_dir())?;
    Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()))
}

impl<'a> Observer<'a> {
    pub fn new(device: usize, root: &'a Path, ledger: &'a Ledger) -> Self {
        Self { device, root, ledger, known: HashMap::new(), suspects: HashMap::new() }
    }

    /// Looks once at all that has changed.
    pub fn round(&mut self) {
        let mut known = HashMap::new();
        let mut suspects = HashMap::new();
        for path in walk(self.root) {
            let Some(before) = look(&path) else { continue };
            if self.known.get(&path) == Some(&before) {
                known.insert(path, before);
                continue;
            }
            let Some(bytes) = content(&path).filter(|_| look(&path) == Some(before)) else { continue };
            self.ledger.saw(self.device, tokens(&bytes));
            if self.ledger.is_legal(&bytes) {
                known.insert(path, before);
            } else if self.suspects.get(&path) == Some(&before) {
                let head = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
                self.ledger.violated(format!("{} has what nobody wrote: {head:?}", path.display()));
                known.insert(path, before);
            } else {
                // It may be being written; then it does not stay so.
                suspects.insert(path, before);
            }
        }
        (self.known, self.suspects) = (known, suspects);
    }
}

/// What the census counted; tokens, where nothing else is said.
pub struct Count {
    /// What people did.
    pub operations: usize,
    pub written: usize,
    /// In a file that all have.
    pub live: usize,
    /// Replaced or deleted by a person who saw them.
    pub destroyed: usize,
    /// In history and nowhere else.
    pub kept: usize,
    /// Written through a handle to a file that was another name's by then.
    pub strays: usize,
    /// How often something was destroyed that nobody had a chance to see.
    pub unseen: usize,
    /// Pairs of a token and a device that was seen to have it.
    pub seen: usize,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { operations, written, live, destroyed, kept, strays, unseen, seen } = self;
        write!(f, "{operations} operations, {written} tokens written, {live} live, {destroyed} destroyed by people, ")?;
        write!(f, "{kept} in history alone, {strays} astray, {unseen} destroyed unseen, {seen} sights")
    }
}

impl Ledger {
    /// Counts all tokens on devices whose trees are equal, and says what is missing.
    pub fn count(&self, roots: &[&Path]) -> Result<Count, String> {
        let state = self.state.lock().unwrap();
        let mut wrong = state.violations.clone();
        let mut live = BTreeSet::new();
        for path in walk(roots[0]) {
            let Some(bytes) = content(&path) else { continue };
            live.extend(tokens(&bytes));
            if !state.legal.contains(&hash(&bytes)) {
                wrong.push(format!("{} has in the end what nobody wrote", path.display()));
            }
        }
        let mut history: Vec<BTreeSet<Token>> = Vec::new();
        for root in roots {
            let mut kept = BTreeSet::new();
            for entry in fs::read_dir(root.join(".kinfold/history")).into_iter().flatten().flatten() {
                let bytes = content(&entry.path()).unwrap_or_default();
                kept.extend(tokens(&bytes));
                if !state.legal.contains(&hash(&bytes)) {
                    wrong.push(format!("{} is in history, and nobody wrote it", entry.path().display()));
                }
            }
            history.push(kept);
        }
        let in_history = |token: &Token| history.iter().any(|kept| kept.contains(token));

        // What nobody knowingly replaced is live.
        let mut excused = 0;
        for (token, story) in &state.owed {
            if live.contains(token) || state.destroyed.contains_key(token) {
                continue;
            }
            if !in_history(token) {
                wrong.push(format!("#{token} is lost: {story}"));
            } else if !state.strays.contains(token) {
                excused += 1;
                if excused > state.unseen.values().sum::<usize>() {
                    wrong.push(format!("#{token} is only in history, and nobody replaced it: {story}"));
                }
            }
        }
        // What was destroyed is in the history of each device that had it, unless its own person took it there.
        for (device, seen) in &state.seen {
            let own = |token: &Token| state.destroyed.get(token).is_some_and(|devices| devices.contains(device));
            let gone = seen.iter().filter(|token| !live.contains(token) && state.owed.contains_key(token));
            let missing: Vec<_> = gone.filter(|token| !own(token) && !history[*device].contains(token)).collect();
            if missing.len() > state.unseen.get(device).copied().unwrap_or(0) {
                for token in missing {
                    wrong.push(format!("#{token} was on {device}, and is not in its history: {}", state.owed[token]));
                }
            }
        }
        if wrong.is_empty() {
            return Ok(Count {
                operations: state.operations,
                written: state.owed.len(),
                live: state.owed.keys().filter(|token| live.contains(token)).count(),
                destroyed: state.destroyed.len(),
                kept: state.owed.keys().filter(|token| !live.contains(token) && in_history(token)).count(),
                strays: state.strays.len(),
                unseen: state.unseen.values().sum(),
                seen: state.seen.values().map(BTreeSet::len).sum(),
            });
        }
        // The story of what is missing.
        let numbers: BTreeSet<&str> =
            wrong.iter().filter_map(|line| line.split([' ', ':']).find(|w| w.starts_with('#'))).collect();
        let is_about = |line: &&String| line.split(' ').any(|word| numbers.contains(word));
        let stories: Vec<_> = state.journal.iter().filter(is_about).cloned().collect();
        Err(format!("{}\n--- the story\n{}", wrong.join("\n"), stories.join("\n")))
    }

    /// Returns all that was done.
    pub fn journal(&self) -> String {
        self.state.lock().unwrap().journal.join("\n")
    }
}
