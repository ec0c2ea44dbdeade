//! A device that was lost: cut off everywhere, also where the word comes late and by others.

use crate::lab::{DATA, Device, Lab, wait_settled, wait_until};

fn trusts(device: &Device, name: &str) -> bool {
    device.json(&["device", "list"]).as_array().unwrap().iter().any(|row| row["name"] == name)
}

fn is_connected(device: &Device, name: &str) -> bool {
    device.status().peers.iter().any(|peer| peer.name == name && peer.connected)
}

/// Four devices that all trust each other and share a folder; `right` is what `b` may do in it.
fn four(lab: &Lab, right: &str) -> [Device; 4] {
    let devices = ["a", "b", "c", "phone"].map(|name| lab.device(name));
    for device in &devices {
        for other in devices.iter().filter(|other| other.name != device.name) {
            device.trusts(other);
        }
    }
    let [a, others @ ..] = &devices;
    let b = format!("b:{right}");
    a.ok(&["folder", "add", a.root_text(), "--name", DATA, "--share", &b, "--share", "c", "--share", "phone"]);
    for other in others {
        other.ok(&["folder", "accept", DATA, other.root_text(), "--from", "a"]);
    }
    devices
}

#[test]
fn a_device_that_is_revoked_is_out_everywhere_also_where_the_word_comes_late() {
    let lab = Lab::new();
    let devices = four(&lab, "owner");
    let [a, b, c, phone] = &devices;
    devices.iter().for_each(Device::serve);
    a.write("before", "before");
    wait_settled(&[a, b, c, phone]);
    c.stop();

    let said = a.ok(&["device", "revoke", "phone"]);
    assert!(said.contains("`phone` is revoked: cut off here"), "{said}");
    assert!(!trusts(a, "phone"));
    wait_until("its sessions are cut", || !is_connected(phone, "a") && !is_connected(phone, "b"));
    wait_until("b has heard of it", || !trusts(b, "phone"));
    let told = b.cli(&["inbox"]);
    assert!(
        told.code == 4 && told.stdout.contains("the device phone is trusted no longer: a says that it is lost"),
        "{told:?}"
    );

    // The third was off, and who has said it is now.
    a.stop();
    b.write("after", "after");
    c.serve();
    wait_until("c has heard of it from b", || !trusts(c, "phone"));
    wait_until("and goes on", || c.read("after").as_deref() == Some("after"));
    wait_until("nobody lets it in", || ["a", "b", "c"].iter().all(|name| !is_connected(phone, name)));
    assert!(!phone.has("after"));
    // It cannot speak for itself: what it says comes to nobody, and what it would say of itself counts nowhere.
    assert!(c.json(&["folder", "list"])[0]["members"].as_array().unwrap().iter().all(|m| m != "phone:owner"));

    // Who agrees is asked no longer.
    b.ok(&["device", "revoke", &phone.id()]);
    assert_eq!(b.cli(&["inbox"]).code, 0);
    // And who trusts it anew does so for itself alone.
    b.ok(&["device", "add", &phone.id(), "--name", "phone"]);
    assert!(trusts(b, "phone"));
    wait_until("c asks no longer", || c.cli(&["inbox"]).code == 0);
    assert!(!trusts(c, "phone"));
    c.ok(&["device", "add", &phone.id(), "--name", "phone"]);
    a.serve();
    wait_until("a knows that it is trusted again", || {
        std::fs::read_to_string(a.home.join("config.toml")).unwrap().contains("lifted = true")
    });
    assert!(!trusts(a, "phone") && trusts(b, "phone") && trusts(c, "phone"));
}

#[test]
fn who_owns_no_folder_revokes_nobody() {
    let lab = Lab::new();
    let devices = four(&lab, "writer");
    let [a, b, c, phone] = &devices;
    devices.iter().for_each(Device::serve);
    a.write("before", "before");
    wait_settled(&[a, b, c, phone]);
    b.ok(&["device", "revoke", "phone"]);
    b.write("after", "after");
    wait_until("a and c hear from b", || a.has("after") && c.has("after"));
    wait_until("phone gets it from them", || phone.has("after"));
    assert!(trusts(a, "phone") && trusts(c, "phone") && !trusts(b, "phone"));
    // Nobody revokes the one who hears it.
    let refused = a.cli(&["device", "revoke", &a.id()]);
    assert!(refused.code == 1 && refused.stderr.contains("this is the id of this device itself"), "{refused:?}");
    let unknown = a.cli(&["device", "revoke", "nobody"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("nobody"), "{unknown:?}");
}
