//! Rates as people write them: `2 MiB/s`, `500 kB/s`, `20 Mbit/s`, `off`.

use std::fmt;
use std::num::NonZeroU64;

use crate::config::error::Advice;

/// The slowest rate, in bytes a second. Below it a record of the tunnel takes so long that a peer that hears nothing
/// in between would give up.
pub const RATE_MIN: u64 = 16 << 10;

/// How much may go over the network in a second.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Rate(NonZeroU64);

/// A text is not a rate.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RateError {
    /// It says something else.
    #[error("`{0}` is not a rate")]
    NotARate(String),
    /// It is a rate, and of no use.
    #[error("`{0}` is too slow: the least is 16 KiB/s")]
    TooSlow(String),
}

impl Advice for RateError {
    fn advice(&self) -> &'static str {
        match self {
            Self::NotARate(_) => "write it like \"2 MiB/s\", \"500 kB/s\" or \"20 Mbit/s\", or \"off\" for none",
            Self::TooSlow(_) => "to stop altogether, pause the folder",
        }
    }
}

/// In bits, for the words in bits are the smaller ones.
const UNITS: &[(&str, u64)] = &[
    ("b/s", 8),
    ("kb/s", 8 * 1000),
    ("mb/s", 8 * 1000 * 1000),
    ("gb/s", 8 * 1000 * 1000 * 1000),
    ("kib/s", 8 << 10),
    ("mib/s", 8 << 20),
    ("gib/s", 8 << 30),
    ("kbit/s", 1000),
    ("mbit/s", 1000 * 1000),
    ("gbit/s", 1000 * 1000 * 1000),
];

impl Rate {
    /// Parses a rate; `None` where it is `off`.
    ///
    /// # Errors
    /// It is no rate, or one below [`RATE_MIN`].
    pub fn parse(text: &str) -> Result<Option<Self>, RateError> {
        let refused = || RateError::NotARate(text.to_owned());
        if text.trim() == "off" {
            return Ok(None);
        }
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = text[..digits].parse().map_err(|_| refused())?;
        let unit = text[digits..].trim().to_ascii_lowercase();
        let (_, bits) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
        let bytes = number.checked_mul(*bits).ok_or_else(refused)? / 8;
        match NonZeroU64::new(bytes).filter(|bytes| bytes.get() >= RATE_MIN) {
            Some(bytes) => Ok(Some(Self(bytes))),
            None => Err(RateError::TooSlow(text.to_owned())),
        }
    }

    /// Returns the rate in bytes a second.
    pub fn bytes(self) -> NonZeroU64 {
        self.0
    }
}

impl fmt::Display for Rate {
    /// In the largest unit that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.get().saturating_mul(8);
        let units = [("GiB/s", 8 << 30), ("GB/s", 8_000_000_000), ("MiB/s", 8 << 20), ("MB/s", 8_000_000)];
        let units = units.into_iter().chain([("Mbit/s", 1_000_000), ("KiB/s", 8 << 10), ("kB/s", 8000)]);
        match units.into_iter().find(|(_, unit)| bits.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{} {name}", bits / unit),
            None => write!(f, "{} B/s", self.0),
        }
    }
}

/// The rates in both directions; `None`: as fast as it goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rates {
    /// Of what is sent.
    pub send: Option<Rate>,
    /// Of what is received.
    pub receive: Option<Rate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> u64 {
        Rate::parse(text).unwrap().unwrap().bytes().get()
    }

    #[test]
    fn rates_are_read_in_bytes_and_in_bits() {
        for (text, expected) in [
            ("16 KiB/s", 16 << 10),
            ("2 MiB/s", 2 << 20),
            ("2mib/s", 2 << 20),
            ("500 kB/s", 500_000),
            ("500000 B/s", 500_000),
            ("20 Mbit/s", 2_500_000),
            ("1 Gbit/s", 125_000_000),
            ("1 GB/s", 1_000_000_000),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
            let shown = Rate::parse(text).unwrap().unwrap().to_string();
            assert_eq!(bytes(&shown), expected, "{text:?} is shown as {shown:?}");
        }
        assert_eq!(Rate::parse(" off "), Ok(None));
    }

    #[test]
    fn a_rate_is_shown_in_the_largest_unit_that_is_exact() {
        for (text, shown) in [
            ("2048 KiB/s", "2 MiB/s"),
            ("1000 kB/s", "1 MB/s"),
            ("20 Mbit/s", "20 Mbit/s"),
            ("100001 B/s", "100001 B/s"),
        ] {
            assert_eq!(Rate::parse(text).unwrap().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_rate_or_too_slow_is_refused_with_what_to_write() {
        for text in ["", "2", "2 MiB", "fast", "-1 MiB/s", "1.5 MiB/s", "MiB/s", "99999999999999999999 B/s", "on"] {
            assert_eq!(Rate::parse(text), Err(RateError::NotARate(text.to_owned())));
        }
        assert_eq!(Rate::parse("9999999999999 GiB/s"), Err(RateError::NotARate("9999999999999 GiB/s".to_owned())));
        for text in ["0 B/s", "16383 B/s", "1 KiB/s", "100 kbit/s"] {
            let error = Rate::parse(text).unwrap_err();
            assert_eq!(error, RateError::TooSlow(text.to_owned()));
            assert!(error.to_string().contains(&format!("{} KiB/s", RATE_MIN >> 10)));
        }
    }
}
