//! A device that changes its key: the others go on trusting it, and what it was counts for nothing any more.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use kinfold::config::Config;
use kinfold::config::paths::Paths;
use kinfold::engine::session::succession::prove;
use kinfold::keys::identity::Identity;
use kinfold::model::id::DeviceId;
use kinfold::model::rights::Right;
use kinfold::net::dial::DialError;
use kinfold::wire::message::{Message, NextId};

use crate::lab::{AMPLE, DATA, Device, Lab, conflict_copies, wait_settled, wait_until};
use crate::puppet::{Puppet, Session, id_of};

fn config(device: &Device) -> Config {
    Config::load(&Paths::below(&device.home).unwrap()).unwrap()
}

fn unheard(device: &Device) -> Option<Vec<String>> {
    device.status().rotation.map(|rotation| rotation.unheard)
}

/// Waits until each is connected to all others, by the ids that these have now.
fn wait_all_connected(devices: &[&Device]) {
    for device in devices {
        for other in devices.iter().filter(|other| other.name != device.name) {
            wait_until(&format!("{} is connected to {} as it is now", device.name, other.name), || {
                let id = id_of(other);
                device.status_now().is_some_and(|s| s.peers.iter().any(|peer| peer.id == id && peer.connected))
            });
        }
    }
}

/// Something is written on each, and all have all of it, once.
fn goes_on(devices: &[&Device], word: &str) {
    for device in devices {
        device.write(&format!("{word}/by {}", device.name), format!("{word} {}", device.name));
        device.write("all write here", format!("{word} {}", device.name));
        let tree = wait_settled(devices);
        assert_eq!(conflict_copies(&tree), Vec::<&Path>::new(), "{word}");
    }
}

#[test]
fn a_device_that_rotates_its_key_waits_for_who_is_away_and_goes_on_without_a_pairing() {
    let lab = Lab::new();
    let devices = lab.three();
    let [a, b, c] = &devices;
    devices.iter().for_each(Device::serve);
    goes_on(&[a, b, c], "before");
    a.remove("before/by b");
    wait_settled(&[a, b, c]);
    c.stop();

    let former = id_of(a);
    fs::copy(a.home.join("state/identity"), lab.path("old key")).unwrap();
    let said = a.ok(&["key", "rotate"]);
    assert!(said.contains("the next id of this device is kin1"), "{said}");
    wait_until("b knows it", || unheard(a) == Some(vec!["c".to_owned()]));
    let next = config(b).device_named("a").unwrap().next.unwrap();
    assert!(said.contains(&next.to_string()));
    let shown = a.ok(&["key", "rotate", "--status"]);
    assert!(shown.contains("b  knows it") && shown.contains("c  does not know it yet"), "{shown}");
    assert!(a.ok(&["status"]).contains("the next id of this device waits for c"));
    // Until then it is who it was.
    goes_on(&[a, b], "meanwhile");
    a.kill9();
    a.serve();
    assert_eq!((id_of(a), unheard(a)), (former, Some(vec!["c".to_owned()])), "what b knows is not forgotten");

    c.serve();
    wait_until("a has its next key", || id_of(a) == next);
    wait_all_connected(&[a, b, c]);
    assert_eq!(unheard(a), None);
    goes_on(&[a, b, c], "after");
    assert!(!c.has("before/by b"), "what was deleted stays so");
    for device in [b, c] {
        let config = config(device);
        let known = config.device_named("a").unwrap();
        assert_eq!((known.id, known.next, &known.former[..]), (next, None, &[former][..]));
        let members = &config.folders[0].members;
        assert_eq!((members.right_of(&former), members.right_of(&next)), (None, Some(Right::Owner)));
        // Nobody becomes somebody else unseen: who had the former key could have done the same.
        let inbox = device.json(&["inbox"]).to_string();
        assert!(inbox.contains("the device a has another key since") && inbox.contains(&next.to_string()), "{inbox}");
    }
    // History calls it by its name, whoever it was then: on c one of its words of each time was overwritten by b.
    let history = c.json(&["history", &c.text("all write here")]);
    let by: Vec<_> = history.as_array().unwrap().iter().map(|entry| entry["device"].as_str().unwrap()).collect();
    assert!(by.iter().filter(|name| **name == "a").count() >= 2, "{history}");
    assert!(by.iter().all(|name| ["a", "b", "c"].contains(name)), "{history}");
    assert_eq!(config(b).folders[0].members, config(c).folders[0].members);
    assert_eq!(config(a).folders[0].members, config(c).folders[0].members);

    // Whoever has the old key is a stranger.
    let thief = Puppet::open(&lab.path("old key"));
    assert_eq!(thief.id(), former);
    for device in [b, c] {
        let error = thief.dial(id_of(device), device.address).expect_err("it is not let in");
        assert!(matches!(error, DialError::NoAnswer { .. }), "{error:?}");
    }

    // All of it is written down.
    for device in &devices {
        device.stop();
        device.serve();
    }
    wait_all_connected(&[a, b, c]);
    goes_on(&[a, b, c], "again");
    assert_eq!(a.ok(&["key", "rotate", "--status"]).trim(), "no change of the key is under way");
}

