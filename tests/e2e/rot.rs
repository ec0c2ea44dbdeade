//! A disk that returns other bytes than were written to it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kinfold::engine::index::Index;
use kinfold::model::id::Incarnation;
use kinfold::model::path::RelPath;
use kinfold::store::index::SqliteIndex;

use crate::lab::{Device, Lab, noise, wait_settled, wait_until};
use crate::trouble::index_of;

/// Changes bytes of a file so that nobody can tell by its times: a program cannot set the change time, so it is
/// the index that is made to remember the one that the file has afterwards. The device's daemon does not run.
fn rot(device: &Device, name: &str, at: usize) {
    let path = device.at(name);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();

    let mut index = SqliteIndex::open(&index_of(device), Incarnation(0)).unwrap();
    let mut local = index.local(&RelPath::parse(name.as_bytes()).unwrap()).unwrap().unwrap();
    let now = fs::metadata(&path).unwrap();
    let stat = local.stat.as_mut().unwrap();
    assert_eq!((stat.ino, stat.size), (now.ino(), now.size()));
    stat.ctime_ns = now.ctime() * 1_000_000_000 + now.ctime_nsec();
    index.set_local(&local, None).unwrap();
    index.commit().unwrap();
    index.close().unwrap();
}

fn files_below(dir: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(dir).map(|entries| entries.map(|e| e.unwrap().path()).collect()).unwrap_or(vec![]);
    entries
        .iter()
        .flat_map(|path| if path.is_dir() { files_below(path) } else { vec![fs::read(path).unwrap()] })
        .collect()
}

#[test]
fn what_the_disk_has_damaged_is_found_and_mended_from_the_other_device() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    let large = noise(1, 8 << 20);
    a.write("large", &large);
    a.write("small", "as it was written");
    a.write("whole", "nobody touches this");
    let before = wait_settled(&[&a, &b]);
    assert_eq!(a.cli(&["verify"]).code, 0);

    a.stop();
    b.stop();
    rot(&a, "large", 5 << 20);
    rot(&a, "small", 3);
    let (rotten_large, rotten_small) = (fs::read(a.at("large")).unwrap(), fs::read(a.at("small")).unwrap());
    a.serve();
    let found = a.cli(&["verify", "data"]);
    assert_eq!(found.code, 4, "{found:?}");
    assert!(found.stdout.contains("large: damaged") && found.stdout.contains("small: damaged"), "{found:?}");
    assert!(!found.stdout.contains("whole: damaged"), "{found:?}");
    // Nobody is there who could mend it, and it is not forgotten with the daemon.
    assert_eq!(a.cli(&["verify", "--heal"]).code, 4);
    a.stop();
    a.serve();
    wait_until("it is in the inbox again", || {
        let inbox = a.cli(&["inbox"]).stdout;
        inbox.contains("verify --heal") && inbox.contains("large")
    });

    b.serve();
    a.wait_connected(&b);
    a.wait();
    assert_eq!(fs::read(a.at("small")).unwrap(), rotten_small, "not before a person says so");
    let healed = a.cli(&["verify", "--heal"]);
    assert_eq!(healed.code, 0, "{healed:?}\n{}", a.log_tail());
    assert!(healed.stdout.contains("2 files are whole again"), "{healed:?}");
    assert!(a.folder("data").received_bytes < 1 << 20, "only the chunk that is damaged travels");
    assert_eq!(wait_settled(&[&a, &b]), before);
    assert_eq!(fs::read(b.at("large")).unwrap(), large);
    let history = files_below(&a.at(".kinfold/history"));
    assert!(history.contains(&rotten_large) && history.contains(&rotten_small), "what lay there is kept");
    assert_eq!(a.cli(&["inbox"]).code, 0);
    assert_eq!(a.cli(&["verify"]).code, 0);
}

/// What looks like damage may be right: whoever knows says so.
#[test]
fn a_damaged_file_that_is_touched_counts_as_an_edit() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("f", "one way or another");
    wait_settled(&[&a, &b]);
    a.stop();
    rot(&a, "f", 0);
    let now = fs::read(a.at("f")).unwrap();
    a.serve();
    a.wait_connected(&b);
    assert_eq!(a.cli(&["verify"]).code, 4);
    fs::File::options().write(true).open(a.at("f")).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    wait_settled(&[&a, &b]);
    assert_eq!(fs::read(b.at("f")).unwrap(), now);
    assert_eq!(a.cli(&["verify"]).code, 0);
}
