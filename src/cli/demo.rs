//! `kinfold demo`: kinfold at work between two devices made up on this machine.
//!
//! The devices are real: each has a key, a folder and a daemon of its own, run by this very program, and
//! they speak over the loopback interface. They end with the demo, however that ends.

use std::fs::{self, File};
use std::io::{self, BufRead, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config::paths::Paths;
use crate::control::client::Client;
use crate::control::types::FolderStatus;

/// Longest time that a step may take; none takes more than a moment, but machines can be busy.
const STEP_MAX: Duration = Duration::from_secs(90);
/// Longest time that a daemon may take to end.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Pause between two looks at what has to come true; it bounds how precisely a latency is measured.
const POLL: Duration = Duration::from_millis(1);
/// The folder of the demo.
const FOLDER: &str = "Notes";
/// Lines of a daemon's log that are shown where a step fails.
const LOG_TAIL: usize = 15;

/// Arguments of `kinfold demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not stop between the steps
    #[arg(long)]
    yes: bool,

    /// Leave the made-up devices and their folders on the disk
    #[arg(long)]
    keep: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    let pauses = !args.yes && io::stdin().is_terminal() && io::stdout().is_terminal();
    let stage = Arc::new(Stage::new()?);
    stop_on_signals(&stage, args.keep);
    let played = Demo { stage: &stage, pauses }.play();
    if played.is_err() && !is_interrupted() {
        stage.show_logs();
    }
    stage.clear(args.keep);
    played?;
    if args.keep {
        let dir = output::printable(&stage.path.display().to_string());
        output::say(format_args!("\nThe devices and their folders are left in {dir}"))?;
    }
    Ok(Exit::Done)
}

/// Set once a person interrupts the demo; whatever is being done then fails.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Set while the demo waits for a person, and so cannot notice that it is interrupted.
static PAUSING: AtomicBool = AtomicBool::new(false);

fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Ends the demo in order where a person interrupts it.
fn stop_on_signals(stage: &Arc<Stage>, keep: bool) {
    let stage = Arc::clone(stage);
    let interrupted = async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
        else {
            return;
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        INTERRUPTED.store(true, Ordering::SeqCst);
        if !PAUSING.load(Ordering::SeqCst) {
            // The step under way notices, and the program ends by itself.
            thread::sleep(STOP_MAX * 3);
        }
        stage.clear(keep);
        std::process::exit(1);
    };
    // Without it an interrupted demo leaves its directory behind, and nothing else.
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        thread::spawn(move || runtime.block_on(interrupted));
    }
}

// ------------------------------------------------------------------------------------------ the stage

/// The directory of the demo, and the daemons in it.
struct Stage {
    path: PathBuf,
    dir: Mutex<Option<TempDir>>,
    laptop: Device,
    desk: Device,
}

/// A device that is made up.
struct Device {
    name: &'static str,
    home: PathBuf,
    root: PathBuf,
    log: PathBuf,
    address: SocketAddr,
    daemon: Mutex<Option<Child>>,
}

impl Stage {
    fn new() -> Result<Self, Failure> {
        let failed = |error: io::Error| no_place(Failure::from_error(&error));
        let dir = tempfile::Builder::new().prefix("kinfold-demo-").tempdir().map_err(failed)?;
        let path = dir.path().canonicalize().map_err(failed)?;
        Paths::below(&path.join("laptop/home")).map_err(|error| no_place(Failure::from_error(&error)))?;
        // Both are held until both are known, so that they differ.
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let ports = [TcpListener::bind(any).map_err(failed)?, TcpListener::bind(any).map_err(failed)?];
        let device = |name, port: &TcpListener| {
            let place = path.join(name);
            let root = place.join(FOLDER);
            fs::create_dir_all(&root)?;
            let (home, log) = (place.join("home"), place.join("daemon.log"));
            Ok(Device { name, home, root, log, address: port.local_addr()?, daemon: Mutex::default() })
        };
        let laptop = device("laptop", &ports[0]).map_err(failed)?;
        let desk = device("desk", &ports[1]).map_err(failed)?;
        Ok(Self { path, dir: Mutex::new(Some(dir)), laptop, desk })
    }

