//! What can go wrong with the configuration, and what a person does about it.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::config::address::AddressError;
use crate::config::brake::BrakeError;
use crate::config::merge::MergeError;
use crate::config::metered::MeteredError;
use crate::config::rate::RateError;
use crate::config::size::SizeError;
use crate::config::succession::NextRefused;
use crate::config::windows::WindowError;
use crate::model::limits::CONFIG_LEN_MAX;
use crate::model::limits::LABEL_LEN_MAX;
use crate::model::limits::REVOCATIONS_MAX;
use crate::model::shell::quoted;

/// Why the configuration cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is none yet.
    #[error("there is no configuration at {}", .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is one, and it shall not be overwritten.
    #[error("there is a configuration already: {}", .path.display())]
    Exists {
        /// Where it lies.
        path: PathBuf,
    },
    /// The file is larger than any configuration has a reason to be.
    #[error("{} is longer than {CONFIG_LEN_MAX} bytes and was not read", .path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A person has to correct the file.
    #[error("{}, line {}: {}", .path.display(), .fault.line, .fault.what)]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        fault: Fault,
    },
    /// The change that was asked for cannot be made; the file is as it was.
    #[error(transparent)]
    Edit(#[from] EditError),
}

/// Something wrong in the text of a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// In which line; the first is 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it, where that does not go without saying.
    pub hint: Option<String>,
}

/// What a person wrote where something else was to stand.
pub trait Advice: std::error::Error {
    /// Returns what to write instead.
    fn advice(&self) -> &'static str;
}

/// Why a name for a device or folder is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LabelError {
    /// It is empty.
    #[error("a name cannot be empty")]
    Empty,
    /// It is too long.
    #[error("a name has at most {LABEL_LEN_MAX} bytes, this has {found}")]
    TooLong {
        /// Bytes of it.
        found: usize,
    },
    /// It has a character that would harm a terminal or a list.
    #[error("a name cannot contain control characters")]
    Control,
    /// It begins or ends with a space, which nobody would see.
    #[error("a name cannot begin or end with a space")]
    Space,
}

impl Advice for LabelError {
    fn advice(&self) -> &'static str {
        match self {
            Self::Empty | Self::Control | Self::Space => "choose a name that people can see and type",
            Self::TooLong { .. } => "choose a shorter name",
        }
    }
}

/// Checks a name for a device or folder.
pub fn check_label(text: &str) -> Result<(), LabelError> {
    if text.is_empty() {
        return Err(LabelError::Empty);
    }
    if text.len() > LABEL_LEN_MAX {
        return Err(LabelError::TooLong { found: text.len() });
    }
    if text.chars().any(char::is_control) {
        return Err(LabelError::Control);
    }
    if text.trim() != text {
        return Err(LabelError::Space);
    }
    Ok(())
}

