//! A folder's thread with a real index on a real disk, and what a disk may do to it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use tempfile::TempDir;

use crate::daemon::folder::{Command, FolderHandle, Report, Settings};
use crate::daemon::pool::Pool;
use crate::disk::ignore::Gitignores;
use crate::engine::folder::Input;
use crate::model::id::{DeviceId, FolderId};
use crate::model::problem::Problem;

/// Longer than anything here takes, on a busy machine too.
const AMPLE: Duration = Duration::from_secs(60);

struct Lab {
    dir: TempDir,
    folder: Option<FolderHandle>,
    pool: Arc<Pool>,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        Self { dir, folder: None, pool: Arc::new(Pool::start().unwrap()) }
    }

    fn start(&mut self) {
        let settings = Settings {
            id: FolderId([7; 16]),
            name: "data".into(),
            path: self.dir.path().join("data"),
            index: self.dir.path().join("index"),
            device: DeviceId::from_public_key([3; 32]),
            rescan_interval: Duration::from_secs(3600),
            gitignores: Gitignores::Unused,
            history_days: 30,
            history_bytes_max: 1 << 30,
            brake: Some(crate::model::brake::Thresholds::default()),
            scrub: None,
            merge: crate::config::merge::Merge::Ask,
        };
        self.folder = Some(FolderHandle::start(settings, self.pool.clone(), Arc::default()).unwrap());
    }

    fn folder(&self) -> &FolderHandle {
        self.folder.as_ref().unwrap()
    }

    fn report(&self) -> Report {
        self.report_now().unwrap()
    }

    /// `None`: the folder rests, since its index failed.
    fn report_now(&self) -> Option<Report> {
        let (reply, answer) = bounded(1);
        self.folder().commands.send(Command::Status(reply)).unwrap();
        answer.recv_timeout(AMPLE).ok()
    }

    fn stop(&mut self) {
        self.folder.take().unwrap().stop();
    }

    fn problems(&self) -> Vec<Problem> {
        let (reply, answer) = bounded(1);
        self.folder().commands.send(Command::Problems(reply)).unwrap();
        answer.recv_timeout(AMPLE).unwrap()
    }

    fn wait(&self, what: &str, mut is_true: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !is_true(self) {
            assert!(begun.elapsed() < AMPLE, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take() {
            folder.stop();
        }
    }
}

#[test]
fn nothing_is_recorded_of_files_that_could_not_be_made_durable() {
    let mut lab = Lab::new();
    lab.start();
    lab.wait("the folder is there", |lab| lab.folder().place.root().is_some() && !lab.report().status.is_busy);
    let root = lab.folder().place.root().unwrap();
    root.sync_fails.store(true, Ordering::Relaxed);
    for n in 0..200 {
        fs::write(lab.dir.path().join(format!("data/{n}")), format!("content {n}")).unwrap();
    }
    lab.folder().commands.send(Command::Input(Input::ScanAll)).unwrap();
    lab.wait("all have been read", |lab| {
        let report = lab.report();
        report.status.totals.files as usize + report.status.problems >= 200
    });
    let problems = lab.problems();
    assert!(!problems.is_empty(), "of so many files some share a flush");
    assert!(problems.iter().all(|problem| problem.detail.contains("cannot make it durable")), "{:?}", problems[0]);
    assert_eq!(lab.report().status.totals.files as usize, 200 - problems.len());
    // A disk that has come to itself again: they are read once more, and the problems are over.
    root.sync_fails.store(false, Ordering::Relaxed);
    lab.folder().commands.send(Command::Input(Input::ScanAll)).unwrap();
    lab.wait("all are recorded", |lab| lab.report().status.totals.files == 200);
    assert_eq!(lab.problems(), []);
}

#[test]
fn damage_that_shows_only_when_it_is_read_leads_to_a_new_index_as_well() {
    let mut lab = Lab::new();
    for n in 0..3000 {
        fs::write(lab.dir.path().join(format!("data/a file with a name that takes some room {n}")), n.to_string())
            .unwrap();
    }
    lab.start();
    lab.wait("all are recorded", |lab| lab.report().status.totals.files == 3000 && lab.report().is_settled);
    lab.stop();
    // Closed in order, and damaged since, beyond the pages that any opening reads.
    let index = lab.dir.path().join("index");
    let mut bytes = fs::read(&index).unwrap();
    assert!(bytes.len() > 100 * 4096, "{}", bytes.len());
    bytes.chunks_mut(4096).skip(12).for_each(|page| page[..8].fill(0xee));
    fs::write(&index, bytes).unwrap();
    lab.start();
    lab.wait("it is made anew", |lab| {
        lab.dir.path().join("index.damaged").exists()
            && lab.report_now().is_some_and(|report| report.status.totals.files == 3000 && report.is_settled)
    });
    assert_eq!(lab.problems(), []);
    assert_eq!(fs::read_dir(lab.dir.path().join("data")).unwrap().count(), 3001);
}
