//! Laws: a good answer is fine; no cool-down is past, or longer than a rule may make it; the same answer gets the same
//! verdict.
#![no_main]

use latchkey::{
    header::HeaderMap,
    verdict::{Answer, Beginning, ErrorBody, Look, Quota, Verdict, judge},
};
use latchkey_fuzz::{byte, head_and_body, platform, profiles};
use libfuzzer_sys::fuzz_target;

/// Some time, in Unix milliseconds.
const NOW: u64 = 1_790_000_000_000;
/// The longest cool-down that a rule may ask for, in milliseconds.
const MAX_COOL_DOWN: u64 = 32 * 24 * 3_600 * 1_000;
/// The longest that a platform in trouble is left alone, in milliseconds.
const MAX_TROUBLE: u64 = 60_000;

thread_local! {
    static PROFILES: Vec<latchkey_fuzz::Profile> = profiles();
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (profile, status) = (byte(&mut data), 100 + u16::from(byte(&mut data)) * 2);
    let (headers, body) = head_and_body(data);
    let headers: HeaderMap = headers.into();
    let error = match Beginning::new(platform(status as u8), true).look(body, true) {
        _ if !(200..300).contains(&status) => Some(ErrorBody::read(body)),
        Look::Error(failure) => {
            assert!(failure.members().contains_key("message"));
            Some(failure.error)
        }
        Look::Fine | Look::Empty | Look::NeedMore => None,
    };
    PROFILES.with(|profiles| {
        let profile = &profiles[usize::from(profile) % profiles.len()];
        let quota = Quota::read(&profile.quota, &headers, NOW);
        let answer = Answer {
            status,
            headers: &headers,
            quota: &quota,
            error: error.as_ref(),
            model: Some("gpt-5"),
        };
        let verdict = judge(&profile.verdicts, &answer, NOW);
        assert_eq!(judge(&profile.verdicts, &answer, NOW), verdict);
        let good = (200..300).contains(&status) && error.is_none();
        match verdict {
            Verdict::CoolingDown { until, .. } => {
                assert!((NOW..=NOW + MAX_COOL_DOWN).contains(&until));
            }
            Verdict::PlatformTrouble { until } => {
                assert!((NOW..=NOW + MAX_TROUBLE).contains(&until));
            }
            _ => {}
        }
        assert!(!good || verdict == Verdict::Fine);
    });
});
