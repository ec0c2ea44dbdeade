//! Folders that rest though nothing is wrong, and go on by themselves.
//!
//! A folder that a person let rest is stopped. One whose time of the week it is not, or that is to rest while the
//! connection is metered, exchanges nothing with other devices; it takes note of what is done here all the same, and its history can be asked.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use jiff::{Timestamp, Zoned};

use crate::config::metered::WhenMetered;
use crate::config::windows::shortly;
use crate::config::{Config, Folder};
use crate::daemon::hub::{Hub, State};
use crate::daemon::lookout::Word;
use crate::daemon::metered::{Lookout, Metered};
use crate::model::id::FolderId;

/// Why a folder rests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rest {
    /// A person let it rest; until when, where they said so.
    Paused(Option<Timestamp>),
    /// It is not its time of the week; until when.
    NotNow(Option<Timestamp>),
    /// The connection is metered.
    Metered,
    /// Whether it is, is not known yet.
    Asking,
}

impl Rest {
    /// Returns when it goes on by itself.
    pub fn until(self) -> Option<Timestamp> {
        match self {
            Self::Paused(until) | Self::NotNow(until) => until,
            Self::Metered | Self::Asking => None,
        }
    }

    /// Returns why, where that is not the clock or a person.
    pub fn because(self) -> Option<&'static str> {
        match self {
            Self::Paused(_) | Self::NotNow(_) => None,
            Self::Metered => Some("the connection is metered"),
            Self::Asking => Some("it is not known yet whether the connection is metered"),
        }
    }

    /// Says why it rests, and for how long, as is understood at `now`.
    pub fn text(self, now: &Zoned) -> String {
        let what = match self {
            Self::Paused(_) => "paused",
            Self::NotNow(_) => "rests",
            Self::Metered => "rests while the connection is metered",
            Self::Asking => "rests until it is known whether the connection is metered",
        };
        match self.until() {
            Some(until) => format!("{what} until {}", shortly(&until.to_zoned(now.time_zone().clone()), now)),
            None => what.to_owned(),
        }
    }
}

/// Returns whether a folder rests at `now`, and why.
fn of(folder: &Folder, now: &Zoned, metered: Metered) -> Option<Rest> {
    if folder.is_paused(now.timestamp()) {
        return Some(Rest::Paused(folder.paused_until.filter(|_| !folder.paused)));
    }
    if !folder.active.is_open(now) {
        return Some(Rest::NotNow(folder.active.opens(now).map(|opens| opens.timestamp())));
    }
    match metered {
        _ if folder.metered == WhenMetered::Go => None,
        Metered::Said(Word::Metered) => Some(Rest::Metered),
        Metered::Asked => Some(Rest::Asking),
        Metered::Said(_) | Metered::Unasked => None,
    }
}

/// Returns which folders rest at `now`, and why.
pub fn of_all(config: &Config, now: &Zoned, metered: Metered) -> BTreeMap<FolderId, Rest> {
    config.folders.iter().filter_map(|folder| Some((folder.id, of(folder, now, metered)?))).collect()
}

impl State {
    /// Returns whether a person let a folder rest, as of the last look.
    pub fn is_paused(&self, id: &FolderId) -> bool {
        matches!(self.rests.get(id), Some(Rest::Paused(_)))
    }
}

impl Hub {
    /// Returns whether the connection is metered, as far as is known.
    pub fn metered(&self) -> Metered {
        self.lookout.as_ref().map_or(Metered::Unasked, Lookout::metered)
    }

    /// Looks at the clock and at what the lookout said: lets folders go on whose time has come, and rest whose time is over.
    pub fn check_rests(self: &Arc<Self>) {
        // Not before a configuration that is being put in force is, so that this one is the latest.
        let applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, metered) = (Zoned::now(), self.metered());
        let config = {
            let state = self.lock();
            let rests = of_all(&state.config, &now, metered);
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

    fn parsed(keys: &str) -> Config {
        let text = format!(
            "name = \"h\"\n[[folders]]\nname = \"data\"\nid = \"00112233445566778899aabbccddeeff\"\npath = \"/nowhere/data\"\n{keys}"
        );
        load::parse(&text, &Paths::below("/nowhere/home".as_ref()).unwrap()).unwrap()
    }

    /// Says what is told of a folder with these keys; 2026-06-01 is a Monday.
    #[track_caller]
    fn check(keys: &str, rows: &[(&str, Option<&str>)]) {
        let config = parsed(keys);
        for (now, told) in rows {
            let now = at(now);
            let rest = of_all(&config, &now, Metered::Unasked).into_values().next();
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
    #[test]
    fn a_folder_rests_while_the_connection_is_metered_where_it_is_to_and_goes_on_where_nobody_knows() {
        let now = at("2026-06-01T12:00");
        let rest = |keys: &str, metered| of_all(&parsed(keys), &now, metered).into_values().next();
        let pause = "metered = \"pause\"";
        assert_eq!(rest(pause, Metered::Said(Word::Metered)), Some(Rest::Metered));
        assert_eq!(rest(pause, Metered::Asked), Some(Rest::Asking));
        for unknown in [Word::Unmetered, Word::Undecided, Word::NoManager, Word::NoBus].map(Metered::Said) {
            assert_eq!(rest(pause, unknown), None, "{unknown:?}");
        }
        assert_eq!(rest(pause, Metered::Unasked), None);
        for goes in ["", "metered = \"go\""] {
            assert_eq!(rest(goes, Metered::Said(Word::Metered)), None, "{goes}");
        }
        // What a person said, and the time of the week, have an end that can be told.
        let until = format!("{pause}\npaused_until = \"2026-06-01T18:00:00+02:00\"");
        assert!(matches!(rest(&until, Metered::Said(Word::Metered)), Some(Rest::Paused(Some(_)))));
        let active = format!("{pause}\nactive = [\"18:00-08:00\"]");
        assert!(matches!(rest(&active, Metered::Said(Word::Metered)), Some(Rest::NotNow(Some(_)))));
        assert_eq!(Rest::Metered.text(&now), "rests while the connection is metered");
    }
}
