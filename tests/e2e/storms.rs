//! What programs do to files that they own: git, SQLite, editors, and who writes very large ones.
//!
//! Each of them replaces, renames and removes far faster than anybody could sync it all. What counts is the end:
//! the other side holds something that the same program takes for sound, and nobody made a conflict of it.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::{DATA, Device, Lab, conflict_copies, noise, wait_settled, wait_until};

/// Runs git in a repository of a folder, as nobody in particular; returns what it said.
fn git(at: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=n", "-c", "user.email=e", "-c", "gc.auto=0", "-c", "safe.directory=*"])
        .args(["-c", "init.defaultBranch=main", "-c", "advice.detachedHead=false"])
        .args(args)
        .current_dir(at)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        // Looking at a repository does not change it.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "git {args:?}: {said}");
    said
}

/// Lets what is held happen, if anything is: each device asks for itself.
fn release(devices: &[&Device]) {
    for device in devices {
        if device.status().inbox > 0 {
            device.cli(&["folder", "release", DATA]);
        }
    }
}

fn commits(repo: &Path, from: u32, to: u32) {
    for n in from..to {
        for file in 0..4 {
            let path = repo.join(format!("d{}/f{file}", n % 5));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{n} {file}\n").repeat(20)).unwrap();
        }
        git(repo, &["add", "-A"]);
        git(repo, &["commit", "-q", "-m", &format!("change {n}")]);
    }
}

#[test]
fn a_repository_is_sound_on_the_other_side_after_checkouts_rebases_and_gc() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    let (ours, theirs) = (a.at("repo"), b.at("repo"));
    fs::create_dir(&ours).unwrap();
    git(&ours, &["init", "-q"]);
    commits(&ours, 0, 25);
    git(&ours, &["checkout", "-q", "-b", "side", "main~10"]);
    fs::write(ours.join("aside"), "of the side\n").unwrap();
    git(&ours, &["add", "-A"]);
    git(&ours, &["commit", "-q", "-m", "aside"]);
    wait_settled(&[&a, &b]);

    for commit in git(&ours, &["rev-list", "main"]).lines().take(15) {
        git(&ours, &["checkout", "-q", commit]);
    }
    git(&ours, &["checkout", "-q", "side"]);
    git(&ours, &["rebase", "-q", "main"]);
    fs::write(ours.join("aside"), "not committed\n").unwrap();
    git(&ours, &["stash"]);
    git(&ours, &["gc", "-q", "--prune=now"]);
    git(&ours, &["stash", "pop"]);
    // All that it packed was held by the other side a moment ago; that may be much.
    wait_until("the other side has it too", || {
        release(&[&a, &b]);
        a.tree() == b.tree() && [&a, &b].iter().all(|device| device.status().inbox == 0)
    });
    let tree = wait_settled(&[&a, &b]);
    assert!(conflict_copies(&tree).is_empty(), "{:?}", conflict_copies(&tree));
    git(&theirs, &["fsck", "--full", "--strict"]);
    assert_eq!(git(&theirs, &["status", "--porcelain"]), " M aside\n");
    assert_eq!(git(&theirs, &["rev-list", "--count", "side"]), "26\n");

    // The work goes on there, and comes back.
    git(&theirs, &["commit", "-q", "-a", "-m", "from the other side"]);
    commits(&theirs, 100, 105);
    wait_settled(&[&a, &b]);
    git(&ours, &["fsck", "--full", "--strict"]);
    assert_eq!(git(&ours, &["status", "--porcelain"]), "");
    assert_eq!(git(&ours, &["rev-list", "--count", "side"]), "32\n");
}

