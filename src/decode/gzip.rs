//! gzip (RFC 1952): any number of members, one after another, and nothing else.

use crc::{CRC_32_ISO_HDLC, Crc, Digest, Table};
use miniz_oxide::{
    DataFormat, MZError, MZFlush, MZStatus,
    inflate::stream::{InflateState, ZeroReset, inflate},
};

use super::{Fault, Next, STEP_CODED_BYTES, number};

/// The memory of a decoder, in bytes: its window of 32 KiB, and its tables.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// The fixed part of a member's header.
const HEADER_BYTES: usize = 10;

/// A member's trailer: the checksum of its content, and its length.
const TRAILER_BYTES: usize = 8;

/// The most bytes of a header. What writes gzip puts the name of a file there at most.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The flags of a header.
const HAS_HEADER_SUM: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// The checksum of gzip (RFC 1952 §8). Of this table of 1 KiB each byte is looked up; those that are faster take 16 KiB of
/// the filter.
static CHECKSUM: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

type Sum = Digest<'static, u32, Table<1>>;

/// Decodes a gzip file.
pub(super) struct Gzip {
    inflate: Box<InflateState>,
    part: Part,
    /// The checksum of the member's content so far.
    sum: Sum,
    /// The length of the member's content so far, of which the format counts 32 bits.
    length: u32,
}

/// The part of a member that comes next.
#[derive(Clone, Copy)]
enum Part {
    /// The header; `first`: of the first member, without which a body is no gzip.
    Header {
        first: bool,
    },
    Content,
    Trailer,
}

impl Default for Gzip {
    fn default() -> Self {
        Self {
            inflate: InflateState::new_boxed(DataFormat::Raw),
            part: Part::Header { first: true },
            sum: CHECKSUM.digest(),
            length: 0,
        }
    }
}

impl Gzip {
    /// Takes the next of what is left of the file.
    pub(super) fn next(&mut self, coded: &[u8], room: &mut [u8]) -> Result<Next, Fault> {
        match self.part {
            Part::Header { first: false } if coded.is_empty() => Ok(Next::End),
            Part::Header { .. } => {
                let read = header(coded)?;
                // Nothing of the last member may be in this one.
                self.inflate.reset_as(ZeroReset);
                self.sum = CHECKSUM.digest();
                self.length = 0;
                self.part = Part::Content;
                Ok(Next::Did { read, made: 0 })
            }
            Part::Content => self.content(coded, room),
            Part::Trailer => {
                let sum = number(coded, 0).ok_or(Fault::EndsEarly)?;
                let length = number(coded, 4).ok_or(Fault::EndsEarly)?;
                if sum != self.sum.clone().finalize() || length != self.length {
                    return Err(Fault::Checksum);
                }
                self.part = Part::Header { first: false };
                Ok(Next::Did {
                    read: TRAILER_BYTES,
                    made: 0,
                })
            }
        }
    }

    fn content(&mut self, coded: &[u8], room: &mut [u8]) -> Result<Next, Fault> {
        let coded = coded.get(..STEP_CODED_BYTES).unwrap_or(coded);
        let result = inflate(&mut self.inflate, coded, room, MZFlush::None);
        let (read, made) = (result.bytes_consumed, result.bytes_written);
        let bytes = room.get(..made).unwrap_or_default();
        self.sum.update(bytes);
        // The format has the length modulo 2^32.
        self.length = self
            .length
            .wrapping_add(u32::try_from(made).unwrap_or(u32::MAX));
        match result.status {
            Ok(MZStatus::StreamEnd) => self.part = Part::Trailer,
            Ok(_) if read == 0 && made == 0 => return Err(Fault::EndsEarly),
            Ok(_) => {}
            // No progress: there is nothing left to read.
            Err(MZError::Buf) if coded.is_empty() => return Err(Fault::EndsEarly),
            Err(_) => return Err(Fault::Malformed),
        }
        Ok(Next::Did { read, made })
    }
}

/// Reads the header of a member. Returns its length.
fn header(bytes: &[u8]) -> Result<usize, Fault> {
    // What is no gzip at all is told from what was cut.
    if !bytes.starts_with(&[0x1f, 0x8b, 8]) && bytes.len() >= 3 {
        return Err(Fault::Malformed);
    }
    let flags = *bytes.get(3).ok_or(Fault::EndsEarly)?;
    if flags & RESERVED != 0 {
        return Err(Fault::Malformed);
    }
    let mut at = HEADER_BYTES;
    if flags & HAS_EXTRA != 0 {
        let length = bytes.get(at..).and_then(<[u8]>::first_chunk);
        let length = u16::from_le_bytes(*length.ok_or(Fault::EndsEarly)?);
        at = at.saturating_add(2).saturating_add(usize::from(length));
    }
    for text in [HAS_NAME, HAS_COMMENT] {
        if flags & text != 0 {
            let rest = bytes.get(at..).ok_or(Fault::EndsEarly)?;
            let may = rest.get(..MAX_HEADER_BYTES);
            let end = may.unwrap_or(rest).iter().position(|byte| *byte == 0);
            let is_cut = may.is_none();
            let end = end.ok_or(if is_cut {
                Fault::EndsEarly
            } else {
                Fault::Malformed
            });
            at = at.saturating_add(end?).saturating_add(1);
        }
    }
    if at > MAX_HEADER_BYTES {
        return Err(Fault::Malformed);
    }
    let header = bytes.get(..at).ok_or(Fault::EndsEarly)?;
    if flags & HAS_HEADER_SUM == 0 {
        return Ok(at);
    }
    let sum = bytes.get(at..).and_then(<[u8]>::first_chunk);
    let sum = u16::from_le_bytes(*sum.ok_or(Fault::EndsEarly)?);
    // The lower half of the usual checksum.
    if u32::from(sum) != CHECKSUM.checksum(header) & 0xffff {
        return Err(Fault::Checksum);
    }
    Ok(at.saturating_add(2))
}
