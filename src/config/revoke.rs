//! Revoking a device in the configuration file: it goes out of the trust list, and what was said of it stays, to be told
//! to the other devices and to be remembered should somebody bring it back.

use toml_edit::Table;

use crate::config::edit::{Edit, push, row, value};
use crate::config::error::EditError;
use crate::config::{Config, Revoked};
use crate::model::id::DeviceId;
use crate::model::limits::REVOCATIONS_MAX;
use crate::model::revocation::Revocation;

/// A device that was revoked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WasRevoked {
    /// Which.
    pub id: DeviceId,
    /// What it was called here, where it was trusted.
    pub name: Option<String>,
}

impl Config {
    /// Returns what was last said of a device.
    pub fn revocation(&self, device: &DeviceId) -> Option<&Revoked> {
        self.revoked.iter().find(|revoked| revoked.said.device == *device)
    }
}

impl Edit {
    /// Revokes a device by its name or id, trusted or not. `own` is this device.
    pub fn revoke_device(&mut self, own: &DeviceId, name: &str) -> Result<WasRevoked, EditError> {
        let trusted = self.config().device_named(name).map(|device| device.id);
        let known = || self.config().revoked.iter().find(|revoked| revoked.name.as_deref() == Some(name));
        let id = trusted.or_else(|| DeviceId::parse(name).ok()).or_else(|| known().map(|known| known.said.device));
        let id = id.ok_or_else(|| EditError::UnknownDevice { name: name.to_owned() })?;
        if id == *own || self.config().former.contains(&id) {
            return Err(EditError::OwnDevice);
        }
        let stamp = match self.config().revocation(&id) {
            // It is revoked already; the person here now says so too.
            Some(known) if !known.said.is_lifted => known.said.stamp,
            known => next_stamp(known),
        };
        self.take_out(own, Revocation { device: id, stamp, is_lifted: false }, None)
    }

    /// Takes over what another device says of devices, as far as it is news. Returns those that are revoked by that.
    pub fn hear_revocations(
        &mut self,
        own: &DeviceId,
        from: &DeviceId,
        said: &[Revocation],
    ) -> Result<Vec<WasRevoked>, EditError> {
        let mut revoked = Vec::new();
        for said in said {
            // Nobody speaks for itself, and nobody speaks for us; not of who we were or will be, either.
            let is_own = said.device == *own || self.config().former.contains(&said.device);
            let is_theirs = self.config().device(from).is_some_and(|from| from.is_known_as(&said.device));
            if is_own || is_theirs || said.device == *from {
                continue;
            }
            let known = self.config().revocation(&said.device);
            let has_room = known.is_some() || self.config().revoked.len() < REVOCATIONS_MAX;
            if !said.counts_over(known.map(|known| &known.said)) || !has_room {
                continue;
            }
            if said.is_lifted {
                let name = known.and_then(|known| known.name.clone());
                self.write_revoked(&Revoked { said: *said, by: Some(*from), name })?;
            } else {
                revoked.push(self.take_out(own, *said, Some(*from))?);
            }
        }
        Ok(revoked)
    }

    /// Notes that a person trusts a device that was revoked.
    pub(super) fn lift_revocation(&mut self, device: &DeviceId) -> Result<(), EditError> {
        let Some(known) = self.config().revocation(device).filter(|known| !known.said.is_lifted) else {
            return Ok(());
        };
        let said = Revocation { device: *device, stamp: next_stamp(Some(known)), is_lifted: true };
        let name = known.name.clone();
        self.write_revoked(&Revoked { said, by: None, name })
    }

    fn take_out(&mut self, own: &DeviceId, said: Revocation, by: Option<DeviceId>) -> Result<WasRevoked, EditError> {
        let trusted = self.config().device_known_as(&said.device).cloned();
        if let Some(device) = &trusted {
            self.remove_device(own, &device.name)?;
            let has_room = self.config().revoked.len() + 1 < REVOCATIONS_MAX;
            if device.id != said.device && has_room {
                // It goes by another id by now. Those who have never known it by the one that was said hear of both.
                let said =
                    Revocation { device: device.id, stamp: next_stamp(self.config().revocation(&device.id)), ..said };
                self.write_revoked(&Revoked { said, by, name: Some(device.name.clone()) })?;
            }
        }
        let trusted = trusted.map(|device| device.name);
        let former = self.config().revocation(&said.device).and_then(|known| known.name.clone());
        self.write_revoked(&Revoked { said, by, name: trusted.clone().or(former) })?;
        Ok(WasRevoked { id: said.device, name: trusted })
    }

