//! Commands that need no daemon, and what the others say where there is none.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use crate::every::{Scene, Seen, write};
use crate::service::with_systemctl;
use crate::{Device, laptop};

pub const SCENES: &[Scene] = &[
    begin,
    keys,
    rotating,
    devices,
    folders,
    sharing,
    resting,
    without_a_daemon,
    beside_another_program,
    starting,
    services,
    doctor,
    coming_from_elsewhere,
    printing,
    demo,
];

/// A device that trusts `laptop` and syncs `data`.
fn with_data() -> Device {
    let device = Device::with_laptop();
    device.make("data");
    device.ok(&["folder", "add", "data", "--name", "data"]);
    device
}

/// A device whose configuration has a mistake in it.
fn with_a_mistake() -> Device {
    let device = Device::new();
    fs::write(device.path("home/config.toml"), "name = \"desk\"\ncolour = \"red\"\n").unwrap();
    device
}

fn begin(seen: &mut Seen) {
    let device = Device::bare();
    seen.run(&device, "id");
    seen.run(&device, "init --name ''");
    seen.run(&device, "init --name desk --listen nas.local");
    write(&device.path("file"), "");
    seen.run(&device, "--home file init --name desk");
    seen.run(&device, "init --name desk");
    let run = seen.runs.last_mut().unwrap();
    run.stdout = without_id(&run.stdout);
    let known = Device::new();
    fs::remove_dir_all(known.path("home/state")).unwrap();
    seen.run(&known, "init --name other");
    let device = Device::new();
    seen.run(&device, "init --name desk");
    seen.run(&device, "id");
    seen.run(&device, "id --qr --words");
    seen.full(&device, "id");
    let identity = device.path("home/state/identity");
    fs::set_permissions(&identity, fs::Permissions::from_mode(0o644)).unwrap();
    seen.run(&device, "id");
    fs::set_permissions(&identity, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&identity, "not a key").unwrap();
    seen.run(&device, "id");
    fs::remove_file(&identity).unwrap();
    fs::create_dir(&identity).unwrap();
    seen.run(&device, "id");
    let deep = "d".repeat(100);
    seen.run(&device, &format!("--home /{deep} id"));
}

/// Puts a name in the place of the id that a device has just been given.
fn without_id(text: &str) -> String {
    let id = text.split_whitespace().find(|word| word.starts_with("kin1")).unwrap();
    text.replace(id, "[id]")
}

fn keys(seen: &mut Seen) {
    let passphrase = "correct horse battery\n";
    let device = Device::bare();
    for command in ["lock", "change", "unlock", "status"] {
        seen.run(&device, &format!("key {command}"));
    }
    let device = Device::new();
    seen.run(&device, "key status");
    seen.run(&device, "key status locked");
    seen.run(&device, "key lock");
    seen.given(&device, "key lock --stdin", "");
    seen.given(&device, "key lock --stdin", "seven c\n");
    seen.given(&device, "key lock --stdin", &("x".repeat(2000) + "\n"));
    seen.given(&device, "key change --stdin", passphrase);
    seen.given(&device, "key unlock --stdin", passphrase);
    seen.given(&device, "key lock --stdin", passphrase);
    seen.given(&device, "key lock --stdin", passphrase);
    seen.run(&device, "key change");
    seen.run(&device, "key unlock");
    seen.given(&device, "key change --stdin", "wrong horse battery\nanother one, as long\n");
    seen.given(&device, "key change --stdin", passphrase);
    seen.given(&device, "key change --stdin", &format!("{passphrase}short\n"));
    seen.given(&device, "key change --stdin", &format!("{passphrase}another one, as long\n"));
    seen.given(&device, "key unlock --stdin", passphrase);
    seen.run(&device, "key status --json");
    seen.given(&device, "key unlock --stdin", "another one, as long\n");
    let identity = device.path("home/state/identity");
    fs::set_permissions(&identity, fs::Permissions::from_mode(0o640)).unwrap();
    seen.run(&device, "key status");
}

