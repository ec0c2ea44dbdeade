//! The lookout: a small process that asks NetworkManager whether the connection is metered, and tells its daemon.
//!
//! Whoever has a connection to the bus of the system can ask the service manager, and whatever else answers there, for
//! what the sandbox of a daemon refuses. So the daemon has none. The lookout has one, and no key, no file, no network, no
//! peer and little memory; all that the daemon hears of it is one byte at a time, of which it knows five. It is started
//! only where a folder is to rest on metered connections.
//!
//! It tells the bus nothing beyond what it asks for, and starts no service by that. What arrives may come from anybody on
//! this machine: a signal only has it ask again, at most a few times a second, and what counts is the answer of whoever
//! owns the name of NetworkManager, which the bus gives to root alone. A bus that is not there, or goes away, is looked for
//! again.

use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use zbus::address::Transport;
use zbus::address::transport::UnixSocket;
use zbus::message::Type;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::zvariant::OwnedValue;
use zbus::{Address, MatchRule, MessageStream, Proxy};

use crate::daemon::sandbox;

/// Where the bus of the system is, where the environment does not say.
const BUS: &str = "unix:path=/var/run/dbus/system_bus_socket";
/// Where the environment says so.
const BUS_VARIABLE: &str = "DBUS_SYSTEM_BUS_ADDRESS";

const MANAGER: &str = "org.freedesktop.NetworkManager";
const MANAGER_PATH: &str = "/org/freedesktop/NetworkManager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const PROPERTY: &str = "Metered";

/// How long the bus, and whoever answers by it, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Shortest time between two questions, however much there is to hear.
const ASK_PAUSE: Duration = Duration::from_millis(250);
/// Shortest and longest pause before a bus that is not there is looked for again.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(2);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Messages that wait to be looked at.
const QUEUE_MAX: usize = 8;
/// Memory that may be taken for what arrives; the bus passes on messages of up to 32 MiB.
const MEMORY_BYTES_MAX: u64 = 128 << 20;

/// What a lookout tells its daemon, a byte each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Word {
    /// The connection is metered, or most likely so.
    Metered,
    /// It is not, or most likely not.
    Unmetered,
    /// NetworkManager does not know.
    Undecided,
    /// NetworkManager does not run, or gives no answer that could be understood.
    NoManager,
    /// There is no bus.
    NoBus,
}

impl Word {
    const ALL: [Self; 5] = [Self::Metered, Self::Unmetered, Self::Undecided, Self::NoManager, Self::NoBus];

    /// Returns the byte for it.
    const fn byte(self) -> u8 {
        match self {
            Self::Metered => b'm',
            Self::Unmetered => b'f',
            Self::Undecided => b'u',
            Self::NoManager => b'n',
            Self::NoBus => b'b',
        }
    }

    /// Returns what a byte says; `None` where that is nothing.
    pub fn parse(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.byte() == byte)
    }

    /// Returns what the property says (`NMMetered`): 1 yes, 2 no, 3 and 4 the same as a guess.
    fn of_property(value: &OwnedValue) -> Self {
        match u32::try_from(value) {
            Ok(1 | 3) => Self::Metered,
            Ok(2 | 4) => Self::Unmetered,
            Ok(0) => Self::Undecided,
            _ => Self::NoManager,
        }
    }
}

/// Is the lookout of the daemon with this process id, which has the other end of the standard input, until that ends.
/// It must be the only thread of this process.
///
/// # Errors
/// This process was not started by a daemon.
pub fn look_out(parent: i32) -> anyhow::Result<()> {
    sandbox::process::bind_to(parent)?;
    let line = io::stdin().as_fd().try_clone_to_owned().context("the daemon handed no line over")?;
    sandbox::enter_as_lookout(MEMORY_BYTES_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the system gives no threads")?.block_on(async {
        let line = std::os::unix::net::UnixStream::from(line);
        line.set_nonblocking(true)?;
        let (mut heard, mut said) = tokio::net::UnixStream::from_std(line)?.into_split();
        // The daemon says nothing; its end is all that can be heard.
        let over = async { while heard.read_u8().await.is_ok() {} };
        tokio::select! {
            () = over => {}
            () = keep_asking(&mut said) => {}
        }
        Ok(())
    })
}

