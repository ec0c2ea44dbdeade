//! What two devices say to each other while they are paired, once they have proven the code.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::id::FolderId;
use crate::model::limits::{LABEL_LEN_MAX, PAIRING_ADDRESSES_MAX};
use crate::model::rights::Right;

/// One step of a pairing; the bytes are described in [`wire`](crate::wire).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PairingMessage {
    /// Who I am. The first on either side.
    Introduction(Introduction),
    /// Whether the person here agrees.
    Answer(bool),
    /// Whether what was agreed is now written down here.
    Done(bool),
}

/// What one side says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Introduction {
    /// The name that the device gives itself; shown, never trusted.
    pub name: String,
    /// Where it listens. An unspecified address stands for the one that the other side sees.
    pub listen: Vec<SocketAddr>,
    /// The folder that it would share.
    pub folder: Option<SharedFolder>,
}

/// A folder that one side would share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SharedFolder {
    /// Which.
    pub id: FolderId,
    /// What it is called there.
    pub name: String,
    /// What the other side may do in it.
    pub right: Right,
}

/// The bytes are no message of a pairing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the other device says something that no version of this program says")]
pub struct PairingDecodeError;

#[derive(Deserialize, Serialize)]
enum Raw {
    Introduction { name: String, listen: Vec<SocketAddr>, folder: Option<([u8; 16], String, u8)> },
    Answer(bool),
    Done(bool),
}

impl PairingMessage {
    /// Returns the bytes of a message.
    pub fn encode(&self) -> Vec<u8> {
        let raw = match self.clone() {
            Self::Introduction(Introduction { name, listen, folder }) => {
                let folder = folder.map(|folder| (folder.id.0, folder.name, folder.right as u8));
                Raw::Introduction { name, listen, folder }
            }
            Self::Answer(agrees) => Raw::Answer(agrees),
            Self::Done(is_done) => Raw::Done(is_done),
        };
        postcard::to_stdvec(&raw).expect("plain data of known length always encodes")
    }

    /// Reads a message, and checks all bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, PairingDecodeError> {
        let Ok((raw, [])) = postcard::take_from_bytes(bytes) else { return Err(PairingDecodeError) };
        let label = |text: String| if text.len() > LABEL_LEN_MAX { Err(PairingDecodeError) } else { Ok(text) };
        Ok(match raw {
            Raw::Introduction { listen, .. } if listen.len() > PAIRING_ADDRESSES_MAX => return Err(PairingDecodeError),
            Raw::Introduction { name, listen, folder } => {
                let folder = match folder {
                    Some((id, name, right)) => {
                        let right = *Right::ALL.get(usize::from(right)).ok_or(PairingDecodeError)?;
                        Some(SharedFolder { id: FolderId(id), name: label(name)?, right })
                    }
                    None => None,
                };
                Self::Introduction(Introduction { name: label(name)?, listen, folder })
            }
            Raw::Answer(agrees) => Self::Answer(agrees),
            Raw::Done(is_done) => Self::Done(is_done),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn introduction() -> Introduction {
        let folder = SharedFolder { id: FolderId([7; 16]), name: "Photos".into(), right: Right::Adder };
        let listen = ["0.0.0.0:25463", "[::]:25463"].map(|text| text.parse().unwrap()).to_vec();
        Introduction { name: "desk".into(), listen, folder: Some(folder) }
    }

    #[test]
    fn what_is_encoded_is_read_again() {
        let alone = Introduction { folder: None, listen: vec![], ..introduction() };
        for message in [
            PairingMessage::Introduction(introduction()),
            PairingMessage::Introduction(alone),
            PairingMessage::Answer(true),
            PairingMessage::Done(false),
        ] {
            assert_eq!(PairingMessage::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn what_is_cut_off_or_beyond_a_bound_is_refused() {
        let bytes = PairingMessage::Introduction(introduction()).encode();
        for end in 0..bytes.len() {
            assert_eq!(PairingMessage::decode(&bytes[..end]), Err(PairingDecodeError), "{end}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(PairingMessage::decode(&longer), Err(PairingDecodeError));
        let refused = |change: fn(&mut Introduction)| {
            let mut introduction = introduction();
            change(&mut introduction);
            PairingMessage::decode(&PairingMessage::Introduction(introduction).encode()) == Err(PairingDecodeError)
        };
        assert!(refused(|it| it.name = "n".repeat(LABEL_LEN_MAX + 1)));
        assert!(refused(|it| it.folder.as_mut().unwrap().name = "n".repeat(LABEL_LEN_MAX + 1)));
        assert!(refused(|it| it.listen = vec![it.listen[0]; PAIRING_ADDRESSES_MAX + 1]));
        assert!(!refused(|it| it.listen = vec![it.listen[0]; PAIRING_ADDRESSES_MAX]));
    }
}
