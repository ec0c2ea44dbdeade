//! Two devices, and some strangers, over real sockets of this machine.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::sync::mpsc;

use crate::engine::session::handshake::{FIRST_LEN, HandshakeError, Versions};
use crate::engine::session::suite::Suite;
use crate::model::limits::{CHUNK_LEN_MAX, NOISE_PAYLOAD_MAX, STRANGERS_MAX};
use crate::net::connection::{Connection, ConnectionError, FrameReader, FrameWriter};
use crate::net::crypto::SystemPrimitives;
use crate::net::dial::{DialError, dial};
use crate::net::endpoint::Endpoint;
use crate::net::frame::Frame;
use crate::net::handshake_tests::Device;
use crate::net::listen::{Arrival, DISCARD_LEN_MAX, ListenBounds, Listener};
use crate::net::policy::Policy;

/// Longer than anything here takes, on a busy machine too.
const AMPLE: Duration = Duration::from_secs(20);
/// How long a stranger is read from in the tests of silence.
const SHORT: Duration = Duration::from_millis(300);

fn endpoint(device: Device, trusted: &[&Device]) -> Arc<Endpoint> {
    let keys: Vec<_> = trusted.iter().map(|peer| (peer.id(), device.keys_with(peer.id()))).collect();
    let policy = Policy { lan_only: true, allowed: vec![] };
    let endpoint = Endpoint::new(device.local, Box::new(SystemPrimitives), policy);
    for (peer, keys) in keys {
        endpoint.trust(peer, keys).unwrap();
    }
    Arc::new(endpoint)
}

/// Listens for `endpoint` on a port of this machine.
async fn listen(endpoint: &Arc<Endpoint>, handshake_timeout: Duration) -> (SocketAddr, mpsc::Receiver<Arrival>) {
    let bounds = ListenBounds { handshake_timeout, ..ListenBounds::STANDARD };
    let listener = Listener::bind(&[(Ipv4Addr::LOCALHOST, 0).into()], bounds).unwrap();
    let addr = listener.addresses()[0];
    let (sender, arrivals) = mpsc::channel(4);
    tokio::spawn(listener.run(Arc::clone(endpoint), sender));
    (addr, arrivals)
}

fn connection(arrival: Option<Arrival>) -> Connection {
    match arrival {
        Some(Arrival::Peer(connection)) => connection,
        other => panic!("{other:?}"),
    }
}

/// Connects device 1 to device 2.
async fn connected(suite: Suite) -> (Connection, Connection) {
    let ((a, _), (b, _)) = connected_with(suite).await;
    (a, b)
}

/// The same, with what each is to others.
pub(crate) async fn connected_with(suite: Suite) -> ((Connection, Arc<Endpoint>), (Connection, Arc<Endpoint>)) {
    let a = endpoint(Device::new(1), &[&Device::new(2)]);
    let b = endpoint(Device::new(2), &[&Device::new(1)]);
    let (addr, mut arrivals) = listen(&b, AMPLE).await;
    let dialed = dial(&a, b.device_id(), addr, suite, AMPLE).await.unwrap();
    ((dialed, a), (connection(arrivals.recv().await), b))
}

#[tokio::test]
async fn two_devices_connect_and_know_each_other() {
    for suite in Suite::ALL {
        let (dialed, taken) = connected(suite).await;
        let (a, b) = (dialed.link(), taken.link());
        assert_eq!((a.peer, b.peer), (Device::new(2).id(), Device::new(1).id()));
        assert_eq!((a.outgoing, b.outgoing), (true, false));
        assert_eq!((a.local_addr, a.remote_addr), (b.remote_addr, b.local_addr));
        assert_eq!((a.suite, b.suite, a.version, b.version), (suite, suite, 1, 1));
        assert_eq!(a.handshake_hash, b.handshake_hash);
        assert!(a.peer_has_aes && b.peer_has_aes);
    }
}

