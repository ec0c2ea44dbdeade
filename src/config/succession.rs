//! Devices that change their key, in the configuration file: the id that a device says it will have, the ids that it had,
//! and the moment at which one takes the place of the other.
//!
//! A former id is remembered with its device. So whoever says later that it was lost means the device, whatever key that
//! has given itself since: a thief gains nothing by a new one.

use toml_edit::{Array, Item, Table};

use crate::config::edit::{Edit, row, value, write_shares};
use crate::config::error::EditError;
use crate::config::{Accept, Config, Device};
use crate::model::id::DeviceId;
use crate::model::limits::FORMER_IDS_MAX;

/// Why an id cannot be the next one of a device.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NextRefused {
    /// It is, or was, this device's own.
    #[error("the id is this device's own")]
    Own,
    /// It is, was or will be that of a device of the trust list.
    #[error("the id is that of `{name}`")]
    Known {
        /// What that device is called here.
        name: String,
    },
    /// It was revoked.
    #[error("the id was revoked")]
    Revoked,
    /// The device has had too many.
    #[error("the device has changed its id {FORMER_IDS_MAX} times already")]
    TooMany,
}

impl Device {
    /// Returns the ids under which it is let in: the one that it has, and the one that it will have.
    pub fn ids(&self) -> impl Iterator<Item = DeviceId> {
        std::iter::once(self.id).chain(self.next)
    }

    /// Returns whether it has that id, had it, or will have it.
    pub fn is_known_as(&self, id: &DeviceId) -> bool {
        self.ids().any(|known| known == *id) || self.former.contains(id)
    }
}

impl Config {
    /// Finds a device of the trust list by any id that it has, had or will have.
    pub fn device_known_as(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.is_known_as(id))
    }

    /// Returns whether an id can be the next one of a device. `own` is this device.
    ///
    /// # Errors
    /// It cannot, for this reason.
    pub fn check_next(&self, own: &DeviceId, device: &Device, next: &DeviceId) -> Result<(), NextRefused> {
        if next == own || self.former.contains(next) {
            return Err(NextRefused::Own);
        }
        if let Some(known) =
            self.device_known_as(next).filter(|known| known.id != device.id || known.next != Some(*next))
        {
            return Err(NextRefused::Known { name: known.name.clone() });
        }
        if self.revocation(next).is_some_and(|revoked| !revoked.said.is_lifted) {
            return Err(NextRefused::Revoked);
        }
        if device.former.len() >= FORMER_IDS_MAX {
            return Err(NextRefused::TooMany);
        }
        Ok(())
    }
}

impl Edit {
    /// Notes the id that a device will have, or that it stays who it is. Returns whether that changed anything. `own` is
    /// this device.
    pub fn set_next(&mut self, own: &DeviceId, device: &DeviceId, next: Option<DeviceId>) -> Result<bool, EditError> {
        let at = self.config().devices.iter().position(|known| known.id == *device);
        let at = at.ok_or_else(|| EditError::UnknownDevice { name: device.to_string() })?;
        let known = &self.config().devices[at];
        if known.next == next {
            return Ok(false);
        }
        if let Some(next) = next {
            self.config().check_next(own, known, &next)?;
        }
        self.apply(|doc| {
            let row = row(doc, "devices", at);
            match next {
                Some(next) => drop(row.insert("next", value(&next.to_string()))),
                None => drop(row.remove("next")),
            }
        })?;
        Ok(true)
    }

    /// Has the device that was to become `next` be that from now on, in the trust list and in all folders. Returns whether
    /// there is one.
    pub fn promote(&mut self, next: &DeviceId) -> Result<bool, EditError> {
        let Some(at) = self.config().devices.iter().position(|device| device.next == Some(*next)) else {
            return Ok(false);
        };
        let former = self.config().devices[at].id;
        self.apply(|doc| {
            let row = row(doc, "devices", at);
            row.remove("next");
            row["id"] = value(&next.to_string());
            push_former(row, &former);
        })?;
        self.hand_over(&former, next)?;
        Ok(true)
    }

    /// Has this device, which was `former`, be `own` from now on. Doing it twice does no harm. Returns whether that changed
    /// anything.
    pub fn succeed(&mut self, former: &DeviceId, own: &DeviceId) -> Result<bool, EditError> {
        let mut changed = self.hand_over(former, own)?;
        if !self.config().former.contains(former) {
            let is_full = self.config().former.len() >= FORMER_IDS_MAX;
            self.apply(|doc| {
                // The ids that this device had stand above all tables, as its name does.
                let above = doc.as_table_mut();
                if let Some(list) = above.get_mut("former").and_then(Item::as_array_mut).filter(|_| is_full) {
                    list.remove(0);
                }
                push_former(above, former);
            })?;
            changed = true;
        }
        Ok(changed)
    }

