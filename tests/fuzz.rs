//! The fuzz targets, each for a moment: from the seeds in `fuzz/seeds/`, changed at random, and from nothing.
//!
//! `FUZZ_ROUNDS=n` plays n inputs of each instead of a few thousand; what fails is printed as bytes that can be given to
//! the fuzzer. `FUZZ_WRITE_SEEDS=1` writes the seeds that are made here anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use zeroize::Zeroizing;

use kinfold::engine::pairing::{Host, Joiner, Own, Secret};
use kinfold::model::id::{AuthorId, ChunkId, DeviceId, DeviceTag, FolderId, Sequence};
use kinfold::model::path::RelPath;
use kinfold::model::recipe::{ChunkRef, PageRef, Recipe};
use kinfold::model::record::{Body, FileBody, Record};
use kinfold::model::rights::Right;
use kinfold::model::version::VersionVector;
use kinfold::net::frame;
use kinfold::wire::message::{Ack, ChunkHeader, Message, NextId, Records, SentRecord};
use kinfold::wire::pairing::{Introduction, PairingMessage, SharedFolder};
use kinfold::wire::past::{Former, History, WantHistory};

fn seeds_dir(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

/// A small generator; the same everywhere (the splitmix64 step).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Changes an input in a few places, or makes one up.
    fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        if seeds.is_empty() || self.below(8) == 0 {
            let longest = if self.below(4) == 0 { 3000 } else { 60 };
            let len = self.below(longest);
            return (0..len).map(|_| self.next() as u8).collect();
        }
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..1 + self.below(4) {
            let at = self.below(input.len());
            match self.below(6) {
                0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
                1 if !input.is_empty() => input[at] = *[0, 1, 0x7f, 0x80, 0xff].get(self.below(5)).unwrap(),
                2 => input.truncate(at),
                3 => input.insert(at, self.next() as u8),
                4 => {
                    let other = &seeds[self.below(seeds.len())];
                    input.extend_from_slice(&other[self.below(other.len())..]);
                }
                _ if !input.is_empty() => drop(input.drain(at..(at + 1 + self.below(8)).min(input.len()))),
                _ => {}
            }
        }
        input
    }
}

/// Conversations of a peer that says nothing wrong.
fn messages() -> Vec<Vec<Message>> {
    let folder = FolderId([7; 16]);
    let rel = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
    let content = b"some bytes of a file".to_vec();
    let chunk = ChunkRef { id: ChunkId::of(&content), len: u32::try_from(content.len()).unwrap() };
    let recipe = Recipe::parse(vec![chunk]).unwrap();
    let file = FileBody { mode: 0o644, mtime_ns: -5, size: recipe.size(), content: recipe.content_id() };
    let record = |path: &str, n, body| Record {
        path: rel(path),
        version: VersionVector::parse(vec![(AuthorId(7), n), (AuthorId(9), 1)]).unwrap(),
        by: DeviceTag::of(&DeviceId::from_public_key([2; 32])),
        body,
    };
    let former = |path: &str, body| {
        let by = DeviceTag::of(&DeviceId::from_public_key([2; 32]));
        Former { path: rel(path), body, by, since_ns: -9, until_ns: 1_700_000_000_000_000_000 }
    };
    let said = |after, through, records| {
        let (after, through) = (Sequence(after), Sequence(through));
        Message::Records(Records { folder, after, through, more: false, records })
    };
    let plain = |record| SentRecord { record, recipe: None, content: None, left_out: false };
    let with_content = |record, is_inline: bool| SentRecord {
        record,
        recipe: is_inline.then(|| recipe.clone()),
        content: is_inline.then(|| content.clone()),
        left_out: false,
    };
    let ack = |received, last| {
        Message::Ack(Ack { folder, received: Sequence(received), last: Sequence(last), tree: [0; 32] })
    };
    vec![
        vec![
            said(
                0,
                2,
                vec![plain(record("d", 1, Body::Dir { mode: 0o755 })), plain(record("d/gone", 2, Body::Tombstone))],
            ),
            ack(0, 2),
            said(2, 3, vec![with_content(record("d/f", 3, Body::File(file)), true)]),
        ],
        vec![
            said(0, 1, vec![with_content(record("f", 1, Body::File(file)), false)]),
            Message::Recipe { request: 0x0707_0707_0000_0001, pages: vec![PageRef::of(&[chunk])] },
            Message::Page { request: 0x0707_0707_0000_0002, page: 0, chunks: vec![chunk] },
            Message::Chunk(ChunkHeader { request: 0x0707_0707_0000_0003, item: 0, chunk: 0 }),
            Message::Missing { request: 0x0707_0707_0000_0001, item: 0 },
        ],
        vec![
            said(0, 1, vec![plain(record("l", 1, Body::Symlink { target: (*b"../elsewhere").into() }))]),
            said(1, 2, vec![SentRecord { left_out: true, ..plain(Record::withdrawn(rel("l"), DeviceTag([1; 5]))) }]),
            ack(0, 2),
            Message::Ping,
        ],
        vec![
            Message::WantHistory(WantHistory { request: 1, folder, top: None, after: None }),
            Message::WantHistory(WantHistory {
                request: 2,
                folder,
                top: Some(rel("d")),
                after: Some((rel("d/f"), -7)),
            }),
            Message::History(History {
                request: 0x0707_0707_0000_0001,
                versions: vec![
                    former("d/f", Body::File(file)),
                    former("d/l", Body::Symlink { target: (*b"../f").into() }),
                ],
                more: true,
            }),
        ],
        vec![
            Message::NextId(Some(NextId { id: DeviceId::from_public_key([9; 32]), proof: [7; 32] })),
            Message::NextNoted(DeviceId::from_public_key([9; 32])),
            Message::NextId(None),
        ],
    ]
}

