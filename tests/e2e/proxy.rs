//! A way between two devices that can be slow, can be cut, held or closed, and remembers what went by first.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of the beginning of each connection that are remembered.
const REMEMBERED: usize = 4096;

/// A proxy; it ends with its value.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    /// Bytes a second in one direction; 0 is no bound.
    rate: AtomicU64,
    /// Whether all that arrives waits here: the connections stand, and nothing comes through.
    is_held: AtomicBool,
    /// Whether nobody gets through at all.
    is_closed: AtomicBool,
    is_over: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
    /// What each connection began with, as its dialer sent it.
    begun_with: Mutex<Vec<Vec<u8>>>,
}

impl Proxy {
    /// Passes on all that arrives at the proxy to `target`, at most `rate` bytes a second (0: no bound).
    pub fn start(target: SocketAddr, rate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            rate: AtomicU64::new(rate),
            is_held: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            streams: Mutex::default(),
            begun_with: Mutex::default(),
        });
        let held = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if held.is_over.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(stream) = stream {
                    held.pass(stream);
                }
            }
        });
        Self { address, shared }
    }

    /// Changes the rate; 0 is no bound.
    pub fn set_rate(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::Relaxed);
    }

    /// Holds back all that arrives, or lets it go on; the connections stand.
    pub fn hold(&self, is_held: bool) {
        self.shared.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Cuts all connections and takes no more, or takes them again.
    pub fn close(&self, is_closed: bool) {
        self.shared.is_closed.store(is_closed, Ordering::Relaxed);
        if is_closed {
            self.cut();
        }
    }

    /// Cuts all connections that stand now.
    pub fn cut(&self) {
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Returns what the first connection of at least `len` bytes began with.
    pub fn first_bytes(&self, len: usize) -> Option<Vec<u8>> {
        let begun_with = self.shared.begun_with.lock().unwrap();
        begun_with.iter().find(|bytes| bytes.len() >= len).map(|bytes| bytes[..len].to_vec())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.hold(false);
        self.cut();
        // Lets the thread that accepts look up.
        TcpStream::connect(self.address).ok();
    }
}

impl Shared {
    fn pass(self: &Arc<Self>, near: TcpStream) {
        if self.is_closed.load(Ordering::Relaxed) {
            return;
        }
        let Ok(far) = TcpStream::connect(self.target) else {
            return;
        };
        near.set_nodelay(true).ok();
        far.set_nodelay(true).ok();
        let number = {
            let mut begun_with = self.begun_with.lock().unwrap();
            begun_with.push(Vec::new());
            begun_with.len() - 1
        };
        let clone = |stream: &TcpStream| stream.try_clone().unwrap();
        self.streams.lock().unwrap().extend([clone(&near), clone(&far)]);
        let (there, back) = (Arc::clone(self), Arc::clone(self));
        let (near_too, far_too) = (clone(&near), clone(&far));
        thread::spawn(move || there.copy(near, far, Some(number)));
        thread::spawn(move || back.copy(far_too, near_too, None));
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, number: Option<usize>) {
        let mut buffer = vec![0; 64 << 10];
        let mut due = Instant::now();
        while let Ok(len) = from.read(&mut buffer) {
            while self.is_held.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(10));
            }
            if len == 0 || to.write_all(&buffer[..len]).is_err() {
                break;
            }
            if let Some(number) = number {
                let begun_with = &mut self.begun_with.lock().unwrap()[number];
                let room = REMEMBERED.saturating_sub(begun_with.len()).min(len);
                begun_with.extend_from_slice(&buffer[..room]);
            }
            let rate = self.rate.load(Ordering::Relaxed);
            if rate > 0 {
                due = due.max(Instant::now()) + Duration::from_secs_f64(len as f64 / rate as f64);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }
}