#[test]
fn all_rotate_their_keys_at_once_and_meet_again() {
    let lab = Lab::new();
    let devices = lab.three();
    let all: Vec<_> = devices.iter().collect();
    devices.iter().for_each(Device::serve);
    goes_on(&all, "before");
    let former: Vec<_> = devices.iter().map(id_of).collect();
    for device in &devices {
        device.ok(&["key", "rotate"]);
    }
    for (device, former) in devices.iter().zip(&former) {
        wait_until("it has its next key", || id_of(device) != *former);
    }
    wait_all_connected(&all);
    goes_on(&all, "after");
}

#[test]
fn a_rotation_is_given_up_or_forced_and_who_did_not_know_is_named() {
    let lab = Lab::new();
    let devices = lab.three();
    let [a, b, c] = &devices;
    devices.iter().for_each(Device::serve);
    goes_on(&[a, b, c], "before");
    c.stop();
    let former = id_of(a);
    a.ok(&["key", "rotate"]);
    wait_until("b knows it", || unheard(a) == Some(vec!["c".to_owned()]));
    let refused = a.cli(&["key", "rotate", "--now"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("would have to be paired again: c\n"), "{refused:?}");
    assert_eq!(id_of(a), former);
    let said = a.ok(&["key", "rotate", "--now", "--yes"]);
    assert!(said.contains("to be paired again: c\n"), "{said}");
    assert_ne!(id_of(a), former);
    wait_all_connected(&[a, b]);
    goes_on(&[a, b], "forced");

    // The third hears from b who the folder's members are, and does not take one for the other.
    c.serve();
    wait_all_connected(&[b, c]);
    let is_told = || c.ok(&["status"]).contains(&format!("{} belongs to it, but is not trusted here", id_of(a)));
    wait_until("c tells of it", is_told);
    assert!(!c.is_connected_to(a));
    c.ok(&["device", "remove", "a"]);
    c.trusts(a);
    wait_all_connected(&[a, b, c]);
    goes_on(&[a, b, c], "paired again");

    // What is given up is forgotten, there as well.
    c.stop();
    let present = id_of(a);
    a.ok(&["key", "rotate"]);
    let next = || config(b).device_named("a").unwrap().next;
    wait_until("b knows it", || next().is_some());
    a.ok(&["key", "rotate", "--cancel"]);
    wait_until("b knows it no longer", || next().is_none());
    assert_eq!((unheard(a), id_of(a)), (None, present));
    assert!(a.ok(&["key", "rotate", "--cancel"]).contains("no change"));
    goes_on(&[a, b], "given up");
}

#[test]
fn a_device_that_dies_while_it_takes_its_next_key_is_one_or_the_other() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    b.serve();
    a.serve();
    goes_on(&[&a, &b], "before");
    b.stop();
    a.ok(&["key", "rotate"]);
    let former = id_of(&a);
    let path = a.home.join("state/identity");
    let before = fs::read(&path).unwrap();
    // It may come to that before b has answered anybody here.
    b.start();
    wait_until_at_once(|| fs::read(&path).unwrap() != before);
    a.kill9();
    a.serve();
    assert_ne!(id_of(&a), former);
    wait_all_connected(&[&a, &b]);
    goes_on(&[&a, &b], "after");
    assert_eq!(config(&a).folders[0].members, config(&b).folders[0].members);

    // The command line does the same without a daemon; it dies right before each of its calls that change something.
    let can_trace = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stdout(Stdio::null()).status();
    if !can_trace.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("KINFOLD_NEED_STRACE").is_none(), "strace is missing, or may not trace");
        eprintln!("strace is missing, or may not trace: only one crash was tried");
        return;
    }
    a.stop();
    b.stop();
    for call in ["rename", "fsync", "unlink"] {
        for n in 1.. {
            let began = id_of(&a);
            // A crash may have left a change half done, which a start finishes.
            if dies_at(&a, call, n, &lab.path("trace")) {
                assert!(n < 40, "it dies at {call} for ever");
            } else {
                assert_ne!(id_of(&a), began, "it came to its end");
                break;
            }
        }
    }
    a.ok(&["key", "rotate", "--cancel"]);
    assert_eq!(config(&a).folders[0].members.right_of(&id_of(&a)), Some(Right::Owner));
    // Nobody was told of all that.
    b.ok(&["device", "remove", "a"]);
    b.trusts(&a);
    b.ok(&["folder", "share", DATA, "a"]);
    a.serve();
    b.serve();
    wait_all_connected(&[&a, &b]);
    goes_on(&[&a, &b], "after all");
}

