//! Laws: the tokens of an answer are the same wherever it is cut; a request that is made to ask for its usage still is
//! the same request.
#![no_main]

use latchkey::{
    dialect::Dialect,
    meter::{Meter, Metered, include_usage},
};
use latchkey_fuzz::{byte, dialect, pieces};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fn metered(dialect: Dialect, is_sse: bool, whole: bool, chunks: &[&[u8]]) -> Metered {
    let mut meter = Meter::new(dialect, is_sse);
    for chunk in chunks {
        meter.on_body(chunk);
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
    let dialect = dialect(kind);
    let chunks = pieces(data, cuts);
    let once = metered(dialect, is_sse, whole, &[data]);
    assert_eq!(metered(dialect, is_sse, whole, &chunks), once);

    if let Some(asking) = include_usage::ask(data) {
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
