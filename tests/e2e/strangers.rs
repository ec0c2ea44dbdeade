//! What is said to those who are not trusted, and what those who are can do.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kinfold::engine::session::handshake::FIRST_LEN;
use kinfold::model::id::{ContentId, FolderId};
use kinfold::model::path::RelPath;
use kinfold::net::connection::Connection;
use kinfold::net::dial::DialError;
use kinfold::wire::message::{Hello, Message, WantRecipe};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::confined::pids;
use crate::lab::{AMPLE, DATA, Lab, noise, wait_settled, wait_until};
use crate::proxy::Proxy;
use crate::puppet::{Puppet, claim, id_of};

/// Sends bytes and returns all that comes back until the other end closes.
fn send_raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(AMPLE)).unwrap();
    // It may close while this is still being sent.
    stream.write_all(bytes).ok();
    stream.shutdown(Shutdown::Write).ok();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it does not close"),
    }
    answer
}

#[test]
fn a_stranger_gets_not_one_byte() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    let line = Proxy::start(a.address, 0);
    b.trusts_at(&a, line.address);
    a.ok(&["device", "add", &b.id(), "--name", "b"]);
    a.ok(&["folder", "add", a.root_text(), "--name", DATA, "--share", "b"]);
    b.ok(&["folder", "accept", DATA, b.root_text(), "--from", "a"]);
    a.serve();
    b.serve();
    a.write("file", "f");
    wait_settled(&[&a, &b]);

    // Somebody who knows the id and speaks the protocol, with a key that is not trusted.
    let stranger = Puppet::new(&lab, "stranger");
    let error = stranger.dial(id_of(&a), a.address).expect_err("a stranger is not let in");
    assert!(matches!(error, DialError::NoAnswer { .. }), "{error:?}");

    // What a trusted device really sent, once more; with one bit changed; in part.
    let recorded = line.first_bytes(FIRST_LEN).unwrap();
    let mut forged = recorded.clone();
    forged[FIRST_LEN / 2] ^= 1;
    for bytes in [&recorded[..], &forged, &recorded[..100], b"GET / HTTP/1.1\r\n\r\n", &noise(7, 1 << 17), b""] {
        assert_eq!(send_raw(a.address, bytes), b"", "{} bytes", bytes.len());
    }
    // A daemon that was restarted answers a replay at most once, and it cannot be gone on with; the
    // daemons are no worse for any of it.
    assert!(a.is_connected_to(&b));
    a.write("after", "goes on");
    wait_settled(&[&a, &b]);
    assert!(a.status().peers.iter().all(|peer| peer.name == "b"));
}

/// Connects as often as that, from many addresses, and says half a first message or nothing.
fn loiter(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connect = |n: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from = Ipv4Addr::new(127, 1, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250).unwrap() + 1);
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect_timeout(&to.into(), AMPLE).unwrap();
        let mut stream = TcpStream::from(socket);
        if n.is_multiple_of(2) {
            // Whether it comes to be read does not matter.
            stream.write_all(&[7; FIRST_LEN / 2]).ok();
        }
        stream
    };
    (0..count).map(connect).collect()
}

/// Prints how many sockets there were, and how long the peer needed.
#[test]
fn ten_thousand_open_sockets_keep_no_peer_out_and_are_not_held() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    b.trusts(&a);
    a.ok(&["device", "add", &b.id(), "--name", "b"]);
    a.ok(&["folder", "add", a.root_text(), "--name", DATA, "--share", "b"]);
    b.ok(&["folder", "accept", DATA, b.root_text(), "--from", "a"]);
    a.serve();
    // As many as this process may open, beside what the tests next to this one need.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let may_open = maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap().saturating_sub(1000));
    let count = may_open.min(10_000);
    let loiterers = loiter(a.address, count);
    // Only root may look.
    let held = fs::read_dir(format!("/proc/{}/fd", pids(&a).daemon)).map(Iterator::count);
    let begun = Instant::now();
    b.serve();
    b.wait_connected(&a);
    println!("{count} sockets, {held:?} handles in the daemon; the peer was there after {:?}", begun.elapsed());
    assert!(held.is_err() || held.is_ok_and(|held| held < 512), "it holds all of them");
    a.write("f", "goes on");
    wait_settled(&[&a, &b]);
    drop(loiterers);
}

/// Reads until the connection ends.
fn read_to_end(connection: Connection) -> usize {
    let (mut reader, _writer) = connection.split();
    reader.set_read_timeout(Some(AMPLE)).unwrap();
    let mut frames = 0;
    while reader.read().is_ok() {
        frames += 1;
    }
    frames
}

