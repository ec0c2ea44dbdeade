//! Invitations: what one person reads to another, or pastes, so that two devices meet.
//!
//! A *code* is short, to be said and typed: a number and two words, `7-velvet-island`. The number tells windows that are
//! open at the same time apart and is public; the words are 22 bits, enough where three wrong guesses burn the code and
//! nobody can guess without asking (`engine::pairing`). A *link* is long, to be scanned or pasted: who invites, a secret
//! of 128 bits, and where to go.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use bip39::Language;
use data_encoding::BASE32_NOPAD;
use zeroize::{Zeroize, Zeroizing};

use crate::model::id::DeviceId;

/// What a link begins with. Upper and lower case are the same in it, so that a QR code of it can be small.
const LINK_PREFIX: &str = "kinfold:pair/";
/// Most addresses in a link.
const LINK_ADDRESSES_MAX: usize = 8;
/// Longest text that is looked at.
const TEXT_LEN_MAX: usize = 1024;
/// The highest number in front of a code.
const NUMBER_MAX: u8 = 99;
/// Words are told apart by this many letters.
const TELLING_LETTERS: usize = 4;

/// A number and two words.
#[derive(Clone, Eq, PartialEq)]
pub struct Code {
    number: u8,
    words: [&'static str; 2],
}

impl Code {
    /// Makes a code from random bytes.
    pub fn from_random(mut random: [u8; 8]) -> Self {
        let list = Language::English.word_list();
        let index = |n: usize| usize::from(u16::from_le_bytes([random[n], random[n + 1]])) % list.len();
        // 2048 divides 65536, so that every word is as likely; the number is no secret and may be lopsided.
        let words = [list[index(0)], list[index(2)]];
        let number = random[4] % NUMBER_MAX + 1;
        random.zeroize();
        Self { number, words }
    }

    /// Returns the number, which is public.
    pub fn number(&self) -> u8 {
        self.number
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.number, self.words[0], self.words[1])
    }
}

/// The words stay out of logs.
impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-…)", self.number)
    }
}

/// Who invites, the secret, and where to go.
#[derive(Clone, Eq, PartialEq)]
pub struct Link {
    /// The device that invites.
    pub device: DeviceId,
    /// What proves that one was invited.
    pub secret: Zeroizing<[u8; 16]>,
    /// Where it waits.
    pub addresses: Vec<SocketAddr>,
}

/// In lower case: it reads the same, and a terminal marks it as a link.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = Zeroizing::new(BASE32_NOPAD.encode(self.secret.as_slice()).to_lowercase());
        write!(f, "{LINK_PREFIX}{}/{}", self.device, *secret)?;
        // Neither brackets nor a second colon: a QR code has no short form for the former.
        self.addresses.iter().try_for_each(|address| write!(f, "/{}-{}", address.ip(), address.port()))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({}, …, {:?})", self.device, self.addresses)
    }
}

/// Either of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Invite {
    /// Said and typed.
    Code(Code),
    /// Scanned or pasted.
    Link(Link),
}

/// Why a text is no invitation.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InviteError {
    /// It is neither.
    #[error("this is neither a code such as 7-velvet-island nor a link that begins with {LINK_PREFIX}")]
    Neither,
    /// A word is not of the list.
    #[error("`{word}` is not a word that a code can have{}", suggestion(.like))]
    Word {
        /// The word.
        word: String,
        /// The word that it resembles.
        like: Option<&'static str>,
    },
    /// The link is cut off or has a mistake.
    #[error("the link is incomplete: copy all of it")]
    BrokenLink,
}

fn suggestion(like: &Option<&'static str>) -> String {
    like.map_or_else(String::new, |like| format!("; is it `{like}`?"))
}

/// Returns whether a text looks like a code, right or wrong, and not like a path.
pub fn looks_like_code(text: &str) -> bool {
    let parts = parts(text);
    let is_word = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphabetic());
    parts.len() == 3 && parts[0].parse::<u8>().is_ok() && parts[1..].iter().all(is_word)
}

/// Returns whether a text is meant to be a link.
pub fn looks_like_link(text: &str) -> bool {
    text.trim_start().get(..LINK_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(LINK_PREFIX))
}

fn parts(text: &str) -> Vec<&str> {
    text.split(|c: char| c == '-' || c.is_whitespace()).filter(|part| !part.is_empty()).collect()
}

impl FromStr for Invite {
    type Err = InviteError;

    /// Reads a code, with hyphens or spaces and in any case, or a link.
    fn from_str(text: &str) -> Result<Self, InviteError> {
        let text = text.trim();
        if text.len() > TEXT_LEN_MAX {
            return Err(InviteError::Neither);
        }
        if looks_like_link(text) {
            return link(&text[LINK_PREFIX.len()..]).ok_or(InviteError::BrokenLink).map(Self::Link);
        }
        if !looks_like_code(text) {
            return Err(InviteError::Neither);
        }
        let parts = parts(text);
        let number = parts[0].parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number));
        let number = number.ok_or(InviteError::Neither)?;
        Ok(Self::Code(Code { number, words: [word(parts[1])?, word(parts[2])?] }))
    }
}

