//! Changes of a device's key that need no pairing: this device's own, and those of its peers.
//!
//! The next key is made beside the present one, and its id is told to each peer inside a session, which notes it in its
//! configuration and says so. Once all devices have noted it, the next key takes the place of the present one, and the
//! daemon begins again. A peer that sees the next id in a finished handshake knows the device by that alone from then on.
//!
//! The files, in the order in which they change: what is under way was written down when it was begun; the identity is
//! replaced by one rename, then the configuration names the new id where it named the former, then the note goes. A crash
//! in between leaves an identity that is whole, and a note of who this device was; [`finish`] does the rest at the next
//! start.
//!
//! The identity's file may be locked. So it is made by the command that begins, which has the passphrase, and is only
//! renamed here. A daemon has the next key itself from the note, where it lies under the present one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::bail;

use crate::config::Config;
use crate::config::Device;
use crate::config::edit::Edit;
use crate::config::error::{ConfigError, EditError};
use crate::config::file::Lock;
use crate::config::paths::Paths;
use crate::config::succession::NextRefused;
use crate::daemon::hub::{Hub, chain};
use crate::daemon::keeper::PrivateKey;
use crate::daemon::peer::{Outgoing, PeerSender};
use crate::daemon::run::wall_ns;
use crate::engine::session::succession;
use crate::keys::identity::{Identity, WeakPeer};
use crate::keys::key_file::{self, KeyError, KeyFile};
use crate::keys::passphrase::Passphrase;
use crate::keys::rotation::Rotation;
use crate::model::id::DeviceId;
use crate::model::limits::NEXT_ID_PAUSE;
use crate::wire::message::{Message, NextId};

/// Why a key cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// One of the keys cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The configuration cannot be changed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be written.
    #[error("cannot note how far the change of the key has come")]
    Io(#[from] io::Error),
    /// The next key was not made by who has the present one.
    #[error(
        "the next key of this device was not made by it: run `kinfold key rotate --cancel`, and look who can write to \
         its files"
    )]
    Foreign,
    /// The passphrase is to change while there are two identities.
    #[error("the key of this device is being changed")]
    UnderWay,
}

impl From<EditError> for RotationError {
    fn from(error: EditError) -> Self {
        Self::Config(error.into())
    }
}

/// Returns the trusted devices that do not know of a change.
pub fn unheard<'a>(rotation: &Rotation, config: &'a Config) -> Vec<&'a Device> {
    config.devices.iter().filter(|device| !rotation.heard.contains(&device.id)).collect()
}

