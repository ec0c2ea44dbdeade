//! Two devices meet by a code, as a person does it: the real program on both sides.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use kinfold::control::client::Client;
use serde_json::Value;

use crate::lab::{Device, Lab, wait_until};
use crate::live::OnTerminal;
use crate::network::Machines;

/// A device that shows a code.
pub struct Host {
    child: Child,
    out: BufReader<ChildStdout>,
    invitation: Value,
}

impl Host {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let invitation = line_of(&mut out);
        Self { child, out, invitation }
    }

    pub fn of(device: &Device, args: &[&str]) -> Self {
        Self::start(device.command(&[&["pair", "--yes", "--json"], args].concat()))
    }

    fn text(&self, key: &str) -> &str {
        self.invitation[key].as_str().unwrap()
    }

    pub fn code(&self) -> &str {
        self.text("code")
    }

    pub fn at(&self) -> &str {
        self.invitation["addresses"][0].as_str().unwrap()
    }

    /// Waits for its end. Returns its exit code, what it says of the other device, and its errors.
    fn end(mut self) -> (i32, String, String) {
        let (mut said, mut errors) = (String::new(), String::new());
        self.out.read_to_string(&mut said).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap().code().unwrap(), said, errors)
    }

    pub fn outcome(self) -> Value {
        let (code, said, errors) = self.end();
        assert_eq!(code, 0, "{errors}");
        serde_json::from_str(&said).unwrap()
    }
}

fn line_of(out: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn config(device: &Device) -> String {
    fs::read_to_string(device.home.join("config.toml")).unwrap()
}

#[test]
fn one_code_pairs_two_devices_and_a_file_arrives() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    a.write("photo", "a photo");
    let host = Host::of(&a, &[a.root_text()]);
    let (code, at) = (host.code().to_owned(), host.at().to_owned());
    let joined = b.ok(&["pair", "--yes", "--json", &code, b.root_text(), "--at", &at]);
    let joined: Value = serde_json::from_str(&joined).unwrap();
    let hosted = host.outcome();
    assert_eq!((&joined["device"], &hosted["device"]), (&"a".into(), &"b".into()));
    assert_eq!((joined["id"].as_str(), hosted["id"].as_str()), (Some(&*a.id()), Some(&*b.id())));
    assert_eq!((&joined["folder_is"], &hosted["folder_is"]), (&"taken".into(), &"given".into()));
    // Both show the same words, and each knows where the other listens.
    assert_eq!(joined["words"], hosted["words"]);
    assert_eq!(joined["words"].as_str().unwrap().split(' ').count(), 4);
    assert_eq!(joined["addresses"], serde_json::json!([a.address.to_string()]));
    assert_eq!(hosted["addresses"], serde_json::json!([b.address.to_string()]));
    a.serve();
    b.serve();
    wait_until("the photo arrives", || b.read("photo").as_deref() == Some("a photo"));
    b.write("other", "written there");
    wait_until("and back", || a.read("other").as_deref() == Some("written there"));
}

#[test]
fn daemons_that_run_take_a_pairing_up_at_once_and_a_link_is_pasted() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    a.serve();
    b.serve();
    // This time the folder comes from whoever joins, and by a link.
    let host = Host::of(&a, &[]);
    let mut join = b.command(&["pair", "--yes", "-", b.root_text()]);
    let mut child = join.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", host.text("link").to_uppercase()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("`a` is trusted now, and `data` is shared with it as owner"), "{said}");
    assert!(!said.contains("kinfold up"), "{said}");
    assert_eq!(host.outcome()["folder_is"], "offered");
    b.write("f", "f");
    wait_until("it is offered", || a.ok(&["folder", "offers"]).contains("data"));
    a.ok(&["folder", "accept", "data", a.root_text(), "--from", "b"]);
    wait_until("it arrives", || a.read("f").as_deref() == Some("f"));
    // Who pairs again with a folder that both have changes nothing.
    let before = (config(&a), config(&b));
    let host = Host::of(&a, &[a.root_text()]);
    let at = host.at().to_owned();
    let code = host.code().to_owned();
    b.ok(&["pair", "--yes", &code.to_uppercase(), "--at", &at]);
    assert_eq!(host.outcome()["folder_is"], "given");
    assert_eq!((config(&a), config(&b)), before);
}

#[test]
fn a_right_is_given_with_the_code() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    a.write("f", "of a");
    let host = Host::of(&a, &[a.root_text(), "--right", "reader"]);
    let (code, at) = (host.code().to_owned(), host.at().to_owned());
    b.ok(&["pair", "--yes", &code, b.root_text(), "--at", &at]);
    host.outcome();
    a.serve();
    b.serve();
    wait_until("it arrives", || b.read("f").as_deref() == Some("of a"));
    let folders = a.json(&["folder", "list"]);
    assert_eq!(folders[0]["members"], serde_json::json!(["b:reader"]));
}

