//! The tunnel as another implementation speaks it: `tests/noise/handshake.py`, written from the description of
//! the format, with other people's Noise, ciphers and ML-KEM.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kinfold::keys::identity::Identity;
use kinfold::model::id::DeviceId;
use serde_json::{Value, json};

use crate::lab::{Device, Lab, wait_until};

/// Returns a Python that has what the script needs: the one that `KINFOLD_PYTHON` names, or the system's.
///
/// Where there is none the tests say so and pass, unless `KINFOLD_NEED_PYTHON` is set.
fn python() -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("KINFOLD_PYTHON").unwrap_or_else(|| "python3".into()));
    let probe = Command::new(&python).args(["-c", "import blake3, cryptography, kyber_py, noise"]).output();
    let why = match probe {
        Ok(output) if output.status.success() => return Some(python),
        Ok(output) => String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned(),
        Err(error) => error.to_string(),
    };
    let needed = std::env::var_os("KINFOLD_NEED_PYTHON").is_some();
    assert!(!needed, "no Python with the packages of tests/noise/requirements.txt: {why}");
    eprintln!("skipped: {} lacks the packages of tests/noise/requirements.txt: {why}", python.display());
    None
}

/// Has the script dial a device, and returns what it found.
fn dial(python: &Path, identity: &Identity, peer: &Device, suite: &str, flip_prologue: bool) -> Value {
    let peer_id = DeviceId::parse(&peer.id()).unwrap();
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let order = json!({
        "private": hex(identity.private_key().as_slice()),
        "peer": hex(peer_id.as_bytes()),
        "address": [peer.address.ip().to_string(), peer.address.port()],
        "suite": suite,
        "flip_prologue": flip_prologue,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/noise/handshake.py");
    let mut command = Command::new(python);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(order.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n{}", peer.log_tail());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn another_implementation_of_the_handshake_is_served_and_with_one_bit_changed_gets_nothing() {
    let Some(python) = python() else {
        return;
    };
    let lab = Lab::new();
    let a = lab.device("a");
    let identity = Identity::create(&lab.path("other")).unwrap();
    a.ok(&["device", "add", &identity.device_id().to_string(), "--name", "other"]);
    a.serve();
    for suite in ["AESGCM", "ChaChaPoly"] {
        std::thread::scope(|scope| {
            let (python, identity, a) = (&python, &identity, &a);
            scope.spawn(move || {
                let served = dial(python, identity, a, suite, false);
                assert_eq!(served["name"], "a", "{suite}: {served}");
            });
            // The tag is right, so the gate lets it in; the rest of the message does not open.
            scope.spawn(move || {
                let refused = dial(python, identity, a, suite, true);
                assert_eq!(refused, json!({"answered": 0}), "{suite}");
            });
        });
        // Of two sessions with one device a daemon keeps one, so the next dials when this one is over.
        wait_until("the session is over", || !a.status().peers[0].connected);
    }
}
