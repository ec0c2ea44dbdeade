//! `kinfold key rotate` without a daemon: the files are changed all the same, and the devices are told by the next one.

use kinfold::config::Config;
use kinfold::config::paths::Paths;
use kinfold::model::rights::Right;

use crate::Device;

#[test]
fn a_device_that_is_alone_has_another_key_at_once() {
    let device = Device::new();
    device.ok(&["folder", "add", &device.make("data"), "--name", "data"]);
    sees!(device, ["key", "rotate", "--status"], @r#"
    exit 0
    --- stdout
    no change of the key is under way
    "#);
    assert_eq!(device.ok(&["key", "rotate", "--status", "--json"]).trim(), "null");
    let former = device.ok(&["id"]);
    let said = device.ok(&["key", "rotate"]);
    let now = device.ok(&["id"]);
    assert_ne!(now, former);
    assert_eq!(said, format!("this device is {} now\n", now.trim()));
    let config = Config::load(&Paths::below(&device.path("home")).unwrap()).unwrap();
    assert_eq!(config.former.iter().map(ToString::to_string).collect::<Vec<_>>(), [former.trim()]);
    let members = &config.folders[0].members;
    let rights: Vec<_> = members.lines().iter().map(|line| (line.device.to_string(), line.right)).collect();
    assert!(rights.contains(&(now.trim().to_owned(), Some(Right::Owner))));
    assert!(rights.contains(&(former.trim().to_owned(), None)));
    // The folder is its own, as before.
    device.ok(&["device", "add", &crate::laptop(), "--name", "laptop"]);
    device.ok(&["folder", "share", "data", "laptop"]);
}

#[test]
fn who_would_have_to_be_paired_again_is_said_before_anything_is_done() {
    let device = Device::with_laptop();
    let said = device.ok(&["key", "rotate"]);
    assert!(said.starts_with("the next id of this device is kin1"), "{said}");
    assert_eq!(device.ok(&["key", "rotate"]), said, "it is the same");
    let status =
        serde_json::from_str::<serde_json::Value>(&device.ok(&["key", "rotate", "--status", "--json"])).unwrap();
    assert_eq!(status["unheard"], serde_json::json!(["laptop"]));
    assert!(said.contains(status["next"].as_str().unwrap()));
    sees!(device, ["key", "rotate", "--now"], @r#"
    exit 1
    --- stderr
    error: these devices do not know the next id, and would have to be paired again: laptop
    hint: connect them first, or add --yes
    "#);
    sees!(device, ["id"], @r#"
    exit 0
    --- stdout
    [id]
    "#);
    sees!(device, ["key", "rotate", "--cancel"], @r#"
    exit 0
    --- stdout
    this device stays who it is; the devices that know of the next id are told so
    "#);
    sees!(device, ["key", "rotate", "--cancel"], @r#"
    exit 0
    --- stdout
    no change of the key is under way
    "#);
    let said = device.ok(&["key", "rotate", "--now", "--yes"]);
    let id = device.ok(&["id"]);
    assert_eq!(said, format!("this device is {} now\nto be paired again: laptop\n", id.trim()));
}

#[test]
fn a_next_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let device = Device::with_laptop();
    device.ok(&["key", "rotate"]);
    let next = device.path("home/state/identity.next");
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o644)).unwrap();
    for args in [&["key", "rotate"][..], &["key", "rotate", "--now", "--yes"]] {
        let seen = device.run(args);
        assert!(seen.starts_with("exit 1") && seen.contains("others can read it\nhint: run `chmod 600"), "{seen}");
    }
}

#[test]
fn a_locked_identity_stays_locked_by_its_passphrase_which_stays_as_it_is_meanwhile() {
    let device = Device::with_laptop();
    let with = |text: &str, args: &[&str]| {
        let output = device.command(args).write_stdin(text).output().unwrap();
        let seen = [&output.stdout[..], &output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(seen).unwrap())
    };
    let lock = with("correct horse battery\n", &["key", "lock", "--stdin"]);
    assert_eq!(lock.0, 0, "{lock:?}");
    sees!(device, ["key", "rotate"], @r#"
    exit 2
    --- stderr
    error: nobody is here to be asked for a passphrase
    hint: run it on a terminal, or give the passphrase in the standard input and add --stdin
    "#);
    let wrong = with("another horse\n", &["key", "rotate", "--stdin"]);
    assert!(wrong.0 == 6 && wrong.1.contains("the passphrase is wrong"), "{wrong:?}");
    let begun = with("correct horse battery\n", &["key", "rotate", "--stdin"]);
    assert!(begun.0 == 0 && begun.1.starts_with("the next id of this device is kin1"), "{begun:?}");
    for args in [["key", "change", "--stdin"], ["key", "unlock", "--stdin"]] {
        let refused = with("correct horse battery\nanother one, as long\n", &args);
        assert!(
            refused.0 == 1 && refused.1.contains("error: the key of this device is being changed\n"),
            "{refused:?}"
        );
    }
    // What was begun needs it no second time.
    let taken = device.ok(&["key", "rotate", "--now", "--yes"]);
    assert!(taken.contains(&format!("this device is {} now", device.ok(&["id"]).trim())), "{taken}");
    assert!(device.ok(&["key", "status"]).contains("with a passphrase"));
    let unlocked = with("correct horse battery\n", &["key", "unlock", "--stdin"]);
    assert_eq!(unlocked.0, 0, "{unlocked:?}");
}
