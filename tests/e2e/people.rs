//! People who use a folder as people do, and know what they destroy by it.
//!
//! A person never waits for a sync and takes no care of it. But whatever is replaced or deleted is held in the
//! hand first and looked at afterwards, so that the ledger hears what just was destroyed.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use crate::census::{LINE_LEN, Ledger, Token, content, line, tokens, walk};
use crate::lab::noise;

/// The directory whose files are edited and never leave their names.
pub const ANCHORS: &str = "anchor";
/// Things in a folder from which on more is removed than made.
const ENTRIES_MANY: usize = 250;

/// Numbers from a seed (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// Most that is written at a time, in bytes: what may be seen of a file while it is written are the states
/// between two writes.
const WRITE_LEN: usize = 64 << 10;

/// Something that is done to an open file.
enum Step {
    Truncate(u64),
    Write(u64, Vec<u8>),
}

/// Returns the steps that write a content from a place on.
fn write(at: u64, bytes: &[u8]) -> Vec<Step> {
    let pieces = bytes.chunks(WRITE_LEN).enumerate();
    pieces.map(|(n, piece)| Step::Write(at + (n * WRITE_LEN) as u64, piece.to_vec())).collect()
}

/// Who works in one device's folder.
pub struct Person<'a> {
    pub device: usize,
    pub root: &'a Path,
    /// A directory beside the folder that what is deleted is moved to, to see what it was.
    pub trash: PathBuf,
    pub ledger: &'a Ledger,
    pub random: Random,
    temps: u64,
}

impl<'a> Person<'a> {
    pub fn new(device: usize, root: &'a Path, ledger: &'a Ledger, seed: u64) -> Self {
        let trash = root.with_file_name("trash");
        fs::create_dir_all(&trash).unwrap();
        let random = Random(seed ^ (device as u64 + 1).wrapping_mul(0x1234_5678_9abc_def1));
        Self { device, root, trash, ledger, random, temps: 0 }
    }

    /// Works until all is over.
    pub fn work(&mut self) {
        while !self.ledger.is_over() {
            // What is no longer where it was just seen is no error: the folder is not this person's alone.
            if self.act().is_ok() {
                self.ledger.did();
            }
            let pause = match self.random.below(40) {
                0 => self.random.millis(500, 2500),
                1..10 => Duration::ZERO,
                _ => self.random.millis(0, 60),
            };
            std::thread::sleep(pause);
        }
    }