/// One message as the targets cut it out of their bytes.
fn with_lengths(message: &Message) -> Vec<u8> {
    let (header, body) = message.encode();
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_le_bytes();
    [&[message.kind()][..], &len(&header), &len(&body), &header, &body].concat()
}

/// Seeds of each target: what it takes, said right.
fn make_seeds(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let id = DeviceId::from_public_key([9; 32]).to_string();
    match target {
        "frame" => messages()
            .iter()
            .map(|messages| {
                let frames = messages.iter().map(|message| {
                    let (header, body) = message.encode();
                    [&frame::prefix(message.kind(), header.len(), body.len())[..], &header, &body].concat()
                });
                std::iter::once(vec![13]).chain(frames).flatten().collect()
            })
            .collect(),
        "message" | "folder" => {
            messages().iter().map(|messages| messages.iter().flat_map(with_lengths).collect()).collect()
        }
        "path" => {
            texts(&["a", "a/b/c", "a.conflict-20240101-120000-abcdefg.txt", "\u{202e}\u{1b}[31m", "x/..y/...", "é"])
        }
        "ignore" => texts(&["a/b.o\n*.o\n", "build/x\nbuild/\n!build/x\n", "a/b/c\n/a/**/c\n\\#x\n[a-z]*\n", "x\n[\n"]),
        "config" => texts(&[
            "name = \"laptop\"\n\n[network]\nmode = \"lan\"\nlisten = [\"0.0.0.0:25463\"]\n",
            "[[device]]\nid = \"kin1\"\n",
            "10.0.0.0/8",
            "[fe80::1%eth0]:25463",
            "100 files, 25 %",
            "1.5 GiB",
            "20 Mbit/s",
            "Mon-Fri 18:00-08:00",
            "text",
        ]),
        "device_id" => texts(&[&id, &id.to_uppercase(), &id[..20]]),
        "handshake" => (0..8).map(|which| [vec![which], vec![0x42; 1232]].concat()).collect(),
        "records" => vec![vec![1; 32], vec![0; 0], vec![0xff; 5000]],
        "invite" => {
            let link = format!("kinfold:pair/{id}/uws2ljnfuws2ljnfuws2ljnfuu/192.168.1.5-25464/fd00::5-25464");
            texts(&["7-velvet-island", "99 ZOO zoo", "1-abandon-abandonn", &link, &link.to_uppercase()])
        }
        "pairing" => {
            let device = Own { device: DeviceId::from_public_key([9; 32]), private: Zeroizing::new([9; 32]) };
            let secret = Secret::of_code("7-velvet-island");
            let (joiner, joins) = Joiner::start(device.clone(), &secret, &[2; 32]);
            let (_, invites) = Host::start(device, |_| secret.clone(), &joins, &[1; 32]).unwrap();
            drop(joiner);
            let listen = vec!["0.0.0.0:25463".parse().unwrap(), "[::]:1".parse().unwrap()];
            let shared = SharedFolder { id: FolderId([7; 16]), name: "Photos".to_owned(), right: Right::Owner };
            let introduction = Introduction { name: "desk".to_owned(), listen, folder: Some(shared) };
            let said = [PairingMessage::Introduction(introduction), PairingMessage::Answer(true)];
            let inside = said.iter().map(|said| [&[2][..], &said.encode()].concat());
            let handshake = [[&[0][..], &joins].concat(), [&[1][..], &invites].concat()];
            handshake.into_iter().chain(inside).collect()
        }
        "beacon" => {
            let beacon = |how, strings: &[&[u8]]| {
                let strings = strings.iter().flat_map(|string| {
                    std::iter::once(u8::try_from(string.len()).unwrap()).chain(string.iter().copied())
                });
                std::iter::once(how).chain(0..16).chain(strings).collect()
            };
            vec![beacon(0, &[&[1; 64]]), beacon(1, &[&[1; 240], &[2; 16]]), beacon(3, &[&[9; 7]])]
        }
        "merge" => {
            let texts = |base: &str, one: &str, other: &str| {
                let len = |text: &str| u16::try_from(text.len()).unwrap().to_le_bytes();
                [&len(base)[..], &len(one), base.as_bytes(), one.as_bytes(), other.as_bytes()].concat()
            };
            let base = "a\nb\nc\nd\ne\n";
            vec![
                texts(base, "A\nb\nc\nd\ne\n", "a\nb\nc\nd\nE"),
                texts(base, "a\nc\nd\ne\n", "a\nb\nx\ny\nd\ne\n"),
                texts("", "one\r\n", "two"),
                texts("a\nb\ncd\nb\n\n", "", "b\n\nc\n\nc\n\nE"),
            ]
        }
        other => panic!("{other} has no seeds"),
    }
}