    /// Ends the daemons and removes the directory.
    fn clear(&self, keep: bool) {
        for device in [&self.laptop, &self.desk] {
            device.stop();
        }
        let dir = self.dir.lock().unwrap_or_else(PoisonError::into_inner).take();
        match dir {
            Some(dir) if keep => drop(dir.keep()),
            // What cannot be removed lies where the system clears up.
            Some(dir) => drop(dir.close()),
            None => {}
        }
    }

    /// Shows what the daemons said last.
    fn show_logs(&self) {
        for device in [&self.laptop, &self.desk] {
            let text = fs::read(&device.log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<_> = text.lines().collect();
            if lines.is_empty() {
                continue;
            }
            eprintln!("the end of the log of {}:", device.name);
            for line in &lines[lines.len().saturating_sub(LOG_TAIL)..] {
                eprintln!("  {}", output::printable(line));
            }
        }
    }

    /// Makes a text short: paths begin with the name of a device.
    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.path.display()), "")
    }
}

impl Device {
    fn kinfold(&self, args: &[&str]) -> Result<Command, Failure> {
        go_on()?;
        let program = std::env::current_exe()
            .map_err(|error| Failure::from_error(&error).while_doing("cannot find this program's own file"))?;
        let mut command = Command::new(program);
        command.arg("--home").arg(&self.home).args(args).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command of this device and returns what it prints.
    fn run(&self, args: &[&str]) -> Result<String, Failure> {
        let doing = || format!("`kinfold {}` on {}", args.join(" "), self.name);
        let output = self.kinfold(args)?.output().map_err(|error| Failure::from_error(&error).while_doing(&doing()))?;
        // Something that waits for a person is no failure here: it is made on purpose.
        if !output.status.success() && output.status.code() != Some(i32::from(Exit::NeedsPerson as u8)) {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("{}: {}", doing(), stderr.trim().trim_start_matches("error: "))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts the daemon and waits until it answers.
    fn serve(&self) -> Result<(), Failure> {
        let doing = |error: io::Error| Failure::from_error(&error).while_doing("cannot start a daemon");
        let log = File::options().create(true).append(true).open(&self.log).map_err(doing)?;
        let mut command = self.kinfold(&["serve"])?;
        command.env("KINFOLD_LOG", "info").stdout(log.try_clone().map_err(doing)?).stderr(log);
        *self.lock() = Some(command.spawn().map_err(doing)?);
        wait_for(&format!("the daemon of {} answers", self.name), || {
            if !self.lock().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
                return Err(failed(format!("the daemon of {} ended", self.name)));
            }
            Ok(self.client()?.status().is_ok())
        })
    }

    /// Ends the daemon, if it runs: in order, or else by force.
    fn stop(&self) {
        let Some(mut child) = self.lock().take() else {
            return;
        };
        // One that has ended meanwhile is waited for just the same.
        kill_process(Pid::from_child(&child), Signal::TERM).ok();
        let begun = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if begun.elapsed() > STOP_MAX {
                child.kill().ok();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(&self.home.join("kinfold.sock"))?)
    }

    /// Says where the folder stands; `None` until it was offered.
    fn folder_if_any(&self) -> Result<Option<FolderStatus>, Failure> {
        Ok(self.client()?.status()?.folders.into_iter().next())
    }

    fn folder(&self) -> Result<FolderStatus, Failure> {
        self.folder_if_any()?.ok_or_else(|| failed(format!("{} has lost its folder", self.name)))
    }

    fn is_in_sync(&self) -> Result<bool, Failure> {
        Ok(self.folder_if_any()?.is_some_and(|folder| folder.in_sync))
    }

    fn write(&self, path: &str, text: &str) -> Result<(), Failure> {
        let path = self.root.join(path);
        let write = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&path, text)
        };
        write().map_err(|error| Failure::from_error(&error).while_doing(&format!("cannot write {}", path.display())))
    }

