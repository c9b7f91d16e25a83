use super::*;
use crate::credential::Credential;
use crate::platform::Catalog;
use crate::platform::flow::PROJECT;
use crate::state::StateDir;

const PLATFORM: &str = "gemini-code-assist";
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// A platform that sets accounts up and answers nobody, and a store with the account `alice`, whose project is `mine`.
async fn installation() -> (tempfile::TempDir, Store, Catalog) {
    let outer = tempfile::tempdir().unwrap();
    let profile = "[upstream]\nbase_url = 'https://127.0.0.1:1'\n";
    std::fs::write(outer.path().join(format!("{PLATFORM}.toml")), profile).unwrap();
    let catalog = Catalog::load(Some(outer.path()), [PLATFORM.to_owned()].into()).unwrap();
    let state = StateDir::open(&outer.path().join("state")).unwrap();
    let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
    let mut alice = granted("1");
    alice.vars.insert(PROJECT.to_owned(), "mine".to_owned());
    let new = super::account(catalog.profile(PLATFORM).unwrap(), "alice", None, alice);
    let saved = store.save_account(new, &Terms::default(), false, NOW).await;
    saved.unwrap();
    (outer, store, catalog)
}

/// The login of the person of this identity.
fn granted(identity: &str) -> Granted {
    Granted {
        credential: Credential::ApiKey(SecretString::from("an access token")),
        credential_expires_at: None,
        login_ends_at: None,
        vars: [(IDENTITY.to_owned(), identity.to_owned())].into(),
    }
}

/// Anybody's login, on no terms.
fn anybody<'a>(terms: &'a Terms, name: Option<&'a str>, project: Option<&'a str>) -> Whose<'a> {
    Whose::Anybody {
        name,
        terms,
        base_url: None,
        project,
    }
}

#[tokio::test]
async fn a_login_without_a_name_keeps_the_project_of_its_account() {
    let (_outer, store, _) = installation().await;
    let terms = Terms::default();
    for (identity, project, expected) in [
        ("1", None, Some("mine")),
        ("1", Some("other"), Some("other")),
        ("2", None, None),
        ("2", Some("other"), Some("other")),
    ] {
        let vars = granted(identity).vars;
        let whose = anybody(&terms, None, project);
        let owner = owner(&store, PLATFORM, &vars, whose).await.unwrap();
        let found = given(&store, Setup::CodeAssist, owner, whose).await;
        let found = found.unwrap();
        assert_eq!(
            found.get(PROJECT).map(String::as_str),
            expected,
            "{identity}"
        );
    }
}

#[tokio::test]
async fn whose_a_login_is_comes_before_its_platform_is_asked() {
    let (_outer, store, catalog) = installation().await;
    let profile = catalog.profile(PLATFORM).unwrap();
    let terms = Terms::default();
    let finished = async |identity, name| {
        let whose = anybody(&terms, Some(name), None);
        finish(&store, profile, granted(identity), whose, NOW)
            .await
            .unwrap_err()
    };
    let refused = finished("2", "alice").await;
    assert!(matches!(refused, Error::NameTaken { .. }), "{refused}");
    for (identity, name) in [("1", "alice"), ("2", "bob")] {
        let asked = finished(identity, name).await;
        assert!(matches!(asked, Error::Setup(_)), "{asked}");
    }
    // A login that waits for one account.
    let alice = store.account("alice").await.unwrap();
    let finished = async |identity| {
        let whose = Whose::Account(&alice);
        finish(&store, profile, granted(identity), whose, NOW)
            .await
            .unwrap_err()
    };
    let of_another = finished("2").await;
    assert!(
        matches!(of_another, Error::OtherAccount { .. }),
        "{of_another}"
    );
    let own = finished("1").await;
    assert!(matches!(own, Error::Setup(_)), "{own}");
}

fn vars(identity: Option<&str>) -> Vars {
    let identity = identity.map(|identity| (IDENTITY.to_owned(), identity.to_owned()));
    identity
        .into_iter()
        .chain([(EMAIL.to_owned(), "a@example.com".to_owned())])
        .collect()
}

