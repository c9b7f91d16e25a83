//! The part of a platform's answer that no caller gets: what is no answer, headers that speak to or
//! about somebody else, and the account's credential wherever the platform repeats it.

use std::sync::Arc;

use crate::{
    header::HeaderMap,
    snapshot::{Account, HeaderPlan},
    text::needle::{Found, Needle, find_all},
};

/// Headers that speak for the gateway's own address, or about its account: where to go, what a browser
/// is to keep or to report, and the account's cookies.
const WITHHELD: [&str; 14] = [
    "accept-ch",
    "alt-svc",
    "clear-site-data",
    "critical-ch",
    "location",
    "nel",
    "origin-trial",
    "public-key-pins",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "set-cookie",
    "strict-transport-security",
    "x-accel-redirect",
];

/// The beginnings of headers that Latchkey or Envoy trusts.
const WITHHELD_PREFIXES: [&str; 2] = ["x-latchkey-", "x-envoy-"];

/// Headers that speak of the bytes of a platform's body.
const OF_THE_BYTES: [&str; 8] = [
    "accept-ranges",
    "content-digest",
    "content-length",
    "content-md5",
    "content-range",
    "digest",
    "etag",
    "repr-digest",
];

/// The byte that stands for each of a credential that was taken out.
const MASKED: u8 = b'*';

/// Returns true if an answer may have this status: any other is no answer to a request.
pub fn is_answer(status: u16) -> bool {
    matches!(status, 200..=299 | 400..=599)
}