#[tokio::test]
async fn a_listener_takes_from_all_its_addresses() {
    let a = endpoint(Device::new(1), &[&Device::new(2)]);
    let b = endpoint(Device::new(2), &[&Device::new(1)]);
    let addresses: [SocketAddr; 3] =
        [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv4Addr::new(127, 0, 0, 2), 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    let listener = Listener::bind(&addresses, ListenBounds::STANDARD).unwrap();
    let bound = listener.addresses().to_vec();
    let (sender, mut arrivals) = mpsc::channel(4);
    let running = tokio::spawn(listener.run(Arc::clone(&b), sender));
    for addr in bound {
        dial(&a, b.device_id(), addr, Suite::AesGcm, AMPLE).await.unwrap();
        assert_eq!(connection(arrivals.recv().await).link().local_addr, addr);
    }
    drop(arrivals);
    running.await.unwrap();
}

/// The bodies of a run of frames: empty, small, of a record, of a batch, of the longest chunk.
fn body(n: usize) -> Vec<u8> {
    const LENGTHS: [usize; 9] =
        [0, 1, 1000, NOISE_PAYLOAD_MAX, NOISE_PAYLOAD_MAX + 1, 16 * NOISE_PAYLOAD_MAX, 1 << 20, CHUNK_LEN_MAX, 80_000];
    let mut body = vec![0; LENGTHS[n % LENGTHS.len()]];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut body);
    body
}

/// Sends `frames` frames on a thread and expects as many; returns both halves.
fn exchange(end: Connection, frames: usize) -> thread::JoinHandle<(FrameReader, FrameWriter)> {
    let (mut reader, mut writer) = end.split();
    let sending = thread::spawn(move || {
        for n in 0..frames {
            writer.send(n as u8, &n.to_le_bytes(), &body(n)).unwrap();
            if n % 7 == 0 {
                writer.flush().unwrap();
            }
        }
        writer.flush().unwrap();
        writer
    });
    thread::spawn(move || {
        for n in 0..frames {
            let frame = reader.read().unwrap();
            assert!(frame == Frame { kind: n as u8, header: n.to_le_bytes().to_vec(), body: body(n) }, "frame {n}");
            reader.recycle(frame);
        }
        (reader, sending.join().unwrap())
    })
}

#[tokio::test]
async fn sixty_four_mebibytes_of_frames_cross_in_both_directions() {
    const FRAMES: usize = 99;
    assert!((0..FRAMES).map(|n| body(n).len()).sum::<usize>() >= 64 << 20);
    let (a, b) = connected(Suite::AesGcm).await;
    let (a, b) = (exchange(a, FRAMES), exchange(b, FRAMES));
    drop(a.join().unwrap());
    let (mut reader, _writer) = b.join().unwrap();
    assert!(matches!(reader.read(), Err(ConnectionError::Cut)));
    assert!(matches!(reader.read(), Err(ConnectionError::Failed)));
}

#[tokio::test]
async fn a_body_can_be_read_right_into_the_writers_buffer() {
    let (a, b) = connected(Suite::AesGcm).await;
    let (_, mut writer) = a.split();
    let (mut reader, _) = b.split();
    let bodies = [body(7), body(0), body(8)];
    let expected = bodies.clone();
    let sending = thread::spawn(move || {
        for body in &bodies {
            let mut source = body.as_slice();
            writer.begin_frame(3, b"head", body.len()).unwrap();
            while writer.body_missing() > 0 {
                let room = writer.body_buffer().unwrap();
                let len = room.len().min(50_000);
                let len = source.read(&mut room[..len]).unwrap();
                writer.advance_body(len);
            }
            assert!(writer.body_buffer().unwrap().is_empty());
        }
        writer.flush().unwrap();
    });
    for body in expected {
        assert!(reader.read().unwrap() == Frame { kind: 3, header: b"head".to_vec(), body });
    }
    sending.join().unwrap();
}

