//! Law: what a stream says, and what goes on of it, is the same wherever it is cut.
#![no_main]

use latchkey::{
    meter::include_usage::ChunkRemover,
    text::sse::{Framer, Token},
};
use latchkey_fuzz::{byte, pieces};
use libfuzzer_sys::fuzz_target;

/// The events' data, and how many events there were.
fn events(chunks: &[&[u8]]) -> (Vec<u8>, usize) {
    let (mut framer, mut data, mut ends) = (Framer::default(), Vec::new(), 0);
    for chunk in chunks {
        let mut rest = *chunk;
        while let Some(token) = framer.next(&mut rest) {
            match token {
                Token::Data(piece) => data.extend_from_slice(piece),
                Token::End => ends += 1,
                Token::Name { .. } | Token::Comment => {}
            }
        }
    }
    (data, ends)
}

fn without_usage(chunks: &[&[u8]]) -> Vec<u8> {
    let (mut remover, mut out) = (ChunkRemover::default(), Vec::new());
    for chunk in chunks {
        match remover.on_body(chunk) {
            Some(bytes) => out.extend(bytes),
            None => out.extend_from_slice(chunk),
        }
    }
    out.extend(remover.finish());
    out
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let cuts = [byte(&mut data), byte(&mut data), byte(&mut data)];
    let chunks = pieces(data, cuts);
    assert_eq!(events(&chunks), events(&[data]));
    let out = without_usage(&chunks);
    assert_eq!(out, without_usage(&[data]));
    assert!(out.len() <= data.len());
});