/// Names the headers of an answer that stay here: those of every platform, those that `plan` hides, and
/// those that hold the credential.
pub fn withheld<'a>(answer: &'a HeaderMap, plan: &HeaderPlan, mask: &Mask) -> Vec<&'a str> {
    let stays = |name: &str| {
        WITHHELD.contains(&name)
            || WITHHELD_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
            || plan.hide.iter().any(|pattern| pattern.matches(name))
    };
    let mut names: Vec<&str> = Vec::new();
    for (name, value) in answer.iter() {
        if !name.starts_with(':') && (stays(name) || mask.is_in(value)) {
            names.push(name);
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Names the headers of an answer that hold for its body alone: those of its bytes and, where none of it `is_left`, that of
/// their coding.
pub fn of_the_body(answer: &HeaderMap, is_left: bool) -> impl Iterator<Item = &str> {
    let names = answer.iter().map(|(name, _)| name);
    names.filter(move |name| OF_THE_BYTES.contains(name) || !is_left && *name == "content-encoding")
}

/// A body from which an account's credential is taken out as it passes: each byte of it becomes a `*`,
/// so that the length stays. It is found as it is and as it stands in a URL, over the bounds of pieces;
/// not in another encoding, and not after the body's end where the platform breaks off.
///
/// Every answer passes here: see [`Needle`] for what that costs.
pub struct Mask {
    needles: Arc<[Needle]>,
    /// The end of the last piece, which may be the beginning of the credential.
    kept: Vec<u8>,
}

// === impl Mask ===

impl Mask {
    /// Takes out the credential of `account`.
    pub fn of(account: &Account) -> Self {
        Self {
            needles: account.needles(),
            kept: Vec::new(),
        }
    }

    /// Reads the next piece; `end`: it is the last. Returns what goes on instead of it, or none if just
    /// this does. The end of a piece that may be the beginning of the credential goes on with the next.
    pub fn on_body(&mut self, piece: &[u8], end: bool) -> Option<Vec<u8>> {
        let had_kept = !self.kept.is_empty();
        let mut text = std::mem::take(&mut self.kept);
        if had_kept {
            text.extend_from_slice(piece);
        }
        let whole = if had_kept { &text } else { piece };
        let Found {
            whole: found,
            begun,
        } = find_all(&self.needles, whole);
        let keep = if end { 0 } else { begun };
        if !had_kept && found.is_empty() && keep == 0 {
            return None;
        }
        if !had_kept {
            text.extend_from_slice(piece);
        }
        for (at, length) in found {
            let end = at.saturating_add(length);
            if let Some(secret) = text.get_mut(at..end) {
                secret.fill(MASKED);
            }
        }
        self.kept = text.split_off(text.len().saturating_sub(keep));
        Some(text)
    }

    /// Takes the credential out of a text that is whole.
    pub fn masked(&self, text: &[u8]) -> Option<Vec<u8>> {
        let needles = Arc::clone(&self.needles);
        let kept = Vec::new();
        Self { needles, kept }.on_body(text, true)
    }

    /// Returns true if the credential is in a text.
    fn is_in(&self, text: &[u8]) -> bool {
        let is_long_enough = |needle: &Needle| needle.len() <= text.len();
        self.needles.iter().any(is_long_enough) && !find_all(&self.needles, text).whole.is_empty()
    }
}

/// The credential is not shown.
impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        header::NamePattern,
        secret::Secret,
        snapshot::{Platform, fixture},
    };

    fn platform() -> Platform {
        let mut platform = fixture::platform("codex");
        let hide = ["openai-organization", "x-owner-*"];
        let hide = hide.map(|name| NamePattern::try_from(name.to_owned()).unwrap());
        platform.headers.hide = hide.to_vec();
        platform
    }

    fn mask(secret: &str) -> Mask {
        let mut account = fixture::account("acc_1", "openai");
        account.credential = Secret::new(secret);
        Mask::of(&account)
    }

    #[test]
    fn only_an_answer_is_an_answer() {
        for (status, answers) in [
            (0, false),
            (99, false),
            (101, false),
            (199, false),
            (200, true),
        ]
        .into_iter()
        .chain([
            (299, true),
            (300, false),
            (399, false),
            (400, true),
            (599, true),
        ])
        .chain([(600, false), (999, false)])
        {
            assert_eq!(is_answer(status), answers, "{status}");
        }
    }

    #[test]
    fn what_speaks_for_somebody_else_stays_here() {
        let answer: HeaderMap = [
            (":status", "200"),
            ("content-type", "text/plain"),
            ("x-latchkey-error", "latchkey_no_key"),
            ("x-envoy-immediate-health-check-fail", "true"),
            ("location", "/"),
            ("nel", "{}"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("openai-organization", "acme"),
            ("x-owner-mail", "alice"),
            ("x-request-id", "r"),
            ("x-debug", "GET /v1?key=sk-0123456789"),
            ("retry-after", "3"),
        ]
        .into_iter()
        .collect();
        let names = withheld(&answer, &platform().headers, &mask("sk-0123456789"));
        let expected = [
            "location",
            "nel",
            "openai-organization",
            "set-cookie",
            "x-debug",
            "x-envoy-immediate-health-check-fail",
            "x-latchkey-error",
            "x-owner-mail",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_credential_is_found_as_it_is_and_as_in_a_url() {
        let mask = mask("a key+of/us");
        let text = b"x a key+of/us y a%20key%2Bof%2Fus z";
        let masked = mask.masked(text).unwrap();
        assert_eq!(masked, b"x *********** y ***************** z");
        assert_eq!(mask.masked(b"a key+of/uz"), None);
        assert!(!format!("{mask:?}").contains("key"));
        // One that is in any text is let be.
        assert_eq!(self::mask("key").masked(b"a key"), None);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            parts in prop::collection::vec(prop::sample::select(vec!["sk-aab", "sk-", "sk-aabaab", "a", "s", "sk-aabaa", "b%2F"]), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let text = parts.concat().into_bytes();
            let whole = mask("sk-aabaab").masked(&text).unwrap_or_else(|| text.clone());
            prop_assert_eq!(whole.len(), text.len());
            prop_assert!(!whole.windows(9).any(|window| window == b"sk-aabaab"));
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut streaming, mut out) = (mask("sk-aabaab"), Vec::new());
            for (n, pair) in cuts.windows(2).enumerate() {
                let piece = &text[pair[0]..pair[1]];
                let end = n + 2 == cuts.len();
                out.extend(streaming.on_body(piece, end).unwrap_or_else(|| piece.to_vec()));
            }
            prop_assert_eq!(out, whole);
        }
    }
}