    fn act(&mut self) -> io::Result<()> {
        let entries: Vec<_> = walk(self.root).into_iter().filter(|path| !is_temp(path)).collect();
        let path = if entries.is_empty() || self.random.chance(35) {
            self.fresh(&entries)
        } else {
            self.random.pick(&entries).clone()
        };
        let meta = fs::symlink_metadata(&path).ok();
        let is_file = meta.as_ref().is_some_and(fs::Metadata::is_file);
        let Some(meta) = meta else {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            return match self.random.below(20) {
                0 => fs::create_dir(&path),
                1 => self.link(&path),
                _ => self.create(&path),
            };
        };
        if self.is_anchor(&path) {
            return match self.random.below(3) {
                _ if !is_file => Ok(()),
                0 => self.save(&path),
                _ => self.rewrite(&path),
            };
        }
        if entries.len() > ENTRIES_MANY && self.random.chance(40) {
            return self.remove(&path);
        }
        match self.random.below(100) {
            0..32 if is_file => self.rewrite(&path),
            32..44 if is_file => self.save(&path),
            44..58 => {
                let to = self.fresh(&entries);
                self.rename(&path, &to)
            }
            58..64 if is_file => {
                let to = self.random.pick(&entries).clone();
                self.rename_over(&path, &to)
            }
            64..69 => {
                let other = self.random.pick(&entries).clone();
                self.swap(&path, &other)
            }
            69..79 => self.remove(&path),
            79..82 => {
                self.remove(&path)?;
                self.create(&path)
            }
            82..86 => {
                self.remove(&path)?;
                fs::create_dir(&path)?;
                self.create(&path.join("inside"))
            }
            86..88 => {
                self.remove(&path)?;
                self.link(&path)
            }
            88..93 if !meta.is_symlink() => {
                let mode = if is_file {
                    *self.random.pick(&[0o600, 0o640, 0o644, 0o755])
                } else {
                    *self.random.pick(&[0o700, 0o755])
                };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            }
            93..96 if is_file => {
                let time =
                    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.random.below(1_500_000_000));
                open(&path)?.set_modified(time)
            }
            96..99 if is_file => {
                let to = self.fresh(&entries);
                self.copy(&path, &to)
            }
            _ => Ok(()),
        }
    }

    fn is_anchor(&self, path: &Path) -> bool {
        let inside = path.strip_prefix(self.root).unwrap();
        inside.starts_with(ANCHORS) && !inside.as_os_str().as_bytes().windows(10).any(|w| w == b".conflict-")
    }

    /// Thinks of a name, in a directory that is there or not; it may be taken.
    fn fresh(&mut self, entries: &[PathBuf]) -> PathBuf {
        let dirs: Vec<_> = entries.iter().filter(|path| path.is_dir() && !path.ends_with(ANCHORS)).collect();
        let dir = match self.random.below(3) {
            0 if !dirs.is_empty() => (*self.random.pick(&dirs)).clone(),
            1 => self.root.join(self.random.pick(&["papers", "work", "papers/old", "work/b/c", "a dir"])),
            _ => self.root.to_owned(),
        };
        let dir =
            if dir.components().count() > self.root.components().count() + 6 { self.root.to_owned() } else { dir };
        let names: &[&[u8]] = &[
            b"notes",
            b"plan.txt",
            b"a b",
            b"\xff\xfe",
            "\u{e9}t\u{e9}".as_bytes(),
            b"x.tar.gz",
            b".hidden",
            b"big",
            b"dir",
        ];
        dir.join(OsStr::from_bytes(self.random.pick::<&[u8]>(names)))
    }

    // ---------------------------------------------------------------------------------- writing

    /// Makes a content: the token, and what follows is shared with other files in part.
    fn compose(&mut self, token: Token) -> Vec<u8> {
        let mut bytes = line(token).into_bytes();
        let len = match self.random.below(100) {
            0..65 => self.random.below(200),
            65..88 => self.random.below(20_000),
            88..98 => self.random.below(200_000),
            _ => self.random.below(2_000_000),
        };
        // No byte of it looks like a token.
        let body = noise(self.random.below(6), len as usize);
        bytes.extend(body.into_iter().map(|byte| byte | 0x80));
        bytes
    }

    /// Does the steps to a file of this content, after the ledger heard of all that it will be.
    fn apply(&self, file: &File, mut state: Vec<u8>, steps: Vec<Step>) -> io::Result<Vec<u8>> {
        for step in &steps {
            match step {
                Step::Truncate(len) => state.truncate(*len as usize),
                Step::Write(at, bytes) => {
                    let end = *at as usize + bytes.len();
                    state.resize(state.len().max(end), 0);
                    state[*at as usize..end].copy_from_slice(bytes);
                }
            }
            self.ledger.allow(&state);
        }
        for step in &steps {
            match step {
                Step::Truncate(len) => file.set_len(*len)?,
                Step::Write(at, bytes) => file.write_all_at(bytes, *at)?,
            }
        }
        Ok(state)
    }

    fn tell(&self, token: Token, file: &File, path: &Path, how: &str) -> io::Result<()> {
        let story = format!("{how} {} on {}", path.display(), self.device);
        let there = fs::symlink_metadata(path).ok().map(|meta| meta.ino());
        if there == Some(file.metadata()?.ino()) {
            self.ledger.wrote(token, story);
        } else {
            self.ledger.strayed(token, story);
        }
        Ok(())
    }

    fn create(&mut self, path: &Path) -> io::Result<()> {
        let token = self.ledger.new_token();
        let bytes = self.compose(token);
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        self.apply(&file, Vec::new(), write(0, &bytes))?;
        self.tell(token, &file, path, "created as")
    }

    fn link(&mut self, path: &Path) -> io::Result<()> {
        let token = self.ledger.new_token();
        let target = line(token);
        self.ledger.allow(target.as_bytes());
        symlink(&target, path)?;
        self.ledger.wrote(token, format!("linked as {} on {}", path.display(), self.device));
        Ok(())
    }

    /// Edits a file where it lies, as scripts and some editors do.
    fn rewrite(&mut self, path: &Path) -> io::Result<()> {
        let file = open(path)?;
        let mut old = Vec::new();
        (&file).read_to_end(&mut old)?;
        let mtime = file.metadata()?.modified()?;
        let token = self.ledger.new_token();
        let has_line = old.starts_with(b"tok ") && old.len() >= LINE_LEN;
        let mut keeps_time = false;
        let (how, steps) = match self.random.below(5) {
            0 | 1 if has_line => {
                keeps_time = self.random.chance(40);
                ("edited in place", write(0, line(token).as_bytes()))
            }
            2 => ("appended to", write(old.len() as u64, format!("\n{}", line(token)).as_bytes())),
            3 => {
                let bytes = self.compose(token);
                let mut steps = write(0, &bytes);
                steps.push(Step::Truncate(bytes.len() as u64));
                ("written over", steps)
            }
            _ => {
                let mut steps = vec![Step::Truncate(0)];
                steps.extend(write(0, &self.compose(token)));
                ("truncated and written", steps)
            }
        };
        let gone = tokens(&old);
        let new = self.apply(&file, old, steps)?;
        if keeps_time {
            file.set_modified(mtime)?;
        }
        self.tell(token, &file, path, how)?;
        let gone = gone.difference(&tokens(&new)).copied().collect::<Vec<_>>();
        self.ledger.destroyed(self.device, gone, &format!("{how} {}", path.display()));
        Ok(())
    }

    /// Saves as careful editors do: a new file takes the place of the old one.
    fn save(&mut self, path: &Path) -> io::Result<()> {
        self.temps += 1;
        let temp = path.with_file_name(format!(".tmp-{}-{}", self.device, self.temps));
        let token = self.ledger.new_token();
        let bytes = self.compose(token);
        let file = OpenOptions::new().write(true).create_new(true).open(&temp)?;
        self.apply(&file, Vec::new(), write(0, &bytes))?;
        if self.random.chance(30) {
            file.sync_all()?;
        }
        self.ledger.wrote(token, format!("written to {} on {}", temp.display(), self.device));
        self.replace(&temp, path)
    }

    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut bytes = Vec::new();
        open(from)?.read_to_end(&mut bytes)?;
        let file = OpenOptions::new().write(true).create_new(true).open(to)?;
        self.apply(&file, Vec::new(), write(0, &bytes)).map(drop)
    }

    // ------------------------------------------------------------------------- moving and removing

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if from.ends_with(ANCHORS) {
            return Ok(());
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?;
        self.ledger.say(format!("{} renames {} to {}", self.device, from.display(), to.display()));
        Ok(())
    }

    fn rename_over(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if from == to {
            return Ok(());
        }
        self.replace(from, to)
    }

    /// Renames a file over another one, and finds out what that has destroyed.
    fn replace(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut old = Vec::new();
        let file = open(to)?;
        (&file).read_to_end(&mut old)?;
        let kept = content(from).map(|bytes| tokens(&bytes)).unwrap_or_default();
        fs::rename(from, to)?;
        let story = format!("{} renamed over {}", from.display(), to.display());
        self.ledger.say(format!("{} {story}", self.device));
        self.was_unlinked(&file, tokens(&old).difference(&kept).copied().collect(), &story)
    }

    /// The file that was in the hand should have lost its name just now; if it has not, another one did.
    fn was_unlinked(&self, file: &File, held: Vec<Token>, story: &str) -> io::Result<()> {
        if file.metadata()?.nlink() > 0 {
            self.ledger.destroyed_unseen(self.device, story);
        } else {
            self.ledger.destroyed(self.device, held, story);
        }
        Ok(())
    }

    fn swap(&mut self, a: &Path, b: &Path) -> io::Result<()> {
        if [a, b].iter().any(|path| path.ends_with(ANCHORS) || self.is_anchor(path)) {
            return Ok(());
        }
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?;
        self.ledger.say(format!("{} swaps {} and {}", self.device, a.display(), b.display()));
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        if path.ends_with(ANCHORS) {
            return Ok(());
        }
        let meta = fs::symlink_metadata(path)?;
        if meta.is_file() && self.random.chance(50) {
            return self.unlink(path);
        }
        if meta.is_dir() && self.random.chance(50) {
            // Thing by thing, as `rm -r` does, deepest first.
            for inner in walk(path).iter().rev() {
                match fs::symlink_metadata(inner) {
                    Ok(meta) if meta.is_file() => self.unlink(inner)?,
                    Ok(meta) if meta.is_dir() => fs::remove_dir(inner)?,
                    Ok(_) => self.discard(inner)?,
                    Err(_) => {}
                }
            }
            return fs::remove_dir(path);
        }
        self.discard(path)
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let mut old = Vec::new();
        let file = open(path)?;
        (&file).read_to_end(&mut old)?;
        fs::remove_file(path)?;
        self.was_unlinked(&file, tokens(&old).into_iter().collect(), &format!("unlinked {}", path.display()))
    }

    /// Moves something out of the folder, and then looks at what it was.
    fn discard(&mut self, path: &Path) -> io::Result<()> {
        self.temps += 1;
        let trash = self.trash.join(self.temps.to_string());
        fs::rename(path, &trash)?;
        let mut gone: Vec<_> = content(&trash).map(|bytes| tokens(&bytes)).into_iter().flatten().collect();
        if trash.is_dir() && !trash.is_symlink() {
            for inner in walk(&trash) {
                gone.extend(content(&inner).map(|bytes| tokens(&bytes)).into_iter().flatten());
            }
            fs::remove_dir_all(&trash)?;
        } else {
            fs::remove_file(&trash)?;
        }
        self.ledger.destroyed(self.device, gone, &format!("discarded {}", path.display()));
        Ok(())
    }
}

fn is_temp(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".tmp-"))
}

/// Opens a file, and nothing else, for reading and writing.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}
