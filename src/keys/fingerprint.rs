//! Fingerprints: a device id in words that people can read to each other.

use crate::model::id::DeviceId;

/// How many words a fingerprint has.
const WORDS: usize = 6;

/// Returns the words that stand for a device, the same on every device.
pub fn words(device: &DeviceId) -> String {
    let hash = blake3::derive_key("kinfold 1 fingerprint words", device.as_bytes());
    let list = bip39::Language::English.word_list();
    let pairs = hash.chunks_exact(2).take(WORDS);
    let indices = pairs.map(|pair| usize::from(u16::from_le_bytes([pair[0], pair[1]])) % list.len());
    indices.map(|at| list[at]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_words_of_their_own() {
        let device = |n| DeviceId::from_public_key([n; 32]);
        assert_eq!(words(&device(1)).split(' ').count(), WORDS);
        assert_eq!(words(&device(1)), words(&device(1)));
        assert_ne!(words(&device(1)), words(&device(2)));
    }
}
