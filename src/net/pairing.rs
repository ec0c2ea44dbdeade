//! The sockets of a pairing: a window that strangers may knock at for as long as a person keeps it open, and the way to
//! one. What is said there is `engine::pairing`'s.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use zeroize::Zeroizing;

use crate::engine::pairing::{
    FIFTH_LEN, FIRST_LEN, FOURTH_LEN, Host, Joiner, Own, Paired, PairingError, SEALED_LEN_MAX, SECOND_LEN, Secret,
    SecretKind, THIRD_LEN,
};
use crate::model::limits::{HANDSHAKE_TIMEOUT, PAIRING_GUESSES_MAX, PAIRING_STRANGERS_MAX};
use crate::net::anteroom::{Anteroom, AnteroomBounds};
use crate::net::crypto::SystemPrimitives;
use crate::net::dial::{DialError, connect};
use crate::net::listen::{ListenBounds, ListenError, Listener};
use crate::net::policy::Policy;
use crate::wire::pairing::{PairingDecodeError, PairingMessage};

/// The port that a window is opened at where it is free.
pub const PAIRING_PORT: u16 = 25464;

const WRONG: u8 = 0;
const BURNED: u8 = 1;
const RIGHT: u8 = 2;

/// A pairing came to an end on the way.
#[derive(Debug, thiserror::Error)]
pub enum MeetError {
    /// The code was wrong.
    #[error("the code was not right")]
    WrongCode,
    /// The code was guessed wrong too often, here or elsewhere.
    #[error("the code was guessed wrong {PAIRING_GUESSES_MAX} times and counts no longer")]
    Burned,
    /// There is no way there.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The window cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The connection ended.
    #[error("the other device closed the connection")]
    Lost(#[source] io::Error),
    /// What was said is no pairing.
    #[error(transparent)]
    Pairing(#[from] PairingError),
    /// What was said is no message.
    #[error(transparent)]
    Decode(#[from] PairingDecodeError),
    /// The system gave no randomness.
    #[error("the system has no randomness to give")]
    Randomness,
}

/// What both kinds of secrets of a window are.
#[derive(Clone)]
pub struct Secrets {
    /// That of the code.
    pub code: Secret,
    /// That of the link.
    pub link: Secret,
}

/// An open window.
pub struct Window {
    listener: Listener,
}

impl Window {
    /// Opens a window at these addresses, by each of these interfaces alone where there are any; at [`PAIRING_PORT`], or
    /// where that is taken at a port that the system chooses. Must be called inside a runtime.
    pub fn open(addresses: &[IpAddr], interfaces: &[String]) -> Result<Self, ListenError> {
        let at = |port| addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect::<Vec<_>>();
        let open = |port| match interfaces {
            [] => Listener::bind(&at(port), ListenBounds::STANDARD),
            _ => Ok(Listener::bind_by(&at(port), interfaces.iter().map(String::as_str), ListenBounds::STANDARD)),
        };
        let listener = match open(PAIRING_PORT) {
            Ok(listener) if !listener.addresses().is_empty() => listener,
            _ => {
                // One port for all, or nobody could be told a single one.
                let first = Listener::bind(&at(0)[..1.min(addresses.len())], ListenBounds::STANDARD)?;
                let port = first.addresses().first().map_or(0, SocketAddr::port);
                drop(first);
                open(port)?
            }
        };
        Ok(Self { listener })
    }

    /// Returns where it is open.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.listener.addresses()
    }

    /// Waits for whoever proves one of the secrets. `on_wrong` is told of each wrong guess, and how many are left.
    ///
    /// # Errors
    /// [`MeetError::Burned`] after [`PAIRING_GUESSES_MAX`] wrong guesses.
    pub async fn admit(
        &self,
        own: &Own,
        secrets: &Secrets,
        policy: &Policy,
        mut on_wrong: impl FnMut(u32),
    ) -> Result<Channel, MeetError> {
        // Nobody is trusted here, so that the share of the trusted is nobody's.
        let bounds = AnteroomBounds {
            strangers: PAIRING_STRANGERS_MAX,
            strangers_per_address: PAIRING_STRANGERS_MAX / 4,
            handshakes_per_device: 0,
        };
        let anteroom = Anteroom::new(bounds);
        let guesses = Arc::new(AtomicU32::new(0));
        let mut wrong = 0;
        let mut knocks = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let Ok((stream, from)) = accepted else {
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    };
                    if !policy.permits(from.ip()) {
                        debug!(%from, "connection from outside the local network refused");
                        continue;
                    }
                    let place = anteroom.enter(from.ip());
                    let number = place.number();
                    let knock = Knock { own: own.clone(), secrets: secrets.clone(), guesses: guesses.clone(), stream };
                    let task = knocks.spawn(async move {
                        let _place = place;
                        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
                        timeout_at(deadline, knock.run(from)).await.unwrap_or_else(|late| Err(MeetError::Lost(late.into())))
                    });
                    anteroom.note_task(number, task);
                }
                Some(ended) = knocks.join_next(), if !knocks.is_empty() => match ended {
                    Ok(Ok(channel)) => return Ok(channel),
                    Ok(Err(MeetError::WrongCode)) => {
                        wrong += 1;
                        on_wrong(PAIRING_GUESSES_MAX - wrong);
                        if wrong == PAIRING_GUESSES_MAX {
                            return Err(MeetError::Burned);
                        }
                    }
                    Ok(Err(error)) => debug!(%error, "somebody knocked and did not come in"),
                    Err(error) => debug!(%error, "somebody knocked and had to make room"),
                }
            }
        }
    }
}