#[test]
fn wrong_codes_change_nothing_and_the_third_ends_it() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    let before = (config(&a), config(&b));
    let new = lab.path("a-new-folder");
    let host = Host::of(&a, &[new.to_str().unwrap()]);
    let number = host.code().split('-').next().unwrap().to_owned();
    let at = host.at().to_owned();
    for _ in 0..3 {
        let ran = b.cli(&["pair", "--yes", &format!("{number}-zoo-zoo"), b.root_text(), "--at", &at]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.stderr.contains("the code was not right") && ran.stderr.contains("hint: look at the code"),
            "{ran:?}"
        );
    }
    let (code, _, errors) = host.end();
    assert_eq!(code, 1);
    assert!(errors.contains("2 tries are left") && errors.contains("1 try is left"), "{errors}");
    assert!(errors.contains("error: the code was guessed wrong 3 times and counts no longer"), "{errors}");
    assert_eq!((config(&a), config(&b)), before);
    assert!(!new.exists(), "a directory that was made for nothing stays");
}

#[test]
fn who_shows_the_code_is_asked_and_a_no_is_a_no() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    let before = (config(&a), config(&b));
    let (at, code) = (|text: &str| word_after(text, "--at "), |text: &str| word_after(text, "kinfold pair "));
    for said in ["n\r", "\r", "yes\r"] {
        let mut host = OnTerminal::start(a.command(&["pair", a.root_text()]), 100, 60);
        wait_until("there is a code", || at(&host.text()).is_some() && host.text().contains("kinfold:pair/"));
        let args = (code(&host.text()).unwrap(), at(&host.text()).unwrap());
        let mut join = OnTerminal::start(b.command(&["pair", &args.0, b.root_text(), "--at", &args.1]), 100, 60);
        wait_until("it is asked", || host.text().contains("[y/N]"));
        wait_until("the other sees who it is", || join.text().contains("these words"));
        assert!(host.text().contains("Trust `b`, and share `data` with it as owner?"), "{}", host.text());
        // Who has given the code has said so by that.
        assert!(!join.text().contains("[y/N]"), "{}", join.text());
        let words = |it: &OnTerminal| it.text().lines().find(|line| line.contains("these words")).map(str::to_owned);
        assert_eq!(words(&host), words(&join));
        host.press(said);
        let ends = [&mut host, &mut join].map(|it| it.child.wait().unwrap().code());
        let agreed = said == "yes\r";
        assert_eq!(ends, if agreed { [Some(0), Some(0)] } else { [Some(1), Some(1)] });
        assert_eq!((config(&a), config(&b)) == before, !agreed);
    }
}

/// Returns the word that follows a text, where it is there.
fn word_after(text: &str, before: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    rest.split_whitespace().next().filter(|word| word.contains(['-', ':'])).map(str::to_owned)
}

#[test]
fn what_cannot_be_done_is_said_before_anybody_is_asked() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    fs::write(lab.path("file"), "").unwrap();
    let check = |device: &Device, args: &[&str], code: i32, expected: &str| {
        let ran = device.cli(&[&["pair"], args].concat());
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(expected), "{args:?}: {ran:?}");
    };
    check(&a, &[a.root_text()], 2, "nobody can be asked here whether to pair");
    check(&a, &["--yes", "--json", "kinfold:pair/x"], 2, "others on this machine can see a command line");
    check(&a, &["--yes", "7-ambr-zoo"], 1, "`ambr` is not a word that a code can have");
    check(&a, &["--yes", "one", "two"], 2, "`one` is not a code");
    check(&a, &["--yes", "--at", "127.0.0.1"], 2, "--at is for the device that joins");
    let file = lab.path("file");
    check(&a, &["--yes", file.to_str().unwrap()], 1, "not a directory");
    check(&a, &["--yes", "7-zoo-zoo", "--at", "203.0.113.7"], 1, "203.0.113.7:25464 is outside the local network");
    let nobody = crate::lab::free_address().to_string();
    check(&a, &["--yes", "7-zoo-zoo", "--at", &nobody], 1, "cannot be reached");
    // A place that is another folder already is refused there, and here nothing comes of it.
    b.ok(&["folder", "add", b.root_text(), "--name", "mine"]);
    let before = (config(&a), config(&b));
    let host = Host::of(&a, &[a.root_text()]);
    let (code, at) = (host.code().to_owned(), host.at().to_owned());
    check(&b, &["--yes", &code, b.root_text(), "--at", &at], 1, "is `mine`, another folder");
    let (ended, _, errors) = host.end();
    assert_eq!((ended, errors.contains("the other device closed the connection")), (1, true), "{errors}");
    assert_eq!((config(&a), config(&b)), before);
}

