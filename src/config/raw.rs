//! The configuration file as it is written: every key and its type, no rule beyond that.
//!
//! Spans are kept so that whatever is found wrong later can name its line.

use serde::Deserialize;
use toml::Spanned;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// What people call this device.
    pub name: Spanned<String>,
    /// `on`, `required` or `off`.
    pub sandbox: Option<Spanned<String>>,
    /// Ids that it had before.
    #[serde(default)]
    pub former: Vec<Spanned<String>>,
    /// `[network]`.
    #[serde(default)]
    pub network: RawNetwork,
    /// `[history]`.
    #[serde(default)]
    pub history: RawHistory,
    /// `[[devices]]`.
    #[serde(default)]
    pub devices: Vec<RawDevice>,
    /// `[[folders]]`.
    #[serde(default)]
    pub folders: Vec<RawFolder>,
    /// `[[accepts]]`.
    #[serde(default)]
    pub accepts: Vec<RawAccept>,
    /// `[[revoked]]`.
    #[serde(default)]
    pub revoked: Vec<RawRevoked>,
}

/// `[network]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawNetwork {
    /// Addresses to listen on.
    pub listen: Option<Vec<Spanned<String>>>,
    /// `lan` or `any`.
    pub mode: Option<Spanned<String>>,
    /// Networks that count as local.
    #[serde(default)]
    pub allow: Vec<Spanned<String>>,
    /// Network interfaces that alone are used.
    #[serde(default)]
    pub interfaces: Vec<Spanned<String>>,
    /// Whether devices find each other.
    pub discovery: Option<bool>,
    /// `pause` or `go`.
    pub metered: Option<Spanned<String>>,
    /// How much may be sent in a second.
    pub send_rate: Option<Spanned<String>>,
    /// How much may be received in a second.
    pub receive_rate: Option<Spanned<String>>,
}

/// `[history]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawHistory {
    /// For how many days.
    pub days: Option<u32>,
    /// Up to how much space.
    pub size: Option<Spanned<RawSize>>,
}

/// A size: bytes as a number, or a text with a unit.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "write a size like \"10%\", \"20 GiB\" or a number of bytes")]
pub enum RawSize {
    /// Bytes.
    Bytes(u64),
    /// With a unit.
    Text(String),
}

/// One of `[[devices]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDevice {
    /// What people call it.
    pub name: Spanned<String>,
    /// Its id.
    pub id: Spanned<String>,
    /// The id that it says it will have.
    pub next: Option<Spanned<String>>,
    /// Ids that it had before.
    #[serde(default)]
    pub former: Vec<Spanned<String>>,
    /// Where it can be reached.
    #[serde(default)]
    pub addresses: Vec<Spanned<String>>,
    /// How much it may be sent in a second.
    pub send_rate: Option<Spanned<String>>,
    /// How much may be received from it in a second.
    pub receive_rate: Option<Spanned<String>>,
}

/// One of `[[folders]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawFolder {
    /// What people call it.
    pub name: Spanned<String>,
    /// Its id.
    pub id: Spanned<String>,
    /// Where it lies.
    pub path: Spanned<String>,
    /// Whether it rests.
    #[serde(default)]
    pub paused: bool,
    /// Until when it rests.
    pub paused_until: Option<Spanned<String>>,
    /// At which times of the week it exchanges anything.
    #[serde(default)]
    pub active: Vec<Spanned<String>>,
    /// `pause` or `go`.
    pub metered: Option<Spanned<String>>,
    /// How much of it may be sent in a second.
    pub send_rate: Option<Spanned<String>>,
    /// How much of it may be received in a second.
    pub receive_rate: Option<Spanned<String>>,
    /// Who belongs to it.
    #[serde(default)]
    pub members: Vec<RawMember>,
    /// Minutes between two full scans.
    pub rescan_minutes: Option<u32>,
    /// Whether `.gitignore` counts.
    #[serde(default)]
    pub gitignore: bool,
    /// For how many days the past is kept.
    pub history_days: Option<u32>,
    /// Up to how much space the past may take.
    pub history_size: Option<Spanned<RawSize>>,
    /// `on`, `off`, or how much is too much.
    pub brake: Option<Spanned<String>>,
    /// Days within which all files are read again; 0: never.
    pub scrub_days: Option<u32>,
    /// `ask`, `text` or `off`.
    pub merge: Option<Spanned<String>>,
}

/// One of a folder's `members`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMember {
    /// Whose line it is.
    pub device: Spanned<String>,
    /// What it may do; `none` where it was removed.
    pub right: Spanned<String>,
    /// Counts the changes of this line.
    pub stamp: Option<u64>,
}

/// One of `[[accepts]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAccept {
    /// The name that is expected.
    pub name: Spanned<String>,
    /// Where it shall lie.
    pub path: Spanned<String>,
    /// Who is to offer it.
    pub from: Spanned<String>,
    /// With whom it is to be shared onward.
    #[serde(default)]
    pub share: Vec<RawMember>,
}

/// One of `[[revoked]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRevoked {
    /// What it was called here.
    pub name: Option<Spanned<String>>,
    /// Its id.
    pub id: Spanned<String>,
    /// Counts what was said of it.
    pub stamp: Option<u64>,
    /// Whether it may be trusted again.
    #[serde(default)]
    pub lifted: bool,
    /// Who said so, where it was another device.
    pub by: Option<Spanned<String>>,
}
