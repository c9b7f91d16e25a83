use crate::platform::example;

use super::*;

fn account(name: &str) -> Account {
    Account::example(name, "codex")
}

/// Lets logins of `accounts` wait from `now`, at most [`PENDING_LIMIT`] of them, and returns how many do.
fn begin(board: &mut Board, accounts: &[Account], now: Instant) -> usize {
    let mut begun = 0;
    for account in board.renew(accounts, now) {
        if board.has_room_at(&account.platform, now).is_ok() {
            begun += 1;
            let profile = example();
            let flow = profile.login.code().unwrap();
            let (login, prompt) = Login::code(&profile, flow, 1455).unwrap();
            board.add(Pending {
                account,
                login,
                prompt,
                port: 1455,
                lapses_at: now + URL_LIFE,
            });
        }
    }
    begun
}

/// The query that the browser of an account's login brings back.
fn answer(board: &Board, account: &Account) -> String {
    let url = &board.waiting[&account.id].prompt.url;
    let state = url.query_pairs().find(|(name, _)| name == "state");
    format!("code=c&state={}", state.unwrap().1)
}

#[test]
fn a_state_takes_its_own_login_once_and_at_its_own_platform() {
    let (now, mut board) = (Instant::now(), Board::default());
    let accounts = [account("alice"), account("bob")];
    assert_eq!(begin(&mut board, &accounts, now), 2);
    let answer = answer(&board, &accounts[1]);
    assert!(matches!(
        board.take("elsewhere", &answer, now),
        Err(Refused::ForeignState)
    ));
    assert!(matches!(
        board.take("codex", "code=c&state=guessed", now),
        Err(Refused::ForeignState)
    ));
    let twice = format!("{answer}&code=d");
    assert!(matches!(
        board.take("codex", &twice, now),
        Err(Refused::Malformed)
    ));
    let (pending, _) = board.take("codex", &answer, now).unwrap();
    assert_eq!(pending.account.id, accounts[1].id);
    assert!(board.take("codex", &answer, now).is_err());
    // While it is completed there is no second one.
    assert_eq!(begin(&mut board, &accounts, now), 0);
    board.finishing.clear();
    assert_eq!(begin(&mut board, &accounts, now), 1);
}

#[test]
fn what_lapsed_or_is_not_wanted_any_more_is_dropped() {
    let (start, mut board) = (Instant::now(), Board::default());
    let mut accounts = vec![account("alice"), account("bob")];
    begin(&mut board, &accounts, start);
    let old = answer(&board, &accounts[0]);
    assert_eq!(board.pause(start), URL_LIFE);

    let later = start + URL_LIFE;
    assert!(board.take("codex", &old, later).is_err());
    assert_eq!(begin(&mut board, &accounts, later), 2);
    assert_ne!(answer(&board, &accounts[0]), old);

    accounts[0].generation += 1;
    let of_another_generation = answer(&board, &accounts[0]);
    assert_eq!(begin(&mut board, &accounts, later), 1);
    assert!(board.take("codex", &of_another_generation, later).is_err());

    assert!(board.is_in_use("codex"));
    board.renew(&[], later);
    assert!(!board.is_in_use("codex"));
    assert_eq!((board.urls(), board.pause(later)), (vec![], SLEEP_LIMIT));
}

#[test]
fn no_more_than_so_many_wait() {
    let (now, mut board) = (Instant::now(), Board::default());
    let accounts: Vec<_> = (0..=PENDING_LIMIT)
        .map(|n| account(&n.to_string()))
        .collect();
    assert_eq!(begin(&mut board, &accounts, now), PENDING_LIMIT);
    let gone = board.urls().remove(0).account;
    let rest: Vec<_> = accounts
        .into_iter()
        .filter(|account| account.id.as_str() != gone)
        .collect();
    assert_eq!(begin(&mut board, &rest, now), 1);
}

#[test]
fn a_port_that_was_given_away_comes_back() {
    let (start, mut board) = (Instant::now(), Board::default());
    let accounts = [account("alice")];
    begin(&mut board, &accounts, start);
    board.yield_until("codex", start + LOGIN_LIMIT);
    assert!(!board.is_in_use("codex"));
    assert_eq!(begin(&mut board, &accounts, start), 0);
    assert_eq!(begin(&mut board, &accounts, start + LOGIN_LIMIT), 1);
}