    fn write_revoked(&mut self, revoked: &Revoked) -> Result<(), EditError> {
        let at = self.config().revoked.iter().position(|known| known.said.device == revoked.said.device);
        if at.is_none() && self.config().revoked.len() >= REVOCATIONS_MAX {
            return Err(EditError::TooManyRevoked);
        }
        self.apply(|doc| {
            let mut new = Table::new();
            if let Some(name) = &revoked.name {
                new.insert("name", value(name));
            }
            new.insert("id", value(&revoked.said.device.to_string()));
            new.insert("stamp", toml_edit::value(i64::try_from(revoked.said.stamp).unwrap_or(i64::MAX)));
            if revoked.said.is_lifted {
                new.insert("lifted", toml_edit::value(true));
            }
            if let Some(by) = &revoked.by {
                new.insert("by", value(&by.to_string()));
            }
            match at {
                Some(at) => {
                    let row = row(doc, "revoked", at);
                    row.clear();
                    row.extend(new);
                }
                None => push(doc, "revoked", new),
            }
        })
    }
}

fn next_stamp(known: Option<&Revoked>) -> u64 {
    known.map_or(0, |known| known.said.stamp).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::testing::{Home, OWN, device, id};

    fn said(n: u8, stamp: u64, is_lifted: bool) -> Revocation {
        Revocation { device: id(n), stamp, is_lifted }
    }

    #[test]
    fn who_is_revoked_is_trusted_no_longer_and_again_when_a_person_adds_it() {
        let home = Home::of_three();
        let was = home.change(|edit| edit.revoke_device(&id(OWN), "two").unwrap());
        assert_eq!(was, WasRevoked { id: id(2), name: Some("two".into()) });
        assert!(home.config().device(&id(2)).is_none());
        let revoked = Revoked { said: said(2, 1, false), by: None, name: Some("two".into()) };
        assert_eq!(home.config().revoked, [revoked]);
        // Once more, by the name that it had, changes nothing.
        home.change(|edit| edit.revoke_device(&id(OWN), "two").unwrap());
        assert_eq!(home.config().revocation(&id(2)).unwrap().said, said(2, 1, false));
        home.change(|edit| {
            edit.add_device(&id(OWN), &device("new two", 2)).unwrap();
        });
        assert_eq!(home.config().revocation(&id(2)).unwrap().said, said(2, 2, true));
        assert!(home.config().device(&id(2)).is_some());
    }

    #[test]
    fn the_word_of_others_counts_where_it_is_news_and_not_of_themselves_or_us() {
        let home = Home::of_three();
        let hear = |from: u8, said: &[Revocation]| {
            home.change(|edit| edit.hear_revocations(&id(OWN), &id(from), said).unwrap())
        };
        assert!(hear(2, &[said(1, 9, false), said(2, 9, false)]).is_empty());
        assert!(home.config().revoked.is_empty());
        assert_eq!(hear(2, &[said(3, 1, false), said(9, 1, false)]).len(), 2);
        assert!(home.config().device(&id(3)).is_none());
        assert_eq!(home.config().revocation(&id(3)).unwrap().by, Some(id(2)));
        assert!(hear(2, &[said(3, 1, false), said(3, 1, true)]).is_empty(), "no news");
        assert!(!home.config().revocation(&id(3)).unwrap().said.is_lifted);
        // A person here says so too: then it is said here.
        home.change(|edit| edit.revoke_device(&id(OWN), "three").unwrap());
        assert_eq!(home.config().revocation(&id(3)).unwrap().by, None);
        assert!(hear(2, &[said(3, 2, true)]).is_empty());
        assert!(home.config().device(&id(3)).is_none(), "that it may be trusted does not make it so");
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_an_edit_by_hand_is_checked() {
        let home = Home::of_three();
        let many: Vec<_> = (0..=255u8).flat_map(|n| [[n, 1], [n, 2]]).collect();
        let device = |of: &[u8; 2]| {
            let mut key = [7; 32];
            key[..2].copy_from_slice(of);
            DeviceId::from_public_key(key)
        };
        let said: Vec<_> =
            many.iter().map(|of| Revocation { device: device(of), stamp: 1, is_lifted: false }).collect();
        home.change(|edit| edit.hear_revocations(&id(OWN), &id(2), &said).unwrap());
        assert_eq!(home.config().revoked.len(), REVOCATIONS_MAX);
        let refused = home.edit().revoke_device(&id(OWN), "two").unwrap_err();
        assert!(matches!(refused, EditError::TooManyRevoked));

        let home = Home::of_three();
        std::fs::write(&home.paths.config_file, format!("{}\n[[revoked]]\nid = \"{}\"\n", home.text(), id(3))).unwrap();
        let error = Config::load(&home.paths).unwrap_err();
        assert!(error.to_string().contains("a device that was revoked is not trusted"), "{error}");
    }
}