#[test]
fn a_code_alone_finds_the_other_machine() {
    let Some(mut machines) = Machines::new() else { return };
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    for device in [&a, &b] {
        let text = config(device).replace(&device.address.to_string(), "0.0.0.0:25463");
        fs::write(device.home.join("config.toml"), text).unwrap();
    }
    let on = |machines: &Machines, n: usize, device: &Device, args: &[&str]| {
        let plain = device.command(args);
        let mut command = machines.command(n, plain.get_program().to_str().unwrap());
        command.args(plain.get_args()).env("HOME", &device.home);
        command
    };
    a.write("photo", "a photo");
    let host = Host::start(on(&machines, 0, &a, &["pair", "--yes", "--json", a.root_text()]));
    let code = host.code().to_owned();
    let joined = on(&machines, 1, &b, &["pair", "--yes", "--json", &code, b.root_text()]).output().unwrap();
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let joined: Value = serde_json::from_slice(&joined.stdout).unwrap();
    let at: SocketAddr = joined["addresses"][0].as_str().unwrap().parse().unwrap();
    assert!(at.ip().to_string().starts_with("10.77.") && at.port() == 25463, "{at}");
    host.outcome();
    machines.serve(0, &a);
    machines.serve(1, &b);
    wait_until("the photo arrives", || b.read("photo").as_deref() == Some("a photo"));
    // Nobody waits with this code any more.
    let late = on(&machines, 1, &b, &["pair", "--yes", &code, "--at", &at.to_string()]).output().unwrap();
    assert_eq!(late.status.code(), Some(1));
}

/// A person on one of two machines, with kinfold as a package installs it and a system that starts services.
struct Person<'a> {
    machines: &'a Machines,
    n: usize,
    home: std::path::PathBuf,
}

impl<'a> Person<'a> {
    fn new(lab: &Lab, machines: &'a Machines, n: usize) -> Self {
        let home = lab.path(&format!("home-{n}"));
        for dir in ["bin", "run", "Photos"] {
            fs::create_dir_all(home.join(dir)).unwrap();
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kinfold"), home.join("bin/kinfold")).unwrap();
        // It starts what it is told to start, as systemd does.
        let systemctl =
            "#!/bin/sh\ncase \"$*\" in *restart*) kinfold serve > \"$HOME/log\" 2>&1 < /dev/null & ;; esac\n";
        fs::write(home.join("bin/systemctl"), systemctl).unwrap();
        fs::set_permissions(home.join("bin/systemctl"), PermissionsExt::from_mode(0o755)).unwrap();
        Self { machines, n, home }
    }

    fn kinfold(&self, args: &[&str]) -> Command {
        let path = format!("{}:{}", self.home.join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = self.machines.command(self.n, "kinfold");
        command.args(args).current_dir(&self.home).env_clear().env("PATH", path).env("TZ", "UTC");
        command.env("HOME", &self.home).env("XDG_RUNTIME_DIR", self.home.join("run"));
        command
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.home.join(path)).ok()
    }
}

impl Drop for Person<'_> {
    fn drop(&mut self) {
        if let Ok(client) = Client::new(&self.home.join("run/kinfold.sock")) {
            client.shutdown().ok();
        }
    }
}

#[test]
fn from_the_package_to_the_first_file_it_takes_a_person_five_actions() {
    let Some(machines) = Machines::new() else { return };
    let lab = Lab::new();
    // The first two: it is installed on both.
    let (a, b) = (Person::new(&lab, &machines, 0), Person::new(&lab, &machines, 1));
    fs::write(a.home.join("Photos/beach"), "a photo").unwrap();
    // The third and the fourth.
    let mut host = OnTerminal::start(a.kinfold(&["pair", "Photos"]), 100, 60);
    wait_until("there is a code", || word_after(&host.text(), "kinfold pair ").is_some());
    let code = word_after(&host.text(), "kinfold pair ").unwrap();
    let mut join = b.kinfold(&["pair", &code, "Photos"]).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("it is asked", || host.text().contains("[y/N]"));
    // The fifth.
    host.press("y\r");
    assert!(join.wait().unwrap().success());
    assert_eq!(host.child.wait().unwrap().code(), Some(0), "{}", host.text());
    wait_until("the photo arrives", || b.read("Photos/beach").as_deref() == Some("a photo"));
    fs::write(b.home.join("Photos/back"), "another").unwrap();
    wait_until("and one comes back", || a.read("Photos/back").as_deref() == Some("another"));
    let mut said = String::new();
    join.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("kinfold.service runs") && said.contains("`kinfold service uninstall` ends that"), "{said}");
    assert!(a.home.join(".config/systemd/user/kinfold.service").exists());
}