#[tokio::test]
async fn a_silent_peer_can_speak_later() {
    let (a, b) = connected(Suite::ChaChaPoly).await;
    let (_, mut writer) = a.split();
    let (mut reader, _) = b.split();
    reader.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(matches!(reader.read(), Err(ConnectionError::Idle)));
    // Half a frame, then silence again.
    writer.begin_frame(1, b"", 10).unwrap();
    writer.flush().unwrap();
    assert!(matches!(reader.read(), Err(ConnectionError::Idle)));
    writer.body_buffer().unwrap().copy_from_slice(b"0123456789");
    writer.advance_body(10);
    writer.flush().unwrap();
    reader.set_read_timeout(Some(AMPLE)).unwrap();
    assert_eq!(reader.read().unwrap().body, b"0123456789");
}

#[tokio::test]
async fn another_thread_can_cut_a_connection() {
    let (a, b) = connected(Suite::AesGcm).await;
    let (cutter, (mut reader, mut writer)) = (a.cutter(), a.split());
    let waiting = thread::spawn(move || reader.read());
    cutter.cut();
    cutter.cut();
    assert!(matches!(waiting.join().unwrap(), Err(ConnectionError::Cut)));
    writer.send(1, b"", b"x").unwrap();
    assert!(matches!(writer.flush(), Err(ConnectionError::Lost(_))));
    assert!(matches!(writer.send(1, b"", b"x"), Err(ConnectionError::Failed)));
    assert!(matches!(writer.flush(), Err(ConnectionError::Failed)));
    assert!(matches!(b.split().0.read(), Err(ConnectionError::Cut)));
}

/// Passes bytes of one direction on through `tamper`, which sees each byte's place in the stream.
fn relay(mut from: TcpStream, mut to: TcpStream, tamper: fn(usize, &mut u8)) {
    thread::spawn(move || {
        let (mut at, mut buffer) = (0, [0; 4096]);
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            for byte in &mut buffer[..len] {
                tamper(at, byte);
                at += 1;
            }
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Write));
    });
}

/// Stands between two devices.
fn middleman(target: SocketAddr, tamper: fn(usize, &mut u8)) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let near = listener.accept().unwrap().0;
        let far = TcpStream::connect(target).unwrap();
        relay(near.try_clone().unwrap(), far.try_clone().unwrap(), tamper);
        relay(far, near, |_, _| ());
    });
    addr
}

#[tokio::test]
async fn a_byte_changed_on_the_way_ends_the_session() {
    let a = endpoint(Device::new(1), &[&Device::new(2)]);
    let b = endpoint(Device::new(2), &[&Device::new(1)]);
    let (addr, mut arrivals) = listen(&b, AMPLE).await;
    let addr = middleman(addr, |at, byte| *byte ^= u8::from(at == 2000));
    let (_, mut writer) = dial(&a, b.device_id(), addr, Suite::AesGcm, AMPLE).await.unwrap().split();
    let (mut reader, _) = connection(arrivals.recv().await).split();
    writer.send(1, b"", &[0; 2000]).unwrap();
    writer.flush().unwrap();
    assert!(matches!(reader.read(), Err(ConnectionError::Tampered(_))));
}

