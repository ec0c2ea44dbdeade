//! Fingerprints: a device id as a few words, for two people to compare aloud.

use bip39::Language;

use crate::model::id::DeviceId;

/// Words of a fingerprint.
const WORDS: usize = 8;
/// Words that two people compare after a pairing: they are proven already, and are looked at by tired eyes.
const PAIRING_WORDS: usize = 4;
/// Bits that one of the 2048 words stands for.
const WORD_BITS: usize = 11;

/// Returns the fingerprint of a device: eight words of the English BIP 39 list, separated by spaces.
///
/// They are 88 bits of a hash of the device id; to find another key with the same words takes 2^88
/// tries. Two that merely resemble it are no easier to find, for no two words of the list begin with the
/// same four letters.
pub fn fingerprint_words(device: &DeviceId) -> String {
    words(&blake3::derive_key("kinfold 1 fingerprint", device.as_bytes()), WORDS)
}

/// Returns four words for what two devices agree that their handshake was: whoever is in between has other words.
pub fn pairing_words(handshake_hash: &[u8; 32]) -> String {
    words(&blake3::derive_key("kinfold 1 pairing words", handshake_hash), PAIRING_WORDS)
}

/// Returns so many words for the first bits of a hash.
fn words(hash: &[u8; 32], count: usize) -> String {
    let list = Language::English.word_list();
    let words: Vec<&str> = (0..count).map(|n| list[bits_at(hash, n * WORD_BITS)]).collect();
    words.join(" ")
}

/// Returns the [`WORD_BITS`] bits that begin at bit `at`, the first bit of a byte being its highest.
fn bits_at(bytes: &[u8], at: usize) -> usize {
    (at..at + WORD_BITS).fold(0, |bits, n| bits << 1 | usize::from(bytes[n / 8] >> (7 - n % 8) & 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_eight_words_and_never_changes() {
        let words = fingerprint_words(&DeviceId::from_public_key([1; 32]));
        assert_eq!(words, "planet symptom unveil final wreck thought witness result");
    }

    #[test]
    fn every_device_has_its_own() {
        let one = fingerprint_words(&DeviceId::from_public_key([1; 32]));
        let mut key = [1; 32];
        key[31] ^= 1;
        let two = fingerprint_words(&DeviceId::from_public_key(key));
        assert!(one.split(' ').zip(two.split(' ')).filter(|(a, b)| a == b).count() < 2);
    }

    #[test]
    fn bits_are_taken_in_order() {
        let bytes = [0b1010_1010, 0b1100_1100, 0b1111_0000, 0];
        assert_eq!(bits_at(&bytes, 0), 0b101_0101_0110);
        assert_eq!(bits_at(&bytes, 11), 0b011_0011_1100);
    }
}
