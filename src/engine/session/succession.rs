//! Proof that a device has the key to the id that it says it will have.
//!
//! Without it a device could name the next id of another as its own, and would be taken for that one as soon as it comes.
//! The proof is a MAC under a key that only the two ends of a pair can compute, the next id and whoever is told of it. It
//! covers who says so to whom: passed on, it fits nobody.

use zeroize::Zeroizing;

use crate::model::id::DeviceId;

/// Makes the proof. `shared` is the Diffie-Hellman result of the next key and the hearer's; the caller has refused a
/// result of all zeros.
pub fn prove(shared: &[u8; 32], speaker: &DeviceId, next: &DeviceId, hearer: &DeviceId) -> [u8; 32] {
    *mac(shared, speaker, next, hearer).as_bytes()
}

/// Returns whether that is the proof; in constant time.
pub fn is_proven(shared: &[u8; 32], speaker: &DeviceId, next: &DeviceId, hearer: &DeviceId, proof: &[u8; 32]) -> bool {
    mac(shared, speaker, next, hearer) == blake3::Hash::from_bytes(*proof)
}

fn mac(shared: &[u8; 32], speaker: &DeviceId, next: &DeviceId, hearer: &DeviceId) -> blake3::Hash {
    let key = Zeroizing::new(blake3::derive_key("kinfold 1 next id", shared));
    let mut said = [0; 96];
    for (part, id) in said.chunks_exact_mut(32).zip([speaker, next, hearer]) {
        part.copy_from_slice(id.as_bytes());
    }
    blake3::keyed_hash(&key, &said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> DeviceId {
        DeviceId::from_public_key([n; 32])
    }

    #[test]
    fn a_proof_is_of_one_key_one_speaker_and_one_hearer() {
        let proof = prove(&[9; 32], &id(1), &id(2), &id(3));
        let check =
            |shared, speaker, next, hearer| is_proven(&[shared; 32], &id(speaker), &id(next), &id(hearer), &proof);
        assert!(check(9, 1, 2, 3));
        for (shared, speaker, next, hearer) in [(8, 1, 2, 3), (9, 4, 2, 3), (9, 1, 4, 3), (9, 1, 2, 4), (9, 2, 1, 3)] {
            assert!(!check(shared, speaker, next, hearer));
        }
        let mut bent = proof;
        bent[31] ^= 1;
        assert!(!is_proven(&[9; 32], &id(1), &id(2), &id(3), &bent));
    }
}