#[tokio::test]
async fn a_device_that_speaks_no_common_version_is_reported_at_both_ends() {
    let mut newer = Device::new(1);
    newer.local.versions = Versions { min: 7, max: 9 };
    let a = endpoint(newer, &[&Device::new(2)]);
    let b = endpoint(Device::new(2), &[&Device::new(1)]);
    let (addr, mut arrivals) = listen(&b, AMPLE).await;
    let refused = dial(&a, b.device_id(), addr, Suite::AesGcm, AMPLE).await;
    assert!(matches!(refused, Err(DialError::Handshake { source: HandshakeError::Version { .. }, .. })));
    match arrivals.recv().await {
        Some(Arrival::Incompatible { peer, theirs, .. }) => {
            assert_eq!((peer, theirs), (a.device_id(), Versions { min: 7, max: 9 }));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_dial_says_what_can_be_done_about_its_failure() {
    let a = endpoint(Device::new(1), &[&Device::new(2)]);
    let b = Device::new(2).id();
    let go = |peer, addr, timeout| dial(&a, peer, addr, Suite::AesGcm, timeout);

    let outside: SocketAddr = (IpAddr::from([8, 8, 8, 8]), 1).into();
    assert!(matches!(go(b, outside, AMPLE).await, Err(DialError::Forbidden { .. })));

    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = free.local_addr().unwrap();
    assert!(matches!(go(Device::new(3).id(), addr, AMPLE).await, Err(DialError::Untrusted { .. })));
    // It is listened on, but nobody takes connections: silence until the end of patience.
    assert!(matches!(go(b, addr, SHORT).await, Err(DialError::NoAnswer { .. })));
    drop(free);
    assert!(matches!(go(b, addr, AMPLE).await, Err(DialError::Unreachable { .. })));

    let stranger = endpoint(Device::new(2), &[]);
    let (addr, _arrivals) = listen(&stranger, SHORT).await;
    assert!(matches!(go(b, addr, AMPLE).await, Err(DialError::NoAnswer { .. })));

    // Somebody else who trusts us answers in the place of the device that was dialed.
    let other = endpoint(Device::new(4), &[&Device::new(1)]);
    let (addr, _arrivals) = listen(&other, SHORT).await;
    assert!(matches!(go(b, addr, AMPLE).await, Err(DialError::NoAnswer { .. })));
}

#[tokio::test]
async fn a_device_is_turned_away_as_soon_as_it_is_no_longer_trusted() {
    let a = endpoint(Device::new(1), &[&Device::new(2)]);
    let b = endpoint(Device::new(2), &[&Device::new(1)]);
    let (addr, mut arrivals) = listen(&b, SHORT).await;
    dial(&a, b.device_id(), addr, Suite::AesGcm, AMPLE).await.unwrap();
    connection(arrivals.recv().await);
    b.distrust(&a.device_id());
    let refused = dial(&a, b.device_id(), addr, Suite::AesGcm, AMPLE).await;
    assert!(matches!(refused, Err(DialError::NoAnswer { .. })));
}

/// Sends `bytes`, perhaps ends the sending side, and returns what came back and after what time the
/// other side ended the connection.
fn provoke(addr: SocketAddr, bytes: &[u8], end: bool) -> (Vec<u8>, Duration) {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(AMPLE)).unwrap();
    stream.write_all(bytes).unwrap();
    if end {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut answer = Vec::new();
    // What lies unread at the other side makes its end a reset; for us it is an end all the same.
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    (answer, begin.elapsed())
}

/// Records the first message that device 1 dials with.
async fn recorded_first_message(a: &Endpoint, b: &Endpoint) -> Vec<u8> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let recording = thread::spawn(move || {
        let mut first = vec![0; FIRST_LEN];
        listener.accept().unwrap().0.read_exact(&mut first).unwrap();
        first
    });
    let dialed = dial(a, b.device_id(), addr, Suite::AesGcm, AMPLE).await;
    assert!(matches!(dialed, Err(DialError::NoAnswer { .. })));
    recording.join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_not_one_byte() {
    let b = endpoint(Device::new(2), &[&Device::new(1)]);
    let (addr, mut arrivals) = listen(&b, SHORT).await;
    // A message that was answered, once to its maker; and one that a stranger makes who knows our id.
    let a = endpoint(Device::new(1), &[&Device::new(2)]);
    let replayed = recorded_first_message(&a, &b).await;
    let first_time = provoke(addr, &replayed, true).0;
    assert!(!first_time.is_empty());
    let unknown = recorded_first_message(&endpoint(Device::new(3), &[&Device::new(2)]), &b).await;

    let mut changed = replayed.clone();
    changed[FIRST_LEN - 1] ^= 1;
    let provocations = [
        ("nothing", vec![]),
        ("one byte", vec![0]),
        ("half a message", unknown[..FIRST_LEN / 2].to_vec()),
        ("a message of an unknown device", unknown.clone()),
        ("a replay", replayed.clone()),
        ("a changed message", changed),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("zeros", vec![0; FIRST_LEN]),
        ("much garbage", vec![0xa5; DISCARD_LEN_MAX / 2]),
    ];
    let threads = provocations.map(|(name, bytes)| {
        thread::spawn(move || {
            let (answer, open) = provoke(addr, &bytes, false);
            assert_eq!(answer, b"", "{name}");
            assert!(open >= SHORT && open < AMPLE, "{name} was closed after {open:?}");
            let (answer, open) = provoke(addr, &bytes, true);
            assert_eq!(answer, b"", "{name}");
            assert!(open < AMPLE, "{name} was closed after {open:?}");
        })
    });
    let joined = tokio::task::spawn_blocking(move || threads.map(|thread| thread.join().unwrap()));
    joined.await.unwrap();
    assert!(arrivals.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_much_is_cut_off_before_the_time() {
    let b = endpoint(Device::new(2), &[]);
    let (addr, _arrivals) = listen(&b, AMPLE).await;
    let provoked = tokio::task::spawn_blocking(move || provoke(addr, &[1; DISCARD_LEN_MAX], false));
    let (answer, open) = provoked.await.unwrap();
    assert_eq!(answer, b"");
    assert!(open < AMPLE);
}

/// Connections from addresses of their own that say nothing, or half a message, and stay.
fn loiter(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connect = |n: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let from = Ipv4Addr::new(127, 1, (n / 250) as u8, (n % 250) as u8 + 1);
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&to.into())?;
        let mut stream = TcpStream::from(socket);
        if n.is_multiple_of(2) {
            // Whether it comes to be read does not matter.
            drop(stream.write_all(&[7; FIRST_LEN / 2]));
        }
        Ok::<_, std::io::Error>(stream)
    };
    (0..count).map(|n| connect(n).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loiters_keeps_no_peer_out_from_however_many_addresses() {
    let b = endpoint(Device::new(2), &[&Device::new(1)]);
    let a = endpoint(Device::new(1), &[&Device::new(2)]);
    let (addr, mut arrivals) = listen(&b, Duration::from_secs(3600)).await;
    let count = 3 * STRANGERS_MAX;
    let loiterers = tokio::task::spawn_blocking(move || loiter(addr, count)).await.unwrap();
    dial(&a, b.device_id(), addr, Suite::AesGcm, AMPLE).await.unwrap();
    connection(arrivals.recv().await);
    // Those that came last are still there; the others were closed for them, without a byte.
    let closed = tokio::task::spawn_blocking(move || {
        let is_closed = |mut stream: &TcpStream, patience: Duration| {
            stream.set_read_timeout(Some(patience)).unwrap();
            match stream.read(&mut [0; 8]) {
                Ok(0) => true,
                Ok(_) => panic!("a stranger got a byte"),
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        };
        let (first, last) = loiterers.split_at(count - STRANGERS_MAX + 1);
        assert!(first.iter().take(count / 2).all(|stream| is_closed(stream, AMPLE)));
        last.iter().filter(|stream| is_closed(stream, Duration::from_millis(1))).count()
    });
    assert_eq!(closed.await.unwrap(), 0);
}

/// Prints how many strangers came in a second, and how long the peer needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_first_messages_keeps_no_peer_out() {
    let b = endpoint(Device::new(2), &[&Device::new(1)]);
    let a = endpoint(Device::new(1), &[&Device::new(2)]);
    let (addr, mut arrivals) = listen(&b, AMPLE).await;
    let (is_over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let floods: Vec<_> = (0..2)
        .map(|n| {
            let (is_over, sent) = (Arc::clone(&is_over), Arc::clone(&sent));
            thread::spawn(move || {
                let message = [n; FIRST_LEN];
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(addr) else { continue };
                    // Else the system runs out of ports, which wait for a minute after each.
                    drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
                    if stream.write_all(&message).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        let dialing = Instant::now();
        while dial(&a, b.device_id(), addr, Suite::AesGcm, Duration::from_secs(2)).await.is_err() {
            assert!(dialing.elapsed() < AMPLE, "the peer is kept out");
        }
        connection(arrivals.recv().await);
        longest = longest.max(dialing.elapsed());
    }
    let rate = sent.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} first messages of strangers a second; the slowest of ten dials took {longest:?}");
    is_over.store(true, Ordering::Relaxed);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    assert!(sent.load(Ordering::Relaxed) > 0);
}

/// By how many standard deviations the ranks of two samples are apart (Mann and Whitney, "On a Test of Whether one of Two
/// Random Variables is Stochastically Larger than the Other", 1947): it asks which are longer, not how long they are.
fn apart(a: &[Duration], b: &[Duration]) -> f64 {
    let (n, m) = (a.len() as f64, b.len() as f64);
    let wins: f64 = a
        .iter()
        .map(|x| b.iter().map(|y| if x > y { 1.0 } else { f64::from(u8::from(x == y)) / 2.0 }).sum::<f64>())
        .sum();
    (wins - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt()
}

#[test]
fn ranks_tell_what_is_longer() {
    let sample = |from: u64| (from..from + 200).map(Duration::from_nanos).collect::<Vec<_>>();
    assert!(apart(&sample(0), &sample(0)).abs() < 0.1);
    assert!(apart(&sample(60), &sample(0)) > 6.0 && apart(&sample(0), &sample(60)) < -6.0);
}

/// Whatever a stranger sends in the place of a first message, the connection ends after it as after garbage: with no byte,
/// and not measurably sooner or later. Prints how far apart the times are.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_sends_does_not_show_in_when_the_connection_ends() {
    const ROUNDS: usize = 400;
    let peers: Vec<_> = (10..60).map(Device::new).collect();
    let b = endpoint(Device::new(2), &peers.iter().collect::<Vec<_>>());
    let (addr, mut arrivals) = listen(&b, AMPLE).await;
    let first_of = |device: Device| {
        let from = endpoint(device, &[&Device::new(2)]);
        from.initiate(b.device_id(), Suite::AesGcm).unwrap().unwrap().1
    };
    // One was answered before; one is of a device that is not trusted; one was changed by a bit.
    let answered = first_of(Device::new(10));
    let once = answered.clone();
    let spent = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(&once).unwrap();
        stream.read_exact(&mut [0; 64]).unwrap();
    });
    spent.await.unwrap();
    let mut changed = first_of(Device::new(11));
    changed[FIRST_LEN - 1] ^= 1;
    let garbage: Vec<u8> = body(8)[..FIRST_LEN].to_vec();
    let kinds =
        [("garbage", garbage), ("a stranger", first_of(Device::new(1))), ("a replay", answered), ("a bit", changed)];
    let measure = move || {
        let mut times = [const { Vec::new() }; 4];
        for round in 0..ROUNDS {
            for n in 0..kinds.len() {
                // In turn, so that what else the machine does meets all alike.
                let n = (n + round) % kinds.len();
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.write_all(&kinds[n].1).unwrap();
                let sent = Instant::now();
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "{} got an answer", kinds[n].0);
                times[n].push(sent.elapsed());
            }
        }
        kinds
            .iter()
            .zip(&times)
            .skip(1)
            .map(|((what, _), sample)| (*what, apart(sample, &times[0])))
            .collect::<Vec<_>>()
    };
    let found = tokio::task::spawn_blocking(measure).await.unwrap();
    println!("standard deviations from garbage: {found:.2?}");
    assert!(found.iter().all(|(_, apart)| apart.abs() < 5.0), "{found:?}");
    assert!(arrivals.try_recv().is_err());
}
