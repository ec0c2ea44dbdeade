//! The tunnel: a handshake, and records sealed at one end and opened at the other.

use criterion::{BenchmarkId, Criterion, Throughput};
use kinfold::engine::session::gate::{Gate, PairKeys};
use kinfold::engine::session::handshake::{Established, Initiator, Local, Responder, Versions};
use kinfold::engine::session::record::{self, RECORD_HEADER_LEN, RECORD_LEN_MAX, sealed_len};
use kinfold::engine::session::suite::Suite;
use kinfold::model::id::DeviceId;
use kinfold::model::limits::NOISE_PAYLOAD_MAX;
use kinfold::net::crypto::SystemPrimitives;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Records in one write to a socket.
const RECORDS: usize = 16;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    for suite in Suite::ALL {
        group.bench_function(BenchmarkId::new("handshake, both ends", suite.noise_name()), |b| {
            b.iter(|| connect(suite));
        });
    }
    group.throughput(Throughput::Bytes((RECORDS * NOISE_PAYLOAD_MAX) as u64));
    for suite in Suite::ALL {
        let (a, b) = connect(suite);
        let ((mut sealer, _), (_, mut opener)) = (record::split(a.transport), record::split(b.transport));
        let plain = vec![7; RECORDS * NOISE_PAYLOAD_MAX];
        let mut sealed = vec![0; sealed_len(plain.len())];
        let mut opened = vec![0; NOISE_PAYLOAD_MAX];
        group.bench_function(BenchmarkId::new("seal and open", suite.noise_name()), |b| {
            b.iter(|| {
                sealer.seal_into(&plain, &mut sealed).unwrap();
                for record in sealed.chunks(RECORD_LEN_MAX) {
                    opener.open(&record[RECORD_HEADER_LEN..], &mut opened).unwrap();
                }
            });
        });
    }
    group.finish();
}

struct Device {
    local: Local,
    secret: StaticSecret,
}

impl Device {
    fn new(n: u8) -> Self {
        let secret = StaticSecret::from([n; 32]);
        let device = DeviceId::from_public_key(PublicKey::from(&secret).to_bytes());
        let private = Zeroizing::new(secret.to_bytes());
        Self { local: Local { device, private, versions: Versions::OURS, has_aes: true }, secret }
    }

    fn keys_with(&self, peer: &Self) -> PairKeys {
        PairKeys::derive(self.secret.diffie_hellman(&PublicKey::from(&peer.secret)).as_bytes())
    }
}

fn connect(suite: Suite) -> (Established, Established) {
    let (a, b) = (Device::new(1), Device::new(2));
    let (initiator, first) =
        Initiator::start(&a.local, b.local.device, a.keys_with(&b), suite, &SystemPrimitives).unwrap();
    let mut gate = Gate::new(b.local.device);
    gate.trust(a.local.device, b.keys_with(&a)).unwrap();
    let admission = gate.admit(&first).unwrap();
    let (responder, second) = Responder::start(&b.local, admission, &SystemPrimitives).unwrap();
    let (complete, last) = initiator.handle_second(&second).unwrap();
    (complete.establish().unwrap(), responder.handle_last(&last).unwrap())
}
