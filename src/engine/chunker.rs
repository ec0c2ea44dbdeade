//! The chunker: cuts a file where its content says so, and hashes each chunk in the same pass.
//!
//! FastCDC (Xia et al. 2020) with normalisation level 1. Everything here is part of the format: two
//! devices that chunk the same bytes must get the same recipe, or they would fetch what they have. So
//! the gear table, the masks, the tiers and the version of the library are fixed, and golden vectors
//! in the tests stand guard.
//!
//! The tier follows from the file's size alone. It has no memory of the tier that a file had before
//! (no hysteresis): equal bytes give equal recipes on every device, whatever the file was yesterday.
//! The price is that a file that grows past a tier's end is chunked anew, and fetched anew, once.
//!
//! Cut points say something about the content (eprint 2025/558). The table is the same for everybody,
//! so that chunks of different folders can be compared; what hides the cut points from a listener is
//! the wire, which sends records of constant size.

use std::sync::LazyLock;

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

use crate::model::id::ChunkId;
use crate::model::limits::CHUNK_LEN_MAX;
use crate::model::recipe::{ChunkRef, Recipe};

/// How long the chunks of a file are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Tier {
    /// The length aimed at; powers of two.
    average: usize,
}

/// Largest file of the finest tier, in bytes.
const FINE_FILE_LEN_MAX: u64 = 1 << 30;
/// Largest file of the middle tier, in bytes.
const MIDDLE_FILE_LEN_MAX: u64 = 16 << 30;

const FINE: Tier = Tier { average: 64 << 10 };
const MIDDLE: Tier = Tier { average: 256 << 10 };
const COARSE: Tier = Tier { average: 1 << 20 };

/// How much is read at a time beyond what one chunk may need, in bytes.
const READ_LEN: usize = 512 << 10;

const _: () = assert!(COARSE.max() == CHUNK_LEN_MAX);

impl Tier {
    const fn of(file_len: u64) -> Self {
        if file_len <= FINE_FILE_LEN_MAX {
            FINE
        } else if file_len <= MIDDLE_FILE_LEN_MAX {
            MIDDLE
        } else {
            COARSE
        }
    }

    const fn min(self) -> usize {
        self.average / 4
    }

    const fn max(self) -> usize {
        self.average * 4
    }

    /// Returns the length of the first chunk of `bytes`, which are all that is left of the file, or
    /// at least one longest chunk.
    fn cut(self, bytes: &[u8]) -> usize {
        let (strict, loose) = select_masks(self.average, Normalization::Level1);
        let (gear, shifted) = &*GEAR;
        let (_, at) = cut_gear(
            bytes,
            self.min(),
            self.average,
            self.max(),
            strict,
            loose,
            strict << 1,
            loose << 1,
            gear,
            shifted,
        );
        at
    }
}

/// The gear table, and the same shifted left by one bit as the library wants it.
static GEAR: LazyLock<([u64; 256], [u64; 256])> = LazyLock::new(|| {
    let mut stream = blake3::Hasher::new_derive_key("kinfold 1 chunker gear table").finalize_xof();
    let gear: [u64; 256] = std::array::from_fn(|_| {
        let mut entry = [0; 8];
        stream.fill(&mut entry);
        u64::from_le_bytes(entry)
    });
    (gear, gear.map(|entry| entry << 1))
});

/// Returns the least length that a chunk of a file of this size has, the last one left out.
pub fn chunk_len_min(file_len: u64) -> usize {
    Tier::of(file_len).min()
}

/// Returns the greatest length that a chunk of a file of this size has.
///
/// A long run of zeros is cut into chunks of just this length.
pub fn chunk_len_max(file_len: u64) -> usize {
    Tier::of(file_len).max()
}

/// The memory that a [`Chunker`] works in, kept from file to file.
///
/// It grows to what the largest file so far needed (about 1 MiB for files up to 1 GiB) and is never
/// cleared in between; a small file touches only as much of it as it is long.
#[derive(Debug, Default)]
pub struct ChunkBuffer(Vec<u8>);

/// Cuts one file into chunks as its bytes come in.
///
/// The caller reads into [`Chunker::buffer`], says with [`Chunker::advance`] how much came, takes the
/// chunks that [`Chunker::next_chunk`] has, and after the last byte says [`Chunker::end`] and takes
/// the rest.
#[derive(Debug)]
pub struct Chunker<'b> {
    tier: Tier,
    buffer: &'b mut Vec<u8>,
    /// The bytes that came and are in no chunk yet: this range of the buffer.
    start: usize,
    end: usize,
    taken: u64,
    ended: bool,
}

