//! `docs/terms.md`: the platforms whose terms a person has to read first. Written from the profiles by `make docs`, and
//! compared with them here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::platform::Catalog;

/// The page, from the repository's root.
const PAGE: &str = "docs/terms.md";
/// Set to write the page instead of comparing it.
const WRITE: &str = "LATCHKEY_WRITE_DOCS";

const BEGINNING: &str = "\
# Terms

Some platforms' terms forbid the use of a subscription's login through other software, or the sharing of one; some have ended \
such logins. Whether you may use yours is between you and the platform. A profile under such terms has a notice (`terms`), \
and is off until its id stands in `acknowledged_terms` in `config.toml`: no login, no import, no request, no refresh. API keys \
are made for gateways, and come without a notice.

`make docs` writes this page from the profiles.

## Platforms that are off until you acknowledge their notice

| platform | credential | notice |
|---|---|---|
";

const END: &str = "
## Logins that are not there

No profile is shipped for these. Their platforms' own words decide, and they change: look before you make a profile.

| login | why not |
|---|---|
| Google accounts of persons in Gemini CLI (Code Assist for individuals) | ended by Google on 2026-06-18. API keys: platform `gemini`; what is left of Code Assist: platform `gemini-code-assist` |
| Qwen accounts (the login of Qwen Code) | ended by Qwen on 2026-04-15. API keys: platform `qwen` |
";

/// The page, as the profiles make it.
fn page(catalog: &Catalog) -> String {
    let rows = catalog.written().filter_map(|(profile, _)| {
        let terms = profile.terms.as_ref()?;
        let kinds = profile.credentials.iter().map(|kind| kind.as_str());
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        let terms = terms.split_whitespace().collect::<Vec<_>>().join(" ");
        let (id, name) = (&profile.id, &profile.name);
        Some(format!(
            "| `{id}`: {name} | {kinds} | {} |\n",
            terms.replace('|', "\\|")
        ))
    });
    format!("{BEGINNING}{}{END}", rows.collect::<String>())
}

#[test]
fn the_page_of_terms_is_current() {
    let catalog = Catalog::load(None, BTreeSet::new()).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    let page = page(&catalog);
    if std::env::var_os(WRITE).is_some() {
        fs::write(path, page).unwrap();
        return;
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == page,
        "{PAGE} is not what the profiles say; run: make docs"
    );
}

/// A platform that has a notice is off, and is on once it is acknowledged; nothing else is off.
#[test]
fn a_platform_with_a_notice_is_off_until_it_is_acknowledged() {
    let catalog = Catalog::load(None, BTreeSet::new()).unwrap();
    let mut noticed = BTreeSet::new();
    for (profile, _) in catalog.written() {
        assert_eq!(
            catalog.usable(&profile.id).is_err(),
            profile.terms.is_some(),
            "{}",
            profile.id
        );
        if profile.terms.is_some() {
            noticed.insert(profile.id.clone());
        }
    }
    assert!(noticed.contains("codex"), "{noticed:?}");
    let catalog = Catalog::load(None, noticed.clone()).unwrap();
    assert!(noticed.iter().all(|id| catalog.usable(id).is_ok()));
}
