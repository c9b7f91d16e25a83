//! Laws of an error of a platform's: what is read of it is bounded and does not depend on what follows; it becomes an error
//! of the caller's dialect, with a status of one.
#![no_main]

use std::collections::BTreeMap;

use latchkey::{
    dialect::{About, AnswerTranslation, grammar, neutral::Failure},
    verdict::ErrorBody,
};
use latchkey_fuzz::{byte, caller, platform};
use libfuzzer_sys::fuzz_target;

/// The longest message that is kept of an error, and the longest code, in bytes.
const MESSAGE: usize = 2 * 1024;
const CODE: usize = 256;
/// What an error's body takes: each byte of message and code may be an escape, and the rest is ours.
const BODY: usize = 6 * (MESSAGE + CODE) + 1024;

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (platform, caller) = (platform(byte(&mut data)), caller(byte(&mut data)));
    let status = 400 + u16::from(byte(&mut data)) % 200;
    let cut = usize::from(byte(&mut data));

    let error = ErrorBody::read(data);
    let codes: Vec<&str> = error.codes().collect();
    assert!(codes.len() <= 8 && codes.iter().all(|code| code.len() <= CODE));
    assert!(error.message().len() <= MESSAGE);

    // As good as its beginning: what came before a cut is what the whole says first. Of a number a cut makes another one.
    let begun = ErrorBody::read(&data[..cut.min(data.len())]);
    if data.trim_ascii_start().starts_with(b"{") {
        let mut begun: Vec<&str> = begun.codes().collect();
        begun.pop_if(|code| code.parse::<f64>().is_ok());
        assert!(codes.starts_with(&begun), "{begun:?} {codes:?}");
    }

    let failure = Failure::told(status, error.message(), error.codes());
    let (about, none) = (About::default(), BTreeMap::new());
    let translation = AnswerTranslation::new(platform, caller, false, about, "1f", none);
    let body = translation.expect("a translation").error(&failure);
    grammar::read_error(caller, &body);
    assert!(body.len() <= BODY, "{}", body.len());
    assert!((400..=599).contains(&caller.status_of(status)));
});
