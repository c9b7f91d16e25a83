//! Laws: whatever a caller sends, what goes out has one credential, which is the account's, and nothing that the
//! platform's profile does not allow; none of what we put on can break a header block.
#![no_main]

use latchkey::{
    attempt, gate::client_key, header::HeaderMap, request::carried::Carried, snapshot::Places,
};
use latchkey_fuzz::{head_and_body, platform_and_account};
use libfuzzer_sys::fuzz_target;

/// Headers that carry credentials somewhere.
const CREDENTIALS: [&str; 6] = [
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "cookie",
    "proxy-authorization",
];

fuzz_target!(|data: &[u8]| {
    let (mut headers, rest) = head_and_body(data);
    // Its result is the gate's business; that it comes to one is the law.
    let query = headers.iter().find(|(name, _)| name == ":path");
    let query = query.map(|(_, value)| value.clone()).unwrap_or_default();
    let _ = client_key::Presented::of(&headers.clone().into(), &query)
        .and_then(|presented| presented.choose(|_| true));
    let _ = Carried::decode(rest).map(|carried| {
        assert_eq!(Carried::decode(carried.encode().as_bytes()), Some(carried));
    });

    headers.retain(|(name, _)| name != ":path");
    let mut target = b"/v1/responses".to_vec();
    if !rest.is_empty() {
        target.push(b'?');
        target.extend_from_slice(rest);
    }
    headers.push((":path".to_owned(), target));
    let request: HeaderMap = headers.into();
    let (platform, account) = platform_and_account();
    let (endpoint, places) = (&platform.endpoints[0], Places::default());
    let Ok(sent) = attempt::headers(&request, &platform, endpoint, &account, &places) else {
        return;
    };
    for name in CREDENTIALS {
        let values: Vec<_> = sent.iter().filter(|(sent, _)| *sent == name).collect();
        match name {
            "authorization" => {
                assert_eq!(values[..], [&(name, b"Bearer the-token".as_slice().into())])
            }
            _ => assert_eq!(values, Vec::<&(&str, _)>::new()),
        }
    }
    for (name, value) in &sent {
        let ours = !request
            .values(name)
            .any(|callers| callers == value.as_ref());
        assert!(!ours || *name == ":path" || !value.iter().any(|byte| b"\r\n\0".contains(byte)));
        assert!(!name.starts_with("x-latchkey-") && !name.starts_with("x-envoy-"));
        assert!(!name.starts_with("x-forwarded-"));
    }
});