/// Returns the change that is under way, if one is. `own` is this device.
pub fn pending(paths: &Paths, own: &DeviceId) -> Result<Option<Rotation>, RotationError> {
    let Some(state) = Rotation::read(&paths.rotation()).filter(|state| state.from == *own) else { return Ok(None) };
    match KeyFile::read(&paths.next_identity()) {
        Ok(next) => Ok(Some(state).filter(|state| state.next == next.device_id())),
        Err(KeyError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Keeps a change from beginning until the result is dropped.
///
/// # Errors
/// [`RotationError::UnderWay`] if one has begun.
pub fn hold_off(paths: &Paths) -> Result<Lock, RotationError> {
    let lock = Lock::take(paths.config_dir())?;
    match pending(paths, &KeyFile::read(&paths.identity())?.device_id())? {
        None => Ok(lock),
        Some(_) => Err(RotationError::UnderWay),
    }
}

/// Makes the next key, durably, where there is none yet. Where the present one is locked, it takes the passphrase.
pub fn begin(paths: &Paths, passphrase: Option<&Passphrase>) -> Result<Rotation, RotationError> {
    let _lock = Lock::take(paths.config_dir())?;
    if let Some(known) = pending(paths, &KeyFile::read(&paths.identity())?.device_id())? {
        return Ok(known);
    }
    // Of what an interrupted beginning has left nobody was told.
    let (present, next) = key_file::create_next(&paths.identity(), &paths.next_identity(), passphrase)?;
    let state = Rotation::new(&present, &next, wall_ns());
    state.write(&paths.rotation())?;
    Ok(state)
}

/// Gives up the next key. Returns whether there was one.
pub fn cancel(paths: &Paths) -> Result<bool, RotationError> {
    let _lock = Lock::take(paths.config_dir())?;
    let was_there = key_file::sweep(&paths.next_identity())?;
    remove(&paths.rotation())?;
    Ok(was_there)
}

/// Notes that a device knows of the next id. Returns whether that is still the one.
fn note_heard(paths: &Paths, known: &Rotation, device: DeviceId) -> Result<bool, RotationError> {
    // Whoever gives up the change holds the lock as well.
    let _lock = Lock::take(paths.config_dir())?;
    let state = pending(paths, &known.from)?.filter(|state| state.next == known.next);
    let Some(mut state) = state else { return Ok(false) };
    state.heard.insert(device);
    state.write(&paths.rotation())?;
    Ok(true)
}

/// Whom the next key waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WaitFor {
    /// All trusted devices.
    All,
    /// Nobody: a person will not wait.
    Nobody,
}

/// Has the device be who it was going to be, from now on. Returns who that is, or `None` where nothing is under way, or
/// somebody is to be waited for.
///
/// A daemon that runs is still who it was, and has to begin again.
pub fn take(paths: &Paths, wait_for: WaitFor) -> Result<Option<DeviceId>, RotationError> {
    let mut edit = Edit::open(paths)?;
    let own = KeyFile::read(&paths.identity())?.device_id();
    let Some(state) = pending(paths, &own)? else { return Ok(None) };
    if wait_for == WaitFor::All && !unheard(&state, edit.config()).is_empty() {
        return Ok(None);
    }
    edit.succeed(&own, &state.next)?;
    key_file::succeed(&paths.identity(), &paths.next_identity())?;
    edit.save()?;
    key_file::sweep(&paths.next_identity())?;
    remove(&paths.rotation())?;
    Ok(Some(state.next))
}

/// Does the rest of a change that was interrupted. Returns the configuration as it is then, or `None` where there is
/// nothing to be done.
pub fn finish(paths: &Paths) -> Result<Option<Config>, RotationError> {
    if Rotation::read(&paths.rotation()).is_none() {
        return Ok(None);
    }
    let mut edit = Edit::open(paths)?;
    let Some(state) = Rotation::read(&paths.rotation()) else { return Ok(None) };
    let own = match KeyFile::read(&paths.identity()) {
        Err(KeyError::Missing { .. }) => return Ok(None),
        own => own?.device_id(),
    };
    if own != state.next || own == state.from {
        return Ok(None);
    }
    edit.succeed(&state.from, &own)?;
    let config = edit.save()?;
    remove(&paths.rotation())?;
    Ok(Some(config))
}

/// Returns who this device is by now: it may have changed its key since a keeper was `told` who it is.
pub(super) fn present(paths: &Paths, told: Identity) -> anyhow::Result<Identity> {
    let file = match KeyFile::read(&paths.identity()) {
        // It was handed over by a service manager.
        Err(KeyError::Missing { .. }) => return Ok(told),
        file => file?,
    };
    let (former, own) = (told.device_id(), file.device_id());
    if own == former {
        return Ok(told);
    }
    if let Some(next) = Rotation::read(&paths.rotation()).filter(|state| state.next == own).and_then(|s| s.open(&told))
    {
        return Ok(next);
    }
    match file {
        _ if !Config::load(paths)?.former.contains(&former) => Ok(told),
        KeyFile::Plain(seed) => Ok(Identity::from_seed(&seed)),
        KeyFile::Locked(_) => bail!("this device has another key now, which is locked: start the daemon again"),
    }
}

fn remove(path: &std::path::Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a daemon knows of changes of keys.
#[derive(Default)]
pub struct Rotations(Mutex<State>);

/// A change of this device's key that is under way.
struct Pending {
    /// The key that it is going to have.
    next: Identity,
    /// Who knows of it.
    state: Rotation,
}

#[derive(Default)]
struct State {
    /// This device's own change.
    pending: Option<Pending>,
    /// Who the next daemon is to be, where that is another than this one.
    successor: Option<Identity>,
    /// Whether there was one a moment ago, so that peers remember what is not true any more.
    was_pending: bool,
    /// When what a device said of its next id was last taken over.
    noted: BTreeMap<DeviceId, Instant>,
}

impl Rotations {
    /// Each change is a single step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether what a device says may be taken over now, and counts it as done.
    fn may_note(&self, device: &DeviceId, now: Instant) -> bool {
        let mut state = self.lock();
        state.noted.retain(|_, noted| now.duration_since(*noted) < NEXT_ID_PAUSE);
        let is_free = !state.noted.contains_key(device);
        if is_free {
            state.noted.insert(*device, now);
        }
        is_free
    }
}

/// Why a peer's next id is not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Refused(#[from] NextRefused),
    #[error("it has not shown that it has the key")]
    Unproven,
    #[error(transparent)]
    Weak(#[from] WeakPeer),
}

/// Where a change of this device's key stands.
pub struct Standing {
    /// Who it is going to be.
    pub next: DeviceId,
    /// When that was begun, in nanoseconds since 1970.
    pub since_ns: i64,
    /// What the devices are called that do not know of it.
    pub unheard: Vec<String>,
}

impl Hub {
    // ---------------------------------------------------------------------------- this device's key

    /// Looks which keys there are. Where this device has another one than this daemon, that begins again. Returns whether
    /// it goes on.
    pub fn look_at_keys(&self) -> bool {
        match self.try_look_at_keys() {
            Ok(goes_on) => goes_on,
            Err(error) => {
                tracing::error!(error = chain(&error), "the keys of this device cannot be looked at");
                true
            }
        }
    }

    fn try_look_at_keys(&self) -> Result<bool, RotationError> {
        let own = self.identity.device_id();
        let present = match KeyFile::read(&self.paths.identity()) {
            // It was handed over by a service manager, and has no next one.
            Err(KeyError::Missing { .. }) => return Ok(true),
            present => present?.device_id(),
        };
        if present != own {
            let mut state = self.rotations.lock();
            state.successor = state.pending.take().map(|known| known.next).filter(|next| next.device_id() == present);
            if state.successor.is_none() && !Config::load(&self.paths)?.former.contains(&own) {
                tracing::warn!("the identity's file is that of another device now; this daemon stays who it is");
                return Ok(true);
            }
            drop(state);
            self.end(Some("this device has another key"));
            return Ok(false);
        }
        let found = pending(&self.paths, &own)?;
        let opened = found.map(|state| {
            let next = state.open(&self.identity).ok_or(RotationError::Foreign)?;
            Ok::<_, RotationError>(Pending { next, state })
        });
        let opened = opened.transpose()?;
        let mut state = self.rotations.lock();
        state.was_pending |= state.pending.is_some();
        state.pending = opened;
        Ok(true)
    }

    /// Returns the private key that the next daemon is to have.
    pub(super) fn next_private_key(&self) -> PrivateKey {
        self.rotations.lock().successor.as_ref().unwrap_or(&self.identity).private_key()
    }

    /// Tells a peer who this device is going to be, or that it stays who it is.
    pub(super) fn tell_next(&self, peer: &DeviceId, sender: &PeerSender) {
        let own = self.identity.device_id();
        let next = self.rotations.lock().pending.as_ref().map(|pending| {
            let id = pending.next.device_id();
            let shared = pending.next.agree(peer)?;
            Ok::<_, WeakPeer>(NextId { id, proof: succession::prove(&shared, &own, &id, peer) })
        });
        match next.transpose() {
            Ok(next) => sender.send(Outgoing::Message(Message::NextId(next))),
            Err(error) => tracing::error!(error = chain(&error), "a device cannot be told the next id"),
        }
    }

    /// Tells all peers that may not know it; once, where it is that this device stays who it is.
    pub fn tell_next_to_all(&self) {
        let heard = {
            let mut state = self.rotations.lock();
            let was_pending = std::mem::take(&mut state.was_pending);
            match &state.pending {
                Some(pending) => pending.state.heard.clone(),
                None if was_pending => BTreeSet::new(),
                None => return,
            }
        };
        let sessions: Vec<_> = {
            let state = self.lock();
            let unheard = state.sessions.iter().filter(|(peer, _)| !heard.contains(peer));
            unheard.map(|(peer, session)| (*peer, session.sender.clone())).collect()
        };
        sessions.iter().for_each(|(peer, sender)| self.tell_next(peer, sender));
    }

    /// A peer has noted an id that this device said it will have.
    pub(super) fn hear_noted(&self, from: &DeviceId, next: &DeviceId) {
        if self.lock().config.device(from).is_none() {
            return;
        }
        let is_news = |pending: &&Pending| pending.state.next == *next && !pending.state.heard.contains(from);
        let Some(state) = self.rotations.lock().pending.as_ref().filter(is_news).map(|pending| pending.state.clone())
        else {
            return;
        };
        match note_heard(&self.paths, &state, *from) {
            Ok(true) => {
                tracing::info!(device = %from, "it knows the next id of this device");
                if let Some(pending) = &mut self.rotations.lock().pending {
                    pending.state.heard.insert(*from);
                }
                self.take_next_if_all_know();
            }
            Ok(false) => {}
            Err(error) => tracing::error!(error = chain(&error), "what a device knows cannot be noted"),
        }
    }

    /// Has the next key take the place of this one, once all devices know of it.
    pub fn take_next_if_all_know(&self) {
        let config = self.lock().config.clone();
        let is_due =
            self.rotations.lock().pending.as_ref().is_some_and(|pending| unheard(&pending.state, &config).is_empty());
        if !is_due || *self.watch_stop().borrow() {
            return;
        }
        match take(&self.paths, WaitFor::All) {
            Ok(Some(id)) => tracing::info!(%id, "all devices know the next id of this device"),
            Ok(None) => return,
            // It may have done so, and only what follows failed.
            Err(error) => tracing::error!(error = chain(&error), "the next key cannot take the place of this one"),
        }
        self.look_at_keys();
    }

    /// Returns where a change of this device's key stands, if one is under way.
    pub fn rotation(&self) -> Option<Standing> {
        let config = self.lock().config.clone();
        let state = self.rotations.lock();
        let pending = state.pending.as_ref()?;
        let unheard = unheard(&pending.state, &config).into_iter().map(|device| device.name.clone()).collect();
        Some(Standing { next: pending.state.next, since_ns: pending.state.since_ns, unheard })
    }

    // ------------------------------------------------------------------------------ the keys of peers

    /// Takes over what a peer says of its next id, and tells it so.
    pub(super) fn hear_next(self: &Arc<Self>, from: &DeviceId, sender: &PeerSender, said: Option<NextId>) {
        let known = self.lock().config.device(from).cloned();
        let Some(known) = known else { return };
        let next = said.map(|said| said.id);
        if known.next != next {
            if let Some(Err(why)) = said.map(|said| self.check_next(&known, &said)) {
                tracing::warn!(device = known.name, why = chain(&why), "the next id that it says is not taken");
                return;
            }
            // What is taken back needs no bound: there is nothing to take back until something else was taken over.
            if next.is_some() && !self.rotations.may_note(from, Instant::now()) {
                tracing::debug!(device = known.name, "it says another next id too soon");
                return;
            }
            self.edit(|edit| edit.set_next(&self.identity.device_id(), from, next).map(|_| ()));
            if self.lock().config.device(from).is_none_or(|known| known.next != next) {
                return;
            }
            match next {
                Some(next) => tracing::info!(device = known.name, %next, "it is going to have another id"),
                None => tracing::info!(device = known.name, "it stays who it is"),
            }
        }
        if let Some(next) = next {
            sender.send(Outgoing::Message(Message::NextNoted(next)));
        }
    }

    fn check_next(&self, device: &Device, said: &NextId) -> Result<(), NotTaken> {
        let own = self.identity.device_id();
        self.lock().config.check_next(&own, device, &said.id)?;
        let shared = self.identity.agree(&said.id)?;
        if !succession::is_proven(&shared, &device.id, &said.id, &own, &said.proof) {
            return Err(NotTaken::Unproven);
        }
        Ok(())
    }

    /// A peer has proven an id: where it is the next one of a device, that device has it from now on, and no other.
    pub(super) fn promote(self: &Arc<Self>, peer: &DeviceId) {
        let known = self.lock().config.devices.iter().find(|device| device.next == Some(*peer)).cloned();
        let Some(known) = known else { return };
        let mut is_done = false;
        self.edit(|edit| {
            is_done = edit.promote(peer)?;
            Ok(())
        });
        // Of two connections at once one comes first.
        if is_done {
            tracing::warn!(device = known.name, former = %known.id, id = %peer, "it has its next key");
            let trusted: BTreeSet<_> = self.lock().config.devices.iter().map(|device| device.id).collect();
            self.new_keys.note([*peer], |device| trusted.contains(device), wall_ns());
            self.new_keys.save();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::time::Duration;

    use crate::config::edit::{self, NewFolder};
    use crate::keys::sealed::tests::{CHEAP, passphrase};
    use crate::model::id::FolderId;
    use crate::model::rights::Right;

    /// A device that is set up and holds a folder of its own.
    fn home(dir: &std::path::Path) -> (Paths, DeviceId) {
        let paths = Paths::below(&dir.join("home")).unwrap();
        fs::create_dir_all(&paths.state_dir).unwrap();
        fs::create_dir(dir.join("data")).unwrap();
        edit::init(&paths, "a", &[]).unwrap();
        let own = Identity::create(&paths.identity()).unwrap().device_id();
        let mut edit = Edit::open(&paths).unwrap();
        let folder = NewFolder { name: "data".into(), path: dir.join("data"), id: FolderId([1; 16]), shares: vec![] };
        edit.add_folder(&own, &folder).unwrap();
        edit.save().unwrap();
        (paths, own)
    }

    fn id(paths: &Paths) -> DeviceId {
        Identity::open(&paths.identity()).unwrap().device_id()
    }

    #[test]
    fn a_change_is_begun_once_and_given_up_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, own) = home(dir.path());
        assert!(pending(&paths, &own).unwrap().is_none());
        let begun = begin(&paths, None).unwrap();
        assert_eq!(begin(&paths, None).unwrap(), begun, "there is one already");
        assert!(matches!(hold_off(&paths), Err(RotationError::UnderWay)));
        let other = DeviceId::from_public_key([9; 32]);
        assert!(note_heard(&paths, &begun, other).unwrap());
        assert!(pending(&paths, &own).unwrap().unwrap().heard.contains(&other));
        assert!(cancel(&paths).unwrap() && !cancel(&paths).unwrap());
        assert!(!note_heard(&paths, &begun, other).unwrap());
        assert!(take(&paths, WaitFor::Nobody).unwrap().is_none());
        assert!(hold_off(&paths).is_ok());
        assert_eq!(id(&paths), own);
        assert_ne!(begin(&paths, None).unwrap().next, begun.next);
    }

    #[test]
    fn of_an_interrupted_beginning_nothing_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, own) = home(dir.path());
        let begun = begin(&paths, None).unwrap();
        fs::remove_file(paths.rotation()).unwrap();
        assert!(pending(&paths, &own).unwrap().is_none() && take(&paths, WaitFor::Nobody).unwrap().is_none());
        let again = begin(&paths, None).unwrap();
        assert_ne!(again.next, begun.next);
        // A note of another key than the one that lies there.
        begun.write(&paths.rotation()).unwrap();
        assert!(pending(&paths, &own).unwrap().is_none() && take(&paths, WaitFor::Nobody).unwrap().is_none());
        assert_eq!(id(&paths), own);
    }

    #[test]
    fn the_next_key_takes_the_place_and_the_folders_are_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, own) = home(dir.path());
        let begun = begin(&paths, None).unwrap();
        let other = Device::new("b", DeviceId::from_public_key([9; 32]), vec![]);
        let mut edit = Edit::open(&paths).unwrap();
        edit.add_device(&own, &other).unwrap();
        edit.save().unwrap();
        assert_eq!(take(&paths, WaitFor::All).unwrap(), None, "one does not know");
        assert_eq!(id(&paths), own);
        assert!(note_heard(&paths, &begun, other.id).unwrap());
        assert_eq!(take(&paths, WaitFor::All).unwrap(), Some(begun.next));
        assert_eq!(id(&paths), begun.next);
        let config = Config::load(&paths).unwrap();
        assert_eq!(config.former, [own]);
        let members = &config.folders[0].members;
        assert_eq!((members.right_of(&own), members.right_of(&begun.next)), (None, Some(Right::Owner)));
        assert!(!paths.next_identity().exists() && !paths.rotation().exists());
        assert!(finish(&paths).unwrap().is_none());
    }

    #[test]
    fn a_crash_between_two_files_is_finished_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, own) = home(dir.path());
        let begun = begin(&paths, None).unwrap();
        assert!(finish(&paths).unwrap().is_none(), "it has not come to that yet");
        assert_eq!(id(&paths), own);
        // The key was replaced, and then the machine stopped.
        let note = fs::read(paths.rotation()).unwrap();
        key_file::succeed(&paths.identity(), &paths.next_identity()).unwrap();
        let config = finish(&paths).unwrap().unwrap();
        assert_eq!(config.folders[0].members.right_of(&begun.next), Some(Right::Owner));
        // It stopped once more before the note was gone.
        fs::write(paths.rotation(), note).unwrap();
        assert_eq!(finish(&paths).unwrap().unwrap(), config);
        assert!(!paths.rotation().exists());
    }

    #[test]
    fn a_daemon_that_was_told_who_this_device_was_finds_out_who_it_is_or_does_not_begin() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, own) = home(dir.path());
        let told = || Identity::open(&dir.path().join("told")).unwrap();
        fs::copy(paths.identity(), dir.path().join("told")).unwrap();
        let found = || present(&paths, told()).map(|identity| identity.device_id());
        assert_eq!(found().unwrap(), own);
        // The file of another device, or none, is no matter.
        fs::remove_file(paths.identity()).unwrap();
        assert_eq!(found().unwrap(), own);
        Identity::create(&paths.identity()).unwrap();
        assert_eq!(found().unwrap(), own);
        fs::copy(dir.path().join("told"), paths.identity()).unwrap();
        key_file::lock(&paths.identity(), &passphrase("one"), CHEAP).unwrap();
        let begun = begin(&paths, Some(&passphrase("one"))).unwrap();
        assert_eq!(found().unwrap(), own);

        // A crash after the key was replaced: what lies under the key that it was told is the one that it has.
        key_file::succeed(&paths.identity(), &paths.next_identity()).unwrap();
        assert_eq!(found().unwrap(), begun.next);
        finish(&paths).unwrap();
        assert!(found().unwrap_err().to_string().contains("which is locked: start the daemon again"));
        key_file::unlock(&paths.identity(), &passphrase("one")).unwrap();
        assert_eq!(found().unwrap(), begun.next);
    }

    #[test]
    fn what_a_device_says_is_taken_over_once_a_minute() {
        let (rotations, begun) = (Rotations::default(), Instant::now());
        let (one, other) = (DeviceId::from_public_key([1; 32]), DeviceId::from_public_key([2; 32]));
        assert!(rotations.may_note(&one, begun) && rotations.may_note(&other, begun));
        for second in 1..60 {
            assert!(!rotations.may_note(&one, begun + Duration::from_secs(second)));
        }
        assert!(rotations.may_note(&one, begun + NEXT_ID_PAUSE));
        assert!(rotations.lock().noted.len() < 2, "nothing is remembered for longer");
    }
}
