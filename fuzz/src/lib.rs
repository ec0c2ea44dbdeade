//! What is fuzzed: one function a target, which takes any bytes and must neither panic nor find its promise broken.
//!
//! `cargo +nightly fuzz run TARGET` plays one for as long as one likes; `tests/fuzz.rs` plays all of them for a moment,
//! from the seeds in `seeds/` and with bytes of its own.

#![allow(clippy::unwrap_used, reason = "a promise that is broken must stop it")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use kinfold::config::paths::Paths;
use kinfold::config::{address, brake, load, merge as merge_setting, rate, size, subnet, windows};
use kinfold::disk::ignore::{Gitignores, Rules};
use kinfold::disk::root::Root;
use kinfold::engine::chunk::VerifiedChunk;
use kinfold::engine::effect::{CommitOutcome, ScanEnd, ScanItem};
use kinfold::engine::folder::{Folder, Input, Now, Output, Params};
use kinfold::engine::memory_index::MemoryIndex;
use kinfold::engine::merge::{self as text, MergeError};
use kinfold::engine::pairing::{self as pair, Host, Joiner, Own, Secret, SecretKind};
use kinfold::engine::session::beacon;
use kinfold::engine::session::gate::{Gate, PairKeys, TAG_LEN};
use kinfold::engine::session::handshake::{Initiator, Local, Responder, Versions};
use kinfold::engine::session::record;
use kinfold::engine::session::suite::Suite;
use kinfold::keys::fingerprint::fingerprint_words;
use kinfold::keys::invite::Invite;
use kinfold::model::id::{ContentId, DeviceId, FolderId, Incarnation, Sequence};
use kinfold::model::limits;
use kinfold::model::path::RelPath;
use kinfold::model::record::FileBody;
use kinfold::model::rights::{Members, Right};
use kinfold::net::crypto::SystemPrimitives;
use kinfold::net::discovery;
use kinfold::net::frame::FrameDecoder;
use kinfold::wire::message::{ChunkHeader, FolderHello, Message};
use kinfold::wire::pairing::PairingMessage;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A target: its name, and what is done with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("frame", frame),
    ("message", message),
    ("path", path),
    ("ignore", ignore),
    ("config", config),
    ("device_id", device_id),
    ("handshake", handshake),
    ("records", records),
    ("folder", folder),
    ("invite", invite),
    ("pairing", pairing),
    ("beacon", beacon),
    ("merge", merge),
];