#[test]
fn a_database_that_is_written_all_the_while_is_whole_in_the_end() {
    const ROWS: i64 = 600;
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.wait_connected(&b);
    for (name, mode) in [("wal.db", "WAL"), ("rollback.db", "DELETE")] {
        let db = rusqlite::Connection::open(a.at(name)).unwrap();
        db.pragma_update(None, "journal_mode", mode).unwrap();
        db.pragma_update(None, "synchronous", "NORMAL").unwrap();
        db.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, content BLOB)").unwrap();
        for id in 0..ROWS {
            db.execute("INSERT INTO t VALUES (?1, ?2)", (id, noise(id as u64, 900))).unwrap();
            if id % 3 == 0 {
                db.execute("UPDATE t SET content = ?2 WHERE id = ?1", (id / 2, noise(id as u64, 400))).unwrap();
            }
        }
        db.close().unwrap();
    }
    let tree = wait_settled(&[&a, &b]);
    assert!(conflict_copies(&tree).is_empty(), "{tree:?}");
    for name in ["wal.db", "rollback.db"] {
        // A copy, for opening it is writing to it.
        let copy = lab.path(name);
        fs::copy(b.at(name), &copy).unwrap();
        let db = rusqlite::Connection::open(copy).unwrap();
        let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        let rows: i64 = db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!((sound.as_str(), rows), ("ok", ROWS), "{name}");
    }
}

/// A way in which an editor saves a document. The calls are those that a trace of the program shows.
type Save = fn(&Path, &str);

fn sibling(path: &Path, name: impl FnOnce(&str) -> String) -> PathBuf {
    path.with_file_name(name(path.file_name().unwrap().to_str().unwrap()))
}

/// Vim with `backup` and `writebackup`: the old file moves aside, a new one is written under the name.
fn like_vim(path: &Path, text: &str) {
    let (swap, backup) = (sibling(path, |name| format!(".{name}.swp")), sibling(path, |name| format!("{name}~")));
    fs::write(&swap, "b0VIM").unwrap();
    // It tries whether it may make files here.
    let probe = path.with_file_name("4913");
    fs::write(&probe, "").unwrap();
    fs::remove_file(probe).unwrap();
    if path.exists() {
        fs::rename(path, &backup).unwrap();
    }
    fs::write(path, text).unwrap();
    fs::remove_file(backup).ok();
    fs::remove_file(swap).unwrap();
}

/// Emacs: a link that is a lock, a copy that is kept, and the file written in place.
fn like_emacs(path: &Path, text: &str) {
    let lock = sibling(path, |name| format!(".#{name}"));
    std::os::unix::fs::symlink("person@host.123:456", &lock).unwrap();
    let auto = sibling(path, |name| format!("#{name}#"));
    fs::write(&auto, text).unwrap();
    if path.exists() {
        fs::copy(path, sibling(path, |name| format!("{name}~"))).unwrap();
    }
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.sync_all().unwrap();
    fs::remove_file(auto).unwrap();
    fs::remove_file(lock).unwrap();
}

/// LibreOffice: a lock beside it, a temporary file in the same directory, renamed over it.
fn like_an_office(path: &Path, text: &str) {
    let lock = sibling(path, |name| format!(".~lock.{name}#"));
    fs::write(&lock, ",person,host,01.01.2026 12:00,file;").unwrap();
    let temporary = sibling(path, |_| "lu1234abcd.tmp".to_owned());
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, path).unwrap();
    fs::remove_file(lock).unwrap();
}

/// VS Code and many more: emptied and written in place, in pieces.
fn like_code(path: &Path, text: &str) {
    let mut file = File::create(path).unwrap();
    for piece in text.as_bytes().chunks(50) {
        file.write_all(piece).unwrap();
    }
}

/// IDEs that save "safely": the new one is written aside, the old one moved aside, both change places.
fn like_an_ide(path: &Path, text: &str) {
    let (new, old) =
        (sibling(path, |name| format!("{name}___jb_tmp___")), sibling(path, |name| format!("{name}___jb_old___")));
    fs::write(&new, text).unwrap();
    if path.exists() {
        fs::rename(path, &old).unwrap();
    }
    fs::rename(&new, path).unwrap();
    fs::remove_file(old).ok();
}

