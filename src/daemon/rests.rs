//! Folders that rest though nothing is wrong, and go on by themselves.
//!
//! A folder that a person let rest is stopped. One whose time of the week it is not, exchanges nothing with other devices;
//! it takes note of what is done here all the same, and its history can be asked.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use jiff::{Timestamp, Zoned};

use crate::config::windows::shortly;
use crate::config::{Config, Folder};
use crate::daemon::hub::{Hub, State};
use crate::model::id::FolderId;

/// Why a folder rests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rest {
    /// A person let it rest; until when, where they said so.
    Paused(Option<Timestamp>),
    /// It is not its time of the week; until when.
    NotNow(Option<Timestamp>),
}

impl Rest {
    /// Returns when it goes on by itself.
    pub fn until(self) -> Option<Timestamp> {
        match self {
            Self::Paused(until) | Self::NotNow(until) => until,
        }
    }

    /// Says why it rests, and for how long, as is understood at `now`.
    pub fn text(self, now: &Zoned) -> String {
        let what = match self {
            Self::Paused(_) => "paused",
            Self::NotNow(_) => "rests",
        };
        match self.until() {
            Some(until) => format!("{what} until {}", shortly(&until.to_zoned(now.time_zone().clone()), now)),
            None => what.to_owned(),
        }
    }
}

/// Returns whether a folder rests at `now`, and why.
fn of(folder: &Folder, now: &Zoned) -> Option<Rest> {
    if folder.is_paused(now.timestamp()) {
        return Some(Rest::Paused(folder.paused_until.filter(|_| !folder.paused)));
    }
    let is_time = folder.active.is_open(now);
    (!is_time).then(|| Rest::NotNow(folder.active.opens(now).map(|opens| opens.timestamp())))
}

/// Returns which folders rest at `now`, and why.
pub fn of_all(config: &Config, now: &Zoned) -> BTreeMap<FolderId, Rest> {
    config.folders.iter().filter_map(|folder| Some((folder.id, of(folder, now)?))).collect()
}

impl State {
    /// Returns whether a person let a folder rest, as of the last look.
    pub fn is_paused(&self, id: &FolderId) -> bool {
        matches!(self.rests.get(id), Some(Rest::Paused(_)))
    }
}

impl Hub {
    /// Looks at the clock: lets folders go on whose time has come, and rest whose time is over.
    pub fn check_rests(self: &Arc<Self>) {
        // Not before a configuration that is being put in force is, so that this one is the latest.
        let applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Zoned::now();
        let config = {
            let state = self.lock();
            let rests = of_all(&state.config, &now);
            if rests == state.rests {
                return;
            }
            for folder in &state.config.folders {
                match (state.rests.get(&folder.id), rests.get(&folder.id)) {
                    (Some(_), None) => tracing::info!(folder = folder.name, "it goes on"),
                    (before, Some(rest)) if before != Some(rest) => {
                        tracing::info!(folder = folder.name, "{}", rest.text(&now));
                    }
                    _ => {}
                }
            }
            state.config.clone()
        };
        self.put_in_force(config, applying);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::load;
    use crate::config::paths::Paths;

    fn at(text: &str) -> Zoned {
        format!("{text}[Europe/Berlin]").parse().unwrap()
    }

    /// Says what is told of a folder with these keys; 2026-06-01 is a Monday.
    #[track_caller]
    fn check(keys: &str, rows: &[(&str, Option<&str>)]) {
        let text = format!(
            "name = \"h\"\n[[folders]]\nname = \"data\"\nid = \"00112233445566778899aabbccddeeff\"\npath = \"/nowhere/data\"\n{keys}"
        );
        let config = load::parse(&text, &Paths::below("/nowhere/home".as_ref()).unwrap()).unwrap();
        for (now, told) in rows {
            let now = at(now);
            let rest = of_all(&config, &now).into_values().next();
            assert_eq!(rest.map(|rest| rest.text(&now)).as_deref(), *told, "{keys} at {now}");
        }
    }

    #[test]
    fn a_pause_ends_by_itself_where_it_has_an_end() {
        check("paused = true", &[("2026-06-01T12:00", Some("paused"))]);
        check(
            "paused_until = \"2026-06-01T18:00:00+02:00\"",
            &[("2026-06-01T12:00", Some("paused until 18:00")), ("2026-06-01T18:00", None), ("2026-06-02T12:00", None)],
        );
        check(
            "paused = true\npaused_until = \"2026-06-01T18:00:00+02:00\"",
            &[("2026-06-01T12:00", Some("paused")), ("2026-06-01T18:00", Some("paused"))],
        );
    }

    #[test]
    fn a_folder_rests_outside_of_its_times_and_longer_where_a_person_says_so() {
        let active = "active = [\"Mon-Fri 18:00-08:00\"]";
        check(
            active,
            &[
                ("2026-06-01T12:00", Some("rests until 18:00")),
                ("2026-06-01T18:00", None),
                ("2026-06-06T12:00", Some("rests until Mon 18:00")),
            ],
        );
        let both = format!("{active}\npaused_until = \"2026-06-01T20:00:00+02:00\"");
        check(
            &both,
            &[
                ("2026-06-01T12:00", Some("paused until 20:00")),
                ("2026-06-01T20:00", None),
                ("2026-06-02T12:00", Some("rests until 18:00")),
            ],
        );
    }
}
