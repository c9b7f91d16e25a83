//! Bodies that come compressed.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::envoy::{BODY, Call, Envoy, head, records};
use crate::{
    decode::MAX_DECODED_BYTES,
    snapshot::{Record, fixture},
};

/// The interval of the tests' ticks, in milliseconds.
const TICK: u64 = 100;

pub(super) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    compress_to_vec(body, CompressionLevel::Fastest)
}

/// A body that takes so many bytes, and more than one callback.
fn large(length: usize) -> Vec<u8> {
    let mut body = BODY.to_vec();
    body.resize(length, b' ');
    body
}

fn accounts(keys: &[&str]) -> Vec<Record> {
    let accounts = ["acc_1", "acc_2"].map(|id| fixture::account(id, "codex"));
    let mut records = records(&accounts);
    for key in keys {
        let id = format!("key_of_{key}");
        let key = fixture::client_key(&id, key.as_bytes(), "default");
        records.push(Record::Key(key));
    }
    records
}

/// A request of this key whose body comes in this coding.
fn begins(envoy: &mut Envoy, key: &str, coding: &str, length: usize) -> Call {
    let (key, length) = (format!("Bearer {key}"), length.to_string());
    let mut headers = head("/v1/responses").to_vec();
    headers[4].1 = &key;
    headers.extend([("content-encoding", coding), ("content-length", &length)]);
    envoy.call(&headers)
}

/// A whole request whose body comes in this coding.
fn asks(envoy: &mut Envoy, coding: &str, coded: &[u8]) -> Call {
    let mut call = begins(envoy, super::envoy::KEY, coding, coded.len());
    call.sends(coded, true);
    call
}

/// Ticks until the request is decided about. Returns how often.
#[track_caller]
fn ticks(envoy: &mut Envoy, call: &Call) -> usize {
    for ticks in 0..20 {
        if call.is_decided() {
            return ticks;
        }
        call.waits();
        envoy.after(TICK);
    }
    panic!("nothing is decided");
}

/// The platform gets these bytes, and no word about a coding.
#[track_caller]
fn gets_plain(call: &Call, body: &[u8]) {
    assert!(call.body() == body, "{} bytes", call.body().len());
    assert_eq!(call.header("content-encoding"), None);
    let length = body.len().to_string();
    assert_eq!(call.header("content-length"), Some(length));
}

#[test]
fn a_body_goes_on_plain_once_it_is_whole_and_so_it_runs_again() {
    for (coding, coded) in [("gzip", gzip(BODY)), ("Zstd", zstd(BODY))] {
        let mut envoy = Envoy::with(&accounts(&[]));
        let mut call = begins(&mut envoy, super::envoy::KEY, coding, coded.len());
        let (first, second) = coded.split_at(9);
        call.sends(first, false);
        call.waits();
        call.sends(second, true);
        call.is_at("acc_1");
        gets_plain(&call, BODY);
        call.platform(429, &[("retry-after", "60")], b"{}");
        call.is_at("acc_2");
        gets_plain(&call, BODY);
        call.platform(200, &[], b"{}");
        call.gets(200, b"{}");
    }
}

#[test]
fn a_body_that_says_nothing_of_a_coding_goes_on_as_it_is() {
    let coded = gzip(BODY);
    let mut envoy = Envoy::with(&accounts(&[]));
    let call = asks(&mut envoy, "identity", &coded);
    call.is_at("acc_1");
    assert_eq!(call.body(), coded);
    // Nothing at all is nothing in any coding.
    let call = asks(&mut envoy, "gzip", b"");
    call.is_at("acc_1");
    gets_plain(&call, b"");
}

