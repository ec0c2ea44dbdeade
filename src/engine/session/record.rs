//! Records: the byte stream of a session, cut into Noise messages.
//!
//! On the wire a record is its length (`u16` BE, of what follows) and a Noise transport message. Nonces
//! count from zero and by one in each direction; after [`REKEY_RECORDS`] records the key of the direction
//! is replaced by one derived from it (Noise specification, section 4.2), so that a key found later does
//! not open what went before.
//!
//! A record that is lost, repeated, moved or changed does not open, and the half is unusable from then
//! on. An end of the stream is not spoken of here: only a message inside a record is an end that nobody
//! else can forge.

use std::sync::{Arc, RwLock};

use snow::StatelessTransportState;

use crate::model::limits::{NOISE_MESSAGE_MAX, NOISE_PAYLOAD_MAX};

/// Length of a record's length field, in bytes.
pub const RECORD_HEADER_LEN: usize = 2;
/// Longest record on the wire, its length field included, in bytes.
pub const RECORD_LEN_MAX: usize = RECORD_HEADER_LEN + NOISE_MESSAGE_MAX;
/// Records under one key.
pub const REKEY_RECORDS: u64 = 1024;

const MAC_LEN: usize = NOISE_MESSAGE_MAX - NOISE_PAYLOAD_MAX;

/// Why a record could not be made or opened. The session is over in each case.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The record is not the next one that the peer made.
    #[error("record {nonce} is not authentic")]
    Forged {
        /// Its number.
        nonce: u64,
        /// What the cipher said.
        #[source]
        source: snow::Error,
    },
    /// This half failed before and is not used again.
    #[error("the record layer failed before")]
    Broken,
    /// This device could not make a record.
    #[error("record {nonce} could not be sealed")]
    Local {
        /// Its number.
        nonce: u64,
        /// What the cipher said.
        #[source]
        source: snow::Error,
    },
}

/// The keys of both directions. A lock, for a new key needs them alone; a record needs them shared.
pub type Transport = Arc<RwLock<StatelessTransportState>>;

/// Parts the keys of a session into the half that sends and the half that receives.
pub fn split(transport: StatelessTransportState) -> (Sealer, Opener) {
    let transport = Arc::new(RwLock::new(transport));
    let half = || Half { transport: Arc::clone(&transport), nonce: 0, broken: false };
    (Sealer(half()), Opener(half()))
}

/// Returns how many bytes `plaintext_len` bytes become.
pub const fn sealed_len(plaintext_len: usize) -> usize {
    plaintext_len + plaintext_len.div_ceil(NOISE_PAYLOAD_MAX) * (RECORD_HEADER_LEN + MAC_LEN)
}

/// The half that seals.
pub struct Sealer(Half);

impl Sealer {
    /// Cuts `plaintext` into records and writes them to the beginning of `out`. Returns their length,
    /// which is [`sealed_len`].
    ///
    /// A record that was sealed has used its nonce up, whether or not it is ever sent: after a failed
    /// write the session is over.
    ///
    /// # Panics
    /// `out` is shorter than that length.
    pub fn seal_into(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, RecordError> {
        assert!(out.len() >= sealed_len(plaintext.len()), "the buffer is too short for its records");
        let mut written = 0;
        for payload in plaintext.chunks(NOISE_PAYLOAD_MAX) {
            let (header, message) = out[written..].split_at_mut(RECORD_HEADER_LEN);
            let len = self.0.step(
                StatelessTransportState::rekey_outgoing,
                |transport, nonce| transport.write_message(nonce, payload, message),
                |nonce, source| RecordError::Local { nonce, source },
            )?;
            let len_field = u16::try_from(len).expect("a Noise message is no longer than 65535 bytes");
            header.copy_from_slice(&len_field.to_be_bytes());
            written += RECORD_HEADER_LEN + len;
        }
        Ok(written)
    }

    /// Seals from now on with the keys of a new handshake.
    pub fn renew(&mut self, transport: Transport) {
        self.0.renew(transport);
    }

    /// Returns how many records were sealed, under the keys in force.
    pub fn records(&self) -> u64 {
        self.0.nonce
    }
}

/// The half that opens.
pub struct Opener(Half);

impl Opener {
    /// Opens the next record, given without its length field, to the beginning of `out`, which is
    /// [`NOISE_PAYLOAD_MAX`] long or as long as the record. Returns the length of the plaintext.
    ///
    /// On an error nothing in `out` may be used.
    pub fn open(&mut self, message: &[u8], out: &mut [u8]) -> Result<usize, RecordError> {
        self.0.step(
            StatelessTransportState::rekey_incoming,
            |transport, nonce| transport.read_message(nonce, message, out),
            |nonce, source| RecordError::Forged { nonce, source },
        )
    }

    /// Opens from now on with the keys of a new handshake.
    pub fn renew(&mut self, transport: Transport) {
        self.0.renew(transport);
    }

    /// Returns how many records were opened, under the keys in force.
    pub fn records(&self) -> u64 {
        self.0.nonce
    }
}

struct Half {
    transport: Transport,
    nonce: u64,
    broken: bool,
}

impl Half {
    /// A half that failed stays failed: what was lost does not come back.
    fn renew(&mut self, transport: Transport) {
        (self.transport, self.nonce) = (transport, 0);
    }

    /// Does one record: takes the next nonce, replaces the key where it is due, and runs `crypt`.
    ///
    /// The half is broken from before the step until after its success, so that no failure, a panic
    /// included, leaves a nonce that could be used twice.
    fn step(
        &mut self,
        rekey: impl FnOnce(&mut StatelessTransportState),
        crypt: impl FnOnce(&StatelessTransportState, u64) -> Result<usize, snow::Error>,
        failed: impl FnOnce(u64, snow::Error) -> RecordError,
    ) -> Result<usize, RecordError> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(RecordError::Broken);
        }
        if self.nonce != 0 && self.nonce.is_multiple_of(REKEY_RECORDS) {
            rekey(&mut *self.transport.write().map_err(|_| RecordError::Broken)?);
        }
        let transport = self.transport.read().map_err(|_| RecordError::Broken)?;
        let len = crypt(&transport, self.nonce).map_err(|source| failed(self.nonce, source))?;
        self.nonce += 1;
        self.broken = false;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sealed_length_counts_every_record() {
        for (plaintext, records) in
            [(0, 0), (1, 1), (NOISE_PAYLOAD_MAX, 1), (NOISE_PAYLOAD_MAX + 1, 2), (3 * NOISE_PAYLOAD_MAX, 3)]
        {
            assert_eq!(sealed_len(plaintext), plaintext + records * 18, "{plaintext}");
        }
        assert_eq!(sealed_len(NOISE_PAYLOAD_MAX), RECORD_LEN_MAX);
    }
}
