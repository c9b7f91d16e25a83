//! Law: what a stream says, and what goes on of it, is the same wherever it is cut.
#![no_main]

use latchkey::{
    attempt::{forwarding::Forwarding, usage_ask::UsageAsk},
    dialect::Dialect,
    text::sse::{Framer, Piece},
};
use latchkey_fuzz::{byte, pieces};
use libfuzzer_sys::fuzz_target;

/// The name and the data of each event, in order.
fn events(chunks: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut framer, mut events) = (Framer::default(), vec![(Vec::new(), Vec::new())]);
    for chunk in chunks {
        let mut rest = *chunk;
        while let Some(token) = framer.next(&mut rest) {
            let Some((name, data)) = events.last_mut() else { continue };
            match token {
                Piece::Name { piece, first } => {
                    if first {
                        name.clear();
                    }
                    name.extend_from_slice(piece);
                }
                Piece::Data(piece) => data.extend_from_slice(piece),
                Piece::End => events.push((Vec::new(), Vec::new())),
                Piece::Comment | Piece::Blank => {}
            }
        }
    }
    events
}

/// The part that goes on of a stream that was asked for usage, and its use.
fn forwarded(chunks: &[&[u8]], usage_ask: UsageAsk) -> (Vec<u8>, String) {
    let (mut forwarding, mut out) = (Forwarding::new(Dialect::Chat, usage_ask), Vec::new());
    for chunk in chunks {
        match forwarding.on_body(chunk, false) {
            Some(bytes) => out.extend(bytes),
            None => out.extend_from_slice(chunk),
        }
    }
    out.extend(forwarding.on_body(b"", true).unwrap_or_default());
    (out, format!("{:?}", forwarding.finish(true, 0)))
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let cuts = [byte(&mut data), byte(&mut data), byte(&mut data)];
    let chunks = pieces(data, cuts);
    assert_eq!(events(&chunks), events(&[data]));
    let (out, used) = forwarded(&chunks, UsageAsk::Asked);
    assert_eq!(
        (&out, &used),
        (&forwarded(&[data], UsageAsk::Asked).0, &used)
    );
    assert!(out.len() <= data.len());
    let (out, same) = forwarded(&chunks, UsageAsk::NotAsked);
    assert_eq!(
        (out.as_slice(), same),
        (data, used),
        "what is asked changes no count"
    );
});