/// One who knocks at a window.
struct Knock {
    own: Own,
    secrets: Secrets,
    /// Guesses made, right ones included: each is counted before it is looked at.
    guesses: Arc<AtomicU32>,
    stream: TcpStream,
}

impl Knock {
    async fn run(mut self, from: SocketAddr) -> Result<Channel, MeetError> {
        self.stream.set_nodelay(true).map_err(MeetError::Lost)?;
        let first = read::<FIRST_LEN>(&mut self.stream).await?;
        let secret_of = |kind| match kind {
            SecretKind::Code => self.secrets.code.clone(),
            SecretKind::Link => self.secrets.link.clone(),
        };
        let (host, second) = Host::start(self.own.clone(), secret_of, &first, &*seed()?)?;
        self.write(&second).await?;
        let third = read::<THIRD_LEN>(&mut self.stream).await?;
        let count = |made: u32| (made < PAIRING_GUESSES_MAX).then_some(made + 1);
        if self.guesses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count).is_err() {
            self.write(&[BURNED]).await?;
            return Err(MeetError::Burned);
        }
        let (host, fourth) = match host.handle_third(&third, &SystemPrimitives) {
            Ok(proven) => proven,
            Err(PairingError::WrongSecret) => {
                // It is a wrong guess whether or not it can be told so.
                self.write(&[WRONG]).await.ok();
                self.stream.shutdown().await.ok();
                return Err(MeetError::WrongCode);
            }
            Err(error) => return Err(error.into()),
        };
        self.write(&[&[RIGHT][..], &fourth].concat()).await?;
        let fifth = read::<FIFTH_LEN>(&mut self.stream).await?;
        let paired = host.handle_fifth(&fifth)?;
        Ok(Channel { stream: self.stream, paired, at: from })
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), MeetError> {
        self.stream.write_all(bytes).await.map_err(MeetError::Lost)
    }
}

/// Goes to a window and proves the secret.
pub async fn join(
    own: Own,
    secret: &Secret,
    at: SocketAddr,
    policy: &Policy,
    interfaces: &[String],
) -> Result<Channel, MeetError> {
    if !policy.permits(at.ip()) {
        return Err(DialError::Forbidden { addr: at }.into());
    }
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let mut stream = connect(at, interfaces, deadline).await?;
    let handshake = async {
        let (joiner, first) = Joiner::start(own, secret, &*seed()?);
        stream.write_all(&first).await.map_err(MeetError::Lost)?;
        let second = read::<SECOND_LEN>(&mut stream).await?;
        let (joiner, third) = joiner.handle_second(&second, &SystemPrimitives)?;
        stream.write_all(&third).await.map_err(MeetError::Lost)?;
        match read::<1>(&mut stream).await? {
            [RIGHT] => {}
            [WRONG] => return Err(MeetError::WrongCode),
            [BURNED] => return Err(MeetError::Burned),
            _ => return Err(PairingError::Foreign.into()),
        }
        let fourth = read::<FOURTH_LEN>(&mut stream).await?;
        let (paired, fifth) = joiner.handle_fourth(&fourth)?;
        stream.write_all(&fifth).await.map_err(MeetError::Lost)?;
        Ok(paired)
    };
    let paired = timeout_at(deadline, handshake).await.unwrap_or_else(|late| Err(MeetError::Lost(late.into())))?;
    Ok(Channel { stream, paired, at })
}