impl<'b> Chunker<'b> {
    /// Begins a file of this size.
    ///
    /// The size decides the tier. If another number of bytes comes, the chunks are not the file's
    /// recipe: the caller compares [`Chunker::taken`].
    pub fn new(file_len: u64, buffer: &'b mut ChunkBuffer) -> Self {
        Self::with_tier(Tier::of(file_len), file_len, buffer)
    }

    fn with_tier(tier: Tier, file_len: u64, buffer: &'b mut ChunkBuffer) -> Self {
        // One byte more than the file has, so that growth while reading is seen without a detour.
        let whole = usize::try_from(file_len).unwrap_or(usize::MAX).saturating_add(1);
        let len = whole.min(tier.max() + READ_LEN);
        if buffer.0.len() < len {
            buffer.0 = vec![0; len.next_multiple_of(64 << 10)];
        }
        Self { tier, buffer: &mut buffer.0, start: 0, end: 0, taken: 0, ended: false }
    }

    /// Returns the space to read into. It is empty only after more bytes came than the file was to have,
    /// once all chunks that there were have been taken.
    pub fn buffer(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// Takes note that so many bytes were read into the buffer.
    pub fn advance(&mut self, read: usize) {
        assert!(read <= self.buffer.len() - self.end, "more was read than there was space for");
        self.end += read;
        self.taken += read as u64;
    }

    /// Takes note that the file has no more bytes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Returns the number of bytes that came so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Returns the next chunk, or `None` where its end cannot be known before more is read.
    pub fn next_chunk(&mut self) -> Option<ChunkRef> {
        let bytes = &self.buffer[self.start..self.end];
        if bytes.is_empty() || (bytes.len() < self.tier.max() && !self.ended) {
            return None;
        }
        let len = self.tier.cut(bytes);
        self.start += len;
        Some(ChunkRef { id: ChunkId::of(&bytes[..len]), len: len as u32 })
    }
}

/// Chunks bytes that are in memory: what [`Chunker`] does, without a moving window.
pub fn chunk_all(bytes: &[u8]) -> Recipe {
    let tier = Tier::of(bytes.len() as u64);
    let mut chunks = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(tier.cut(rest));
        chunks.push(ChunkRef { id: ChunkId::of(chunk), len: chunk.len() as u32 });
        rest = after;
    }
    Recipe::parse(chunks).expect("the chunker cuts within the bounds of a recipe")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut hasher = blake3::Hasher::new_derive_key("kinfold test noise");
        hasher.update(&seed.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Chunks `bytes` that arrive in reads of the lengths given, over and over.
    fn chunk_in_reads(tier: Tier, bytes: &[u8], reads: &[usize], memory: &mut ChunkBuffer) -> Vec<ChunkRef> {
        let mut chunker = Chunker::with_tier(tier, bytes.len() as u64, memory);
        let (mut chunks, mut rest) = (Vec::new(), bytes);
        for read in reads.iter().cycle() {
            let space = chunker.buffer();
            assert!(!space.is_empty(), "no space to read into");
            let len = (*read).min(space.len()).min(rest.len());
            space[..len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
            chunker.advance(len);
            if rest.is_empty() {
                chunker.end();
            }
            chunks.extend(std::iter::from_fn(|| chunker.next_chunk()));
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(chunker.taken(), bytes.len() as u64);
        chunks
    }

    fn lens(chunks: &[ChunkRef]) -> Vec<u32> {
        chunks.iter().map(|c| c.len).collect()
    }

    #[test]
    fn the_cuts_are_part_of_the_format() {
        let recipe = chunk_all(&noise(1, 600_000));
        assert_eq!(lens(recipe.chunks()), GOLDEN_FINE);
        assert_eq!(recipe.content_id().to_string(), GOLDEN_CONTENT);
        let mut memory = ChunkBuffer::default();
        for (tier, golden) in [(MIDDLE, GOLDEN_MIDDLE), (COARSE, GOLDEN_COARSE)] {
            let chunks = chunk_in_reads(tier, &noise(1, 5_000_000), &[1 << 20], &mut memory);
            assert_eq!(lens(&chunks), golden);
        }
    }

    const GOLDEN_FINE: &[u32] = &[167160, 43067, 98254, 153698, 68880, 68941];
    const GOLDEN_MIDDLE: &[u32] = &[
        324270, 341435, 445943, 296702, 109932, 81715, 195441, 370282, 172160, 228096, 349158, 166495, 312867, 265137,
        448076, 207769, 77437, 90928, 324941, 191216,
    ];
    const GOLDEN_COARSE: &[u32] = &[1442260, 1123716, 1578567, 664241, 191216];
    const GOLDEN_CONTENT: &str = "adff8434dccd30bedde4ba243e95115cb89dce7ba0f0e3a5d377e34f8275f430";
    const GOLDEN_GEAR: &str = "b0a99d0198ec99bb7959731e5bd7eac76285f5e1e0409bc8bf2af59b1e59c477";

    #[test]
    fn the_gear_table_is_part_of_the_format() {
        let mut hasher = blake3::Hasher::new();
        GEAR.0.iter().for_each(|entry| {
            hasher.update(&entry.to_le_bytes());
        });
        assert_eq!(hasher.finalize().to_hex().as_str(), GOLDEN_GEAR);
    }

    #[test]
    fn a_tier_ends_where_the_next_begins() {
        for (len, tier) in [
            (0, FINE),
            (1 << 30, FINE),
            ((1 << 30) + 1, MIDDLE),
            (16 << 30, MIDDLE),
            ((16 << 30) + 1, COARSE),
            (u64::MAX, COARSE),
        ] {
            assert_eq!(Tier::of(len), tier, "{len}");
        }
    }

    #[test]
    fn a_file_no_larger_than_one_smallest_chunk_is_one_chunk() {
        assert_eq!(chunk_all(b"").chunks(), []);
        for len in [1, 100, FINE.min() - 1, FINE.min()] {
            let bytes = noise(2, len);
            assert_eq!(chunk_all(&bytes).chunks(), [ChunkRef { id: ChunkId::of(&bytes), len: len as u32 }]);
        }
    }

    #[test]
    fn zeros_are_cut_into_longest_chunks() {
        let recipe = chunk_all(&vec![0; 3 * FINE.max() + 10]);
        let max = chunk_len_max(1) as u32;
        assert_eq!(lens(recipe.chunks()), [max, max, max, 10]);
        let mut memory = ChunkBuffer::default();
        for tier in [MIDDLE, COARSE] {
            let chunks = chunk_in_reads(tier, &vec![0; tier.max() + 1], &[99_999], &mut memory);
            assert_eq!(lens(&chunks), [tier.max() as u32, 1]);
        }
    }

    #[test]
    fn an_edit_stays_local() {
        let before = noise(3, 4 << 20);
        let mut after = b"a few bytes at the beginning".to_vec();
        after.extend_from_slice(&before[..2 << 20]);
        after.extend_from_slice(b"and some in the middle");
        after.extend_from_slice(&before[2 << 20..]);
        let (before, after) = (chunk_all(&before), chunk_all(&after));
        let new = after.chunks().iter().filter(|chunk| !before.chunks().contains(chunk)).count();
        assert!((1..=6).contains(&new), "{new} of {} chunks are new", after.chunks().len());
    }

    #[test]
    fn a_small_file_asks_for_little_memory() {
        let mut memory = ChunkBuffer::default();
        chunk_in_reads(FINE, &noise(4, 4096), &[4096], &mut memory);
        assert_eq!(memory.0.len(), 64 << 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn cuts_do_not_depend_on_how_the_bytes_arrive(
            seed in any::<u64>(),
            len in 0usize..2_000_000,
            reads in proptest::collection::vec(1usize..700_000, 1..8),
        ) {
            let bytes = noise(seed, len);
            // The same memory for two files: what is left from the first must not matter.
            let mut memory = ChunkBuffer::default();
            chunk_in_reads(FINE, &noise(!seed, 300_000), &[1 << 20], &mut memory);
            let chunks = chunk_in_reads(FINE, &bytes, &reads, &mut memory);
            let reference = chunk_all(&bytes);
            prop_assert_eq!(&chunks[..], reference.chunks());
            prop_assert_eq!(chunks.iter().map(|c| c.len as usize).sum::<usize>(), len);
            prop_assert!(chunks.iter().all(|c| c.len as usize <= FINE.max()));
        }
    }
}
