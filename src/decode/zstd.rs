//! zstd (RFC 8878): any number of frames, one after another, and nothing else.

use ruzstd::{
    decoding::{
        BlockDecodingStrategy, FrameDecoder,
        errors::{FrameDecoderError, FrameHeaderError},
    },
    io::Read,
};

use super::{Fault, MAX_WINDOW_BYTES, Next, number};

/// The memory of a decoder, in bytes: its window with room for two blocks, or twice that for a block that is
/// then refused, the old one while that grows, and its tables.
pub(super) const MAX_BYTES: usize = 3 * MAX_WINDOW_BYTES + 2 * 1024 * 1024;

/// The most literals of a block: RFC 8878 §3.1.1.2.4 lets no block make more. `ruzstd` compares only
/// what sequences make with that; so a block makes twice as much at most.
const MAX_LITERALS: u32 = 128 * 1024;

/// The number that a frame begins with.
const MAGIC: u32 = 0xfd2f_b528;

/// The number that a skippable frame begins with, without its last four bits.
const SKIPPABLE: u32 = 0x184d_2a50;

/// The bits of a frame's header that say what is in it.
const RESERVED: u8 = 1 << 3;
const SINGLE_SEGMENT: u8 = 1 << 5;
const LENGTH_FLAG: u8 = 0b1100_0000;

/// Decodes a sequence of frames.
pub(super) struct Zstd {
    decoder: FrameDecoder,
    frame: Option<Frame>,
    /// A frame came before, without which a body is no zstd.
    began: bool,
}

/// The frame whose content comes.
struct Frame {
    /// The length of its content, if its header says it.
    length: Option<u64>,
    made: u64,
}

impl Default for Zstd {
    fn default() -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW_BYTES as u64);
        Self {
            decoder,
            frame: None,
            began: false,
        }
    }
}

impl Zstd {
    /// Takes the next of what is left of the frames: a header, a block, or what a block made.
    /// `left`: the bytes that may still be made.
    pub(super) fn next(
        &mut self,
        coded: &[u8],
        room: &mut [u8],
        left: usize,
    ) -> Result<Next, Fault> {
        let Some(frame) = &mut self.frame else {
            return self.begin(coded, left);
        };
        if self.decoder.can_collect() > 0 {
            let made = self.decoder.read(room).map_err(|_| Fault::Malformed)?;
            frame.made = frame.made.saturating_add(made as u64);
            return Ok(Next::Did { read: 0, made });
        }
        if self.decoder.is_finished() {
            let sum = self.decoder.get_checksum_from_data();
            let is_right = sum.is_none() || sum == self.decoder.get_calculated_checksum();
            if !is_right || frame.length.is_some_and(|length| length != frame.made) {
                return Err(Fault::Checksum);
            }
            self.frame = None;
            return Ok(Next::Did { read: 0, made: 0 });
        }
        if literals(coded).is_some_and(|length| length > MAX_LITERALS) {
            return Err(Fault::Malformed);
        }
        let mut rest = coded;
        let one = BlockDecodingStrategy::UptoBlocks(1);
        match self.decoder.decode_blocks(&mut rest, one) {
            Ok(_) => Ok(Next::Did {
                read: coded.len().saturating_sub(rest.len()),
                made: 0,
            }),
            Err(FrameDecoderError::FailedToReadChecksum(_)) => Err(Fault::EndsEarly),
            Err(_) if is_cut(coded) => Err(Fault::EndsEarly),
            Err(_) => Err(Fault::Malformed),
        }
    }

    /// Begins a frame, or skips one.
    fn begin(&mut self, coded: &[u8], left: usize) -> Result<Next, Fault> {
        if coded.is_empty() && self.began {
            return Ok(Next::End);
        }
        let magic = number(coded, 0).ok_or(Fault::EndsEarly)?;
        self.began = true;
        if magic & !0xf == SKIPPABLE {
            let length = number(coded, 4).ok_or(Fault::EndsEarly)?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let read = length.saturating_add(8);
            return match coded.len() >= read {
                true => Ok(Next::Did { read, made: 0 }),
                false => Err(Fault::EndsEarly),
            };
        }
        if magic != MAGIC {
            return Err(Fault::Malformed);
        }
        let flags = *coded.get(4).ok_or(Fault::EndsEarly)?;
        if flags & RESERVED != 0 {
            return Err(Fault::Malformed);
        }
        let mut rest = coded;
        self.decoder.reset(&mut rest).map_err(|error| match error {
            FrameDecoderError::WindowSizeTooBig { .. }
            | FrameDecoderError::FrameHeaderError(FrameHeaderError::WindowTooBig { .. }) => {
                Fault::Window
            }
            FrameDecoderError::DictNotProvided { .. } => Fault::Dictionary,
            FrameDecoderError::ReadFrameHeaderError(_) => Fault::EndsEarly,
            _ => Fault::Malformed,
        })?;
        let has_length = flags & (LENGTH_FLAG | SINGLE_SEGMENT) != 0;
        let length = has_length.then(|| self.decoder.content_size());
        if length.is_some_and(|length| length > left as u64) {
            return Err(Fault::TooLarge);
        }
        self.frame = Some(Frame { length, made: 0 });
        Ok(Next::Did {
            read: coded.len().saturating_sub(rest.len()),
            made: 0,
        })
    }
}

/// Reads how many literals a compressed block says that it has (RFC 8878 §3.1.1.3.1.1), where its
/// number is one of the long ones: of 20 bits where they are raw or a run, else of 18.
fn literals(coded: &[u8]) -> Option<u32> {
    let [block, _, _, first, second, third, ..] = *coded else {
        return None;
    };
    let is_long = (block >> 1) & 3 == 2 && (first >> 2) & 3 == 3;
    let number = u32::from_le_bytes([first, second, third, 0]) >> 4;
    let is_compressed = first & 3 >= 2;
    is_long.then_some(if is_compressed {
        number & 0x3_ffff
    } else {
        number
    })
}

/// Returns true if a block is not all there: its header (RFC 8878 §3.1.1.2) and its content, which for a run is one
/// byte.
fn is_cut(coded: &[u8]) -> bool {
    let Some([first, second, third]) = coded.first_chunk() else {
        return true;
    };
    let header = u32::from_le_bytes([*first, *second, *third, 0]);
    let is_run = (header >> 1) & 3 == 1;
    let length = if is_run { 1 } else { header >> 3 };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    coded.len() < length.saturating_add(3)
}
