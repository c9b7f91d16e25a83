//! An answer that stands in an object of the platform's. The proxy has nothing of it: what stands in there is here until it
//! goes on.

use crate::{
    attempt::unwrap::Unwrap,
    host::{Side, Stream},
};

/// Such an answer.
#[derive(Debug)]
pub(super) struct Unwrapped {
    unwrap: Unwrap,
    held: Vec<u8>,
}

impl Unwrapped {
    pub(super) fn new(unwrap: Unwrap) -> Self {
        let held = Vec::new();
        Self { unwrap, held }
    }

    /// The bytes that are held.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// They go on.
    pub(super) fn clear(&mut self) {
        self.held.clear();
    }
}

/// Takes what is around an answer off the `size` bytes that the proxy holds of it; `end`: they are the last. Returns how many
/// bytes are held then: by the proxy, or here.
pub(super) fn take(
    unwrapped: Option<&mut Unwrapped>,
    size: usize,
    end: bool,
    stream: &mut impl Stream,
) -> usize {
    let Some(Unwrapped { unwrap, held }) = unwrapped else {
        return size;
    };
    let came = held_body(None, 0, size, stream);
    held.extend(unwrap.on_body(&came, end));
    if size > 0 {
        stream.set_body(Side::Answer, size, b"");
    }
    held.len()
}

/// Returns the bytes from `start` to `size` of those of an answer's body that are held: by the proxy, or here.
pub(super) fn held_body(
    unwrapped: Option<&Unwrapped>,
    start: usize,
    size: usize,
    stream: &impl Stream,
) -> Vec<u8> {
    match (size.saturating_sub(start), unwrapped) {
        (0, _) => Vec::new(),
        (_, Some(one)) => one.held.get(start..size).unwrap_or_default().to_vec(),
        (length, None) => stream.body(Side::Answer, start, length),
    }
}