fn rotating(seen: &mut Seen) {
    seen.run(&Device::bare(), "key rotate");
    let device = Device::with_laptop();
    seen.run(&device, "key rotate --status");
    seen.run(&device, "key rotate --cancel");
    seen.run(&device, "key rotate --now --cancel");
    seen.part(&device, "key rotate", without_id);
    seen.part(&device, "key rotate --status", without_id);
    seen.run(&device, "key rotate --now");
    seen.run(&device, "key rotate --cancel");
    let lock = device.command(&["key", "lock", "--stdin"]).write_stdin("correct horse battery\n").output().unwrap();
    assert!(lock.status.success());
    seen.run(&device, "key rotate");
    seen.given(&device, "key rotate --stdin", "wrong horse battery\n");
    fs::set_permissions(device.path("home/state/identity"), fs::Permissions::from_mode(0o640)).unwrap();
    seen.given(&device, "key rotate --stdin", "correct horse battery\n");
}

fn devices(seen: &mut Seen) {
    let id = laptop();
    let device = Device::bare();
    seen.run(&device, &format!("device add {id} --name laptop"));
    seen.run(&device, "device list");
    seen.run(&device, "device rename laptop tablet");
    seen.run(&device, "device remove laptop");
    seen.run(&device, "device revoke laptop");
    let device = Device::new();
    seen.run(&device, "device list");
    seen.run(&device, &format!("device add {id} --name laptop --address 10.0.0.2"));
    seen.run(&device, &format!("device add {id} --name tablet"));
    seen.run(&device, &format!("device add {} --name laptop", other_id()));
    seen.run(&device, &format!("device add {} --name desk", other_id()));
    seen.run(&device, &format!("device add {} --name 'no\u{7}te'", other_id()));
    let own = device.ok(&["id"]).trim().to_owned();
    seen.run(&device, &format!("device add {own} --name me"));
    seen.run(&device, "device add kin1qqq --name tablet");
    seen.run(&device, "device list");
    seen.run(&device, "device list laptop");
    seen.run(&device, "device rename tablet phone");
    seen.run(&device, "device rename laptop desk");
    seen.run(&device, "device rename laptop ''");
    seen.run(&device, "device rename laptop 'lap top'");
    seen.run(&device, "device rename laptop");
    seen.run(&device, "device remove laptop");
    seen.run(&device, "device remove");
    seen.run(&device, "device remove 'lap top'");
    seen.run(&device, "device revoke 'lap top'");
    device.ok(&["device", "add", &other_id(), "--name", "phone"]);
    seen.run(&device, "device revoke phone");
    seen.run(&device, "device revoke phone");
    seen.run(&device, &format!("device revoke {own}"));
    seen.run(&device, "device revoke");
    let device = with_a_mistake();
    seen.run(&device, "device list");
    seen.run(&device, "device remove laptop");
    fs::remove_file(device.path("home/config.toml")).unwrap();
    fs::create_dir(device.path("home/config.toml")).unwrap();
    seen.run(&device, "device list");
}

fn other_id() -> String {
    kinfold::model::id::DeviceId::from_public_key([2; 32]).to_string()
}

fn folders(seen: &mut Seen) {
    let device = Device::with_laptop();
    device.make("data");
    device.make("other");
    write(&device.path("file"), "");
    seen.run(&device, "folder list");
    seen.run(&device, "folder add data --name data --share laptop:reader");
    seen.run(&device, "folder add data --name again");
    device.make("data/below");
    seen.run(&device, "folder add data/below --name below");
    seen.run(&device, "folder add missing --name missing");
    seen.run(&device, "folder add file --name file");
    seen.run(&device, "folder add home --name home");
    seen.run(&device, "folder add other --name data");
    seen.run(&device, "folder add other --name ''");
    seen.run(&device, "folder add other --name other --share nas");
    seen.run(&device, "folder add other");
    seen.run(&device, "folder accept photos data --from laptop");
    seen.run(&device, "folder accept photos file --from laptop");
    seen.run(&device, "folder accept photos a/b --from laptop");
    seen.run(&device, "folder accept photos new --from nas");
    seen.run(&device, "folder accept photos new");
    seen.run(&device, "folder accept data new --from laptop");
    seen.run(&device, "folder accept photos new --from laptop");
    seen.run(&device, "folder list");
    seen.run(&device, "folder list data");
    seen.run(&device, "folder set data history_days=7");
    seen.run(&device, "folder set data history_days");
    seen.run(&device, "folder set data history_days=many");
    seen.run(&device, "folder set data history_size=much");
    seen.run(&device, "folder set data colour=red");
    seen.run(&device, "folder set data brake=soft");
    seen.run(&device, "folder set data merge=always");
    seen.run(&device, "folder set data active=Someday");
    seen.run(&device, "folder set data gitignore=perhaps");
    seen.run(&device, "folder set music history_days=7");
    seen.run(&device, "folder remove photos");
    seen.run(&device, "folder remove photos");
    seen.run(&device, "folder remove data");
    seen.run(&device, "folder remove");
    let device = with_a_mistake();
    seen.run(&device, "folder remove data");
    seen.run(&device, "folder list");
    let device = Device::bare();
    seen.run(&device, "folder add data --name data");
    seen.run(&device, "folder list");
}

