//! `kinfold service`, against a service manager that answers as the test wants.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command as Process, Stdio};

use crate::Device;

/// Puts a program called `systemctl` first in the path, which notes what it is asked.
pub fn with_systemctl(device: &Device, script: &str) {
    let dir = device.make("bin");
    let text = format!("#!/bin/sh\necho \"$*\" >> {dir}/asked\n{script}\n");
    fs::write(format!("{dir}/systemctl"), text).unwrap();
    fs::set_permissions(format!("{dir}/systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn asked(device: &Device) -> Vec<String> {
    let text = fs::read_to_string(device.path("bin/asked")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Runs a command in a home of its own; what it prints of this program's path is `[kinfold]`.
fn service(device: &Device, args: &[&str]) -> String {
    let mut command = device.command(&[&["service"], args].concat());
    let path = format!("{}:/usr/bin:/bin", device.path("bin").display());
    command.env_remove("KINFOLD_HOME").env("PATH", path);
    let output = command.output().unwrap();
    let text = format!(
        "exit {}\n{}{}",
        output.status.code().unwrap(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    device.stable(&text)
}

const UNIT: &str = "user/.config/systemd/user/kinfold.service";

#[test]
fn a_service_is_installed_shown_and_taken_away() {
    let device = Device::bare();
    with_systemctl(&device, "case \"$*\" in *is-active*) echo active;; *is-enabled*) echo enabled;; esac");
    insta::assert_snapshot!(service(&device, &["install"]), @r#"
    exit 0
    wrote [dir]/user/.config/systemd/user/kinfold.service
    kinfold.service runs, and will be started again
    it ends when you log out; `loginctl enable-linger` keeps it running
    "#);
    assert_eq!(
        asked(&device),
        ["--user --version", "--user daemon-reload", "--user enable kinfold.service", "--user restart kinfold.service"]
    );
    let unit = fs::read_to_string(device.path(UNIT)).unwrap();
    let packaged = fs::read_to_string("packaging/systemd/kinfold.service").unwrap();
    let program = format!("ExecStart={} serve", env!("CARGO_BIN_EXE_kinfold"));
    assert_eq!(unit, packaged.replace("ExecStart=/usr/bin/kinfold serve", &program));

    insta::assert_snapshot!(service(&device, &["status"]), @r#"
    exit 0
    kinfold.service: active
      unit      is [dir]/user/.config/systemd/user/kinfold.service
      started   by the system
    "#);
    let json: serde_json::Value =
        serde_json::from_str(service(&device, &["status", "--json"]).trim_start_matches("exit 0\n")).unwrap();
    assert_eq!((&json["installed"], &json["enabled"], &json["active"]), (&true.into(), &true.into(), &true.into()));

    insta::assert_snapshot!(service(&device, &["uninstall"]), @r#"
    exit 0
    kinfold.service is stopped and will not be started again
    "#);
    assert!(!device.path(UNIT).exists());
    assert!(asked(&device).contains(&"--user disable --now kinfold.service".to_owned()));
    // Twice does no harm.
    insta::assert_snapshot!(service(&device, &["uninstall"]), @r#"
    exit 0
    kinfold.service was not installed here ([dir]/user/.config/systemd/user/kinfold.service)
    "#);
}

#[test]
fn what_is_wrong_with_a_service_is_said() {
    let device = Device::bare();
    // No systemd at all; nothing is left behind.
    let mut command = device.command(&["service", "install"]);
    let output = command.env("PATH", device.path("bin")).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(stderr, @r#"
    error: there is no systemd here (no `systemctl`)
    hint: have whatever starts programs on this system run `kinfold serve`
    "#);
    assert!(!device.path(UNIT).exists());

    // Nobody is logged in: the unit is written, and half of it is not done.
    with_systemctl(
        &device,
        "case \"$*\" in *version) exit 0;; *) echo 'Failed to connect to bus: No medium found' >&2; exit 1;; esac",
    );
    insta::assert_snapshot!(service(&device, &["install"]), @r#"
    exit 1
    error: [dir]/user/.config/systemd/user/kinfold.service is written, but systemd did not take it: Failed to connect to bus: No medium found
    hint: correct that, and run this again; `kinfold service uninstall` takes the unit away
    "#);
    assert!(device.path(UNIT).exists());
    insta::assert_snapshot!(service(&device, &["status"]), @r#"
    exit 5
    kinfold.service: Failed to connect to bus: No medium found
      unit      is [dir]/user/.config/systemd/user/kinfold.service
      started   by nobody
      see       `journalctl --user -u kinfold.service`
    "#);
    insta::assert_snapshot!(service(&device, &["uninstall"]), @r#"
    exit 1
    error: the service could not be stopped: Failed to connect to bus: No medium found
    hint: correct that, and run this again
    "#);

    // The unit is there, and what it starts ends at once.
    with_systemctl(&device, "case \"$*\" in *restart*) echo 'Job for kinfold.service failed.' >&2; exit 1;; esac");
    insta::assert_snapshot!(service(&device, &["install"]), @r#"
    exit 1
    error: the service does not start: Job for kinfold.service failed.
    hint: `journalctl --user -u kinfold.service` says why
    "#);

    // A directory that cannot be made.
    fs::remove_file(device.path(UNIT)).unwrap();
    fs::remove_dir_all(device.path("user/.config")).unwrap();
    fs::write(device.path("user/.config"), "a file").unwrap();
    insta::assert_snapshot!(service(&device, &["install"]), @r#"
    exit 1
    error: cannot write [dir]/user/.config/systemd/user/kinfold.service: Not a directory (os error 20)
    hint: make the directory writable, or write the unit elsewhere with --to DIR
    "#);
    insta::assert_snapshot!(service(&device, &["install", "--system", "a/b"]), @r#"
    exit 2
    error: invalid value 'a/b' for '--system <USER>': a user name has letters, digits, `_`, `-` and `.`

    For more information, try '--help'.
    "#);
}

#[test]
fn a_unit_is_only_written_where_a_package_wants_it() {
    let device = Device::bare();
    let dir = device.make("package");
    for (args, name) in [(&["install"][..], "kinfold.service"), (&["install", "--system", "alice"], "kinfold@.service")]
    {
        let said = service(&device, &[args, &["--to", &dir]].concat());
        assert_eq!(said, format!("exit 0\nwrote [dir]/package/{name}\n"));
        let unit = fs::read_to_string(device.path("package").join(name)).unwrap();
        let packaged = fs::read_to_string(format!("packaging/systemd/{name}")).unwrap();
        let program = format!("ExecStart={} serve", env!("CARGO_BIN_EXE_kinfold"));
        assert_eq!(unit, packaged.replace("ExecStart=/usr/bin/kinfold serve", &program));
    }
    assert!(asked(&device).is_empty());
}

/// Runs `systemd-analyze` on the units as they are written for this very program; `None` where there is none.
fn analyze(device: &Device, args: &[&str], unit: &str) -> Option<String> {
    let runtime = device.make("runtime");
    let mut command = Process::new("systemd-analyze");
    command.args(args).arg(device.path("units").join(unit)).env("XDG_RUNTIME_DIR", runtime).env("SYSTEMD_PAGER", "");
    // The manual is not installed where it was only built.
    command.env("MANPATH", device.path("man")).stdin(Stdio::null());
    match command.output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some(String::from_utf8_lossy(&text).into_owned())
        }
        Err(error) => {
            assert!(std::env::var_os("KINFOLD_NEED_SYSTEMD").is_none(), "systemd-analyze: {error}");
            eprintln!("systemd-analyze is missing: the units were not checked");
            None
        }
    }
}

#[test]
fn the_units_are_sound_and_hardly_exposed() {
    let device = Device::bare();
    let dir = device.make("units");
    device.make("man/man1");
    device.ok(&["man", &device.path("man/man1").display().to_string()]);
    service(&device, &["install", "--to", &dir]);
    service(&device, &["install", "--system", "alice", "--to", &dir]);
    fs::copy(device.path("units/kinfold@.service"), device.path("units/kinfold@alice.service")).unwrap();
    for (whose, unit, exposure_max) in [("--user", "kinfold.service", 4.0), ("--system", "kinfold@alice.service", 1.5)]
    {
        let Some(verified) = analyze(&device, &["verify", whose], unit) else { return };
        let complaints: Vec<_> = verified.lines().filter(|line| line.contains("kinfold")).collect();
        assert!(complaints.is_empty(), "{complaints:?}");
        let rated = analyze(&device, &["security", "--offline=yes", "--no-pager", whose], unit).unwrap();
        let line =
            rated.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{rated}"));
        let exposure: f64 = line.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
        assert!(exposure <= exposure_max, "{line}");
    }
}
