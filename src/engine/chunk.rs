//! Chunks whose bytes were hashed here: the only form in which bytes from the network are written.

use bytes::Bytes;

use crate::model::id::ChunkId;

/// The bytes of a chunk together with their hash, computed from these very bytes.
///
/// Invariant: `id` is the BLAKE3-256 hash of `bytes`. [`VerifiedChunk::hash`] is the only way to make
/// one, so whoever holds it need not ask where the bytes came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedChunk {
    id: ChunkId,
    bytes: Bytes,
}

impl VerifiedChunk {
    /// Hashes the bytes. Whether they are the ones that were wanted is seen by the id.
    pub fn hash(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { id: ChunkId::of(&bytes), bytes }
    }

    /// Returns the hash of the bytes.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verified_chunk_is_named_by_its_own_bytes() {
        let chunk = VerifiedChunk::hash(b"some bytes".to_vec());
        assert_eq!(chunk.id(), ChunkId::of(b"some bytes"));
        assert_eq!(&chunk.bytes()[..], b"some bytes");
        assert_ne!(chunk.id(), VerifiedChunk::hash(b"some byteS".to_vec()).id());
    }
}
