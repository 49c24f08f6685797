//! Frames: how bytes lie in a segment, and what an interrupted write looks like.
//!
//! ```text
//! u32 length | u32 crc32c(payload) | u32 crc32c(the 8 bytes before) | payload | 0xE5
//! ```
//!
//! Frames are written at the end, one batch by one call, and only when the batch before
//! is on disk. So what an interrupted write leaves is a beginning of the last batch:
//! whole frames, then at most one that is incomplete. The length has a checksum of its own: a flipped bit in it must not make
//! the rest of the file look like an incomplete frame. The end mark tells a last frame
//! whose bytes never arrived (file systems leave zeros) from one that was damaged later.

/// Length and checksums.
pub(super) const HEAD_BYTES: usize = 12;

/// Last byte of a frame; not zero.
const END: u8 = 0xE5;

/// Payloads are at most so long: a configuration of `CONFIG_BYTES_MAX`, verdicts and
/// remembered requests fit in with room to spare.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is at some place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A whole frame; `end` is where the next one starts.
    Frame { payload: &'a [u8], end: usize },
    /// The end of the file.
    End,
    /// The start of a frame whose writing was interrupted.
    Torn,
    /// Something that was never written like this.
    Damaged(&'static str),
}

/// The frame of `payload`. None if that is too long.
pub(super) fn encode(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return None;
    }
    let mut frame = Vec::with_capacity(HEAD_BYTES + payload.len() + 1);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    frame.extend_from_slice(&crc32c::crc32c(&frame).to_le_bytes());
    frame.extend_from_slice(payload);
    frame.push(END);
    Some(frame)
}

/// What is at `at`.
pub(super) fn decode(bytes: &[u8], at: usize) -> Found<'_> {
    let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else { return Found::End };
    let Some((head, body)) = rest.split_first_chunk::<HEAD_BYTES>() else { return Found::Torn };
    let [length, checksum, head_checksum] = words(head);
    if crc32c::crc32c(&head[..8]) != head_checksum {
        if rest.iter().all(|byte| *byte == 0) {
            return Found::Torn;
        }
        return Found::Damaged("the checksum of a record's length is wrong");
    }
    let length = length as usize;
    let (Some(payload), Some(end)) = (body.get(..length), body.get(length)) else {
        return Found::Torn;
    };
    if *end == 0 && body[length..].iter().all(|byte| *byte == 0) {
        return Found::Torn;
    }
    if *end != END {
        return Found::Damaged("a record has no end mark");
    }
    if crc32c::crc32c(payload) != checksum {
        return Found::Damaged("the checksum of a record is wrong");
    }
    Found::Frame { payload, end: at + HEAD_BYTES + length + 1 }
}

/// How many bytes follow the head at the start of `bytes`. None: it is no head.
pub(super) fn rest_bytes(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<HEAD_BYTES>()?;
    let [length, _, checksum] = words(head);
    (crc32c::crc32c(&head[..8]) == checksum).then_some(length as usize + 1)
}

/// The numbers of a frame's head.
fn words(head: &[u8; HEAD_BYTES]) -> [u32; 3] {
    let (words, _) = head.as_chunks::<4>();
    std::array::from_fn(|index| u32::from_le_bytes(words[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Vec<u8>, usize) {
        let mut bytes = encode(b"first").unwrap();
        let start = bytes.len();
        bytes.extend(encode(b"second").unwrap());
        (bytes, start)
    }

    #[test]
    fn golden_bytes() {
        let frame = encode(b"abc").unwrap();
        assert_eq!(
            frame,
            [
                3, 0, 0, 0, 0xB7, 0x3F, 0x4B, 0x36, frame[8], frame[9], frame[10], frame[11], b'a', b'b',
                b'c', 0xE5
            ]
        );
        assert_eq!(decode(&frame, 0), Found::Frame { payload: b"abc", end: 16 });
        assert_eq!(decode(&frame, 16), Found::End);
    }

    #[test]
    fn a_frame_cut_anywhere_is_torn() {
        let (bytes, start) = two();
        for cut in start + 1..bytes.len() {
            assert_eq!(decode(&bytes[..cut], start), Found::Torn, "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_that_ends_in_zeros_is_torn() {
        let (bytes, start) = two();
        for cut in start..bytes.len() {
            // A cut inside the head with zeros behind may be either: nothing of the
            // frame can be told. It is refused rather than guessed.
            if (start + 1..start + HEAD_BYTES).contains(&cut) {
                continue;
            }
            let mut zeroed = bytes.clone();
            zeroed[cut..].fill(0);
            assert_eq!(decode(&zeroed, start), Found::Torn, "zeros from {cut}");
        }
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let (bytes, start) = two();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let at = if bit / 8 < start { 0 } else { start };
            assert!(matches!(decode(&flipped, at), Found::Damaged(_)), "bit {bit}");
        }
    }
}
