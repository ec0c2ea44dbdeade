//! Devices that trust each other find each other on the network, and a stranger who listens learns nothing of them.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{DATA, Device, Lab, wait_until};
use crate::network::{Machines, ip};

/// A packet that somebody on the network sent to all.
struct Packet {
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl Packet {
    /// Returns the names of beacons in it: 32 hexadecimal digits, as one label.
    fn names(&self) -> BTreeSet<Vec<u8>> {
        let labels = self.bytes.windows(33).filter(|window| window[0] == 32);
        labels.map(|label| label[1..].to_vec()).filter(|name| name.iter().all(u8::is_ascii_hexdigit)).collect()
    }

    fn contains(&self, what: &[u8]) -> bool {
        self.bytes.windows(what.len()).any(|window| window == what)
    }
}

/// Listens at the end of both cables as programs like Avahi do, on the port that all share.
struct Stranger(mpsc::Receiver<Packet>);

impl Stranger {
    fn at(machine: &str) -> Self {
        let space = fs::File::open(format!("/run/netns/{machine}")).unwrap();
        let (sender, heard) = mpsc::channel();
        let (begun, begins) = mpsc::channel();
        std::thread::spawn(move || {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&space), Some(LinkNameSpaceType::Network)).unwrap();
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&SocketAddr::from(([0, 0, 0, 0], 5353)).into()).unwrap();
            for net in [1, 2] {
                let own = Ipv4Addr::new(10, 77, net, 2);
                socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 251), &own).unwrap();
            }
            begun.send(()).unwrap();
            let socket = std::net::UdpSocket::from(socket);
            let mut buffer = vec![0; 65_536];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                // Nobody may be there any more to hear of it.
                if sender.send(Packet { from, bytes: buffer[..len].to_vec() }).is_err() {
                    return;
                }
            }
        });
        begins.recv_timeout(Duration::from_secs(10)).unwrap();
        Self(heard)
    }

    fn heard(&self) -> Vec<Packet> {
        self.0.try_iter().collect()
    }
}

fn names(packets: &[Packet], from: &str) -> BTreeSet<Vec<u8>> {
    let of = packets.iter().filter(|packet| packet.from.ip().to_string() == from);
    of.flat_map(Packet::names).collect()
}

fn set(device: &Device, from: &str, to: &str) {
    let config = device.home.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&config, text.replace(from, to)).unwrap();
}

#[test]
fn devices_without_addresses_find_each_other_and_a_stranger_learns_nothing() {
    let Some(mut machines) = Machines::new() else { return };
    let lab = Lab::new();
    let (a, b) = (lab.device("anns-laptop"), lab.device("anns-desk"));
    let stranger = Stranger::at(&machines.names[1]);
    for device in [&a, &b] {
        set(device, &device.address.to_string(), "0.0.0.0:25463");
    }
    set(&a, "[network]", "[network]\ninterfaces = [\"in\"]");
    for (device, other) in [(&a, &b), (&b, &a)] {
        device.ok(&["device", "add", &other.id(), "--name", &other.name]);
    }
    a.ok(&["folder", "add", a.root_text(), "--name", DATA, "--share", &b.name]);
    b.ok(&["folder", "accept", DATA, b.root_text(), "--from", &a.name]);
    machines.serve(0, &a);
    machines.serve(1, &b);
    a.write("f", "f");
    wait_until("they find each other", || b.read("f").as_deref() == Some("f"));
    let shown = |device: &Device| {
        let sockets = device.status().sockets.into_iter();
        sockets.filter(|socket| socket.contains("multicast")).collect::<Vec<_>>()
    };
    assert_eq!(shown(&a), ["udp multicast in:5353, beacons"]);
    assert_eq!(shown(&b), ["udp multicast ex:5353, beacons", "udp multicast in:5353, beacons"]);

    // What was said to all tells of neither.
    let mut heard = stranger.heard();
    let mut first = BTreeSet::new();
    wait_until("both beacons were heard", || {
        heard.extend(stranger.heard());
        first = names(&heard, "10.77.1.1");
        !first.is_empty() && heard.iter().any(|packet| packet.contains(b"_kinfold"))
    });
    let secrets = |device: &Device| {
        let id = device.id();
        let key = kinfold::model::id::DeviceId::parse(&id).unwrap();
        // Not even a part of a key that is long enough to be told from chance.
        let parts = key.as_bytes().chunks(8).map(<[u8]>::to_vec);
        parts.chain([device.name.clone().into_bytes(), id.as_bytes()[5..15].to_vec()]).collect::<Vec<_>>()
    };
    for secret in secrets(&a).into_iter().chain(secrets(&b)) {
        let told = heard.iter().find(|packet| packet.contains(&secret));
        assert!(told.is_none(), "{}", String::from_utf8_lossy(&secret));
    }
    // Where an interface is named, none is sent by another.
    assert!(heard.iter().all(|packet| packet.from.ip() != Ipv4Addr::new(10, 77, 2, 1)));

    // It moves to another address, and is found there; nothing says that it is the same.
    drop(stranger.heard());
    let link = machines.names[0].clone();
    assert!(ip(&["-n", &link, "addr", "del", "10.77.1.1/24", "dev", "in"]));
    assert!(ip(&["-n", &link, "addr", "add", "10.77.1.99/24", "dev", "in"]));
    a.write("g", "g");
    let at = |device: &Device| device.status().peers[0].address.map(|address| address.ip().to_string());
    wait_until("it is found again", || b.read("g").as_deref() == Some("g") && at(&b).as_deref() == Some("10.77.1.99"));
    // Its new beacon has another name.
    let mut heard = Vec::new();
    wait_until("its new beacon was heard", || {
        heard.extend(stranger.heard());
        !names(&heard, "10.77.1.99").is_subset(&first)
    });

    // A person who wants none of it has it off.
    for device in [&a, &b] {
        set(device, "[network]", "[network]\ndiscovery = false");
        device.ok(&["device", "rename", &device.status().peers[0].name.clone(), "other"]);
        wait_until("it shows none", || shown(device).is_empty());
        assert!(!device.status().policy.discovery);
    }
}