#[test]
fn what_a_body_says_counts_however_it_comes() {
    let mut records = accounts(&[]);
    for record in &mut records {
        if let Record::Key(key) = record {
            key.models = serde_json::from_str(r#"["gpt-6.1-sol"]"#).unwrap();
        }
    }
    let mut envoy = Envoy::with(&records);
    asks(&mut envoy, "zstd", &zstd(BODY)).is_at("acc_1");
    let other = br#"{"model":"gpt-6.1-sol","Model":"gpt-5.5"}"#;
    let mut call = asks(&mut envoy, "gzip", &gzip(other));
    call.is_refused(403, "latchkey_model_not_allowed");
}

#[test]
fn nothing_goes_on_of_a_body_that_stands_for_nothing() {
    let mut envoy = Envoy::with(&accounts(&[]));
    let coded = gzip(BODY);
    let too_much = zstd(&vec![b' '; MAX_DECODED_BYTES + 1]);
    for (coding, coded, status, code) in [
        ("gzip", &coded[..coded.len() - 12], 400, "broken_body"),
        ("zstd", &coded, 400, "broken_body"),
        ("zstd", b"\x28\xb5\x2f\xfd\0\x88", 400, "broken_body"),
        ("zstd", &too_much, 413, "body_too_large"),
    ] {
        let mut call = asks(&mut envoy, coding, coded);
        if coded == too_much {
            ticks(&mut envoy, &call);
            call.is_answered();
        }
        call.is_refused(status, &format!("latchkey_{code}"));
        let told = envoy.records();
        let record = format!("- {status} attempts=0 - latchkey_{code}");
        assert!(told.len() == 1 && told[0].starts_with(&record), "{told:?}");
    }
    for coding in ["br", "gzip, zstd"] {
        let mut call = begins(&mut envoy, super::envoy::KEY, coding, coded.len());
        let refused = call.is_refused(415, "latchkey_unknown_encoding");
        let accepted = crate::host::fake::first(&refused.headers, "accept-encoding");
        assert_eq!(accepted.as_deref(), Some(b"gzip, zstd".as_slice()));
    }
}

#[test]
fn a_length_that_no_coded_body_may_have_is_refused_before_the_body() {
    let mut envoy = Envoy::with(&accounts(&[]));
    let length = MAX_DECODED_BYTES + 1;
    let mut call = begins(&mut envoy, super::envoy::KEY, "zstd", length);
    let refused = call.is_refused(413, "latchkey_body_too_large");
    let repeat = crate::host::fake::first(&refused.headers, "x-should-retry");
    assert_eq!(repeat.as_deref(), Some(b"false".as_slice()));
    assert_eq!(envoy.records().len(), 1);
    // One of that length that is not coded goes on.
    let mut call = begins(&mut envoy, super::envoy::KEY, "identity", length);
    call.sends(BODY, false);
    assert!(!call.has_answer());
}

/// The decoder of a body that takes more than one callback is charged to its key until it is done.
#[test]
fn a_decoder_is_held_while_it_goes_on() {
    let body = large(16 << 20);
    let coded = zstd(&body);
    for (of_key, fits) in [(24, false), (64, true)] {
        let mut envoy = Envoy::with(&accounts(&[]));
        let held = format!(r#"{{"held_mib":256,"held_mib_per_key":{of_key}}}"#);
        envoy.configure(&held);
        let mut call = asks(&mut envoy, "zstd", &coded);
        if !fits {
            let refused = call.is_refused(413, "latchkey_no_room");
            assert!(String::from_utf8_lossy(&refused.body).contains("24 MiB"));
            continue;
        }
        // Beside 8 MiB and a decoder of 26 there is no room for another 32.
        let length = (32 << 20).to_string();
        let mut headers = head("/v1/responses").to_vec();
        headers.push(("content-length", &length));
        let mut other = envoy.call(&headers);
        other.is_refused(429, "latchkey_no_room");
        ticks(&mut envoy, &call);
        call.resumes();
        call.is_at("acc_1");
        envoy.call(&headers).waits();
    }
}

#[test]
fn a_body_that_takes_long_gets_its_turns_and_goes_on_whole() {
    let body = large(MAX_DECODED_BYTES);
    for (coding, coded) in [("gzip", gzip(&body)), ("zstd", zstd(&body))] {
        let mut envoy = Envoy::with(&accounts(&[]));
        let mut call = asks(&mut envoy, coding, &coded);
        // 8 MiB in each callback, and the end.
        assert_eq!(ticks(&mut envoy, &call), 4);
        call.resumes();
        call.is_at("acc_1");
        gets_plain(&call, &body);
    }
}

#[test]
fn large_bodies_of_one_key_wait_for_each_other_and_not_for_anothers() {
    let (flood, other) = ("lk_flood", "lk_other");
    let mut envoy = Envoy::with(&accounts(&[flood, other]));
    let body = large(20 << 20);
    let coded = zstd(&body);
    let mut calls: Vec<Call> = Vec::new();
    for key in [flood, flood, flood, other] {
        let mut call = begins(&mut envoy, key, "zstd", coded.len());
        call.sends(&coded, true);
        call.waits();
        calls.push(call);
    }
    // A small one passes, but not those of its own key.
    asks(&mut envoy, "zstd", &zstd(BODY)).is_at("acc_1");
    let mut small = begins(&mut envoy, flood, "zstd", zstd(BODY).len());
    small.sends(&zstd(BODY), true);
    small.waits();
    small.goes_away();

    let mut other = calls.pop().unwrap();
    let second = calls.remove(1);
    // Its caller goes away while it waits.
    second.goes_away();
    // Two more turns each, in the same ticks; the last one begins anew in the second of them.
    assert_eq!(ticks(&mut envoy, &calls[0]), 2);
    assert_eq!(ticks(&mut envoy, &other), 0);
    assert_eq!(ticks(&mut envoy, &calls[1]), 2);
    for call in calls.iter_mut().chain([&mut other]) {
        call.resumes();
        gets_plain(call, &body);
    }
    // Nothing is left of any.
    let again = asks(&mut envoy, "zstd", &coded);
    assert_eq!(ticks(&mut envoy, &again), 2);
}

#[test]
fn a_broken_body_counts_in_its_keys_minute() {
    let mut records = accounts(&[]);
    for record in &mut records {
        if let Record::Key(key) = record {
            key.limits = serde_json::from_str(r#"{"requests_per_minute":1}"#).unwrap();
        }
    }
    let mut envoy = Envoy::with(&records);
    let coded = gzip(BODY);
    let mut call = asks(&mut envoy, "gzip", &coded[..coded.len() - 1]);
    call.is_refused(400, "latchkey_broken_body");
    let mut call = begins(&mut envoy, super::envoy::KEY, "gzip", coded.len());
    call.is_refused(429, "latchkey_limit");
}

#[test]
fn a_body_that_breaks_late_is_refused_at_its_turn() {
    let mut envoy = Envoy::with(&accounts(&[]));
    let coded = gzip(&large(20 << 20));
    let mut call = asks(&mut envoy, "gzip", &coded[..coded.len() - 1]);
    assert_eq!(ticks(&mut envoy, &call), 2);
    call.is_answered();
    call.is_refused(400, "latchkey_broken_body");
}