#[test]
fn each_way_in_which_editors_save_is_one_edit_and_no_conflict() {
    let ways: [(&str, Save); 5] = [
        ("vim.txt", like_vim),
        ("emacs.txt", like_emacs),
        ("office.odt", like_an_office),
        ("code.rs", like_code),
        ("ide.java", like_an_ide),
    ];
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.wait_connected(&b);
    let text = |name: &str, by: &str, n: u64| format!("{name}, saved by {by} as number {n}\n").repeat(40);
    let begun = Instant::now();
    for n in 0..40 {
        for (name, save) in ways {
            // Each person has documents of their own; all lie in the same two directories.
            for (device, dir) in [(&a, "of a"), (&b, "of b")] {
                fs::create_dir_all(device.at(dir)).unwrap();
                save(&device.at(dir).join(name), &text(name, dir, n));
            }
        }
        std::thread::sleep(Duration::from_millis(20 + 40 * (n % 3)));
    }
    let took = begun.elapsed();
    let tree = wait_settled(&[&a, &b]);
    for (name, _) in ways {
        for dir in ["of a", "of b"] {
            for device in [&a, &b] {
                let lies = device.read(&format!("{dir}/{name}"));
                assert!(lies == Some(text(name, dir, 39)), "{dir}/{name} on {} after {took:?}", device.name);
            }
        }
    }
    assert!(conflict_copies(&tree).is_empty(), "{:?}", conflict_copies(&tree));
    // Two directories, the documents, and what Emacs keeps.
    assert_eq!(tree.len(), 2 + 2 * ways.len() + 2, "{:?}", tree.keys());
}

#[test]
fn vim_itself_saves_on_both_sides() {
    let has_vim = Command::new("vim").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_vim {
        eprintln!("vim is missing: not tried");
        return;
    }
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("text", "first\n");
    wait_settled(&[&a, &b]);
    for n in 0..6 {
        let (at, other) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let edit = format!("normal Goline {n}");
        let args = ["-N", "-u", "NONE", "-es", "--cmd", "set backup writebackup swapfile", "-c"];
        let status = Command::new("vim").args(args).args([&edit, "-c", "wq", &at.text("text")]).status().unwrap();
        assert!(status.success(), "{status}");
        let last = format!("line {n}\n");
        wait_until("it came over", || other.read("text").is_some_and(|text| text.ends_with(&last)));
    }
    let tree = wait_settled(&[&a, &b]);
    assert!(conflict_copies(&tree).is_empty(), "{tree:?}");
    assert_eq!(b.read("text").unwrap().lines().count(), 7);
}

#[test]
fn a_gibibyte_of_holes_stays_one_and_a_file_that_grows_by_its_end_sends_its_end() {
    const GIB: u64 = 1 << 30;
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.wait_connected(&b);
    let sparse = File::create(a.at("sparse")).unwrap();
    sparse.set_len(GIB).unwrap();
    for (n, at) in [0, GIB / 3, GIB - 4096].into_iter().enumerate() {
        sparse.write_all_at(&noise(n as u64, 4096), at).unwrap();
    }
    drop(sparse);
    let mut log = File::create(a.at("log")).unwrap();
    log.write_all(&noise(7, 24 << 20)).unwrap();
    wait_settled(&[&a, &b]);
    let taken = |device: &Device| fs::metadata(device.at("sparse")).unwrap().blocks() * 512;
    assert!(taken(&b) < 16 << 20, "{} bytes here, {} there", taken(&a), taken(&b));
    let before = a.folder(DATA).sent_bytes;
    log.seek(SeekFrom::End(0)).unwrap();
    for n in 0..10 {
        log.write_all(&noise(100 + n, 30_000)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(log);
    wait_settled(&[&a, &b]);
    let came = a.folder(DATA).sent_bytes - before;
    assert!(came < 8 << 20, "{came} bytes for 300,000 that were appended");
}

#[test]
fn a_file_that_nobody_closes_comes_over_all_the_same() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("cut short", "long enough");
    wait_settled(&[&a, &b]);
    let mut log = File::create(a.at("log")).unwrap();
    for line in ["first\n", "second\n", "third\n"] {
        log.write_all(line.as_bytes()).unwrap();
        wait_until("the line came over", || b.read("log").is_some_and(|text| text.ends_with(line)));
    }
    assert_eq!(b.read("log").as_deref(), Some("first\nsecond\nthird\n"));
    let short = OpenOptions::new().write(true).open(a.at("cut short")).unwrap();
    short.set_len(4).unwrap();
    wait_until("it is short there, too", || b.read("cut short").as_deref() == Some("long"));
    drop((log, short));
    assert!(conflict_copies(&wait_settled(&[&a, &b])).is_empty());
}