    fn holds(&self, path: &str, text: &str) -> bool {
        fs::read(self.root.join(path)).is_ok_and(|bytes| bytes == text.as_bytes())
    }

    fn text(&self, path: &str) -> String {
        self.root.join(path).display().to_string()
    }
}

/// Fails where the demo is interrupted.
fn go_on() -> Result<(), Failure> {
    if is_interrupted() { Err(failed("the demo was interrupted".to_owned())) } else { Ok(()) }
}

fn no_place(failure: Failure) -> Failure {
    failure
        .while_doing("cannot make a place for the demo")
        .with_hint("set TMPDIR to a directory that can be written to and has a short path")
}

fn failed(message: String) -> Failure {
    Failure::new(Exit::Failed, message)
}

/// Waits until something is true.
fn wait_for(what: &str, mut is_true: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let seen = is_true();
        // A daemon that was interrupted as well is no failure of its own.
        go_on()?;
        if seen? {
            return Ok(());
        }
        if begun.elapsed() > STEP_MAX {
            return Err(failed(format!("after {} s it is not so that {what}", STEP_MAX.as_secs())));
        }
        thread::sleep(POLL);
    }
}

// ------------------------------------------------------------------------------------------- the play

struct Demo<'a> {
    stage: &'a Stage,
    pauses: bool,
}

const PLAN: &str = "Plans/summer.txt";
const PLAN_MOVED: &str = "Archive/summer.txt";

