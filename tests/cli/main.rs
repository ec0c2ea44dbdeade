//! The command line as a person and a script see it: output, errors and exit codes without a daemon.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

/// Compares all that can be seen of a command with a snapshot.
macro_rules! sees {
    ($device:expr, $args:expr, @$snapshot:literal) => {
        insta::assert_snapshot!($device.run(&$args), @$snapshot)
    };
}

mod daemon;
mod every;
mod import;
mod keys;
mod manual;
mod packaging;
mod rotate;
mod service;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use assert_cmd::Command;
use tempfile::TempDir;

/// A device of its own, and what stands for its random parts in snapshots.
struct Device {
    dir: TempDir,
    names: Vec<(String, String)>,
}

impl Device {
    /// A device before its first command.
    fn bare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().display().to_string();
        Self { dir, names: vec![(root, "[dir]".to_owned())] }
    }

    /// A device after `kinfold init`, called `desk`.
    fn new() -> Self {
        let mut device = Self::bare();
        device.ok(&["init", "--name", "desk"]);
        let id = device.ok(&["id"]).trim().to_owned();
        device.names.push((id, "[id]".to_owned()));
        device
    }

    /// A device that trusts another called `laptop`.
    fn with_laptop() -> Self {
        let device = Self::new();
        device.ok(&["device", "add", &laptop(), "--name", "laptop"]);
        device
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn make(&self, name: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path.display().to_string()
    }

    fn config(&self) -> String {
        fs::read_to_string(self.path("home/config.toml")).unwrap()
    }

    /// A command as it is run by a test that looks at it while it runs.
    fn process(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kinfold"));
        command.args(args).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("KINFOLD_HOME", self.path("home")).env("HOME", self.path("user")).env("TZ", "UTC");
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        Command::from_std(self.process(args))
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command and returns all that can be seen of it.
    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let mut seen = format!("exit {}\n", output.status.code().unwrap());
        for (name, stream) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !stream.is_empty() {
                seen += &format!("--- {name}\n{}", String::from_utf8_lossy(stream));
            }
        }
        self.stable(&seen)
    }

    fn stable(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (random, name)| text.replace(random, name))
    }
}

fn laptop() -> String {
    kinfold::model::id::DeviceId::from_public_key([1; 32]).to_string()
}

