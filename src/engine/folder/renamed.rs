//! Peers that have another id than before, for they have changed their key.
//!
//! The index of such a device is the one that it was. So all that is known of it stays: how far both have come, what it
//! holds, what of that a person is to look at, and what counts against it at the brake. Were it taken for somebody new,
//! everything would be told once more, and a device could change its key to have the brake forget.

use crate::engine::folder::Folder;
use crate::engine::index::{Cursor, Index};
use crate::model::id::DeviceId;

impl<I: Index> Folder<I> {
    /// Devices go by another id now: the former and the present one of each.
    pub(super) fn handle_renamed(&mut self, peers: &[(DeviceId, DeviceId)]) -> Result<(), I::Error> {
        for (from, to) in peers {
            let is_known = |peer: &DeviceId| -> Result<bool, I::Error> {
                Ok(self.index.cursor(peer)? != Cursor::default() || self.index.remote_count(peer)? > 0)
            };
            if from == to || !is_known(from)? {
                continue;
            }
            let is_met_already = is_known(to)?;
            self.handle_peer_down(from)?;
            if is_met_already {
                // It has told everything anew; what was heard before is void.
                self.index.drop_peer(from)?;
                self.brake.forget_held(from);
            } else {
                self.index.rename_peer(from, to)?;
            }
            self.brake.rename(from, to);
            self.is_changed = true;
            self.sweep.begin_again();
        }
        Ok(())
    }
}
