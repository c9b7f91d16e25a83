//! Laws: what a body says does not depend on where it is cut; a session's key does not depend on anything but the
//! session and the client key; two client keys never share one.
#![no_main]

use latchkey::{
    dialect::SessionName,
    header::HeaderMap,
    request::{
        body::BodyReader,
        peek::{Facts, Wanted},
        session,
    },
};
use latchkey_fuzz::{byte, dialect, head_and_body, pieces};
use libfuzzer_sys::fuzz_target;

fn facts(wanted: Wanted, chunks: &[&[u8]]) -> Facts {
    let mut body = BodyReader::new(None, wanted);
    chunks.iter().for_each(|chunk| body.push(chunk));
    body.into_facts()
}

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let cuts = [byte(&mut rest), byte(&mut rest), byte(&mut rest)];
    let (headers, body) = head_and_body(rest);
    let wanted = Wanted {
        members: dialect(cuts[2]).format().request_members(),
        opening: dialect(cuts[2]).format().opening(),
        things: dialect(cuts[2]).format().things(),
        session: Some(SessionName::CacheKey),
        background: cuts[1].is_multiple_of(2),
        whole: cuts[0].is_multiple_of(2),
        ..Wanted::default()
    };
    let found = facts(wanted, &[body]);
    assert_eq!(facts(wanted, &pieces(body, cuts)), found);

    let named = found.session.as_ref();
    let request: HeaderMap = headers.clone().into();
    let names = ["session-id".try_into().expect("a name")];
    let session = session::of(&request, &names, named, "key_1");
    let with_more: HeaderMap = headers
        .into_iter()
        .chain([("x-other".to_owned(), data.to_vec())])
        .collect::<Vec<_>>()
        .into();
    assert_eq!(session::of(&with_more, &names, named, "key_1"), session);
    assert!(session.is_none() || session::of(&request, &names, named, "key_2") != session);
});