/// Two devices that have proven the code to each other, and what they say.
pub struct Channel {
    stream: TcpStream,
    paired: Paired,
    at: SocketAddr,
}

impl Channel {
    /// Returns the other end, proven.
    pub fn paired(&self) -> &Paired {
        &self.paired
    }

    /// Returns where the other end is.
    pub fn peer_addr(&self) -> SocketAddr {
        self.at
    }

    /// Says something.
    pub async fn send(&mut self, message: &PairingMessage) -> Result<(), MeetError> {
        let sealed = self.paired.seal(&message.encode())?;
        let len = u16::try_from(sealed.len()).map_err(|_| PairingError::TooLong)?;
        self.stream.write_all(&[&len.to_be_bytes()[..], &sealed].concat()).await.map_err(MeetError::Lost)
    }

    /// Waits for what the other end says.
    pub async fn receive(&mut self) -> Result<PairingMessage, MeetError> {
        let len = usize::from(u16::from_be_bytes(read(&mut self.stream).await?));
        if len > SEALED_LEN_MAX {
            return Err(PairingError::TooLong.into());
        }
        let mut sealed = vec![0; len];
        self.stream.read_exact(&mut sealed).await.map_err(MeetError::Lost)?;
        Ok(PairingMessage::decode(&self.paired.open(&sealed)?)?)
    }
}

async fn read<const LEN: usize>(stream: &mut TcpStream) -> Result<[u8; LEN], MeetError> {
    let mut message = [0; LEN];
    stream.read_exact(&mut message).await.map_err(MeetError::Lost)?;
    Ok(message)
}