#[test]
fn each_target_stands_what_is_thrown_at_it() {
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok());
    std::panic::set_hook(Box::new(|_| {}));
    let mut failures = Vec::new();
    for (name, target) in targets::TARGETS {
        // What is costly by itself, for it does a handshake or writes a file, is played less.
        let is_costly = matches!(*name, "handshake" | "records" | "ignore" | "folder" | "pairing");
        let rounds = rounds.unwrap_or(if is_costly { 1_000 } else { 10_000 });
        let files = fs::read_dir(seeds_dir(name)).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        let seeds: Vec<Vec<u8>> = files.collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let mut random = Random(u64::from(seeds.len() as u32));
        let made_up = (0..rounds).map(|_| random.input(&seeds)).collect::<Vec<_>>();
        for input in seeds.iter().chain(&made_up) {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
                let why = panic.downcast_ref::<String>().cloned();
                let why = why.or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
                failures.push(format!("{name}: {} on {input:02x?}", why.unwrap_or_default()));
                break;
            }
        }
    }
    drop(std::panic::take_hook());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn seeds_are_what_the_program_says_today() {
    for (name, _) in targets::TARGETS {
        for (n, seed) in make_seeds(name).iter().enumerate() {
            let path = seeds_dir(name).join(format!("{n}"));
            if std::env::var_os("FUZZ_WRITE_SEEDS").is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, seed).unwrap();
            }
            assert!(fs::read(&path).is_ok_and(|there| there == *seed), "{} is not what it should be", path.display());
        }
    }
}

/// Every target can be run by the fuzzer.
#[test]
fn each_target_has_its_program() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap();
    for (name, _) in targets::TARGETS {
        let program = fs::read_to_string(dir.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("kinfold_fuzz::{name}(")));
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")));
    }
}