fn word(text: &str) -> Result<&'static str, InviteError> {
    let text = text.to_lowercase();
    let list = Language::English.word_list();
    if let Some(word) = list.iter().find(|word| **word == text) {
        return Ok(word);
    }
    let start = text.get(..TELLING_LETTERS);
    let like = start.and_then(|start| list.iter().find(|word| word.starts_with(start)).copied());
    Err(InviteError::Word { word: text, like })
}

fn link(text: &str) -> Option<Link> {
    let mut parts = text.split('/');
    let device = DeviceId::parse(&parts.next()?.to_lowercase()).ok()?;
    let secret = Zeroizing::new(BASE32_NOPAD.decode(parts.next()?.to_uppercase().as_bytes()).ok()?);
    let secret = Zeroizing::new(<[u8; 16]>::try_from(secret.as_slice()).ok()?);
    let addresses = parts.map(address).collect::<Option<Vec<_>>>()?;
    let is_bounded = addresses.len() <= LINK_ADDRESSES_MAX;
    is_bounded.then_some(Link { device, secret, addresses })
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once('-')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_link() -> Link {
        let addresses = ["192.168.1.5:25464", "[fd00::5]:25464"].map(|text| text.parse().unwrap()).to_vec();
        Link { device: DeviceId::from_public_key([1; 32]), secret: Zeroizing::new([0xa5; 16]), addresses }
    }

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        let code = Code::from_random([1, 2, 3, 4, 5, 6, 7, 8]);
        let text = code.to_string();
        assert_eq!(text, "6-dizzy-lesson");
        for typed in [text.clone(), text.to_uppercase(), text.replace('-', " "), format!("  {text}\n")] {
            assert_eq!(typed.parse(), Ok(Invite::Code(code.clone())), "{typed:?}");
        }
    }

    #[test]
    fn words_and_numbers_of_all_codes_are_of_the_list() {
        for n in 0..=255 {
            let code = Code::from_random([n, n.wrapping_mul(7), 255, 255, n, 0, 0, 0]);
            assert!((1..=NUMBER_MAX).contains(&code.number()));
            assert_eq!(code.to_string().parse(), Ok(Invite::Code(code)));
        }
    }

    #[test]
    fn a_word_that_is_mistyped_is_named_and_a_path_is_no_code() {
        let error = "7-xelvet-island".parse::<Invite>().unwrap_err();
        assert_eq!(error.to_string(), "`xelvet` is not a word that a code can have");
        let error = "7-blush-bladd".parse::<Invite>().unwrap_err();
        assert_eq!(error.to_string(), "`bladd` is not a word that a code can have; is it `blade`?");
        for path in
            ["Photos", "~/Photos", "/srv/7-a", "7-2026-11", "my-7-blade", ".", "0-blade-blush", "300-blade-blush"]
        {
            assert_eq!(path.parse::<Invite>(), Err(InviteError::Neither), "{path}");
        }
        assert!(looks_like_code("7-xelvet-island") && !looks_like_code("7-2026-11") && !looks_like_code("a"));
    }

    #[test]
    fn a_link_is_read_as_it_was_written() {
        let text = some_link().to_string();
        let device = some_link().device;
        let expected = format!("kinfold:pair/{device}/uws2ljnfuws2ljnfuws2ljnfuu/192.168.1.5-25464/fd00::5-25464");
        assert_eq!(text, expected);
        for typed in [text.clone(), text.to_uppercase()] {
            assert_eq!(typed.parse(), Ok(Invite::Link(some_link())));
        }
    }

    #[test]
    fn a_link_that_was_cut_off_is_refused() {
        let text = some_link().to_string();
        let whole = text.find("/192").unwrap();
        for end in LINK_PREFIX.len()..whole {
            assert_eq!(text[..end].parse::<Invite>(), Err(InviteError::BrokenLink), "{}", &text[..end]);
        }
        for tail in ["/1.2.3.4", "/1.2.3.4-0", "/1.2.3.4-99999", "/nas-1", "/"] {
            assert_eq!(format!("{}{tail}", &text[..whole]).parse::<Invite>(), Err(InviteError::BrokenLink), "{tail}");
        }
        let many = "/1.2.3.4-5".repeat(LINK_ADDRESSES_MAX + 1);
        assert_eq!(format!("{}{many}", &text[..whole]).parse::<Invite>(), Err(InviteError::BrokenLink));
        assert_eq!("7".repeat(TEXT_LEN_MAX + 1).parse::<Invite>(), Err(InviteError::Neither));
    }

    #[test]
    fn secrets_stay_out_of_logs() {
        let code = Code::from_random([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(format!("{code:?}"), "Code(6-…)");
        let shown = format!("{:?}", some_link());
        assert!(!shown.contains("uws") && !shown.contains("165"), "{shown}");
    }
}