fn sharing(seen: &mut Seen) {
    let device = with_data();
    seen.run(&device, "folder share data laptop:writer");
    seen.run(&device, "folder share data laptop:king");
    seen.run(&device, "folder share data nas");
    seen.run(&device, "folder share music laptop");
    seen.run(&device, "folder share data");
    seen.run(&device, "folder unshare data nas");
    seen.run(&device, "folder unshare music laptop");
    seen.run(&device, "folder unshare data");
    seen.run(&device, "folder unshare data laptop");
    seen.run(&device, "limit");
    seen.run(&device, "limit --device laptop --send '2 MiB/s'");
    seen.run(&device, "limit --send fast");
    seen.run(&device, "limit --folder data --send '1 KiB/s'");
    seen.run(&device, "limit --folder music");
    seen.run(&device, "limit --device nas");
    seen.run(&device, "limit --device laptop --folder data");
}

fn resting(seen: &mut Seen) {
    let device = with_data();
    seen.run(&device, "folder pause data");
    seen.run(&device, "folder pause data --until 2999-01-01");
    seen.run(&device, "folder pause data --until 2020-01-01");
    seen.run(&device, "folder pause data --for soon");
    seen.run(&device, "folder pause music");
    seen.run(&device, "folder resume data");
    seen.run(&device, "folder resume music");
    seen.run(&device, "folder resume");
    let device = with_a_mistake();
    seen.run(&device, "folder pause data");
    seen.run(&device, "folder resume data");
}

fn without_a_daemon(seen: &mut Seen) {
    let device = with_data();
    for line in [
        "status",
        "wait",
        "folder offers",
        "folder scan data",
        "folder release data",
        "conflicts list",
        "conflicts show data/list.txt",
        "conflicts merge data/list.txt",
        "conflicts keep data/list.txt mine",
        "history data/list.txt",
        "restore data/list.txt",
        "verify",
        "inbox",
        "log",
        "events",
        "metrics",
    ] {
        seen.run(&device, line);
    }
    // What is not understood needs no daemon either.
    for line in [
        "status data",
        "wait --timeout soon",
        "folder offers data",
        "folder scan",
        "folder release",
        "conflicts list data",
        "conflicts show",
        "conflicts merge",
        "conflicts keep data/list.txt ours",
        "history --all",
        "restore data/list.txt --at soon",
        "restore data/list.txt --at 2999-01-01",
        "verify data notes",
        "inbox data",
        "log --lines 5",
        "events --after yesterday",
        "metrics --listen 0.0.0.0:9725",
        "metrics --listen 9725",
    ] {
        seen.run(&device, line);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut device = device;
    device.names.push((taken.local_addr().unwrap().port().to_string(), "[port]".to_owned()));
    seen.run(&device, &format!("metrics --listen {}", taken.local_addr().unwrap()));
    seen.run(&device, "restore missing/../list.txt");
}

/// What listens at the socket is a program that does not know what it is asked.
fn beside_another_program(seen: &mut Seen) {
    let device = with_data();
    let socket = device.path("home/kinfold.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming().map(Result::unwrap) {
                let mut asked = String::new();
                let mut lines = BufReader::new(&stream);
                while !asked.ends_with("\r\n\r\n") {
                    if lines.read_line(&mut asked).unwrap() == 0 {
                        return;
                    }
                }
                let headers = asked.to_lowercase();
                let length =
                    headers.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
                lines.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
                (&stream).write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\nwhat else").unwrap();
            }
        });
        for line in [
            "status",
            "folder offers",
            "conflicts list",
            "inbox",
            "log",
            "events",
            "metrics",
            "wait",
            "folder scan data",
            "folder release data",
            "folder set data history_days=7",
        ] {
            seen.run(&device, line);
        }
        // Says nothing, which ends it.
        drop(UnixStream::connect(&socket).unwrap());
    });
}

