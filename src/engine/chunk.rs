//! Chunks whose bytes were hashed.

use crate::model::id::ChunkId;

/// The bytes of a chunk together with their hash.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedChunk {
    id: ChunkId,
    bytes: Vec<u8>,
}

impl VerifiedChunk {
    /// Hashes the bytes.
    pub fn hash(bytes: Vec<u8>) -> Self {
        Self { id: ChunkId::of(&bytes), bytes }
    }

    /// Returns the hash of the bytes.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
