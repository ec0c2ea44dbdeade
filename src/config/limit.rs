//! Rates and pauses in the configuration file.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use toml_edit::{DocumentMut, Item, Table, TableLike};

use crate::config::edit::{Edit, row, value};
use crate::config::error::EditError;
use crate::config::rate::Rate;

/// What a rate is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Limited {
    /// All that goes over the network.
    Network,
    /// What goes to a device and comes from it.
    Device(String),
    /// What goes over the network of a folder.
    Folder(String),
}

impl Edit {
    /// Sets rates, from text; what is `None` stays. Returns whether that changed anything.
    ///
    /// # Errors
    /// There is no such device or folder, or a text is no rate.
    pub fn limit(&mut self, what: &Limited, send: Option<&str>, receive: Option<&str>) -> Result<bool, EditError> {
        let before = self.config().clone();
        let place = match what {
            Limited::Network => None,
            Limited::Device(name) => Some(("devices", self.device_at(name)?)),
            Limited::Folder(name) => Some(("folders", self.folder_at(name)?)),
        };
        for (key, text) in [("send_rate", send), ("receive_rate", receive)] {
            let Some(text) = text.map(str::trim) else { continue };
            let rate = Rate::parse(text)?;
            self.apply(|doc| {
                let table: &mut dyn TableLike = match place {
                    Some((kind, at)) => row(doc, kind, at),
                    None => network(doc),
                };
                match rate {
                    Some(_) => drop(table.insert(key, value(text))),
                    None => drop(table.remove(key)),
                }
            })?;
        }
        Ok(*self.config() != before)
    }

    /// Lets a folder rest until a time. Returns whether that changed anything.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn pause_until(&mut self, name: &str, until: Timestamp) -> Result<bool, EditError> {
        let at = self.folder_at(name)?;
        let before = self.config().folders[at].clone();
        let text = until.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        self.apply(|doc| {
            let row = row(doc, "folders", at);
            row.remove("paused");
            row["paused_until"] = value(&text);
        })?;
        Ok(self.config().folders[at] != before)
    }
}

/// Returns `[network]`, made where it is missing.
fn network(doc: &mut DocumentMut) -> &mut dyn TableLike {
    let item = doc.entry("network").or_insert_with(|| Item::Table(Table::new()));
    item.as_table_like_mut().expect("the configuration was read with it just now")
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;

    use crate::config::paths::Paths;
    use crate::config::rate::Rates;
    use crate::model::id::DeviceId;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn edited(text: &str, change: impl FnOnce(&mut Edit)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(&dir.path().join("home")).unwrap();
        fs::create_dir_all(paths.config_dir()).unwrap();
        fs::write(&paths.config_file, text).unwrap();
        let mut edit = Edit::open(&paths).unwrap();
        change(&mut edit);
        edit.save().unwrap();
        fs::read_to_string(&paths.config_file).unwrap()
    }

    fn rate(text: &str) -> Option<Rate> {
        Rate::parse(text).unwrap()
    }

    #[test]
    fn rates_are_written_where_they_belong_and_taken_out_again() {
        let laptop = DeviceId::from_public_key([2; 32]);
        let text = format!(
            "name = \"h\" # here\n\n[[devices]]\nname = \"laptop\"\nid = \"{laptop}\"\n\n[[folders]]\nname = \"data\"\nid = \"{ID}\"\npath = \"/nowhere/data\"\n"
        );
        let limited = edited(&text, |edit| {
            let (device, folder) = (Limited::Device("laptop".into()), Limited::Folder("data".into()));
            assert!(edit.limit(&device, Some(" 2 MiB/s "), None).unwrap());
            assert!(!edit.limit(&device, Some("2 MiB/s"), None).unwrap(), "it is so already");
            assert!(edit.limit(&folder, None, Some("1 Mbit/s")).unwrap());
            assert!(edit.limit(&Limited::Network, Some("3 MiB/s"), Some("4 MiB/s")).unwrap());
            assert!(!edit.limit(&Limited::Network, None, None).unwrap());
            let config = edit.config();
            assert_eq!(config.devices[0].rates, Rates { send: rate("2 MiB/s"), receive: None });
            assert_eq!(config.folders[0].rates, Rates { send: None, receive: rate("1 Mbit/s") });
            assert_eq!(config.network.rates, Rates { send: rate("3 MiB/s"), receive: rate("4 MiB/s") });
            assert!(edit.limit(&device, Some("quick"), None).is_err());
            assert!(edit.limit(&Limited::Device("tv".into()), Some("off"), None).is_err());
        });
        assert!(limited.starts_with("name = \"h\" # here\n"), "{limited}");
        for line in ["send_rate = \"2 MiB/s\"", "receive_rate = \"1 Mbit/s\"", "[network]"] {
            assert!(limited.contains(line), "{line}: {limited}");
        }
        let free = edited(&limited, |edit| {
            for what in [Limited::Network, Limited::Device("laptop".into()), Limited::Folder("data".into())] {
                assert!(edit.limit(&what, Some("off"), Some("off")).unwrap());
            }
        });
        assert!(!free.contains("_rate"), "{free}");
    }

    #[test]
    fn a_network_written_in_one_line_takes_rates_too() {
        let text = edited("name = \"h\"\nnetwork = { mode = \"any\" }\n", |edit| {
            assert!(edit.limit(&Limited::Network, Some("1 MiB/s"), None).unwrap());
        });
        assert!(text.replace(" ,", ",").contains("network = { mode = \"any\", send_rate = \"1 MiB/s\" }"), "{text}");
    }

    #[test]
    fn a_pause_ends_with_its_time_or_with_a_word() {
        let text = format!("name = \"h\"\n[[folders]]\nname = \"data\"\nid = \"{ID}\"\npath = \"/nowhere/data\"\n");
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let later = Timestamp::from_second(1_800_000_060).unwrap();
        let paused = |edit: &Edit, at| edit.config().folders[0].is_paused(at);
        let ended = edited(&text, |edit| {
            assert!(edit.pause("data").unwrap() && paused(edit, now) && paused(edit, later));
            assert!(edit.pause_until("data", later).unwrap() && !edit.pause_until("data", later).unwrap());
            assert!(paused(edit, now) && !paused(edit, later));
            assert!(edit.pause("data").unwrap() && paused(edit, later), "for good");
            assert!(edit.pause_until("data", later).unwrap() && edit.resume("data").unwrap());
            assert!(!paused(edit, now));
        });
        assert_eq!(ended, text);
    }
}