/// Tells what the bus says, as long as somebody listens.
async fn keep_asking(said: &mut OwnedWriteHalf) {
    let mut pause = RETRY_PAUSE_MIN;
    loop {
        let mut has_begun = false;
        // Why there is none tells nobody what to do; that there is none, the daemon says.
        if let Some(address) = address(std::env::var(BUS_VARIABLE).ok().as_deref()) {
            ask_by(address, said, &mut has_begun).await.ok();
        }
        if said.write_u8(Word::NoBus.byte()).await.is_err() {
            return;
        }
        pause = if has_begun { RETRY_PAUSE_MIN } else { pause };
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

/// Returns the first address of a bus on this machine that has a path; no other kind is reached from here.
fn address(given: Option<&str>) -> Option<Address> {
    let is_path = |address: &Address| match address.transport() {
        Transport::Unix(unix) => matches!(unix.path(), UnixSocket::File(_)),
        _ => false,
    };
    given.unwrap_or(BUS).split(';').filter_map(|text| text.parse().ok()).find(is_path)
}

/// Asks by a bus, at once and whenever something changes, until it goes away or nobody listens. `has_begun` becomes true
/// once the bus has let us in.
async fn ask_by(address: Address, said: &mut OwnedWriteHalf, has_begun: &mut bool) -> zbus::Result<()> {
    let begin = async {
        let connection =
            zbus::connection::Builder::address(address)?.max_queued(QUEUE_MAX).method_timeout(PATIENCE).build().await?;
        // In this order, so that nothing changes unheard.
        let changes = MessageStream::for_match_rule(changes_of_property()?, &connection, None).await?;
        let owners = MessageStream::for_match_rule(changes_of_owner()?, &connection, None).await?;
        let manager = zbus::proxy::Builder::<Proxy<'_>>::new(&connection)
            .destination(MANAGER)?
            .path(MANAGER_PATH)?
            .interface(PROPERTIES)?
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok::<_, zbus::Error>((changes, owners, manager))
    };
    let Ok(begun) = timeout(PATIENCE, begin).await else {
        return Err(zbus::Error::Failure("no bus answers".to_owned()));
    };
    let (changes, owners, manager) = begun?;
    *has_begun = true;
    let news = Notify::new();
    // Also while an answer is waited for: who does not take what arrives gets no answer.
    let hear = async {
        let mut signals = pin!(futures_util::stream::select(changes.map(|_| true), owners.map(|_| true)).fuse());
        while signals.next().await.is_some() {
            news.notify_one();
        }
    };
    let ask = async {
        while said.write_u8(ask(&manager).await?.byte()).await.is_ok() {
            sleep(ASK_PAUSE).await;
            news.notified().await;
        }
        Ok(())
    };
    tokio::select! {
        () = hear => Ok(()),
        ended = ask => ended,
    }
}

/// Asks once.
///
/// # Errors
/// The bus is gone.
async fn ask(manager: &Proxy<'_>) -> zbus::Result<Word> {
    let flags = MethodFlags::NoAutoStart.into();
    match manager.call_with_flags::<_, _, OwnedValue>("Get", flags, &(MANAGER, PROPERTY)).await {
        Ok(Some(value)) => Ok(Word::of_property(&value)),
        Err(zbus::Error::InputOutput(error)) if error.kind() != io::ErrorKind::TimedOut => {
            Err(zbus::Error::InputOutput(error))
        }
        Ok(None) | Err(_) => Ok(Word::NoManager),
    }
}

fn changes_of_property() -> zbus::Result<MatchRule<'static>> {
    let rule = MatchRule::builder().msg_type(Type::Signal).sender(MANAGER)?.path(MANAGER_PATH)?;
    Ok(rule.interface(PROPERTIES)?.member("PropertiesChanged")?.arg(0, MANAGER)?.build())
}

fn changes_of_owner() -> zbus::Result<MatchRule<'static>> {
    let rule = MatchRule::builder().msg_type(Type::Signal).sender("org.freedesktop.DBus")?;
    Ok(rule.interface("org.freedesktop.DBus")?.member("NameOwnerChanged")?.arg(0, MANAGER)?.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_a_byte_of_its_own_and_no_other_byte_is_one() {
        for word in Word::ALL {
            assert_eq!(Word::parse(word.byte()), Some(word));
        }
        let known = (0..=u8::MAX).filter(|byte| Word::parse(*byte).is_some());
        assert_eq!(known.count(), Word::ALL.len());
    }

    #[test]
    fn guesses_of_the_manager_count_and_what_is_no_answer_does_not() {
        let said = |value: u32| Word::of_property(&OwnedValue::from(value));
        assert_eq!([1, 3].map(said), [Word::Metered; 2]);
        assert_eq!([2, 4].map(said), [Word::Unmetered; 2]);
        assert_eq!(said(0), Word::Undecided);
        assert_eq!([5, u32::MAX].map(said), [Word::NoManager; 2]);
        for other in [OwnedValue::from(1_u8), OwnedValue::from(true), OwnedValue::from(1_i64)] {
            assert_eq!(Word::of_property(&other), Word::NoManager, "{other:?}");
        }
    }

    #[test]
    fn no_bus_is_reached_but_one_with_a_path() {
        let found = |given: Option<&str>| address(given).map(|address| address.to_string());
        assert_eq!(found(None).as_deref(), Some(BUS));
        assert_eq!(found(Some("unix:path=/run/bus")).as_deref(), Some("unix:path=/run/bus"));
        assert_eq!(found(Some("tcp:host=1.2.3.4,port=5;unix:path=/a")).as_deref(), Some("unix:path=/a"));
        for other in
            ["", "nonsense", "tcp:host=1.2.3.4,port=5", "unixexec:path=/bin/sh", "unix:abstract=bus", "autolaunch:"]
        {
            assert_eq!(found(Some(other)), None, "{other}");
        }
    }
}