fn starting(seen: &mut Seen) {
    let device = Device::bare();
    seen.run(&device, "serve");
    let device = with_a_mistake();
    seen.run(&device, "serve");
    seen.run(&device, "up data");
    seen.run(&device, "pair --yes data");
    let mut device = with_data();
    write(&device.path("file"), "");
    seen.run(&device, "serve --log loud");
    seen.run(&device, "serve data");
    seen.run(&device, "up file");
    seen.run(&device, "up a/b");
    seen.run(&device, "up data/below");
    seen.run(&device, "up one two");
    seen.run(&device, "pair data");
    seen.run(&device, "pair --yes file");
    seen.run(&device, "pair --yes a/b");
    seen.run(&device, "pair --yes photo music");
    seen.run(&device, "pair --yes 7-velvvt-island --at 127.0.0.1:9");
    seen.run(&device, "pair --yes data --at 127.0.0.1");
    seen.run(&device, "pair --yes 7-velvet-island --at nas.local");
    seen.run(&device, "pair --yes 7-zoo-zoo --at 127.0.0.1:9");
    seen.run(&device, "pair --yes kinfold:pair/KIN1QQQ");
    seen.run(&device, "pair --yes data --right king");
    seen.given(&device, "pair --yes -", "kinfold:pair/KIN1QQQ\n");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    device.names.push((address.clone(), "[address]".to_owned()));
    write(&device.path("home/config.toml"), &format!("name = \"desk\"\n[network]\nlisten = [\"{address}\"]\n"));
    seen.run(&device, "serve --log error");
    let locked = Device::new();
    seen.given(&locked, "key lock --stdin", "correct horse battery\n");
    seen.runs.pop();
    for line in ["serve", "up"] {
        seen.run(&locked, line);
    }
    seen.run(&locked, "serve --passphrase-file missing");
}

fn services(seen: &mut Seen) {
    let device = Device::bare();
    let path = format!("{}:/usr/bin:/bin", device.path("bin").display());
    let run = |seen: &mut Seen, line: &str| {
        seen.with(&device, line, |command| {
            command.env_remove("KINFOLD_HOME").env("PATH", &path);
        });
    };
    let nothing = |seen: &mut Seen, line: &str| {
        seen.with(&device, line, |command| {
            command.env_remove("KINFOLD_HOME").env("PATH", device.path("none"));
        });
    };
    for line in ["service install", "service status", "service uninstall"] {
        nothing(seen, line);
    }
    with_systemctl(&device, "case \"$*\" in *is-active*) echo active;; *is-enabled*) echo enabled;; esac");
    run(seen, "service install");
    run(seen, "service status");
    run(seen, "service uninstall");
    run(seen, "service uninstall");
    run(seen, "service install --system a/b");
    run(seen, "service status --system");
    run(seen, "service status --system a/b");
    run(seen, "service uninstall --system a/b");
    run(seen, "service status nas");
    run(seen, "service uninstall nas");
    seen.run(&device, "service install --system alice");
    with_systemctl(
        &device,
        "case \"$*\" in *version) exit 0;; *) echo 'Failed to connect to bus: No medium found' >&2; exit 1;; esac",
    );
    run(seen, "service install");
    run(seen, "service status");
    run(seen, "service uninstall");
    write(&device.path("file"), "");
    run(seen, "service install --to file");
}