/// Changes the key by a command that is killed at its n-th call of a kind. Returns whether it came to that.
fn dies_at(device: &Device, call: &str, n: usize, trace: &Path) -> bool {
    let plain = device.command(&["key", "rotate", "--now", "--yes"]);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(trace);
    command.arg(format!("-etrace={call}")).arg(format!("-einject={call}:signal=KILL:when={n}"));
    command.arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
    !command.output().unwrap().status.success()
}

/// As [`wait_until`], but without a pause.
fn wait_until_at_once(mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < AMPLE, "waited in vain");
    }
}

impl Session {
    /// Says a next id, and returns what of it was noted when all that was said has been heard.
    fn says(&mut self, next: Option<NextId>) -> Option<DeviceId> {
        self.say(&Message::NextId(next));
        self.say(&Message::Ping);
        self.reader.set_read_timeout(Some(AMPLE)).unwrap();
        let mut noted = None;
        loop {
            let frame = self.reader.read().unwrap();
            match Message::decode(frame.kind, &frame.header, &frame.body).unwrap() {
                Some(Message::NextNoted(id)) => noted = Some(id),
                Some(Message::Pong) => return noted,
                _ => {}
            }
        }
    }
}

#[test]
fn a_peer_that_lies_about_a_rotated_key_or_changes_it_all_the_time_gains_nothing() {
    let lab = Lab::new();
    let a = lab.device("a");
    a.ok(&["folder", "add", a.root_text(), "--name", DATA]);
    let (puppet, other, next) = (Puppet::new(&lab, "p"), Puppet::new(&lab, "o"), Puppet::new(&lab, "n"));
    for (name, puppet) in [("puppet", &puppet), ("other", &other)] {
        a.ok(&["device", "add", &puppet.id().to_string(), "--name", name]);
        a.ok(&["folder", "share", DATA, &format!("{name}:reader")]);
    }
    a.serve();
    let own = id_of(&a);
    let before = config(&a);
    let mut session = puppet.session(&a);
    let said = |key: &Identity, speaker: DeviceId, hearer: DeviceId| {
        let (id, shared) = (key.device_id(), key.agree(&own).unwrap());
        Some(NextId { id, proof: prove(&shared, &speaker, &id, &hearer) })
    };
    let true_word = said(next.identity(), puppet.id(), own).unwrap();
    let lies = [
        // The id of another device that is trusted, and that of the hearer.
        said(other.identity(), puppet.id(), own),
        Some(NextId { id: own, proof: [0; 32] }),
        // An id without its key; and one whose proof somebody else made, or was made for somebody else.
        Some(NextId { proof: [0; 32], ..true_word }),
        said(next.identity(), other.id(), own),
        said(next.identity(), puppet.id(), other.id()),
        // A key that is none.
        Some(NextId { id: DeviceId::from_public_key([0; 32]), proof: [0; 32] }),
        None,
    ];
    for lie in lies {
        assert_eq!(session.says(lie), None, "{lie:?}");
    }
    session.say(&Message::NextNoted(next.id()));
    assert_eq!(config(&a), before);

    assert_eq!(session.says(Some(true_word)), Some(next.id()));
    // Whoever says another one again and again is heard once a minute.
    let known = config(&a);
    for n in 0..200 {
        let many = Identity::create(&lab.path(&format!("k{n}"))).unwrap();
        assert_eq!(session.says(said(&many, puppet.id(), own)), None);
    }
    assert_eq!(config(&a), known);
    // Another device cannot have it as well.
    let mut others = other.session(&a);
    assert_eq!(others.says(said(next.identity(), other.id(), own)), None);

    // Once the next one was there, the former is nobody. Its rights are what they were.
    let _session = next.session(&a);
    wait_until("it is known by its next id", || config(&a).device_named("puppet").unwrap().id == next.id());
    let error = puppet.dial(own, a.address).expect_err("it is let in no longer");
    assert!(matches!(error, DialError::NoAnswer { .. }), "{error:?}");
    assert_eq!(config(&a).folders[0].members.right_of(&next.id()), Some(Right::Reader));
    // And by whichever id it is called lost, it is out.
    a.ok(&["device", "revoke", &puppet.id().to_string()]);
    assert!(config(&a).device_named("puppet").is_none());
    wait_until("it is out", || next.dial(own, a.address).is_err());
    assert!(a.runs());
}
