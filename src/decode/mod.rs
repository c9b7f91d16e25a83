//! Bodies that come compressed (`content-encoding`), as the bytes that they stand for: all of
//! them, or a [`Fault`].
//!
//! # Memory
//!
//! A decoder is made of a whole body, and makes a bounded number of bytes a [step](Decoder::step).
//! So nothing that a body announces takes memory before all of it has come, and no body keeps its
//! reader for long. What a decoder holds is [bounded](Decoder::memory): the body, the window, and
//! one step's bytes. The bytes that it has made are its owner's to keep.
//!
//! # Strictness
//!
//! Checksums and lengths are compared wherever the format has them. gzip always has both. A zstd
//! frame need not have either: bits that flip in such a frame may make it another frame, just as
//! valid, and nobody can tell.

mod gzip;
mod zstd;

use self::{gzip::Gzip, zstd::Zstd};

/// The most bytes that a body may stand for: what Envoy keeps of a request, as `envoy/envoy.yaml`
/// sets it (`request_body_buffer_limit`).
pub const MAX_DECODED_BYTES: usize = 32 * 1024 * 1024;

/// The largest window of a body, in bytes: the least that RFC 8878 §3.1.1.1.2 asks every decoder
/// of zstd to take, and the most that `zstd -19` uses. gzip's is always 32 KiB.
pub const MAX_WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// The coded bytes after which a step ends, or one block of zstd later.
const STEP_CODED_BYTES: usize = 16 * 1024;

/// The most bytes that a step makes.
pub const STEP_BYTES: usize = 64 * 1024;

/// The codings that are read, as an `accept-encoding` header lists them.
pub const ACCEPTED: &str = "gzip, zstd";

/// A coding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// A coding that is not read, or more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownCoding;

/// The reason why a body stands for no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The body ends before its format says so.
    EndsEarly,
    /// The body is not what its format allows, or something else follows it.
    Malformed,
    /// Its content has another checksum or length than it says.
    Checksum,
    /// The body needs a dictionary.
    Dictionary,
    /// Its window is above [`MAX_WINDOW_BYTES`].
    Window,
    /// The body stands for more than [`MAX_DECODED_BYTES`].
    TooLarge,
}

/// Decodes one body.
pub struct Decoder {
    coded: Vec<u8>,
    /// The coded bytes that were read.
    read: usize,
    /// The bytes that were made.
    made: usize,
    /// The bytes of this step.
    step: Vec<u8>,
    format: Format,
}

enum Format {
    Gzip(Gzip),
    Zstd(Box<Zstd>),
}

/// The outcome of one small piece of work of a format.
enum Next {
    /// The numbers of coded bytes that were read and of others that were made.
    Did { read: usize, made: usize },
    /// The body has come to its end.
    End,
}

// === impl Coding ===

impl Coding {
    /// Reads the values of a request's `content-encoding` headers; none where they name none.
    ///
    /// # Errors
    /// [`UnknownCoding`] where a body is in a coding that is not read, or in several on top of
    /// each other.
    pub fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<Self>, UnknownCoding> {
        let mut coding = None;
        for name in values.flat_map(|value| value.split(|byte| *byte == b',')) {
            let found = match name.trim_ascii().to_ascii_lowercase().as_slice() {
                b"" | b"identity" => continue,
                // RFC 9110 §8.4.1.3: the same.
                b"gzip" | b"x-gzip" => Self::Gzip,
                b"zstd" => Self::Zstd,
                _ => return Err(UnknownCoding),
            };
            if coding.replace(found).is_some() {
                return Err(UnknownCoding);
            }
        }
        Ok(coding)
    }
}

// === impl Decoder ===

impl Decoder {
    /// A decoder of a whole body.
    pub fn new(coding: Coding, coded: Vec<u8>) -> Self {
        Self {
            coded,
            read: 0,
            made: 0,
            step: vec![0; STEP_BYTES],
            format: match coding {
                Coding::Gzip => Format::Gzip(Gzip::default()),
                Coding::Zstd => Format::Zstd(Box::default()),
            },
        }
    }

    /// Makes the next bytes, at most [`STEP_BYTES`] and sometimes none; none at the body's end.
    ///
    /// # Errors
    /// The body is broken; there is no more to be had.
    pub fn step(&mut self) -> Result<Option<&[u8]>, Fault> {
        let (mut read, mut made) = (0_usize, 0_usize);
        while read < STEP_CODED_BYTES && made < STEP_BYTES {
            let coded = self.coded.get(self.read..).unwrap_or_default();
            let room = self.step.get_mut(made..).unwrap_or_default();
            let left = MAX_DECODED_BYTES.saturating_sub(self.made);
            let next = match &mut self.format {
                Format::Gzip(gzip) => gzip.next(coded, room),
                Format::Zstd(zstd) => zstd.next(coded, room, left),
            };
            match next? {
                Next::End if read == 0 && made == 0 => return Ok(None),
                Next::End => break,
                Next::Did {
                    read: did_read,
                    made: did_make,
                } => {
                    self.read = self.read.saturating_add(did_read);
                    self.made = self.made.saturating_add(did_make);
                    read = read.saturating_add(did_read);
                    made = made.saturating_add(did_make);
                }
            }
            if self.made > MAX_DECODED_BYTES {
                return Err(Fault::TooLarge);
            }
        }
        Ok(self.step.get(..made))
    }

    /// The most bytes of memory that it takes from here on.
    pub fn memory(&self) -> usize {
        let format = match self.format {
            Format::Gzip(_) => gzip::MAX_BYTES,
            Format::Zstd(_) => zstd::MAX_BYTES,
        };
        self.coded
            .len()
            .saturating_add(STEP_BYTES)
            .saturating_add(format)
    }
}

impl std::fmt::Debug for Decoder {
    /// Shows nothing of the body.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("read", &self.read)
            .field("made", &self.made)
            .finish_non_exhaustive()
    }
}

/// The number in four bytes at `at`, the least first.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
