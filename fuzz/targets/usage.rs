//! Laws: the tokens of an answer are the same wherever it is cut; a request that is made to ask for its usage still is
//! the same request.
#![no_main]

use latchkey::{
    dialect::Dialect,
    meter::{Meter, Metered},
    text::sse::Framer,
};
use latchkey_fuzz::{byte, platform, pieces};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fn metered(dialect: Dialect, is_sse: bool, whole: bool, chunks: &[&[u8]]) -> Metered {
    if !is_sse {
        let mut meter = Meter::of_body(dialect);
        chunks.iter().for_each(|chunk| meter.on_json(chunk));
        return meter.finish(whole, 4_096);
    }
    let (mut framer, mut meter) = (Framer::default(), Meter::of_events(dialect));
    for chunk in chunks {
        let mut rest = *chunk;
        while let Some(token) = framer.next(&mut rest) {
            meter.on_token(token);
        }
    }
    meter.finish(whole, 4_096)
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (kind, cuts) = (
        byte(&mut data),
        [byte(&mut data), byte(&mut data), byte(&mut data)],
    );
    let (is_sse, whole) = (kind & 0x10 == 0, kind & 0x20 == 0);
    let dialect = platform(kind);
    let chunks = pieces(data, cuts);
    let once = metered(dialect, is_sse, whole, &[data]);
    assert_eq!(metered(dialect, is_sse, whole, &chunks), once);

    let ask = Dialect::Chat.format().asks_usage();
    if let Some(asking) = ask.expect("it asks")(data) {
        let mut before: Value = serde_json::from_slice(data).expect("only JSON is changed");
        let mut after: Value = serde_json::from_slice(&asking).expect("it stays JSON");
        assert_eq!(after["stream_options"]["include_usage"], json!(true));
        for request in [&mut before, &mut after] {
            let request = request.as_object_mut().expect("only objects are changed");
            if let Some(Value::Object(options)) = request.get_mut("stream_options") {
                options.remove("include_usage");
            }
            if matches!(request.get("stream_options"), Some(Value::Null))
                || request.get("stream_options") == Some(&json!({}))
            {
                request.remove("stream_options");
            }
        }
        assert_eq!(before, after);
    }
});