impl Demo<'_> {
    fn play(&self) -> Result<(), Failure> {
        self.introduce()?;
        self.pair()?;
        self.first_sync()?;
        self.edit()?;
        self.rename()?;
        self.conflict()?;
        self.restore()?;
        self.explain()
    }

    fn introduce(&self) -> Result<(), Failure> {
        say("Kinfold keeps folders identical across your own devices, over your own network.")?;
        say("This demo makes up two devices on this machine, `laptop` and `desk`. Each has a key, a folder")?;
        say("and a daemon of its own; they speak over 127.0.0.1, and all is gone when the demo ends.")
    }

    fn pair(&self) -> Result<(), Failure> {
        let Stage { laptop, desk, .. } = self.stage;
        self.step(1, "Two devices that trust each other")?;
        for device in [laptop, desk] {
            device.run(&["init", "--name", device.name, "--listen", &device.address.to_string()])?;
        }
        for (device, other) in [(laptop, desk), (desk, laptop)] {
            let id = other.run(&["id"])?;
            let address = other.address.to_string();
            device.run(&["device", "add", id.trim(), "--name", other.name, "--address", &address])?;
            let known = id.trim().get(..12).unwrap_or_default();
            tell(&format!("{}: trusts {} ({known}…) at {address}", device.name, other.name))?;
        }
        laptop.run(&["folder", "add", &laptop.root.display().to_string(), "--name", FOLDER, "--share", desk.name])?;
        desk.run(&["folder", "accept", FOLDER, &desk.root.display().to_string(), "--from", laptop.name])?;
        tell(&format!("laptop: shares the folder `{FOLDER}`; desk: accepts it"))?;
        tell("Whoever is not trusted gets no answer at all, not even a refusal.")
    }

    fn first_sync(&self) -> Result<(), Failure> {
        let Stage { laptop, desk, .. } = self.stage;
        self.step(2, "The first sync")?;
        let files = self.make_samples()?;
        tell(&format!("laptop: {} in {FOLDER}, and desk has none", output::counted(files, "file", "files")))?;
        laptop.serve()?;
        let begun = Instant::now();
        desk.serve()?;
        self.settle("desk holds all files", || Ok(desk.folder_if_any()?.is_some_and(|folder| folder.files == files)))?;
        let folder = desk.folder()?;
        let took = begun.elapsed().as_secs_f64();
        tell(&format!(
            "desk: {} and {}, {took:.2} s after its daemon was started",
            output::counted(folder.files, "file", "files"),
            output::bytes(folder.bytes)
        ))
    }

    fn make_samples(&self) -> Result<u64, Failure> {
        let laptop = &self.stage.laptop;
        laptop.write("Read me.txt", "A folder like any other. What happens to it happens on both devices.\n")?;
        laptop.write(PLAN, "Summer: somewhere with water.\n")?;
        for n in 1..=40 {
            let text = format!("Entry {n}\n\n{}", "Nothing much happened today. ".repeat(n * 7));
            laptop.write(&format!("Plans/Diary/{n:02}.txt"), &text)?;
        }
        // Something that cannot be told apart from a photograph.
        let mut photograph = vec![0; 3 << 20];
        blake3::Hasher::new_derive_key("kinfold demo: a photograph").finalize_xof().fill(&mut photograph);
        let path = laptop.root.join("Plans/lake.jpg");
        fs::write(&path, photograph)
            .map_err(|error| Failure::from_error(&error).while_doing(&format!("cannot write {}", path.display())))?;
        Ok(43)
    }

    fn edit(&self) -> Result<(), Failure> {
        let Stage { laptop, desk, .. } = self.stage;
        self.step(3, "An edit")?;
        let text = "Summer: the lake, two weeks in July.\n";
        tell(&format!("laptop: saves {PLAN}"))?;
        let begun = Instant::now();
        laptop.write(PLAN, text)?;
        wait_for("the edit is on desk", || Ok(desk.holds(PLAN, text)))?;
        tell(&format!("desk: has it {} ms later, complete and checked", begun.elapsed().as_millis()))?;
        self.settle("both hold the same", || Ok(true))
    }

    fn rename(&self) -> Result<(), Failure> {
        let Stage { laptop, desk, .. } = self.stage;
        self.step(4, "A directory is renamed")?;
        let sent = || Ok::<_, Failure>(laptop.folder()?.sent_bytes + desk.folder()?.sent_bytes);
        let before = sent()?;
        let (from, to) = (laptop.root.join("Plans"), laptop.root.join("Archive"));
        let held = output::bytes(laptop.folder()?.bytes);
        fs::rename(&from, &to).map_err(|error| Failure::from_error(&error).while_doing("cannot rename a directory"))?;
        tell("laptop: Plans is called Archive now")?;
        self.settle("the directory is renamed on desk", || {
            Ok(desk.root.join("Archive/lake.jpg").exists() && !desk.root.join("Plans").exists())
        })?;
        let sent = sent()? - before;
        tell(&format!("desk: so it is; of the {held} in the folder {} were sent", output::bytes(sent)))
    }

    fn conflict(&self) -> Result<(), Failure> {
        let Stage { laptop, desk, .. } = self.stage;
        self.step(5, "Both edit the same file, and do not see each other")?;
        desk.stop();
        tell("desk: is off")?;
        laptop.write(PLAN_MOVED, "Summer: the lake, three weeks.\n")?;
        tell(&format!("laptop: edits {PLAN_MOVED}"))?;
        // The later edit wins on both; so that it is known which one that is.
        thread::sleep(Duration::from_millis(20));
        desk.write(PLAN_MOVED, "Summer: the mountains.\n")?;
        tell(&format!("desk: edits {PLAN_MOVED} too, and comes back"))?;
        desk.serve()?;
        self.settle("the conflict is known on both", || {
            let known = |device: &Device| Ok::<_, Failure>(!device.client()?.conflicts(None)?.is_empty());
            Ok(known(laptop)? && known(desk)?)
        })?;
        tell("Neither edit is lost: one has the name, the other lies beside it, on both devices.")?;
        self.show(desk, "ls Notes/Archive", &self.names(&desk.root.join("Archive"))?)?;
        self.show(desk, "kinfold conflicts", &desk.run(&["conflicts"])?)?;
        let path = desk.text(PLAN_MOVED);
        desk.run(&["conflicts", "keep", &path, "mine"])?;
        self.show(desk, &format!("kinfold conflicts keep {FOLDER}/{PLAN_MOVED} mine"), "")?;
        self.settle("the conflict is settled on both", || {
            let settled = |device: &Device| Ok::<_, Failure>(device.client()?.conflicts(None)?.is_empty());
            Ok(settled(laptop)? && settled(desk)?)
        })?;
        tell("Settled, on both; the edit that was not chosen is in the history.")
    }

    /// Lists a directory for people, without what fills it.
    fn names(&self, dir: &Path) -> Result<String, Failure> {
        let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|error| Failure::from_error(&error).while_doing("cannot list a directory"))?;
        let mut names: Vec<_> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names.join("\n"))
    }

    fn restore(&self) -> Result<(), Failure> {
        let Stage { laptop, desk, .. } = self.stage;
        self.step(6, "A file comes back as it was")?;
        let text = "Summer: no idea.\n";
        laptop.write(PLAN_MOVED, text)?;
        wait_for("the edit is on desk", || Ok(desk.holds(PLAN_MOVED, text)))?;
        self.settle("both hold the same", || Ok(true))?;
        tell(&format!("laptop: saves {PLAN_MOVED} once more, and should not have"))?;
        let path = desk.text(PLAN_MOVED);
        self.show(desk, &format!("kinfold history {FOLDER}/{PLAN_MOVED}"), &desk.run(&["history", &path])?)?;
        let restored = desk.run(&["restore", &path])?;
        self.show(desk, &format!("kinfold restore {FOLDER}/{PLAN_MOVED}"), &restored)?;
        let before = "Summer: the mountains.\n";
        self.settle("the restored file is on laptop", || Ok(laptop.holds(PLAN_MOVED, before)))?;
        tell(&format!("laptop: {PLAN_MOVED} says \"{}\" again", before.trim()))
    }

    fn explain(&self) -> Result<(), Failure> {
        say("")?;
        say("That was all. On two real machines:")?;
        say("")?;
        say("    on the first  kinfold pair ~/Notes")?;
        say("    on the second kinfold pair 7-velvet-island ~/Notes, with the code that the first shows")?;
        say("    on both       kinfold up")
    }

    /// Waits until something is so, and both devices say that they hold the same.
    fn settle(&self, what: &str, mut is_so: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
        let Stage { laptop, desk, .. } = self.stage;
        wait_for(what, || {
            let is_connected = laptop.client()?.status()?.peers.iter().all(|peer| peer.connected);
            Ok(is_connected && is_so()? && laptop.is_in_sync()? && desk.is_in_sync()?)
        })
    }

    /// Begins a step, when the person is ready for it.
    fn step(&self, number: u32, title: &str) -> Result<(), Failure> {
        if self.pauses {
            output::write("\n[Enter] ")?;
            PAUSING.store(true, Ordering::SeqCst);
            // The end of input is as good as a line.
            io::stdin().lock().read_line(&mut String::new()).ok();
            PAUSING.store(false, Ordering::SeqCst);
        }
        say("")?;
        say(&format!("{number}. {title}"))
    }

    /// Shows a command as a person would type it, and what it prints.
    fn show(&self, device: &Device, command: &str, printed: &str) -> Result<(), Failure> {
        tell(&format!("{}$ {command}", device.name))?;
        for line in self.stage.short(printed).lines() {
            tell(&format!("    {}", output::printable(line)))?;
        }
        Ok(())
    }
}

fn say(line: &str) -> Result<(), Failure> {
    output::say(line)
}

/// Says a line that belongs to a step.
fn tell(line: &str) -> Result<(), Failure> {
    output::say(format_args!("   {line}"))
}
