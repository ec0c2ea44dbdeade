//! The devices an index knows something of: held in memory, for they are few, and written with each
//! commit that changed them.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::engine::index::Cursor;
use crate::model::id::{DeviceId, Incarnation, Life, Sequence};
use crate::store::codec;
use crate::store::error::{At, StoreError};

const TABLE: &str = "peer";

/// One device, and how far the index has come with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// What stands for it in other tables.
    pub(crate) number: i64,
    pub(crate) cursor: Cursor,
    /// The number of its rows in the table of what peers hold.
    pub(crate) remotes: u64,
    is_changed: bool,
}

/// All devices the index knows something of.
#[derive(Debug, Default)]
pub(crate) struct Peers(BTreeMap<DeviceId, Peer>);

impl Peers {
    pub(crate) fn read(conn: &Connection) -> Result<Self, StoreError> {
        const SQL: &str = "SELECT peer, device, incarnation, received, acknowledged, remotes, sum, agreed, left_out, \
                           apart, life FROM peer";
        let mut statement = conn.prepare_cached(SQL).at(TABLE)?;
        let mut rows = statement.query([]).at(TABLE)?;
        let mut peers = BTreeMap::new();
        while let Some(row) = rows.next().at(TABLE)? {
            let number = |column: usize| row.get::<_, i64>(column).map(|n| n as u64).at(TABLE);
            let device = DeviceId::from_public_key(row.get(1).at(TABLE)?);
            let cursor = Cursor {
                incarnation: row.get::<_, Option<i64>>(2).at(TABLE)?.map(|n| Incarnation(n as u64)),
                received: Sequence(number(3)?),
                acknowledged: Sequence(number(4)?),
                agreed: Sequence(number(7)?),
                left_out: number(8)?,
                apart: row.get::<_, Option<[u8; 32]>>(9).at(TABLE)?.unwrap_or_default(),
                life: Life(number(10)?),
            };
            let peer = Peer { number: row.get(0).at(TABLE)?, cursor, remotes: number(5)?, is_changed: false };
            if number(6)? != u64::from(peer.sum(&device)) {
                return Err(StoreError::corrupt(TABLE, "a row does not match its checksum"));
            }
            peers.insert(device, peer);
        }
        Ok(Self(peers))
    }

    /// Writes what changed since the last time.
    pub(crate) fn write(&mut self, conn: &Connection) -> Result<(), StoreError> {
        const SQL: &str = "REPLACE INTO peer (peer, device, incarnation, received, acknowledged, remotes, sum, \
                           agreed, left_out, apart, life) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let mut statement = conn.prepare_cached(SQL).at(TABLE)?;
        for (device, peer) in self.0.iter_mut().filter(|(_, peer)| peer.is_changed) {
            let parameters = rusqlite::params![
                peer.number,
                device.as_bytes(),
                peer.cursor.incarnation.map(|incarnation| incarnation.0 as i64),
                peer.cursor.received.0 as i64,
                peer.cursor.acknowledged.0 as i64,
                peer.remotes as i64,
                peer.sum(device),
                peer.cursor.agreed.0 as i64,
                peer.cursor.left_out as i64,
                (peer.cursor.apart != [0; 32]).then_some(peer.cursor.apart),
                peer.cursor.life.0 as i64,
            ];
            statement.execute(parameters).at(TABLE)?;
            peer.is_changed = false;
        }
        Ok(())
    }

    pub(crate) fn get(&self, device: &DeviceId) -> Option<&Peer> {
        self.0.get(device)
    }

    pub(crate) fn device_of(&self, number: i64) -> Option<DeviceId> {
        self.0.iter().find(|(_, peer)| peer.number == number).map(|(device, _)| *device)
    }

    /// Returns a device to change it, which from now on is known.
    pub(crate) fn change(&mut self, device: &DeviceId) -> &mut Peer {
        let next = self.0.values().map(|peer| peer.number).max().unwrap_or(0).saturating_add(1);
        let unknown = Peer { number: next, cursor: Cursor::default(), remotes: 0, is_changed: true };
        let peer = self.0.entry(*device).or_insert(unknown);
        peer.is_changed = true;
        peer
    }

    /// Knows a device by another id from now on, of which nothing is known. Returns whether it is known at all. What stands
    /// for it in other tables stays.
    pub(crate) fn rename(&mut self, from: &DeviceId, to: &DeviceId) -> bool {
        let Some(peer) = self.0.remove(from) else { return false };
        self.0.insert(*to, Peer { is_changed: true, ..peer });
        true
    }

    /// Forgets a device. Its rows in other tables are the caller's matter.
    pub(crate) fn remove(&mut self, conn: &Connection, device: &DeviceId) -> Result<(), StoreError> {
        if let Some(peer) = self.0.remove(device) {
            conn.prepare_cached("DELETE FROM peer WHERE peer = ?").at(TABLE)?.execute([peer.number]).at(TABLE)?;
        }
        Ok(())
    }
}

impl Peer {
    fn sum(&self, device: &DeviceId) -> u32 {
        let mut covered = vec![b'q', u8::from(self.cursor.incarnation.is_some())];
        let incarnation = self.cursor.incarnation.map_or(0, |incarnation| incarnation.0);
        let Cursor { received, acknowledged, agreed, left_out, apart, life, .. } = self.cursor;
        for number in [self.number as u64, incarnation, received.0, acknowledged.0, self.remotes] {
            covered.extend_from_slice(&number.to_le_bytes());
        }
        if agreed != Sequence(0) {
            // Rows of the version before this number was there are what they were.
            covered.extend_from_slice(&agreed.0.to_le_bytes());
        }
        if left_out != 0 || apart != [0; 32] {
            covered.extend_from_slice(&left_out.to_le_bytes());
            covered.extend_from_slice(&apart);
        }
        if life != Life::default() {
            covered.extend_from_slice(b"l");
            covered.extend_from_slice(&life.0.to_le_bytes());
        }
        covered.extend_from_slice(device.as_bytes());
        codec::sum_of(&covered)
    }
}
