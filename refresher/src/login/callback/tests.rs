use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

const PATH: &str = "/auth/callback";

type Ended = JoinHandle<Result<Result<String, String>, Error>>;

/// A login, and the state that its redirect must carry.
fn login() -> (Login, String) {
    let profile = crate::platform::example();
    let flow = profile.login.code().unwrap();
    let (login, prompt) = Login::code(&profile, flow, 1455).unwrap();
    let state = prompt.url.query_pairs().find(|(name, _)| name == "state");
    (login, state.unwrap().1.into_owned())
}

/// A listener whose login waits; it ends with the code, or with the denial's words.
async fn waiting() -> (u16, String, Ended) {
    let listener = Listener::bind(&[0]).await.unwrap();
    let port = listener.port();
    let (login, state) = login();
    let finish = |_, step| async move {
        match step {
            Step::Send(request) => {
                let code = request.exposed().find(|(name, _)| *name == "code");
                Ok(code.unwrap().1.to_owned())
            }
            Step::Failed(denial) => Err(denial.to_string()),
            step => panic!("{step:?}"),
        }
    };
    let ended = tokio::spawn(async move { listener.receive(PATH, login, finish).await });
    (port, state, ended)
}

async fn send(port: u16, head: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream
        .write_all(format!("{head}\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn browse(port: u16, target: &str) -> String {
    send(
        port,
        &format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}"),
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn the_right_redirect_ends_the_login_and_closes_the_port() {
    let (port, state, login) = waiting().await;
    let answer = browse(port, &format!("/auth/callback?code=the-code&state={state}")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("You are logged in"),
        "{answer}"
    );
    assert!(
        answer.contains("cache-control: no-store") && !answer.contains("the-code"),
        "{answer}"
    );
    assert_eq!(login.await.unwrap().unwrap().unwrap(), "the-code");
    assert!(
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn nobody_else_can_finish_or_spoil_it() {
    let (port, state, login) = waiting().await;
    let own = format!("host: 127.0.0.1:{port}");
    for (request, status) in [
        (
            format!("GET /auth/callback?code=c&state=wrong HTTP/1.1\r\n{own}"),
            400,
        ),
        (format!("GET /auth/callback?code=c HTTP/1.1\r\n{own}"), 400),
        (
            format!("GET /auth/callback?error=access_denied&state=wrong HTTP/1.1\r\n{own}"),
            400,
        ),
        (
            format!("GET /auth/callback?code=c&code=d&state={state} HTTP/1.1\r\n{own}"),
            400,
        ),
        (
            format!("GET /other?code=c&state={state} HTTP/1.1\r\n{own}"),
            404,
        ),
        (
            format!(
                "POST /auth/callback?code=c&state={state} HTTP/1.1\r\n{own}\r\ncontent-length: 0"
            ),
            405,
        ),
        (
            format!("HEAD /auth/callback?code=c&state={state} HTTP/1.1\r\n{own}"),
            405,
        ),
        (
            format!(
                "GET /auth/callback?code=c&state={state} HTTP/1.1\r\nhost: evil.example:{port}"
            ),
            403,
        ),
        (
            format!("GET /auth/callback?code=c&state={state} HTTP/1.1\r\nhost: 127.0.0.1"),
            403,
        ),
    ] {
        let answer = send(port, &request).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
    }
    assert!(!login.is_finished());
    browse(port, &format!("/auth/callback?code=c&state={state}")).await;
    assert_eq!(login.await.unwrap().unwrap().unwrap(), "c");
}

#[tokio::test]
async fn the_state_is_taken_once() {
    let listener = Listener::bind(&[0]).await.unwrap();
    let port = listener.port();
    let (go, going) = oneshot::channel::<()>();
    let finish = |_, _| async move { going.await.map_err(|_| "gone") };
    let (login, state) = login();
    let login = tokio::spawn(async move { listener.receive(PATH, login, finish).await });
    let target = format!("/auth/callback?code=c&state={state}");
    let taken = target.clone();
    let first = tokio::spawn(async move { browse(port, &taken).await });
    let second = loop {
        let answer = timeout(Duration::from_millis(200), browse(port, &target)).await;
        // The one that gets no answer is the one that was taken.
        if let Ok(answer) = answer {
            break answer;
        }
    };
    assert!(second.starts_with("HTTP/1.1 410"), "{second}");
    go.send(()).unwrap();
    login.await.unwrap().unwrap().unwrap();
    first.await.unwrap();
}

/// A program that holds a connection open does not hold the port.
#[tokio::test]
async fn the_port_is_closed_a_second_after_its_use_whoever_lingers() {
    let (port, state, login) = waiting().await;
    let mut lingering = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    lingering
        .write_all(b"GET /auth/callback HTTP/1.1\r\n")
        .await
        .unwrap();
    browse(port, &format!("/auth/callback?code=c&state={state}")).await;
    let used_at = std::time::Instant::now();
    login.await.unwrap().unwrap().unwrap();
    // What a busy machine adds is its own.
    assert!(used_at.elapsed() < CLOSE_LIMIT + Duration::from_secs(5));
    let again = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    assert!(again.is_err(), "it listens on");
}

#[tokio::test]
async fn a_refusal_is_shown_harmlessly() {
    let (port, state, login) = waiting().await;
    let target = format!(
        "/auth/callback?error=access_denied&error_description=%3Cscript%3E%22&state={state}"
    );
    let answer = browse(port, &target).await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("&lt;script&gt;&quot;"),
        "{answer}"
    );
    assert!(
        login
            .await
            .unwrap()
            .unwrap()
            .unwrap_err()
            .contains("access_denied")
    );
}

#[tokio::test(start_paused = true)]
async fn it_waits_ten_minutes() {
    let (_port, _state, login) = waiting().await;
    assert!(matches!(login.await.unwrap(), Err(Error::TimedOut)));
}

#[tokio::test]
async fn a_taken_port_gives_way_to_the_next_and_the_last_names_the_cure() {
    let first = Listener::bind(&[0]).await.unwrap();
    let second = Listener::bind(&[first.port(), 0]).await.unwrap();
    assert_ne!(first.port(), second.port());
    let taken = Listener::bind(&[first.port(), second.port()]).await;
    let message = taken.unwrap_err().to_string();
    assert!(message.contains(&first.port().to_string()), "{message}");
}