fn seed() -> Result<Zeroizing<[u8; 32]>, MeetError> {
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(seed.as_mut_slice()).map_err(|_| MeetError::Randomness)?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::Future;
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use crate::net::handshake_tests::Device;

    const LAN: Policy = Policy { lan_only: true, allowed: Vec::new() };

    fn own(n: u8) -> Own {
        let device = Device::new(n);
        Own { device: device.local.device, private: device.local.private }
    }

    fn secrets() -> Secrets {
        Secrets { code: Secret::of_code("7-velvet-island"), link: Secret::of_link(&[9; 16]) }
    }

    fn open() -> Window {
        // Not the well-known port: tests run side by side.
        let listener = Listener::bind(&["127.0.0.1:0".parse().unwrap()], ListenBounds::STANDARD).unwrap();
        Window { listener }
    }

    type Admitted = (Result<Channel, MeetError>, Vec<u32>);

    /// Opens a window of device 1 and lets in whoever proves the code.
    fn host() -> (SocketAddr, JoinHandle<Admitted>) {
        let window = open();
        let at = window.addresses()[0];
        let admitting = async move {
            let mut wrong = Vec::new();
            let admitted = window.admit(&own(1), &secrets(), &LAN, |left| wrong.push(left)).await;
            (admitted, wrong)
        };
        (at, tokio::spawn(admitting))
    }

    async fn guess(at: SocketAddr, code: &str) -> Result<Channel, MeetError> {
        join(own(2), &Secret::of_code(code), at, &LAN, &[]).await
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn the_same_code_or_link_makes_a_channel_and_each_end_knows_the_other() {
        run(async {
            for secret in [Secret::of_code("7-velvet-island"), Secret::of_link(&[9; 16])] {
                let (at, host) = host();
                let mut joined = join(own(2), &secret, at, &LAN, &[]).await.unwrap();
                let (admitted, wrong) = host.await.unwrap();
                let mut admitted = admitted.unwrap();
                assert_eq!((joined.paired().peer, admitted.paired().peer), (own(1).device, own(2).device));
                assert_eq!(joined.paired().handshake_hash, admitted.paired().handshake_hash);
                assert!(wrong.is_empty());
                for said in [PairingMessage::Answer(true), PairingMessage::Done(false)] {
                    joined.send(&said).await.unwrap();
                    assert_eq!(admitted.receive().await.unwrap(), said);
                    admitted.send(&said).await.unwrap();
                    assert_eq!(joined.receive().await.unwrap(), said);
                }
            }
        });
    }

    #[test]
    fn three_wrong_guesses_burn_the_code_and_the_right_one_comes_too_late() {
        run(async {
            let (at, host) = host();
            for guessed in ["7-velvet-velvet", "7-island-velvet", "8-velvet-island"] {
                assert!(matches!(guess(at, guessed).await, Err(MeetError::WrongCode)), "{guessed}");
            }
            let (admitted, wrong) = host.await.unwrap();
            assert!(matches!(admitted, Err(MeetError::Burned)));
            assert_eq!(wrong, [2, 1, 0]);
            assert!(guess(at, "7-velvet-island").await.is_err());
        });
    }

    #[test]
    fn after_two_wrong_guesses_the_right_one_counts() {
        run(async {
            let (at, host) = host();
            assert!(guess(at, "7-velvet-velvet").await.is_err());
            // A code is not a link, nor the other way round.
            let as_link = join(own(2), &Secret::of_link(b"7-velvet-island\0"), at, &LAN, &[]).await;
            assert!(matches!(as_link, Err(MeetError::WrongCode)));
            assert!(guess(at, "7-velvet-island").await.is_ok());
            assert!(host.await.unwrap().0.is_ok());
        });
    }

    #[test]
    fn guesses_at_the_same_time_are_no_more_than_those_one_after_the_other() {
        run(async {
            let (at, host) = host();
            let guessing: Vec<_> =
                (0..40).map(|n| tokio::spawn(async move { guess(at, &format!("{n}-a-b")).await })).collect();
            let mut wrong = 0;
            for guess in guessing {
                wrong += u32::from(matches!(guess.await.unwrap(), Err(MeetError::WrongCode)));
            }
            assert!(wrong <= PAIRING_GUESSES_MAX, "{wrong}");
            let (admitted, told) = host.await.unwrap();
            assert!(matches!(admitted, Err(MeetError::Burned)));
            assert_eq!(told, [2, 1, 0]);
        });
    }

    #[test]
    fn who_knocks_and_says_nothing_or_garbage_is_no_guess_and_keeps_nobody_out() {
        run(async {
            let (at, host) = host();
            let mut loiterers = Vec::new();
            for n in 0..3 * PAIRING_STRANGERS_MAX {
                let mut stream = TcpStream::connect(at).await.unwrap();
                if n % 2 == 0 {
                    stream.write_all(&[0x41; FIRST_LEN]).await.unwrap();
                }
                loiterers.push(stream);
            }
            assert!(guess(at, "7-velvet-island").await.is_ok());
            let (admitted, wrong) = host.await.unwrap();
            assert!(admitted.is_ok() && wrong.is_empty());
        });
    }

    #[test]
    fn a_stranger_gets_no_message_that_depends_on_the_code_before_it_proves_it() {
        run(async {
            let (at, host) = host();
            let mut stream = TcpStream::connect(at).await.unwrap();
            let (_, first) = Joiner::start(own(3), &Secret::of_code("7-a-b"), &[3; 32]);
            stream.write_all(&first).await.unwrap();
            read::<SECOND_LEN>(&mut stream).await.unwrap();
            // All that it could try codes on comes after its own proof, and that one was wrong.
            stream.write_all(&[7; THIRD_LEN]).await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, [WRONG]);
            host.abort();
        });
    }

    /// A machine in the middle that hands on what both say, and changes one bit of the message `change` from either.
    async fn relay(to: SocketAddr, lens: &'static [(bool, usize)], change: Option<usize>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut joiner, _) = listener.accept().await.unwrap();
            let mut host = TcpStream::connect(to).await.unwrap();
            for (n, (from_joiner, len)) in lens.iter().enumerate() {
                let (from, to) = if *from_joiner { (&mut joiner, &mut host) } else { (&mut host, &mut joiner) };
                let mut message = vec![0; *len];
                if from.read_exact(&mut message).await.is_err() {
                    return;
                }
                if change == Some(n) {
                    message[*len - 1] ^= 1;
                }
                to.write_all(&message).await.ok();
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        at
    }

    /// Who says how much in which order.
    const MESSAGES: &[(bool, usize)] =
        &[(true, FIRST_LEN), (false, SECOND_LEN), (true, THIRD_LEN), (false, 1 + FOURTH_LEN), (true, FIFTH_LEN)];

    #[test]
    fn one_changed_bit_of_any_message_leaves_both_without_a_channel() {
        run(async {
            for change in 0..MESSAGES.len() {
                let (at, mut host) = host();
                let between = relay(at, MESSAGES, Some(change)).await;
                let joined = guess(between, "7-velvet-island").await;
                // The last message is the joiner's: it learns of the change from the silence that follows.
                assert_eq!(joined.is_ok(), change == MESSAGES.len() - 1, "message {change}");
                drop(joined);
                let admitted = tokio::time::timeout(Duration::from_millis(300), &mut host).await;
                assert!(admitted.is_err(), "message {change}: somebody was let in");
                host.abort();
            }
            // What the relay is worth: unchanged, it is let through.
            let (at, host) = host();
            let between = relay(at, MESSAGES, None).await;
            assert!(guess(between, "7-velvet-island").await.is_ok());
            assert!(host.await.unwrap().0.is_ok());
        });
    }

    #[test]
    fn a_machine_in_the_middle_with_keys_of_its_own_has_one_guess_at_either_end() {
        run(async {
            // It plays the host to the joiner, and the joiner to the host, and has guessed a code.
            let (at, host) = host();
            let window = open();
            let between = window.addresses()[0];
            let guessed = Secrets { code: Secret::of_code("7-velvet-hawk"), link: Secret::of_link(&[0; 16]) };
            let playing = tokio::spawn(async move { window.admit(&own(9), &guessed, &LAN, |_| {}).await.map(|_| ()) });
            assert!(matches!(guess(between, "7-velvet-island").await, Err(MeetError::WrongCode)));
            assert!(matches!(
                join(own(9), &Secret::of_code("7-velvet-hawk"), at, &LAN, &[]).await,
                Err(MeetError::WrongCode)
            ));
            playing.abort();
            assert!(guess(at, "7-velvet-island").await.is_ok());
            assert_eq!(host.await.unwrap().1, [2]);
        });
    }

    #[test]
    fn neither_code_nor_keys_are_seen_on_the_wire() {
        run(async {
            let (at, host) = host();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let between = listener.local_addr().unwrap();
            let seen = tokio::spawn(async move {
                let (joiner, _) = listener.accept().await.unwrap();
                let host = TcpStream::connect(at).await.unwrap();
                let ((mut from_joiner, mut to_joiner), (mut from_host, mut to_host)) =
                    (joiner.into_split(), host.into_split());
                let copy = async move |from: &mut tokio::net::tcp::OwnedReadHalf,
                                       to: &mut tokio::net::tcp::OwnedWriteHalf| {
                    let mut seen = Vec::new();
                    let mut buffer = [0; 4096];
                    while let Ok(len @ 1..) = from.read(&mut buffer).await {
                        seen.extend_from_slice(&buffer[..len]);
                        to.write_all(&buffer[..len]).await.ok();
                    }
                    to.shutdown().await.ok();
                    seen
                };
                let (a, b) = tokio::join!(copy(&mut from_joiner, &mut to_host), copy(&mut from_host, &mut to_joiner));
                [a, b].concat()
            });
            let mut joined = guess(between, "7-velvet-island").await.unwrap();
            joined.send(&PairingMessage::Answer(true)).await.unwrap();
            let mut admitted = host.await.unwrap().0.unwrap();
            admitted.receive().await.unwrap();
            drop((joined, admitted));
            let seen = seen.await.unwrap();
            assert!(seen.len() > FIRST_LEN + THIRD_LEN + FOURTH_LEN);
            let has = |bytes: &[u8]| seen.windows(bytes.len()).any(|window| window == bytes);
            assert!(has(b"kinfold pair 1"));
            assert!(!has(b"velvet") && !has(own(1).device.as_bytes()) && !has(own(2).device.as_bytes()));
        });
    }

    #[test]
    fn a_device_is_not_paired_with_itself_and_nobody_beyond_the_policy_is_asked() {
        run(async {
            let (at, host) = host();
            let itself = join(own(1), &Secret::of_code("7-velvet-island"), at, &LAN, &[]).await;
            assert!(matches!(itself, Err(MeetError::Pairing(PairingError::Itself))));
            host.abort();
            let far = join(own(2), &secrets().code, "203.0.113.7:25464".parse().unwrap(), &LAN, &[]).await;
            assert!(matches!(far, Err(MeetError::Dial(DialError::Forbidden { .. }))));
        });
    }
}