#[test]
fn a_device_is_set_up_once() {
    let mut device = Device::bare();
    sees!(device, ["id"], @r#"
    exit 1
    --- stderr
    error: this device has no identity yet ([dir]/home/state/identity)
    hint: run `kinfold init` once on this device
    "#);
    sees!(device, ["device", "list"], @r#"
    exit 1
    --- stderr
    error: there is no configuration at [dir]/home/config.toml
    hint: run `kinfold init` once on this device
    "#);
    sees!(device, ["serve"], @r#"
    exit 1
    --- stderr
    error: there is no configuration at [dir]/home/config.toml
    hint: run `kinfold init` once on this device
    "#);
    let first = device.ok(&["init", "--name", "desk", "--listen", "10.0.0.1", "--listen", "[fd00::1]:7"]);
    let id = device.ok(&["id"]).trim().to_owned();
    device.names.push((id.clone(), "[id]".to_owned()));
    insta::assert_snapshot!(device.stable(&first), @r#"
    This device is `desk`, [id]
    Its configuration is [dir]/home/config.toml
    "#);
    assert!(device.config().contains(r#"listen = ["10.0.0.1:25463", "[fd00::1]:7"]"#));
    let before = device.config();
    sees!(device, ["init", "--name", "other"], @r#"
    exit 1
    --- stderr
    error: this device is set up already: [dir]/home/config.toml
    hint: nothing was changed; to set it up differently, edit that file
    "#);
    assert_eq!(device.config(), before);
    assert_eq!(device.ok(&["id"]).trim(), id);
    assert_eq!(device.ok(&["id", "--words"]).split_whitespace().count(), 8);
    assert!(device.ok(&["id", "--qr"]).lines().count() > 20);
}

#[test]
fn a_configuration_from_elsewhere_only_lacks_its_identity() {
    let device = Device::bare();
    device.make("home");
    fs::write(device.path("home/config.toml"), "name = \"nas\"\n").unwrap();
    sees!(device, ["init", "--name", "other"], @r#"
    exit 1
    --- stderr
    error: there is a configuration already: [dir]/home/config.toml
    hint: run `kinfold init` without --name and --listen, or edit that file
    "#);
    device.ok(&["init"]);
    assert_eq!(device.config(), "name = \"nas\"\n");
    device.ok(&["id"]);
}

#[test]
fn an_identity_that_others_can_read_is_refused() {
    let device = Device::new();
    fs::set_permissions(device.path("home/state/identity"), fs::Permissions::from_mode(0o644)).unwrap();
    sees!(device, ["id"], @r#"
    exit 1
    --- stderr
    error: [dir]/home/state/identity has mode 644: others can read it
    hint: run `chmod 600 [dir]/home/state/identity`
    "#);
}

#[test]
fn a_device_id_that_is_none_is_refused_for_its_reason() {
    let device = Device::new();
    let add = |id: &str| device.run(&["device", "add", id, "--name", "laptop"]);
    insta::assert_snapshot!(add("laptop"), @r#"
    exit 2
    --- stderr
    error: invalid value 'laptop' for '<ID>': a device id begins with `kin1`

    For more information, try '--help'.
    "#);
    insta::assert_snapshot!(add("kin1qqq"), @r#"
    exit 2
    --- stderr
    error: invalid value 'kin1qqq' for '<ID>': a device id has 62 characters, this has 7

    For more information, try '--help'.
    "#);
    insta::assert_snapshot!(add(&laptop().replace('s', "é")), @r#"
    exit 2
    --- stderr
    error: invalid value 'kin1qyqézqgpqyqézqgpqyqézqgpqyqézqgpqyqézqgpqyqézqgpqyqéx0c5tx' for '<ID>': `\u{e9}` cannot be part of a device id

    For more information, try '--help'.
    "#);
    insta::assert_snapshot!(add(&laptop().replace("kin1qy", "kin1yq")), @r#"
    exit 2
    --- stderr
    error: invalid value 'kin1yqqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqsx0c5tx' for '<ID>': the device id has a typing error: its checksum does not fit; copy it again from `kinfold id`

    For more information, try '--help'.
    "#);
    assert!(!device.config().contains("\n[[devices]]"));
}

#[test]
fn devices_come_and_go() {
    let device = Device::with_laptop();
    sees!(device, ["device", "add", &laptop(), "--name", "laptop", "--address", "10.0.0.2"], @r#"
    exit 0
    --- stdout
    `laptop` is trusted now
    "#);
    sees!(device, ["device", "add", &laptop(), "--name", "laptop", "--address", "10.0.0.2"], @r#"
    exit 0
    --- stdout
    `laptop` was trusted already
    "#);
    sees!(device, ["device", "list"], @r#"
    exit 0
    --- stdout
    laptop  kin1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqsx0c5tx  10.0.0.2:25463
    "#);
    sees!(device, ["device", "list", "--json"], @r#"
    exit 0
    --- stdout
    [
      {
        "name": "laptop",
        "id": "kin1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqsx0c5tx",
        "addresses": [
          "10.0.0.2:25463"
        ]
      }
    ]
    "#);
    sees!(device, ["device", "rename", "laptop", "lap top"], @r#"
    exit 0
    --- stdout
    `laptop` is called `lap top` now
    "#);
    sees!(device, ["device", "remove", "lap top"], @r#"
    exit 0
    --- stdout
    `lap top` is trusted no longer
    "#);
    sees!(device, ["device", "list"], @"exit 0");
}

#[test]
fn edits_at_the_same_time_are_all_kept() {
    let device = Device::new();
    let id = |n| kinfold::model::id::DeviceId::from_public_key([n; 32]).to_string();
    std::thread::scope(|scope| {
        for n in 1..=8 {
            let device = &device;
            scope.spawn(move || device.ok(&["device", "add", &id(n), "--name", &format!("d{n}")]));
        }
    });
    assert_eq!(device.ok(&["device", "list"]).lines().count(), 8);
}

#[test]
fn a_device_that_would_confuse_people_is_refused() {
    let device = Device::with_laptop();
    let own = device.ok(&["id"]).trim().to_owned();
    sees!(device, ["device", "add", &own, "--name", "me"], @r#"
    exit 1
    --- stderr
    error: this is the id of this device itself
    hint: run `kinfold id` on the other device, and give that id
    "#);
    sees!(device, ["device", "add", &laptop(), "--name", "other"], @r#"
    exit 1
    --- stderr
    error: this device is in the list already, as `laptop`
    hint: to rename it: kinfold device rename laptop NEW
    "#);
    sees!(device, ["device", "add", &laptop(), "--name", "laptop", "--address", "laptop.local"], @r#"
    exit 2
    --- stderr
    error: invalid value 'laptop.local' for '--address <HOST:PORT>': `laptop.local` is not an IP address; host names are never looked up, for that would ask a DNS server

    For more information, try '--help'.
    "#);
    sees!(device, ["device", "rename", "nas", "box"], @r#"
    exit 1
    --- stderr
    error: there is no device `nas` here
    hint: see `kinfold device list`, or add it: kinfold device add ID --name nas
    "#);
    sees!(device, ["device", "rename", "laptop", "desk"], @r#"
    exit 1
    --- stderr
    error: this device itself is called `desk`
    hint: choose another name, or see `kinfold device list`
    "#);
    sees!(device, ["device", "remove", "na\u{1b}s"], @r#"
    exit 1
    --- stderr
    error: there is no device `na\u{1b}s` here
    hint: see `kinfold device list`, or add it: kinfold device add ID --name 'na\u{1b}s'
    "#);
}

#[test]
fn a_folder_is_added_shared_and_given_up() {
    let device = Device::with_laptop();
    let data = device.make("data");
    sees!(device, ["folder", "add", &data, "--name", "data", "--share", "laptop:reader"], @r#"
    exit 0
    --- stdout
    `data` is synced now
    "#);
    sees!(device, ["folder", "list"], @r#"
    exit 0
    --- stdout
    data  [dir]/data  active  laptop:reader
    "#);
    sees!(device, ["folder", "share", "data", "laptop"], @r#"
    exit 0
    --- stdout
    `data` is now shared with `laptop` as owner
    "#);
    sees!(device, ["folder", "share", "data", "laptop:owner"], @r#"
    exit 0
    --- stdout
    `data` is already shared with `laptop` as owner
    "#);
    sees!(device, ["folder", "set", "data", "history_days=7"], @"exit 0");
    sees!(device, ["folder", "pause", "data"], @r#"
    exit 0
    --- stdout
    `data` rests
    "#);
    sees!(device, ["folder", "list"], @r#"
    exit 0
    --- stdout
    data  [dir]/data  paused  laptop:owner
    "#);
    sees!(device, ["folder", "resume", "data"], @r#"
    exit 0
    --- stdout
    `data` goes on
    "#);
    sees!(device, ["folder", "pause", "data", "--until", "2999-01-01"], @r#"
    exit 0
    --- stdout
    `data` rests until 2999-01-01 00:00
    "#);
    sees!(device, ["folder", "list"], @r#"
    exit 0
    --- stdout
    data  [dir]/data  paused  laptop:owner
    "#);
    sees!(device, ["folder", "resume", "data"], @r#"
    exit 0
    --- stdout
    `data` goes on
    "#);
    sees!(device, ["folder", "set", "data", "active=Mon-Fri 18:00-08:00, Sat-Sun"], @"exit 0");
    sees!(device, ["folder", "set", "data", "active=always"], @"exit 0");
    sees!(device, ["limit"], @r#"
    exit 0
    --- stdout
    all devices together  sends as fast as it goes  receives as fast as it goes
    "#);
    sees!(device, ["limit", "--device", "laptop", "--send", "2 MiB/s"], @r#"
    exit 0
    --- stdout
    device laptop  sends 2 MiB/s  receives as fast as it goes
    "#);
    sees!(device, ["limit", "--receive", "20 Mbit/s"], @r#"
    exit 0
    --- stdout
    all devices together  sends as fast as it goes  receives 20 Mbit/s
    device laptop         sends 2 MiB/s             receives as fast as it goes
    "#);
    sees!(device, ["limit", "--folder", "data", "--send", "1 KiB/s"], @r#"
    exit 1
    --- stderr
    error: `1 KiB/s` is too slow: the least is 16 KiB/s
    hint: to stop altogether, pause the folder
    "#);
    sees!(device, ["limit", "--device", "tv"], @r#"
    exit 1
    --- stderr
    error: there is no device `tv` here
    hint: see `kinfold device list`, or add it: kinfold device add ID --name tv
    "#);
    sees!(device, ["folder", "pause", "data", "--for", "soon"], @r#"
    exit 2
    --- stderr
    error: invalid value 'soon' for '--for <LENGTH>': write it like `2h`, `90 minutes`, `1d 12h` or `3 days`

    For more information, try '--help'.
    "#);
    sees!(device, ["folder", "unshare", "data", "laptop"], @r#"
    exit 0
    --- stdout
    `data` is not shared with `laptop`
    "#);
    sees!(device, ["folder", "list"], @r#"
    exit 0
    --- stdout
    data  [dir]/data  active
    "#);
    sees!(device, ["folder", "remove", "data"], @r#"
    exit 0
    --- stdout
    `data` is synced no longer; its files stay in [dir]/data
    "#);
    sees!(device, ["folder", "list"], @"exit 0");
    assert!(device.path("data").is_dir());
}

#[test]
fn a_folder_at_a_wrong_place_is_refused() {
    let device = Device::new();
    let data = device.make("data");
    device.make("data/below");
    fs::write(device.path("file"), "x").unwrap();
    std::os::unix::fs::symlink("data", device.path("link")).unwrap();
    device.ok(&["folder", "add", &data, "--name", "data"]);
    sees!(device, ["folder", "add", "data", "--name", "again"], @r#"
    exit 1
    --- stderr
    error: [dir]/data is synced already, as `data`
    hint: to share it: kinfold folder share NAME DEVICE
    "#);
    sees!(device, ["folder", "add", "link", "--name", "again"], @r#"
    exit 1
    --- stderr
    error: [dir]/data is synced already, as `data`
    hint: to share it: kinfold folder share NAME DEVICE
    "#);
    sees!(device, ["folder", "add", "data/below", "--name", "below"], @r#"
    exit 1
    --- stderr
    error: [dir]/data/below lies inside [dir]/data, which is a folder too
    hint: each folder needs a place of its own, outside all others
    "#);
    sees!(device, ["folder", "add", ".", "--name", "above"], @r#"
    exit 1
    --- stderr
    error: [dir] holds files of kinfold itself
    hint: choose a directory apart from the configuration and state of kinfold
    "#);
    sees!(device, ["folder", "add", "file", "--name", "file"], @r#"
    exit 1
    --- stderr
    error: [dir]/file is not a directory
    hint: give the path of a directory
    "#);
    sees!(device, ["folder", "add", "missing", "--name", "missing"], @r#"
    exit 1
    --- stderr
    error: [dir]/missing does not exist
    hint: make the directory first, or check the spelling
    "#);
    sees!(device, ["folder", "add", "home", "--name", "home"], @r#"
    exit 1
    --- stderr
    error: [dir]/home holds files of kinfold itself
    hint: choose a directory apart from the configuration and state of kinfold
    "#);
    sees!(device, ["folder", "add", "home/state", "--name", "state"], @r#"
    exit 1
    --- stderr
    error: [dir]/home/state holds files of kinfold itself
    hint: choose a directory apart from the configuration and state of kinfold
    "#);
    device.make("other");
    sees!(device, ["folder", "add", "other", "--name", "data"], @r#"
    exit 1
    --- stderr
    error: another folder is called `data` already: [dir]/data
    hint: choose another name, or see `kinfold folder list`
    "#);
    sees!(device, ["folder", "add", "other", "--name", ""], @r#"
    exit 1
    --- stderr
    error: a name cannot be empty
    hint: choose a name that people can see and type
    "#);
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let device = Device::with_laptop();
    device.make("data");
    sees!(device, ["folder", "add", "data", "--name", "data", "--share", "nas"], @r#"
    exit 1
    --- stderr
    error: there is no device `nas` here
    hint: see `kinfold device list`, or add it: kinfold device add ID --name nas
    "#);
    device.ok(&["folder", "add", "data", "--name", "data"]);
    sees!(device, ["folder", "share", "data", "my nas:reader"], @r#"
    exit 1
    --- stderr
    error: there is no device `my nas` here
    hint: see `kinfold device list`, or add it: kinfold device add ID --name 'my nas'
    "#);
    sees!(device, ["folder", "share", "data", "laptop:king"], @r#"
    exit 1
    --- stderr
    error: `king` is not a right
    hint: rights are reader, adder, writer, owner
    "#);
    sees!(device, ["folder", "share", "photos", "laptop"], @r#"
    exit 1
    --- stderr
    error: there is no folder `photos` here
    hint: see `kinfold folder list`
    "#);
    sees!(device, ["folder", "set", "data", "colour=red"], @r#"
    exit 1
    --- stderr
    error: there is no setting `colour`
    hint: settings are rescan_minutes, gitignore, history_days, history_size, active, metered, brake, scrub_days and merge
    "#);
    sees!(device, ["folder", "set", "data", "history_days=many"], @r#"
    exit 1
    --- stderr
    error: `many` is not a value for history_days
    hint: give days, or 0 to keep nothing
    "#);
}

#[test]
fn a_folder_is_accepted_before_it_is_offered() {
    let device = Device::with_laptop();
    sees!(device, ["folder", "accept", "data", "new", "--from", "laptop"], @r#"
    exit 0
    --- stdout
    `data` comes as soon as it is offered: [dir]/new
    "#);
    assert!(device.path("new").is_dir());
    sees!(device, ["folder", "accept", "data", "new", "--from", "laptop"], @r#"
    exit 0
    --- stdout
    `data` comes as soon as it is offered: [dir]/new
    "#);
    sees!(device, ["folder", "list", "--json"], @r#"
    exit 0
    --- stdout
    [
      {
        "name": "data",
        "path": "[dir]/new",
        "state": "waits for its offer",
        "members": [
          "laptop"
        ]
      }
    ]
    "#);
    sees!(device, ["folder", "share", "data", "laptop"], @r#"
    exit 1
    --- stderr
    error: folder `data` was accepted, but its offer has not arrived yet
    hint: it is taken as soon as the other device is connected and shares it
    "#);
    sees!(device, ["folder", "accept", "more", "a/b", "--from", "laptop"], @r#"
    exit 1
    --- stderr
    error: cannot create [dir]/a/b: No such file or directory (os error 2)
    hint: make the directory above it first
    "#);
    sees!(device, ["folder", "accept", "more", "more", "--from", "nas"], @r#"
    exit 1
    --- stderr
    error: there is no device `nas` here
    hint: see `kinfold device list`, or add it: kinfold device add ID --name nas
    "#);
    assert!(!device.path("more").exists());
    sees!(device, ["folder", "accept", "more", "new/below", "--from", "laptop"], @r#"
    exit 1
    --- stderr
    error: [dir]/new/below lies inside [dir]/new, which is a folder too
    hint: each folder needs a place of its own, outside all others
    "#);
    assert!(!device.path("new/below").exists());
    sees!(device, ["folder", "remove", "data"], @r#"
    exit 0
    --- stdout
    `data` is synced no longer; its files stay in [dir]/new
    "#);
}

#[test]
fn a_mistake_in_the_configuration_is_shown_with_its_line() {
    let device = Device::new();
    let broken = |text: &str| {
        fs::write(device.path("home/config.toml"), text).unwrap();
        device.run(&["device", "list"])
    };
    insta::assert_snapshot!(broken("name = \"desk\"\n\n[network]\nport = 7\n"), @r#"
    exit 1
    --- stderr
    error: [dir]/home/config.toml, line 4: unknown key `port`
    hint: known here: `listen`, `mode`, `allow`, `interfaces`, `discovery`, `metered`, `send_rate`, `receive_rate`
    "#);
    insta::assert_snapshot!(broken("name = \"desk\"\n[network]\nlisten = [\"nas.local\"]\n"), @r#"
    exit 1
    --- stderr
    error: [dir]/home/config.toml, line 3: `nas.local` is not an IP address; host names are never looked up, for that would ask a DNS server
    hint: write the address in numbers, like 192.168.1.20 or [fd00::20]:25463
    "#);
    insta::assert_snapshot!(broken("name = \"desk\"\n[network\n"), @r#"
    exit 1
    --- stderr
    error: [dir]/home/config.toml, line 2: unclosed table, expected `]`
    hint: correct that line
    "#);
    insta::assert_snapshot!(broken("name = \"desk\"\n[network]\nmode = \"wan\"\n"), @r#"
    exit 1
    --- stderr
    error: [dir]/home/config.toml, line 3: `wan` is not a mode
    hint: write "lan" for local networks alone, or "any"
    "#);
    let twice = format!(
        "name = \"desk\"\n[[devices]]\nname = \"a\"\nid = \"{0}\"\n[[devices]]\nname = \"b\"\nid = \"{0}\"\n",
        laptop()
    );
    insta::assert_snapshot!(broken(&twice), @r#"
    exit 1
    --- stderr
    error: [dir]/home/config.toml, line 7: the device id `kin1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqsx0c5tx` stands in line 4 already
    hint: change one of the two
    "#);
}

#[test]
fn without_a_daemon_its_commands_say_so() {
    let device = Device::new();
    sees!(device, ["status"], @r#"
    exit 5
    --- stderr
    error: no daemon is running here (nobody listens at [dir]/home/kinfold.sock)
    hint: start it with `kinfold serve`
    "#);
    for args in [
        &["wait"][..],
        &["inbox"],
        &["log"],
        &["conflicts"],
        &["conflicts", "keep", "x", "mine"],
        &["conflicts", "show", "x"],
        &["conflicts", "merge", "x"],
        &["events"],
        &["events", "--no-follow"],
        &["metrics"],
        &["status", "--watch"],
        &["status", "--json"],
        &["verify"],
        &["folder", "release", "data"],
        &["history"],
        &["history", "x"],
        &["restore", "x", "--dry-run"],
        &["restore", "x", "--at", "2026-05-31T18:00:00Z"],
        &["folder", "offers"],
        &["folder", "scan", "data"],
    ] {
        assert_eq!(device.run(args), device.run(&["status"]), "{args:?}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let device = Device::new();
    for args in [
        &["frobnicate"][..],
        &["device", "add"],
        &["folder", "set", "data", "history_days"],
        &["wait", "--timeout", "-1"],
        &["wait", "--timeout", "soon"],
        &["restore", "x", "--at", "soon"],
        &["restore", "x", "--at", "tomorrow"],
        &["conflicts", "keep", "x", "ours"],
        &["events", "--after", "x"],
        &["metrics", "--listen", "0.0.0.0:9725"],
        &["metrics", "--listen", "localhost:9725"],
        &["import"],
        &["import", "dropbox"],
        &["import", "syncthing"],
        &["completions", "tcsh"],
        &["service", "install", "--system"],
        &["man"],
        &["serve", "--log", "loud"],
        &["init", "--listen", "here"],
    ] {
        assert!(device.run(args).starts_with("exit 2\n--- stderr\nerror: "), "{args:?}");
    }
    sees!(device, ["restore", "x", "--at", "soon"], @r#"
    exit 2
    --- stderr
    error: invalid value 'soon' for '--at <TIME>': write it like `2026-05-31 18:00`, `yesterday 18:00`, `monday`, `18:00` or `2 hours ago`

    For more information, try '--help'.
    "#);
    sees!(device, ["serve", "--log", "loud"], @r#"
    exit 2
    --- stderr
    error: invalid value 'loud' for '--log <LEVEL>': levels are error, warn, info, debug and trace

    For more information, try '--help'.
    "#);
}

#[test]
fn a_home_too_deep_for_a_socket_is_refused() {
    let device = Device::bare();
    let home = format!("/{}", "h".repeat(100));
    sees!(device, ["--home", &home, "init"], @r#"
    exit 1
    --- stderr
    error: the path of the control socket is too long: /hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh/kinfold.sock has 114 bytes, the system allows 107
    hint: choose a shorter --home, or set XDG_RUNTIME_DIR to a shorter directory
    "#);
}

#[test]
fn the_doctor_says_what_is_not_in_order() {
    let device = Device::with_laptop();
    device.make("data");
    device.ok(&["folder", "add", "data", "--name", "data"]);
    fs::remove_dir(device.path("data")).unwrap();
    let seen = device.run(&["doctor"]);
    // What the machine itself brings along is left out.
    let own =
        |line: &&str| !["address", "watched", "clock", "thief", "firewall"].iter().any(|what| line.contains(what));
    let lines: Vec<_> = seen
        .lines()
        .filter(own)
        .filter(|line| !["sysctl", "encrypt", "sudo"].iter().any(|advice| line.contains(advice)))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    exit 1
    --- stdout
    warn  daemon: is not running
          start it with `kinfold serve`
    ok    identity: [id]
    ok    configuration: [dir]/home/config.toml
    fail  folder data: [dir]/data: No such file or directory (os error 2)
          mount its disk, or bring the directory back
    ok    discovery: is on
    ok    a stranger in local networks: sees that TCP port 25463 is open, and beacons that do not tell which device it is; has no answer
    ok    the device laptop: sees no folder of this device
    "#);
}

#[test]
fn help_completions_and_manual_pages_exist_for_every_command() {
    let device = Device::bare();
    assert!(device.ok(&["--help"]).contains("folder"));
    assert!(device.ok(&["--version"]).starts_with("kinfold "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(device.ok(&["completions", shell]).contains("kinfold"));
    }
    device.ok(&["man", "man/man1"]);
    for page in ["kinfold.1", "kinfold-folder-add.1", "kinfold-conflicts-keep.1"] {
        assert!(device.path("man/man1").join(page).is_file(), "{page}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_output_quietly() {
    let device = Device::bare();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kinfold"));
    command
        .args(["completions", "bash"])
        .env("KINFOLD_HOME", device.path("home"))
        .stdout(writer)
        .stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