/// Why a change cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The configuration would not hold its rules afterwards.
    #[error("{}", .0.what)]
    Rule(Fault),
    /// A name is not one.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// An address is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A size is not one.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// A setting of the brake is none.
    #[error(transparent)]
    Brake(#[from] BrakeError),
    /// A way to merge is none.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// What is said of metered connections is nothing.
    #[error(transparent)]
    Metered(#[from] MeteredError),
    /// A rate is not one.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// A time of the week is none.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// A device cannot have that id next.
    #[error(transparent)]
    Next(#[from] NextRefused),
    /// No such device is in the trust list.
    #[error("there is no device `{name}` here")]
    UnknownDevice {
        /// What was asked for.
        name: String,
    },
    /// No such folder is here.
    #[error("there is no folder `{name}` here")]
    UnknownFolder {
        /// What was asked for.
        name: String,
    },
    /// The folder was accepted, but has not been offered yet.
    #[error("folder `{name}` was accepted, but its offer has not arrived yet")]
    NotOffered {
        /// Which folder.
        name: String,
    },
    /// The id is this device's own.
    #[error("this is the id of this device itself")]
    OwnDevice,
    /// No more can be remembered.
    #[error("at most {REVOCATIONS_MAX} devices can be revoked")]
    TooManyRevoked,
    /// The name is this device's own.
    #[error("this device itself is called `{name}`")]
    OwnName {
        /// The name.
        name: String,
    },
    /// The device is in the trust list under another name.
    #[error("this device is in the list already, as `{name}`")]
    DeviceKnown {
        /// Its name.
        name: String,
    },
    /// Another device has that name.
    #[error("another device is called `{name}` already")]
    DeviceNameTaken {
        /// The name.
        name: String,
    },
    /// Another folder has that name.
    #[error("another folder is called `{name}` already: {}", .path.display())]
    FolderNameTaken {
        /// The name.
        name: String,
        /// Where that folder lies.
        path: PathBuf,
    },
    /// The folder is here already.
    #[error("{} is synced already, as `{name}`", .path.display())]
    FolderKnown {
        /// The folder's name here.
        name: String,
        /// Where it lies.
        path: PathBuf,
    },
    /// Only owners may share a folder or stop sharing it.
    #[error("only an owner of `{folder}` can change who belongs to it, and this device is none")]
    NotOwner {
        /// Which folder.
        folder: String,
    },
    /// There is nothing at the place.
    #[error("{} does not exist", .path.display())]
    NoSuchDirectory {
        /// The place.
        path: PathBuf,
    },
    /// What is at the place is not a directory.
    #[error("{} is not a directory", .path.display())]
    NotADirectory {
        /// The place.
        path: PathBuf,
    },
    /// The place cannot be written into a text file.
    #[error("{} cannot be written into the configuration: it is not valid UTF-8", .path.display())]
    NotUtf8 {
        /// The place.
        path: PathBuf,
    },
    /// No such setting.
    #[error("there is no setting `{key}`")]
    UnknownKey {
        /// What was asked for.
        key: String,
    },
    /// The value does not suit the setting.
    #[error("`{value}` is not a value for {key}")]
    BadValue {
        /// Which setting.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is.
        expected: &'static str,
    },
}

impl ConfigError {
    /// Returns what to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some("run `kinfold init` once on this device".to_owned()),
            Self::Exists { .. } => Some("edit that file, or use the `kinfold` commands that do".to_owned()),
            Self::TooLong { .. } => Some("no configuration is as long as that: look at what lies there".to_owned()),
            Self::Io { source, .. } => Some(
                match source.kind() {
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                        "a file lies where a directory is needed: move it away, or name another place"
                    }
                    io::ErrorKind::IsADirectory => "a directory lies where a file is needed: move it away",
                    _ => "check the permissions of the file and its directory",
                }
                .to_owned(),
            ),
            Self::Invalid { fault, .. } => Some(fault.hint.clone().unwrap_or_else(|| "correct that line".to_owned())),
            Self::Edit(edit) => edit.hint(),
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

impl EditError {
    /// Returns what to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Rule(fault) => return fault.hint.clone(),
            Self::UnknownDevice { name } => {
                return Some(format!(
                    "see `kinfold device list`, or add it: kinfold device add ID --name {}",
                    quoted(name)
                ));
            }
            Self::DeviceKnown { name } => {
                return Some(format!("to rename it: kinfold device rename {} NEW", quoted(name)));
            }
            Self::Label(error) => error.advice(),
            Self::Size(error) => error.advice(),
            Self::Brake(error) => error.advice(),
            Self::Merge(error) => error.advice(),
            Self::Metered(error) => error.advice(),
            Self::Rate(error) => error.advice(),
            Self::Window(error) => error.advice(),
            Self::BadValue { expected, .. } => expected,
            Self::Next(_) => return None,
            Self::Address(_) => "give the address in numbers, like 192.168.1.20 or [fd00::20]:25463",
            Self::UnknownFolder { .. } => "see `kinfold folder list`",
            Self::NotOffered { .. } => "it is taken as soon as the other device is connected and shares it",
            Self::TooManyRevoked => {
                "take old ones out of [[revoked]] in the configuration, here and on the other devices"
            }
            Self::OwnDevice => "run `kinfold id` on the other device, and give that id",
            Self::OwnName { .. } | Self::DeviceNameTaken { .. } => "choose another name, or see `kinfold device list`",
            Self::FolderNameTaken { .. } => "choose another name, or see `kinfold folder list`",
            Self::FolderKnown { .. } => "to share it: kinfold folder share NAME DEVICE",
            Self::NotOwner { .. } => "do it on the device that made the folder",
            Self::NoSuchDirectory { .. } => "make the directory first, or check the spelling",
            Self::NotADirectory { .. } => "give the path of a directory",
            Self::NotUtf8 { .. } => "rename that directory",
            Self::UnknownKey { .. } => {
                "settings are rescan_minutes, gitignore, history_days, history_size, active, metered, brake, scrub_days and merge"
            }
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_shown_are_refused() {
        assert_eq!(check_label("Photos 2026 – été"), Ok(()));
        assert_eq!(check_label(&"n".repeat(LABEL_LEN_MAX)), Ok(()));
        assert_eq!(check_label(""), Err(LabelError::Empty));
        assert_eq!(check_label(&"n".repeat(LABEL_LEN_MAX + 1)), Err(LabelError::TooLong { found: LABEL_LEN_MAX + 1 }));
        assert_eq!(check_label("a\nb"), Err(LabelError::Control));
        assert_eq!(check_label("a "), Err(LabelError::Space));
    }
}