    /// Hands the places of one id over to another: in all folders, and where a folder is waited for.
    fn hand_over(&mut self, from: &DeviceId, to: &DeviceId) -> Result<bool, EditError> {
        let mut changed = false;
        for folder in self.config().folders.clone() {
            let mut members = folder.members;
            if members.hand_over(from, *to) {
                self.write_members(&folder.id, &members)?;
                changed = true;
            }
        }
        for (at, accept) in self.config().accepts.clone().into_iter().enumerate() {
            let Accept { from: offers, mut shares, .. } = accept;
            if offers != *from && shares.iter().all(|(device, _)| device != from) {
                continue;
            }
            shares.iter_mut().filter(|(device, _)| device == from).for_each(|(device, _)| *device = *to);
            self.apply(|doc| {
                let row = row(doc, "accepts", at);
                if offers == *from {
                    row["from"] = value(&to.to_string());
                }
                write_shares(row, shares.iter());
            })?;
            changed = true;
        }
        Ok(changed)
    }
}

fn push_former(row: &mut Table, former: &DeviceId) {
    let item = row.entry("former").or_insert(Array::new().into());
    if let Some(list) = item.as_array_mut() {
        list.push(former.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::edit::NewFolder;
    use crate::config::testing::{Home, OWN, id};
    use crate::model::limits::DEVICES_MAX;
    use crate::model::revocation::Revocation;
    use crate::model::rights::Right;

    /// The configuration of a device that shares one folder with "two" and "three", and is to get another from "two".
    fn sharing() -> Home {
        let home = Home::of_three();
        home.change(|edit| {
            let shares = vec![(id(2), Right::Writer), (id(3), Right::Owner)];
            edit.add_folder(&id(OWN), &NewFolder { shares, ..home.folder("data", 1) }).unwrap();
            let more = home.place("more");
            edit.accept(&Accept { name: "more".into(), path: more, from: id(2), shares: vec![] }).unwrap();
            edit.share(&id(OWN), "more", &id(3), Right::Reader).unwrap();
        });
        home
    }

    /// Device `n` says that it is going to be `next`.
    fn says(home: &Home, n: u8, next: u8) -> Result<bool, EditError> {
        home.change(|edit| edit.set_next(&id(OWN), &id(n), Some(id(next))))
    }

    fn right_of(home: &Home, n: u8) -> Option<Right> {
        home.config().folders[0].members.right_of(&id(n))
    }

    #[test]
    fn a_device_has_its_next_id_wherever_it_had_the_former() {
        let home = sharing();
        assert!(says(&home, 2, 12).unwrap());
        assert!(!says(&home, 2, 12).unwrap(), "it is known");
        assert_eq!(home.config().device(&id(2)).unwrap().ids().collect::<Vec<_>>(), [id(2), id(12)]);
        assert!(says(&home, 3, 13).unwrap());
        assert!(home.change(|edit| edit.promote(&id(12)).unwrap()));
        assert!(home.change(|edit| edit.promote(&id(13)).unwrap()));
        assert!(!home.change(|edit| edit.promote(&id(12)).unwrap()), "it is that already");
        let config = home.config();
        let two = config.device(&id(12)).unwrap();
        assert_eq!((two.name.as_str(), two.next, &two.former[..]), ("two", None, &[id(2)][..]));
        assert!(config.device(&id(2)).is_none());
        assert_eq!(config.device_known_as(&id(2)), Some(two));
        assert_eq!((right_of(&home, 2), right_of(&home, 12)), (None, Some(Right::Writer)));
        assert_eq!((right_of(&home, 3), right_of(&home, 13)), (None, Some(Right::Owner)));
        let accept = &config.accepts[0];
        assert_eq!((accept.from, &accept.shares[..]), (id(12), &[(id(13), Right::Reader)][..]));
    }

    #[test]
    fn what_is_said_is_taken_back_or_replaced_and_is_one_at_a_time() {
        let home = sharing();
        assert!(says(&home, 2, 12).unwrap() && says(&home, 2, 13).unwrap());
        assert_eq!(home.config().device(&id(2)).unwrap().next, Some(id(13)));
        assert!(!home.change(|edit| edit.promote(&id(12)).unwrap()), "it is not that any more");
        let takes_back = |edit: &mut Edit| edit.set_next(&id(OWN), &id(2), None).unwrap();
        assert!(home.change(takes_back) && !home.change(takes_back));
        assert_eq!(home.config().device(&id(2)).unwrap().next, None);
    }

    #[test]
    fn an_id_that_is_somebodys_is_nobodys_next() {
        let home = sharing();
        home.change(|edit| {
            edit.revoke_device(&id(OWN), &id(9).to_string()).unwrap();
            edit.succeed(&id(7), &id(OWN)).unwrap();
        });
        says(&home, 3, 13).unwrap();
        says(&home, 2, 12).unwrap();
        home.change(|edit| edit.promote(&id(12)).unwrap());
        let refused = |next| match says(&home, 12, next).unwrap_err() {
            EditError::Next(why) => why,
            other => panic!("{other}"),
        };
        let known = |name: &str| NextRefused::Known { name: name.into() };
        assert_eq!(refused(1), NextRefused::Own);
        assert_eq!(refused(7), NextRefused::Own, "who this device was");
        assert_eq!(refused(3), known("three"));
        assert_eq!(refused(13), known("three"));
        assert_eq!((refused(2), refused(12)), (known("two"), known("two")), "who it was or is");
        assert_eq!(refused(9), NextRefused::Revoked);
        assert!(matches!(says(&home, 99, 20), Err(EditError::UnknownDevice { .. })));
    }

    #[test]
    fn the_ids_of_one_device_have_a_bound_and_so_have_those_of_all() {
        let home = sharing();
        let mut now = 2;
        for next in 100..100 + FORMER_IDS_MAX as u8 {
            says(&home, now, next).unwrap();
            home.change(|edit| edit.promote(&id(next)).unwrap());
            now = next;
        }
        assert!(matches!(says(&home, now, 200), Err(EditError::Next(NextRefused::TooMany))));
        assert_eq!(home.config().device(&id(now)).unwrap().former.len(), FORMER_IDS_MAX);
        // Of its own a device forgets the oldest: nobody else is to blame for these.
        home.change(|edit| {
            for n in 0..=FORMER_IDS_MAX as u8 {
                edit.succeed(&id(210 + n), &id(OWN)).unwrap();
            }
        });
        let own = home.config().former;
        assert_eq!((own.len(), own[0]), (FORMER_IDS_MAX, id(211)));

        let home = sharing();
        let file = &home.paths.config_file;
        let more: String = (0..DEVICES_MAX - 2)
            .map(|n| {
                let key = *blake3::hash(&n.to_le_bytes()).as_bytes();
                format!("[[devices]]\nname = \"d{n}\"\nid = \"{}\"\n", DeviceId::from_public_key(key))
            })
            .collect();
        std::fs::write(file, home.text() + &more).unwrap();
        let full = says(&home, 2, 12).unwrap_err();
        assert!(full.to_string().contains("devices can be trusted"), "{full}");
    }

    #[test]
    fn who_is_revoked_is_out_by_whichever_of_its_ids() {
        // Before it is what it says, after that, and by the id that it says.
        for (is_promoted, said) in [(false, 2), (false, 12), (true, 2), (true, 12)] {
            let home = sharing();
            says(&home, 2, 12).unwrap();
            if is_promoted {
                home.change(|edit| edit.promote(&id(12)).unwrap());
            }
            let said = Revocation { device: id(said), stamp: 1, is_lifted: false };
            let own_word =
                home.change(|edit| edit.hear_revocations(&id(OWN), &id(if is_promoted { 12 } else { 2 }), &[said]));
            assert!(own_word.unwrap().is_empty(), "nobody speaks for who it was or will be");
            let revoked = home.change(|edit| edit.hear_revocations(&id(OWN), &id(3), &[said]).unwrap());
            assert_eq!(revoked[0].name.as_deref(), Some("two"));
            let config = home.config();
            assert!(config.device_known_as(&id(2)).is_none() && config.device_known_as(&id(12)).is_none());
            assert_eq!((right_of(&home, 2), right_of(&home, 12)), (None, None));
            let present = if is_promoted { 12 } else { 2 };
            for device in [said.device, id(present)] {
                assert!(config.revocation(&device).is_some_and(|known| !known.said.is_lifted));
            }
            // A person can trust it again, as any other.
            home.change(|edit| edit.add_device(&id(OWN), &Device::new("two", id(present), vec![])).unwrap());
        }
    }

    #[test]
    fn a_revoked_id_is_no_next_or_former_one_in_an_edit_by_hand() {
        for key in ["next = \"{}\"", "former = [\"{}\"]"] {
            let home = sharing();
            home.change(|edit| edit.revoke_device(&id(OWN), &id(9).to_string()).unwrap());
            let file = &home.paths.config_file;
            let line = key.replace("{}", &id(9).to_string());
            let text = home.text();
            let name = "name = \"two\"\n";
            std::fs::write(file, text.replace(name, &format!("{name}{line}\n"))).unwrap();
            let error = Config::load(&home.paths).unwrap_err().to_string();
            assert!(error.contains("a device that was revoked is not trusted"), "{error}");
            // Nor is an id that stands elsewhere.
            let line = key.replace("{}", &id(3).to_string());
            std::fs::write(file, text.replace(name, &format!("{name}{line}\n"))).unwrap();
            let error = Config::load(&home.paths).unwrap_err().to_string();
            assert!(error.contains("the device id `kin1"), "{error}");
        }
    }
}
