//! Frames: the messages of a session as they lie in its byte stream; pure.
//!
//! | bytes     | field                                                        |
//! |-----------|--------------------------------------------------------------|
//! | 4         | length of all that follows, `u32` LE, at most [`FRAME_LEN_MAX`] |
//! | 1         | kind                                                         |
//! | 2         | length of the header, `u16` LE                               |
//! | as stated | header                                                       |
//! | the rest  | body                                                         |
//!
//! What the kinds, headers and bodies mean is not known here.

use crate::model::limits::FRAME_LEN_MAX;

/// Length of the fixed fields of a frame, in bytes.
pub const FRAME_PREFIX_LEN: usize = 7;

/// Bytes of the fixed fields that the length counts.
const COUNTED_PREFIX_LEN: usize = FRAME_PREFIX_LEN - 4;

/// Memory taken for a body before its first byte has arrived; it then grows as they arrive.
const BODY_RESERVE: usize = 256 << 10;

const _: () = assert!(FRAME_LEN_MAX <= u32::MAX as usize);

/// One message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Frame {
    /// What sort of message it is.
    pub kind: u8,
    /// The encoded message.
    pub header: Vec<u8>,
    /// Raw bytes that go with it.
    pub body: Vec<u8>,
}

/// Why bytes are no frame: the peer broke the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// The frame would be longer than is allowed.
    #[error("a frame of {len} bytes is longer than the {FRAME_LEN_MAX} allowed")]
    TooLong {
        /// The length it claims.
        len: usize,
    },
    /// The frame is shorter than its own fields.
    #[error("a frame of {len} bytes cannot hold its header")]
    TooShort {
        /// The length it claims.
        len: usize,
    },
}

/// Makes the fixed fields of a frame.
///
/// # Panics
/// The frame would be longer than [`FRAME_LEN_MAX`], or the header than 65535 bytes: no message of
/// ours is.
pub fn prefix(kind: u8, header_len: usize, body_len: usize) -> [u8; FRAME_PREFIX_LEN] {
    let header_field = u16::try_from(header_len).expect("a header has at most 65535 bytes");
    let len = COUNTED_PREFIX_LEN + header_len + body_len;
    assert!(len <= FRAME_LEN_MAX, "a frame of {len} bytes is longer than the {FRAME_LEN_MAX} allowed");
    let [a, b, c, d] = u32::try_from(len).expect("FRAME_LEN_MAX fits").to_le_bytes();
    let [e, f] = header_field.to_le_bytes();
    [a, b, c, d, kind, e, f]
}

/// Puts frames together from the pieces in which they arrive.
///
/// Call [`FrameDecoder::decode`] with a piece until it is used up. After an error the decoder is of no
/// further use.
#[derive(Default)]
pub struct FrameDecoder {
    prefix: [u8; FRAME_PREFIX_LEN],
    prefix_len: usize,
    header_len: usize,
    body_len: usize,
    frame: Frame,
}

impl FrameDecoder {
    /// Takes bytes from the front of `input` up to the end of a frame. Returns the frame if it is whole.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if self.prefix_len < FRAME_PREFIX_LEN {
            let piece = take(input, FRAME_PREFIX_LEN - self.prefix_len);
            self.prefix[self.prefix_len..][..piece.len()].copy_from_slice(piece);
            self.prefix_len += piece.len();
            if self.prefix_len < FRAME_PREFIX_LEN {
                return Ok(None);
            }
            self.begin_frame()?;
        }
        fill(&mut self.frame.header, self.header_len, input);
        fill(&mut self.frame.body, self.body_len, input);
        if self.frame.header.len() < self.header_len || self.frame.body.len() < self.body_len {
            return Ok(None);
        }
        self.prefix_len = 0;
        Ok(Some(std::mem::take(&mut self.frame)))
    }

    /// Takes back a frame that is done with, to use its memory for the next one.
    pub fn recycle(&mut self, mut frame: Frame) {
        let is_between_frames = self.prefix_len < FRAME_PREFIX_LEN;
        if is_between_frames {
            frame.header.clear();
            frame.body.clear();
            self.frame = frame;
        }
    }

    fn begin_frame(&mut self) -> Result<(), FrameError> {
        let [a, b, c, d, kind, e, f] = self.prefix;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if len > FRAME_LEN_MAX {
            return Err(FrameError::TooLong { len });
        }
        self.header_len = usize::from(u16::from_le_bytes([e, f]));
        self.body_len = len.checked_sub(COUNTED_PREFIX_LEN + self.header_len).ok_or(FrameError::TooShort { len })?;
        self.frame.kind = kind;
        Ok(())
    }
}

/// Appends what `field` still lacks of `len` bytes, as far as `input` has it.
///
/// The memory grows with what has arrived: a peer cannot make us hold more than about twice what it
/// sent.
fn fill(field: &mut Vec<u8>, len: usize, input: &mut &[u8]) {
    let missing = len - field.len();
    let piece = take(input, missing);
    if field.capacity() - field.len() < piece.len() {
        field.reserve_exact(missing.min(field.len().max(BODY_RESERVE)));
    }
    field.extend_from_slice(piece);
}