fn account(name: &str, platform: &str, identity: Option<&str>) -> Known {
    Known {
        account: Account::example(name, platform),
        vars: Some(vars(identity)),
    }
}

fn named(
    accounts: &[Known],
    identity: Option<&str>,
    wanted: Option<&str>,
) -> Option<(String, bool)> {
    choose_name(accounts, "codex", &vars(identity), wanted, &BTreeSet::new()).ok()
}

#[test]
fn a_second_login_of_an_account_goes_to_it_whatever_its_name() {
    let accounts = [
        account("alice", "codex", Some("1")),
        account("other", "other", Some("2")),
    ];
    assert_eq!(
        named(&accounts, Some("1"), None),
        Some(("alice".into(), true))
    );
    assert_eq!(
        named(&accounts, Some("1"), Some("bob")),
        Some(("alice".into(), true))
    );
    assert_eq!(
        named(&accounts, Some("2"), Some("bob")),
        Some(("bob".into(), false))
    );
}

#[test]
fn a_second_member_of_a_workspace_is_another_account() {
    let accounts = [account("a@example.com", "codex", Some("1"))];
    let mut other = vars(Some("1"));
    other.insert(EMAIL.to_owned(), "b@example.com".to_owned());
    assert_eq!(
        choose_name(&accounts, "codex", &other, None, &BTreeSet::new()).unwrap(),
        ("b@example.com".into(), false)
    );
    assert!(
        choose_name(
            &accounts,
            "codex",
            &other,
            Some("a@example.com"),
            &BTreeSet::new()
        )
        .is_err()
    );
}

#[test]
fn another_accounts_name_is_not_taken_over() {
    let accounts = [
        account("alice", "codex", Some("1")),
        account("key", "openai", None),
    ];
    assert_eq!(named(&accounts, Some("2"), Some("alice")), None);
    assert_eq!(named(&accounts, Some("2"), Some("key")), None);
    let mut unknown = account("alice", "codex", None);
    unknown.vars = None;
    assert_eq!(named(&[unknown], None, Some("alice")), None);
    let nameless = [account("alice", "codex", None)];
    assert_eq!(
        named(&nameless, None, Some("alice")),
        Some(("alice".into(), true))
    );
}

#[test]
fn the_default_name_is_the_email_address_and_then_numbered() {
    let mut accounts = vec![];
    for (identity, expected) in [
        ("1", "a@example.com"),
        ("2", "a@example.com-2"),
        ("3", "a@example.com-3"),
    ] {
        let (name, renew) = named(&accounts, Some(identity), None).unwrap();
        assert_eq!((name.as_str(), renew), (expected, false));
        accounts.push(account(&name, "codex", Some(identity)));
    }
    assert_eq!(
        choose_name(&[], "codex", &Vars::new(), None, &BTreeSet::new()).unwrap(),
        ("codex".into(), false)
    );
}

#[test]
fn only_the_same_user_of_the_same_workspace_is_the_same() {
    let (workspace, email) = ((IDENTITY, "ws-1"), (EMAIL, "alice@example.com"));
    let vars = |vars: &[(&str, &str)]| -> Vars {
        let var = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        vars.iter().map(var).collect()
    };
    let is_same = |of: &[(&str, &str)], found: &[(&str, &str)]| {
        require_same("codex", &vars(of), &vars(found)).is_ok()
    };
    assert!(is_same(&[workspace, email], &[workspace, email]));
    assert!(is_same(
        &[workspace, email],
        &[workspace, (EMAIL, "Alice@Example.com")]
    ));
    assert!(is_same(&[workspace], &[workspace, email]));
    assert!(is_same(&[workspace, email], &[workspace]));
    for found in [
        &[email][..],
        &[(IDENTITY, "ws-2"), email],
        &[workspace, (EMAIL, "bob@example.com")],
    ] {
        assert!(!is_same(&[workspace, email], found), "{found:?}");
    }
    let other = vars(&[(IDENTITY, "ws-2"), (EMAIL, "bob@example.com")]);
    let words = require_same("codex", &vars(&[workspace, email]), &other)
        .unwrap_err()
        .to_string();
    assert!(
        words.contains("ws-1") && words.contains("bob@example.com (account_id ws-2)"),
        "{words}"
    );
}
