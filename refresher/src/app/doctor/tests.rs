use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::clock::SystemClock;
use crate::fault::Fault;

/// An address at which nobody listens: its port was ours a moment ago.
async fn nobody() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

async fn look_at(state_dir: &Path) -> Facts {
    let options = Options {
        state_dir: Some(state_dir.to_owned()),
        ..Options::default()
    };
    let scope = Scope {
        gateway: Some(nobody().await),
        is_offline: true,
    };
    gather(options, scope, |_| None, Arc::new(SystemClock)).await
}

async fn begin(state_dir: &Path) {
    let options = Options {
        state_dir: Some(state_dir.to_owned()),
        may_make: true,
        ..Options::default()
    };
    let app = App::open(options, |_| None, Arc::new(SystemClock)).await;
    app.unwrap().close().await;
}

#[tokio::test]
async fn a_state_that_is_well_has_no_faults() {
    let outer = tempfile::tempdir().unwrap();
    let state_dir = outer.path().join("state");
    begin(&state_dir).await;
    let facts = look_at(&state_dir).await;
    assert!(facts.faults.is_empty(), "{:?}", facts.faults);
    assert!(facts.state.is_some());
    assert_eq!(facts.gateway, Gateway::Nothing);
    assert_eq!(facts.daemon.socket, SocketState::Missing);
    assert!(
        facts
            .space
            .is_some_and(|space| space.total >= space.free && space.free > 0)
    );
    assert!(!facts.daemon.runs && !facts.daemon.ran && !facts.clusters.is_there);
}

/// Another Envoy on the same state directory takes the sockets, and leaves dead ones behind when it ends.
#[tokio::test]
async fn an_escape_that_nobody_answers_is_seen() {
    let outer = tempfile::tempdir().unwrap();
    let state_dir = outer.path().join("state");
    begin(&state_dir).await;
    assert_eq!(look_at(&state_dir).await.escape, Some(false));
    fs::create_dir(state_dir.join("run")).unwrap();
    fs::set_permissions(state_dir.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    let socket = state_dir.join("run/envoy-escape.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(look_at(&state_dir).await.escape, Some(true));
    drop(listener);
    assert!(socket.exists());
    assert_eq!(look_at(&state_dir).await.escape, Some(false));
    // Where Envoy has its own place for it, as in another container, nobody can tell.
    let config = format!("[envoy]\nescape = '{}/none.sock'", outer.path().display());
    fs::write(state_dir.join("config.toml"), config).unwrap();
    assert_eq!(look_at(&state_dir).await.escape, None);
}

/// One look tells of each broken thing, not of the first alone.
#[tokio::test]
async fn what_is_broken_hides_nothing_else() {
    let outer = tempfile::tempdir().unwrap();
    let state_dir = outer.path().join("state");
    begin(&state_dir).await;
    let profiles = outer.path().join("profiles");
    fs::create_dir(&profiles).unwrap();
    fs::write(profiles.join("one.toml"), "id = 'one'\nwhat = 1").unwrap();
    fs::write(profiles.join("two.toml"), "[").unwrap();
    let config = format!("platforms_dir = {:?}", profiles.display().to_string());
    fs::write(state_dir.join("config.toml"), config).unwrap();
    let lax = |name: &str, mode| {
        fs::set_permissions(state_dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    lax("key", 0o644);
    lax("latchkey.db", 0o660);
    let facts = look_at(&state_dir).await;
    assert!(facts.state.is_none());
    let said: Vec<String> = facts.faults.iter().map(Error::to_string).collect();
    for part in [
        "/state/key: its mode",
        "/latchkey.db: its mode",
        "one.toml:2",
        "two.toml:1",
    ] {
        let found = said.iter().filter(|said| said.contains(part)).count();
        assert_eq!(found, 1, "{part}: {said:#?}");
    }
    assert_eq!(said.len(), 4, "{said:#?}");
}

#[tokio::test]
async fn a_mistyped_directory_is_told_and_not_made() {
    let outer = tempfile::tempdir().unwrap();
    let state_dir = outer.path().join("stat");
    let facts = look_at(&state_dir).await;
    let [error] = &facts.faults[..] else {
        panic!("{:?}", facts.faults)
    };
    assert_eq!(error.fault, Fault::NoState);
    assert!(!state_dir.exists());
}