#[test]
fn a_peer_that_breaks_the_protocol_is_cut_off_and_the_daemon_lives_on() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("file", "f");
    wait_settled(&[&a, &b]);
    let puppet = Puppet::new(&lab, "puppet");
    a.ok(&["device", "add", &puppet.id().to_string(), "--name", "puppet"]);
    let is_connected = || a.status().peers.iter().any(|peer| peer.name == "puppet" && peer.connected);

    // Each kind of message, with a header and a body that are none.
    let kinds = [0x01, 0x02, 0x03, 0x05, 0x06, 0x10, 0x11, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26];
    for (n, kind) in kinds.into_iter().enumerate() {
        let connection = puppet.dial(id_of(&a), a.address).unwrap();
        wait_until("the puppet is connected", is_connected);
        let cutter = connection.cutter();
        let (mut reader, mut writer) = connection.split();
        reader.set_read_timeout(Some(AMPLE)).unwrap();
        let garbage = noise(n as u64, 300);
        writer.send(kind, &garbage[..40], &garbage).and_then(|()| writer.flush()).unwrap();
        let ended = loop {
            if let Err(error) = reader.read() {
                break error;
            }
        };
        cutter.cut();
        assert!(!format!("{ended:?}").contains("WouldBlock"), "kind {kind:#x} is not refused: {ended:?}");
        wait_until("the puppet is out", || !is_connected());
    }
    let refusals = a.log_text().matches("the device broke the protocol").count();
    assert!(refusals >= kinds.len(), "{refusals} refusals are in the log\n{}", a.log_tail());

    // Kinds that are not known yet are let pass.
    let (mut reader, mut writer) = puppet.dial(id_of(&a), a.address).unwrap().split();
    reader.set_read_timeout(Some(AMPLE)).unwrap();
    writer.send(0x7f, b"from the future", &noise(1, 1000)).unwrap();
    writer.send(Message::Ping.kind(), b"", b"").and_then(|()| writer.flush()).unwrap();
    while reader.read().expect("the connection stands").kind != Message::Pong.kind() {}
    drop((reader, writer));

    assert!(a.runs());
    b.write("after", "goes on");
    wait_settled(&[&a, &b]);
}

#[test]
fn a_trusted_device_learns_nothing_of_folders_that_are_not_shared_with_it() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("secret.txt", "secret");
    wait_settled(&[&a, &b]);
    let puppet = Puppet::new(&lab, "puppet");
    a.ok(&["device", "add", &puppet.id().to_string(), "--name", "puppet"]);
    let folder: FolderId = a.folder(DATA).id;

    let mut session = puppet.session(&a);
    // It claims to hold the folder, and asks for what it knows the name of.
    session.say(&Message::Hello(Hello { name: "puppet".to_owned(), folders: vec![claim(folder)] }));
    session.say(&Message::Folder(claim(folder)));
    let path = RelPath::parse(b"secret.txt").unwrap();
    session.say(&Message::WantRecipe(WantRecipe { request: 1, folder, path, content: ContentId([0; 32]) }));
    // Something that happens in the folder is not told either.
    a.write("more.txt", "more");
    wait_until("b has it", || b.has("more.txt"));
    session.say(&Message::Ping);
    session.reader.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut kinds = Vec::new();
    while let Ok(frame) = session.reader.read() {
        if frame.kind == 0x01 {
            match Message::decode(frame.kind, &frame.header, &frame.body).unwrap().unwrap() {
                Message::Hello(hello) => assert!(hello.folders.is_empty(), "{hello:?}"),
                other => panic!("{other:?}"),
            }
        }
        kinds.push(frame.kind);
    }
    // Who it is, that it stays who it is, and that it is there.
    kinds.retain(|kind| ![0x01, 0x05, 0x30, 0x31].contains(kind));
    assert!(kinds.is_empty(), "it was told something: {kinds:x?}");
    assert_eq!(a.folder(DATA).members.len(), 1);

    // Where the daemon is removed from the trust list, a session that stands is cut.
    let connection = puppet.dial(id_of(&a), a.address).unwrap();
    wait_until("it is connected", || a.status().peers.iter().any(|peer| peer.name == "puppet" && peer.connected));
    a.ok(&["device", "remove", "puppet"]);
    read_to_end(connection);
    let error = puppet.dial(id_of(&a), a.address).expect_err("it is trusted no longer");
    assert!(matches!(error, DialError::NoAnswer { .. }), "{error:?}");
}