fn doctor(seen: &mut Seen) {
    let device = Device::new();
    // No port that another program may have.
    fs::write(device.path("home/config.toml"), "name = \"desk\"\n[network]\nlisten = [\"127.0.0.1:0\"]\n").unwrap();
    device.make("data");
    device.ok(&["folder", "add", "data", "--name", "data"]);
    // What the machine itself brings along is left out.
    let own = |text: &str| {
        let of_machine = ["address", "watched", "clock", "thief", "firewall", "sysctl", "encrypt", "sudo"];
        text.lines().filter(|line| !of_machine.iter().any(|what| line.contains(what))).collect::<Vec<_>>().join("\n")
            + "\n"
    };
    seen.part(&device, "doctor", own);
    fs::remove_dir_all(device.path("data")).unwrap();
    seen.part(&device, "doctor", own);
    let device = with_a_mistake();
    seen.part(&device, "doctor", own);
    seen.run(&device, "doctor data");
    seen.full(&device, "doctor");
    let deep = "d".repeat(100);
    seen.run(&device, &format!("--home /{deep} doctor"));
}

fn coming_from_elsewhere(seen: &mut Seen) {
    let device = Device::new();
    fs::create_dir_all(device.path("photos/.stfolder")).unwrap();
    let path = device.path("photos").display().to_string();
    let config =
        format!(r#"<configuration version="37"><folder id="a" label="Photos" path="{path}"/></configuration>"#);
    write(&device.path("config.xml"), &config);
    write(&device.path("page.html"), "<html></html>");
    write(&device.path("notes.txt"), "no XML at all");
    fs::write(device.path("photo.jpg"), [0xff, 0xd8, 0xff]).unwrap();
    seen.run(&device, "import syncthing config.xml --dry-run");
    seen.run(&device, "import syncthing config.xml");
    seen.run(&device, "import syncthing config.xml");
    seen.run(&device, "import syncthing missing.xml");
    seen.run(&device, "import syncthing photos");
    seen.run(&device, "import syncthing page.html");
    seen.run(&device, "import syncthing notes.txt");
    seen.run(&device, "import syncthing photo.jpg");
    seen.run(&device, "import syncthing");
    seen.run(&Device::bare(), &format!("import syncthing {}", device.path("config.xml").display()));
    let run = seen.runs.last_mut().unwrap();
    run.line = device.stable(&run.line);
}

fn printing(seen: &mut Seen) {
    let device = Device::bare();
    let lines = |text: &str| format!("[{} lines]\n", if text.lines().count() > 100 { "many" } else { "few" });
    seen.part(&device, "completions bash", lines);
    seen.run(&device, "completions tcsh");
    seen.run(&device, "completions");
    seen.full(&device, "completions fish");
    seen.part(&device, "schema", lines);
    seen.run(&device, "schema status");
    seen.run(&device, "schema --json");
    seen.full(&device, "schema");
    write(&device.path("file"), "");
    seen.run(&device, "man pages");
    assert!(device.path("pages/kinfold-folder-add.1").is_file());
    seen.run(&device, "man");
    seen.run(&device, "man file");
    seen.run(&device, "man file/below");
}

/// What it does is looked at elsewhere; here it runs through, and ends in the ways that its place can have it end.
fn demo(seen: &mut Seen) {
    let device = Device::bare();
    let titles = |text: &str| {
        let titles = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        titles.map(|line| format!("{line}\n")).collect()
    };
    seen.part(&device, "demo --yes", titles);
    seen.run(&device, "demo --yes quickly");
    seen.with(&device, "demo --yes", |command| {
        command.env("TMPDIR", device.path("missing"));
    });
    let run = seen.runs.last_mut().unwrap();
    run.stderr = without_random_name(&run.stderr);
    let deep = device.make(&"d".repeat(100));
    seen.with(&device, "demo --yes", |command| {
        command.env("TMPDIR", deep);
    });
    let run = seen.runs.last_mut().unwrap();
    run.stderr = without_random_name(&run.stderr);
    seen.full(&device, "demo --yes");
}

fn without_random_name(text: &str) -> String {
    let Some((before, after)) = text.split_once("kinfold-demo-") else { return text.to_owned() };
    format!("{before}kinfold-demo-[random]{}", after.trim_start_matches(|c: char| c.is_ascii_alphanumeric()))
}