/// Takes the first byte, or zero.
fn first(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// The decoder of frames, fed in pieces: it gives back no more than it was given.
pub fn frame(data: &[u8]) {
    let (len, data) = first(data);
    let mut decoder = FrameDecoder::default();
    let mut got = 0;
    for mut piece in data.chunks(usize::from(len).max(1)) {
        while !piece.is_empty() {
            match decoder.decode(&mut piece) {
                Ok(Some(frame)) => {
                    got += frame.header.len() + frame.body.len();
                    decoder.recycle(frame);
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }
    assert!(got <= data.len());
}

/// Cuts a message out of bytes: its kind, the lengths of its header and its body, and these.
fn cut<'a>(data: &mut &'a [u8]) -> Option<(u8, &'a [u8], &'a [u8])> {
    let ([kind, a, b, c, d], rest) = data.split_first_chunk()?;
    let len = |low: u8, high: u8| usize::from(u16::from_le_bytes([low, high]));
    let (header, rest) = rest.split_at(len(*a, *b).min(rest.len()));
    let (body, rest) = rest.split_at(len(*c, *d).min(rest.len()));
    *data = rest;
    Some((*kind, header, body))
}

/// The decoder of messages: what it lets through is within its bounds and is written and read as the same.
pub fn message(mut data: &[u8]) {
    while let Some((kind, header, body)) = cut(&mut data) {
        let Ok(Some(message)) = Message::decode(kind, header, body) else { continue };
        let (header, body) = message.encode();
        assert_eq!(Message::decode(message.kind(), &header, &body).unwrap(), Some(message));
    }
}

/// Paths from peers and disks: what is one never leads out of the folder.
pub fn path(data: &[u8]) {
    let Ok(path) = RelPath::parse(data) else { return };
    assert_eq!(path.as_bytes(), data);
    let names = data.split(|byte| *byte == b'/');
    assert!(names.clone().all(|name| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0)));
    assert!(names.clone().all(|name| name.len() <= 255) && data.len() <= limits::PATH_LEN_MAX);
    assert!(!path.to_string().chars().any(char::is_control), "a terminal would be told what to do");
    let mut dirs: Vec<_> = path.ancestors().collect();
    assert_eq!(dirs.len(), names.count() - 1);
    dirs.insert(0, path.clone());
    for pair in dirs.windows(2) {
        assert!(pair[0].is_below(&pair[1]) && pair[0] > pair[1] && pair[0].parent().as_ref() == Some(&pair[1]));
    }
}

thread_local! {
    static FOLDER: RefCell<Option<(tempfile::TempDir, Root)>> = const { RefCell::new(None) };
}

/// Rules of what is left out: the first line is the path that is asked for, the rest the rules.
pub fn ignore(data: &[u8]) {
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(path) = RelPath::parse(&data[..line]) else { return };
    FOLDER.with_borrow_mut(|folder| {
        let (dir, root) = folder.get_or_insert_with(|| {
            let dir = tempfile::tempdir().unwrap();
            let root = Root::create(&dir.path().join("folder"), FolderId([1; 16])).unwrap();
            (dir, root)
        });
        std::fs::write(dir.path().join("folder/.kinfoldignore"), &data[line..]).unwrap();
        let rules = Rules::new(Gitignores::Honoured);
        // Rules that cannot be read leave out nothing and everything: they are an error.
        let Ok(is_ignored) = rules.is_ignored(root, &path, false) else { return };
        let above = path.ancestors().any(|dir| rules.is_ignored(root, &dir, true).unwrap());
        assert!(is_ignored || !above, "what is in a directory that is left out counts");
    });
}

/// The configuration, and what a person types as a value of it.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let paths = Paths::below(std::path::Path::new("/nowhere/at/all")).unwrap();
    drop(load::parse(&text, &paths));
    drop(address::parse_listen(&text));
    drop(address::parse_device(&text));
    drop(brake::parse(&text));
    drop(size::HistorySize::parse(&text));
    drop(merge_setting::parse(&text));
    if let Ok(Some(rate)) = rate::Rate::parse(&text) {
        assert_eq!(rate::Rate::parse(&rate.to_string()), Ok(Some(rate)));
    }
    let mut windows = windows::Windows::default();
    let now = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
    if windows.add(&text).is_ok() {
        assert!(
            windows.is_open(&now) || windows.opens(&now).is_some_and(|opens| opens > now && windows.is_open(&opens))
        );
    }
    if let Ok(subnet) = subnet::Subnet::parse(&text) {
        assert!(subnet.contains(subnet.first()));
    }
}

/// Device ids, as people paste them.
pub fn device_id(data: &[u8]) {
    let Ok(id) = DeviceId::parse(&String::from_utf8_lossy(data)) else { return };
    assert_eq!(DeviceId::parse(&id.to_string()).unwrap(), id);
    assert_eq!(fingerprint_words(&id).split_whitespace().count(), 8);
}

/// A device whose key is a hash of its number.
struct Device {
    local: Local,
    secret: StaticSecret,
}

impl Device {
    fn new(n: u8) -> Self {
        let secret = StaticSecret::from(*blake3::hash(&[n]).as_bytes());
        let device = DeviceId::from_public_key(PublicKey::from(&secret).to_bytes());
        let private = Zeroizing::new(secret.to_bytes());
        Self { local: Local { device, private, versions: Versions::OURS, has_aes: true }, secret }
    }

    fn keys_with(&self, peer: &Self) -> PairKeys {
        let theirs = PublicKey::from(*peer.local.device.as_bytes());
        PairKeys::derive(self.secret.diffie_hellman(&theirs).as_bytes())
    }
}

/// Each message of the handshake, from a stranger and from somebody who knows the secrets of the pair.
pub fn handshake(data: &[u8]) {
    let (which, data) = first(data);
    let (a, b) = (Device::new(1), Device::new(2));
    let suite = if which & 1 == 0 { Suite::AesGcm } else { Suite::ChaChaPoly };
    let mut gate = Gate::new(b.local.device);
    gate.trust(a.local.device, b.keys_with(&a)).unwrap();
    match which >> 1 & 3 {
        0 => assert!(gate.admit(data).is_err(), "a stranger has made a tag"),
        1 => {
            let tag = a.keys_with(&b).tag(&a.local.device, &b.local.device, suite, data);
            let message = [&tag[..], data].concat();
            assert_eq!(message.len(), TAG_LEN + data.len());
            let admission = gate.admit(&message).expect("its own tag");
            assert!(Responder::start(&b.local, admission, &SystemPrimitives).is_err(), "an ephemeral key was made up");
        }
        which => {
            let keys = a.keys_with(&b);
            let (initiator, first) =
                Initiator::start(&a.local, b.local.device, keys, suite, &SystemPrimitives).unwrap();
            if which == 2 {
                assert!(initiator.handle_second(data).is_err());
                return;
            }
            let admission = gate.admit(&first).unwrap();
            let (responder, _) = Responder::start(&b.local, admission, &SystemPrimitives).unwrap();
            assert!(responder.handle_last(data).is_err());
        }
    }
}

/// Records of a session: nothing that its other end did not seal is opened.
pub fn records(data: &[u8]) {
    let (a, b) = (Device::new(1), Device::new(2));
    let (initiator, first) =
        Initiator::start(&a.local, b.local.device, a.keys_with(&b), Suite::AesGcm, &SystemPrimitives).unwrap();
    let mut gate = Gate::new(b.local.device);
    gate.trust(a.local.device, b.keys_with(&a)).unwrap();
    let (responder, second) = Responder::start(&b.local, gate.admit(&first).unwrap(), &SystemPrimitives).unwrap();
    let (complete, last) = initiator.handle_second(&second).unwrap();
    let (_, mut opener) = record::split(responder.handle_last(&last).unwrap().transport);
    let (mut sealer, _) = record::split(complete.establish().unwrap().transport);
    let mut plain = vec![0; limits::NOISE_PAYLOAD_MAX];
    let mut sealed = vec![0; record::sealed_len(data.len())];
    let len = sealer.seal_into(data, &mut sealed).unwrap();
    // With one byte changed, anywhere, it does not open; nor do the bytes themselves.
    let (at, _) = number(data);
    sealed.truncate(len);
    if data.len() <= limits::NOISE_PAYLOAD_MAX && sealed.len() > record::RECORD_HEADER_LEN {
        let body = sealed.len() - record::RECORD_HEADER_LEN;
        sealed[record::RECORD_HEADER_LEN + at % body] ^= 1;
        assert!(opener.open(&sealed[record::RECORD_HEADER_LEN..], &mut plain).is_err());
    }
    assert!(opener.open(data, &mut plain).is_err());
}

/// Takes a number from the first two bytes.
fn number(data: &[u8]) -> (usize, &[u8]) {
    match data.split_first_chunk() {
        Some((number, rest)) => (usize::from(u16::from_le_bytes(*number)), rest),
        None => (0, data),
    }
}

/// A folder and a hostile peer, whose messages are the bytes. What the folder asks of the disk fails, or is done.
pub fn folder(mut data: &[u8]) {
    const FOLDER: FolderId = FolderId([7; 16]);
    let (own, peer) = (DeviceId::from_public_key([1; 32]), DeviceId::from_public_key([2; 32]));
    let params = Params {
        folder: FOLDER,
        device: own,
        rescan_interval: Duration::from_secs(3600),
        quiet: Duration::from_millis(10),
        patience: Duration::from_secs(1),
        brake: Some(kinfold::model::brake::Thresholds::default()),
        scrub: None,
        forget_after: Duration::from_secs(86_400),
        seed: [3; 32],
    };
    let mut folder = Folder::open(params, MemoryIndex::new(Incarnation(1)));
    let mut at = Duration::ZERO;
    let mut give = |folder: &mut Folder<MemoryIndex>, input: Option<Input>| {
        at += Duration::from_millis(700);
        let now = Now { at, wall_ns: i64::try_from(at.as_nanos()).unwrap() };
        if let Some(input) = input {
            folder.handle(now, input).unwrap();
        }
        folder.flush(now).unwrap();
        std::iter::from_fn(|| folder.poll_output()).collect::<Vec<_>>()
    };
    let mut outputs = give(&mut folder, None);
    let hello = FolderHello {
        folder: FOLDER,
        name: String::new(),
        holds: true,
        incarnation: Incarnation(9),
        life: kinfold::model::id::Life::default(),
        last: Sequence(0),
        received: None,
        members: Members::default(),
    };
    outputs.extend(give(&mut folder, Some(Input::PeerUp(peer, Right::Owner, hello))));
    // Somebody here waits for what the peer keeps of the past, and for one version of it.
    let now = Now { at: Duration::from_secs(2), wall_ns: 2_000_000_000 };
    folder.ask_history(now, peer, None);
    let body = FileBody { mode: 0o644, mtime_ns: 5, size: 20, content: ContentId([9; 32]) };
    folder.take_former(now, peer, &[(RelPath::parse(b"former").unwrap(), body)]);
    outputs.extend(give(&mut folder, None));
    let mut rounds = 0;
    loop {
        for output in std::mem::take(&mut outputs) {
            let input = match output {
                Output::Scan(job, _) => {
                    outputs.extend(give(&mut folder, Some(Input::Scanned(job, Vec::<ScanItem>::new()))));
                    Input::ScanEnded(job, ScanEnd::Complete)
                }
                Output::Commit(items) => Input::Committed(vec![CommitOutcome::Mismatch; items.len()]),
                Output::Assemble(plan) => {
                    let missing = (0..u32::try_from(plan.recipe.chunks().len()).unwrap()).collect();
                    Input::Assembled(plan.stage, kinfold::engine::effect::AssembleOutcome::Staged { missing })
                }
                Output::Stage(stage, number, ..) => Input::Staged(stage, number, Ok(())),
                Output::Rechunk(stage, _) => Input::Rechunked(stage, Ok(None)),
                Output::Taken(_, taken) => {
                    assert!(taken.is_err(), "what it was called was never sent");
                    continue;
                }
                Output::Misbehaved(..) => return,
                _ => continue,
            };
            outputs.extend(give(&mut folder, Some(input)));
        }
        rounds += 1;
        let next = if rounds > 64 { None } else { cut(&mut data) };
        let Some((kind, header, body)) = next else { break };
        let input = match Message::decode(kind, header, body) {
            Ok(Some(Message::Chunk(ChunkHeader { request, item, chunk }))) => {
                Input::Chunk(peer, ChunkHeader { request, item, chunk }, VerifiedChunk::hash(body.to_vec()))
            }
            Ok(Some(message)) => Input::Message(peer, message),
            _ => Input::Touched(BTreeMap::new()),
        };
        outputs.extend(give(&mut folder, Some(input)));
    }
    let held = kinfold::engine::index::Index::totals(folder.index()).unwrap();
    // Nothing was ever done to the disk, so nothing but directories' and deletions' records can be held.
    assert_eq!(held.files, 0);
    folder.status().unwrap();
}

/// Codes and links, as people type and paste them.
pub fn invite(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(invite) = text.parse::<Invite>() else { return };
    let written = match &invite {
        Invite::Code(code) => code.to_string(),
        Invite::Link(link) => link.to_string(),
    };
    assert_eq!(written.parse(), Ok(invite));
}

/// Each message of a pairing from somebody who does not know the code, and what is said by somebody who does.
pub fn pairing(data: &[u8]) {
    let (which, data) = first(data);
    let own = |n| {
        let local = Device::new(n).local;
        Own { device: local.device, private: local.private }
    };
    let secret = |_| Secret::of_code("7-velvet-island");
    let start = |first: &_| Host::start(own(1), secret, first, &[1; 32]);
    match which & 3 {
        0 => {
            let message = padded::<{ pair::FIRST_LEN }>(data);
            if let Ok((host, _)) = start(&message) {
                let third = padded::<{ pair::THIRD_LEN }>(data.get(pair::FIRST_LEN..).unwrap_or_default());
                assert!(host.handle_third(&third, &SystemPrimitives).is_err(), "a code was guessed");
            }
        }
        1 => {
            let (joiner, _) = Joiner::start(own(2), &secret(SecretKind::Code), &[2; 32]);
            let second = padded::<{ pair::SECOND_LEN }>(data);
            if let Ok((joiner, _)) = joiner.handle_second(&second, &SystemPrimitives) {
                let fourth = padded::<{ pair::FOURTH_LEN }>(data.get(pair::SECOND_LEN..).unwrap_or_default());
                assert!(joiner.handle_fourth(&fourth).is_err(), "a code was guessed");
            }
        }
        _ => {
            if let Ok(message) = PairingMessage::decode(data) {
                assert_eq!(PairingMessage::decode(&message.encode()), Ok(message));
            }
        }
    }
}

/// Takes so many bytes, the missing ones as zeros.
fn padded<const LEN: usize>(data: &[u8]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let len = data.len().min(LEN);
    bytes[..len].copy_from_slice(&data[..len]);
    bytes
}

/// Beacons: what is no beacon is not read, and only what a trusted device has made names it.
pub fn beacon(data: &[u8]) {
    let (how, data) = first(data);
    let Some((name, mut rest)) = data.split_first_chunk::<{ beacon::NAME_LEN }>() else { return };
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut of_a, mut of_b) = (Gate::new(a.local.device), Gate::new(b.local.device));
    of_a.trust(b.local.device, a.keys_with(&b)).unwrap();
    of_b.trust(a.local.device, b.keys_with(&a)).unwrap();
    let mut strings = Vec::new();
    if how & 1 == 1 {
        // What the other device does show, and then what the bytes say.
        strings.push(beacon::tags(&of_b, name, 7, || [how; beacon::TAG_LEN]));
    }
    while let Some((len, tail)) = rest.split_first() {
        let (string, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        strings.push(string.to_vec());
        rest = tail;
    }
    let full_name = if how & 2 == 0 {
        let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        hex + "._kinfold._tcp.local."
    } else {
        String::from_utf8_lossy(data).into_owned()
    };
    let string = |key: &str| {
        let nth = key.bytes().next()?.checked_sub(b'a')?;
        strings.get(usize::from(nth)).map(Vec::as_slice)
    };
    let at = data.windows(6).map(|at| ([at[0], at[1], at[2], at[3]], u16::from_le_bytes([at[4], at[5]])).into());
    let Some(seen) = discovery::read(&full_name, string, at) else { return };
    assert!((1..=8).contains(&seen.addresses.len()));
    let shown_by = beacon::shown_by(&of_a, &seen.name, &seen.tags, 7);
    let is_its_own = how & 1 == 1 && seen.name == *name;
    assert!(shown_by.is_none() || is_its_own && shown_by == Some(b.local.device), "a tag was made up");
}

/// Three texts that a peer may have had a hand in: where only one side changed something, that is what comes out.
pub fn merge(data: &[u8]) {
    let (one, data) = number(data);
    let (other, data) = number(data);
    let (base, rest) = data.split_at(one % (data.len() + 1));
    let (one, other) = rest.split_at(other % (rest.len() + 1));
    let merged = text::merge(base, one, other);
    assert_eq!(merged.is_ok(), text::merge(base, other, one).is_ok());
    match merged {
        Ok(merged) => assert_eq!(text::merge(base, other, one), Ok(merged), "the order of the sides counts"),
        Err(MergeError::NotText) => return,
        Err(_) => {}
    }
    assert_eq!(text::merge(base, one, base).as_deref(), Ok(one));
    assert_eq!(text::merge(base, base, other).as_deref(), Ok(other));
    assert_eq!(text::merge(base, one, one).as_deref(), Ok(one));
}