#[test]
fn only_what_may_pass_by_itself_is_tried_again() {
    let (now, mut board) = (Instant::now(), Board::default());
    let alice = account("alice");
    let ports = || {
        NoUrl::Ports(callback::Error::Ports {
            ports: "1455".to_owned(),
            source: std::io::ErrorKind::AddrInUse.into(),
        })
    };
    let lasting = [
        NoUrl::NoFlow,
        NoUrl::Nameless,
        NoUrl::Url(crate::login::Error::Lapsed),
    ];
    for lasting in lasting {
        board.told.clear();
        assert!(board.tell(&alice, &lasting), "{lasting}");
        assert!(!board.tell(&alice, &lasting), "it is said once");
        assert_eq!(board.pause(now), SLEEP_LIMIT, "{lasting}");
    }
    for passing in [ports(), NoUrl::Yielded, NoUrl::Full] {
        board.told.clear();
        assert!(board.tell(&alice, &passing), "{passing}");
        assert_eq!(board.pause(now), PORT_PAUSE, "{passing}");
    }
    assert!(!board.tell(&alice, &NoUrl::Nameless));
    assert_eq!(board.pause(now), SLEEP_LIMIT, "what is true now counts");
}

#[tokio::test]
async fn nobody_is_admitted_once_a_shutdown_has_begun() {
    let outer = tempfile::tempdir().unwrap();
    let state = crate::state::StateDir::open(&outer.path().join("state")).unwrap();
    let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
    let catalog = Catalog::load(None, Default::default()).unwrap();
    let logins = PendingLogins::new(store, catalog);
    let alice = [account("alice")];
    let board = || lock(&logins.shared.board);
    assert_eq!(begin(&mut board(), &alice, Instant::now()), 1);
    let answer = answer(&board(), &alice[0]);

    let shutdown = CancellationToken::new();
    shutdown.cancel();
    logins.run(shutdown).await;
    assert_eq!(
        logins.admit("codex", &answer).err(),
        Some(NotAdmitted::Stopping)
    );
    assert!(
        board().waiting.contains_key(&alice[0].id),
        "its code is not spent"
    );
    assert!(logins.shared.tasks.is_empty());
}

#[tokio::test]
async fn an_account_that_its_operator_logged_out_gets_no_url() {
    let outer = tempfile::tempdir().unwrap();
    let state = crate::state::StateDir::open(&outer.path().join("state")).unwrap();
    let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
    let new = store::NewAccount {
        name: "alice",
        platform: "codex",
        credential: crate::credential::Credential::ApiKey("a token".into()),
        vars: [(IDENTITY.to_owned(), "1".to_owned())].into(),
        credential_expires_at: None,
        base_url: None,
    };
    let now = SystemClock.now();
    let terms = store::Terms::default();
    store.save_account(new, &terms, false, now).await.unwrap();
    let alice = store.account("alice").await.unwrap();
    let taken = store.take_out(&alice.id, now).await.unwrap();
    store.empty(&taken, now).await.unwrap();
    let catalog = Catalog::load(None, Default::default()).unwrap();
    let logins = PendingLogins::new(store.clone(), catalog);
    logins.look().await;
    // It would be said why there is none: its platform is not acknowledged.
    assert!(lock(&logins.shared.board).told.is_empty());
    assert!(store.account("alice").await.unwrap().is_logged_out());
}

#[tokio::test]
async fn an_account_whose_login_breaks_off_gets_another_url() {
    let outer = tempfile::tempdir().unwrap();
    let state = crate::state::StateDir::open(&outer.path().join("state")).unwrap();
    let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
    let catalog = Catalog::load(None, Default::default()).unwrap();
    let logins = PendingLogins::new(store, catalog);
    let (alice, now) = ([account("alice")], Instant::now());
    let board = || lock(&logins.shared.board);
    begin(&mut board(), &alice, now);
    let answer = answer(&board(), &alice[0]);
    board().take("codex", &answer, now).unwrap();
    let finishing = Finishing {
        shared: Arc::clone(&logins.shared),
        account: alice[0].id.clone(),
    };
    assert_eq!(begin(&mut board(), &alice, now), 0, "it is being completed");
    let broken = tokio::spawn(async move {
        let _finishing = finishing;
        panic!("a fault of ours")
    });
    assert!(broken.await.is_err());
    assert_eq!(begin(&mut board(), &alice, now), 1);
}