/// Takes up to `len` bytes from the front of `input`.
fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (piece, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    piece
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(frame: &Frame) -> Vec<u8> {
        let prefix = prefix(frame.kind, frame.header.len(), frame.body.len());
        [&prefix, frame.header.as_slice(), &frame.body].concat()
    }

    fn decode_all(decoder: &mut FrameDecoder, mut input: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut frames = Vec::new();
        while !input.is_empty() {
            frames.extend(decoder.decode(&mut input)?);
        }
        Ok(frames)
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
        (any::<u8>(), bytes(20), bytes(200)).prop_map(|(kind, header, body)| Frame { kind, header, body })
    }

    proptest! {
        #[test]
        fn frames_survive_being_cut_anywhere(
            frames in proptest::collection::vec(any_frame(), 0..6),
            piece_len in 1usize..50,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
            let mut decoder = FrameDecoder::default();
            let mut decoded = Vec::new();
            for piece in bytes.chunks(piece_len) {
                decoded.extend(decode_all(&mut decoder, piece).unwrap());
            }
            prop_assert_eq!(decoded, frames);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = FrameDecoder::default();
            // Whether they are frames does not matter here.
            drop(decode_all(&mut decoder, &bytes));
        }
    }

    #[test]
    fn an_empty_frame_is_a_frame() {
        let frame = Frame { kind: 7, header: vec![], body: vec![] };
        assert_eq!(decode_all(&mut FrameDecoder::default(), &encode(&frame)), Ok(vec![frame]));
    }

    #[test]
    fn the_longest_frame_is_taken_and_a_longer_one_refused_by_its_first_bytes() {
        let body_len = FRAME_LEN_MAX - COUNTED_PREFIX_LEN;
        let frame = Frame { kind: 1, header: vec![], body: vec![5; body_len] };
        assert!(decode_all(&mut FrameDecoder::default(), &encode(&frame)) == Ok(vec![frame]));
        let mut prefix = prefix(1, 0, body_len);
        prefix[..4].copy_from_slice(&(FRAME_LEN_MAX as u32 + 1).to_le_bytes());
        let refused = decode_all(&mut FrameDecoder::default(), &prefix);
        assert_eq!(refused, Err(FrameError::TooLong { len: FRAME_LEN_MAX + 1 }));
    }

    #[test]
    fn a_frame_shorter_than_its_fields_is_refused() {
        for (len, header_len) in [(0u32, 0u16), (2, 0), (3, 1), (10, 8)] {
            let [a, b, c, d] = len.to_le_bytes();
            let [e, f] = header_len.to_le_bytes();
            let refused = decode_all(&mut FrameDecoder::default(), &[a, b, c, d, 0, e, f]);
            assert_eq!(refused, Err(FrameError::TooShort { len: len as usize }));
        }
    }

    #[test]
    fn memory_is_not_taken_on_a_peers_word() {
        let mut decoder = FrameDecoder::default();
        let mut prefix: &[u8] = &prefix(1, 0, FRAME_LEN_MAX - COUNTED_PREFIX_LEN);
        assert_eq!(decoder.decode(&mut prefix), Ok(None));
        assert_eq!(decoder.frame.body.capacity(), 0);
        let mut sent = 0;
        for _ in 0..8 {
            assert_eq!(decoder.decode(&mut [0; 100_000].as_slice()), Ok(None));
            sent += 100_000;
            assert!(decoder.frame.body.capacity() <= 2 * sent + BODY_RESERVE);
        }
    }

    #[test]
    fn the_memory_of_a_frame_can_be_used_again() {
        let mut decoder = FrameDecoder::default();
        let frame = Frame { kind: 1, header: vec![1; 10], body: vec![2; 1000] };
        let first = decode_all(&mut decoder, &encode(&frame)).unwrap().remove(0);
        let memory = first.body.as_ptr();
        decoder.recycle(first);
        let second = decode_all(&mut decoder, &encode(&frame)).unwrap().remove(0);
        assert_eq!(second, frame);
        assert_eq!(second.body.as_ptr(), memory);
    }

    #[test]
    fn a_frame_given_back_in_the_middle_of_another_does_no_harm() {
        let mut decoder = FrameDecoder::default();
        let frame = Frame { kind: 1, header: vec![1; 10], body: vec![2; 1000] };
        let bytes = encode(&frame);
        let (begin, end) = bytes.split_at(300);
        assert_eq!(decode_all(&mut decoder, begin), Ok(vec![]));
        decoder.recycle(Frame { kind: 9, header: vec![9], body: vec![9] });
        assert_eq!(decode_all(&mut decoder, end), Ok(vec![frame]));
    }
}
