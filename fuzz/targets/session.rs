//! Laws: a session's key does not depend on anything but the session and the client key; two client keys never share
//! one.
#![no_main]

use latchkey::{gate::session, header::HeaderMap};
use latchkey_fuzz::head_and_body;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (headers, _) = head_and_body(data);
    let request: HeaderMap = headers.clone().into();
    let found = session::of(&request, "key_1");
    let with_more: HeaderMap = headers
        .into_iter()
        .chain([("x-other".to_owned(), data.to_vec())])
        .collect::<Vec<_>>()
        .into();
    assert_eq!(session::of(&with_more, "key_1"), found);
    assert!(found.is_none() || session::of(&request, "key_2") != found);
});
