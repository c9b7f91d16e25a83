//! The files of a store: who may read them, what is in them, and what is refused.

use super::*;
use crate::store::sqlite::begin_change;

#[tokio::test]
async fn the_files_hold_no_secret_and_nobody_else_can_read_them() {
    use std::os::unix::fs::PermissionsExt;
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    let id = add_login(&store, "alice").await;
    let held = claim(&store, &id, 1, LIFE).await;
    assert!(
        store
            .commit(&held, &tokens("access-2"), None, NOW)
            .await
            .unwrap()
    );
    let key = store
        .create_client_key("laptop", DEFAULT_POOL, &KeyChange::default(), NOW)
        .await
        .unwrap()
        .key;
    let files = || {
        fs::read_dir(state.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    let leaks = |secret: &str| {
        let holds = |path: &Path| {
            fs::read(path)
                .unwrap()
                .windows(secret.len())
                .any(|part| part == secret.as_bytes())
        };
        files().any(|path| holds(&path))
    };
    assert!(
        leaks("alice") && leaks("laptop"),
        "the log is looked at too"
    );
    for secret in [
        "access-1",
        "access-2",
        "refresh-of-access-1",
        key.expose_secret(),
    ] {
        assert!(!leaks(secret), "{secret}");
    }
    for path in files() {
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o077,
            0,
            "{}",
            path.display()
        );
    }
}

/// A closed store's file.
async fn closed() -> (tempfile::TempDir, StateDir, Vec<u8>) {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    add_login(&store, "alice").await;
    store.close().await;
    let bytes = fs::read(state.database()).unwrap();
    (_outer, state, bytes)
}

#[tokio::test]
async fn a_damaged_or_foreign_database_is_refused_and_left_as_it_is() {
    let (_outer, state, good) = closed().await;
    let mut foreign = good.clone();
    foreign[68..72].copy_from_slice(&[0; 4]);
    let mut damaged = good.clone();
    let tail = damaged.len() - 4096;
    damaged[4096..tail].fill(0xA5);
    for (bytes, found) in [
        (Vec::new(), "an empty file"),
        (b"{\"accounts\": []}".to_vec(), "found something else"),
        (good[..10].to_vec(), "found something else"),
        (good[..100].to_vec(), "latchkey.db"),
        (good[..good.len() / 2].to_vec(), "latchkey.db"),
        (foreign, "not Latchkey's"),
        (damaged, "latchkey.db"),
    ] {
        fs::write(state.database(), &bytes).unwrap();
        let error = open(&state).await.unwrap_err();
        assert!(matches!(error, Error::NotOurs { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.contains("latchkey.db") && message.contains(found),
            "{message}"
        );
        assert_eq!(fs::read(state.database()).unwrap(), bytes);
    }
    fs::write(state.database(), &good).unwrap();
    assert_eq!(
        open(&state).await.unwrap().accounts().await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn a_database_of_another_key_is_refused_and_left_as_it_is() {
    let (_outer, state, good) = closed().await;
    let error = Store::open(&state, crate::keys::fixed(2))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");
    assert_eq!(fs::read(state.database()).unwrap(), good);
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused() {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', 1, x'00', 0)")
        .execute(&store.pool)
        .await
        .unwrap();
    store.close().await;
    assert!(matches!(
        open(&state).await.unwrap_err(),
        Error::Schema { .. }
    ));
}

#[tokio::test]
async fn a_lax_or_linked_database_is_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let (outer, state, _) = closed().await;
    fs::set_permissions(state.database(), fs::Permissions::from_mode(0o640)).unwrap();
    let error = open(&state).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::File(files::Error::LaxMode {
                mode: 0o640,
                wanted: 0o600,
                ..
            })
        ),
        "{error}"
    );
    fs::rename(state.database(), outer.path().join("elsewhere")).unwrap();
    symlink(outer.path().join("elsewhere"), state.database()).unwrap();
    assert!(matches!(open(&state).await.unwrap_err(), Error::File(_)));
}

/// Something else has changed the tables: what the database says about that is not for people.
#[tokio::test]
async fn tables_that_something_else_changed_are_told_in_words() {
    let said = async |sql: &'static str| {
        let Fixture { store, _outer, .. } = fixture().await;
        sqlx::query(sql).execute(&store.pool).await.unwrap();
        let key = store.client_keys().await.err();
        key.expect(sql).to_string()
    };
    let changed = said("ALTER TABLE client_keys RENAME TO others").await;
    assert!(
        changed.ends_with("something else has changed it"),
        "{changed}"
    );
    let column = said("ALTER TABLE client_keys RENAME COLUMN name TO other").await;
    assert_eq!(column, changed);
}

/// As on a full disk: SQLite ends the transaction by itself, so that the rollback fails. The same connection once took no
/// other transaction from then on, and tokens that had been paid for could not be stored.
#[tokio::test]
async fn a_transaction_that_ended_by_itself_is_in_nobodys_way() {
    let fixture = fixture().await;
    let pool = &fixture.store.pool;
    for _ in 0..3 {
        let mut change = begin_change(pool).await.unwrap();
        sqlx::query("ROLLBACK").execute(&mut *change).await.unwrap();
        assert!(change.rollback().await.is_err());
        let mut dropped = begin_change(pool).await.unwrap();
        sqlx::query("ROLLBACK")
            .execute(&mut *dropped)
            .await
            .unwrap();
        drop(dropped);
    }
    for _ in 0..20 {
        begin_change(pool).await.unwrap().commit().await.unwrap();
    }
}
