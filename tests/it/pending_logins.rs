use std::{fs, net::Ipv4Addr, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::harness::{
    Stack,
    caller::responses_body,
    eventually, holds,
    refresher::Refresher,
    run,
    sim::Sim,
    stack::{ALICE, new_folder},
};

const BOB: &str = "bob@example.com";
const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(10);
const RESPONSES: &str = "/v1/responses";
/// The number of times that `serve` tries a port again that was taken, and what a busy machine adds.
const PORT_LIMIT: Duration = Duration::from_secs(15 + 10);

/// Adds a user whose logins end at `port`, or at any port that is free.
async fn with_port(sim: &Sim, port: u16) {
    sim.redirect_to(port).await;
    for email in [ALICE, BOB] {
        sim.add_user(email, HOUR).await;
    }
}

/// Ends a user's login at the platform, with all that it gave.
async fn end_login(sim: &Sim, email: &str) {
    for action in ["revoke_login", "revoke_access"] {
        let path = format!("/users/{email}/{action}");
        sim.ask(Method::POST, &path, Value::Null).await;
    }
}

/// The URL of an account that needs a login, once there is another than `last`.
async fn login_url(refresher: &Refresher, name: &str, last: &str) -> String {
    eventually("there is a URL", PORT_LIMIT, async || {
        let account = refresher.account(name).await;
        let url = account["login_url"].as_str().filter(|url| *url != last);
        url.map(str::to_owned).ok_or(account.to_string())
    })
    .await
}

/// A port that nobody else is given while the socket is kept; who asks for it by its number can listen on it.
fn keep_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("as listeners do");
    socket
        .bind((Ipv4Addr::LOCALHOST, 0).into())
        .expect("a port");
    let port = socket.local_addr().expect("its address").port();
    (socket, port)
}

/// The port that an authorization URL leads back to.
fn port(url: &str) -> u16 {
    let (_, rest) = url
        .split_once("redirect_uri=http%3A%2F%2F127.0.0.1%3A")
        .expect("a redirect");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a port")
}

/// A login that ended at the platform is renewed by opening the URL that log and status show. A login of somebody else,
/// one that was called off, an old answer and a forged one change nothing.
#[test]
fn an_ended_login_is_renewed_by_opening_its_url() {
    run(async {
        let mut stack = Stack::real("pending-login", async |sim, refresher| {
            with_port(sim, 0).await;
            refresher.log_in(sim, ALICE).await;
        })
        .await;
        let caller = stack.caller("caller").await;
        assert_eq!(caller.post(RESPONSES, &responses_body()).await.status, 200);
        let account = stack.refresher.account(ALICE).await;
        assert_eq!(account["login_url"], Value::Null, "{account}");

        end_login(&stack.sim, ALICE).await;
        let refused = caller.post(RESPONSES, &responses_body()).await;
        assert_eq!(
            refused.own_code(),
            Some("latchkey_no_account"),
            "{refused:?}"
        );
        let first = login_url(&stack.refresher, ALICE, "").await;
        let ended = stack.refresher.account(ALICE).await;
        assert_eq!(ended["status"], "needs_login");
        assert_eq!(stack.refresher.log_lines(&first, ALICE), 1);
        for command in [&["status"][..], &["accounts", "list"]] {
            let shown = stack.refresher.run(command, "").await;
            assert!(shown.contains(&format!("\n{first}\n")), "{shown}");
            assert!(
                shown.contains("ssh -L ") && shown.contains("--paste"),
                "{shown}"
            );
        }

        let forged = format!(
            "http://127.0.0.1:{}/auth/callback?code=c&state=s",
            port(&first)
        );
        let (status, page) = stack.sim.browse(&forged).await;
        assert!(status == 400 && page.contains("another login"), "{page}");
        let others = stack.sim.authorize(&first, BOB).await;
        let (status, page) = stack.sim.browse(&others).await;
        assert_eq!(status, 502, "{page}");
        for words in [
            ALICE,
            "account_id ws-alice",
            BOB,
            "account_id ws-bob",
            "nothing was changed",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert_eq!(stack.refresher.log_lines("does not count", "ws-bob"), 1);

        let second = login_url(&stack.refresher, ALICE, &first).await;
        let denied = stack
            .sim
            .authorize(&format!("{second}&sim_error=access_denied"), ALICE)
            .await;
        let (status, page) = stack.sim.browse(&denied).await;
        assert!(status == 502 && page.contains("access_denied"), "{page}");
        let third = login_url(&stack.refresher, ALICE, &second).await;
        let late = stack.sim.authorize(&second, ALICE).await;
        assert_eq!(stack.sim.browse(&late).await.0, 400);
        let mut unchanged = stack.refresher.account(ALICE).await;
        unchanged["login_url"] = ended["login_url"].clone();
        // What Envoy tells of the requests before comes when it comes.
        unchanged["limits"]["used"] = ended["limits"]["used"].clone();
        for told in ["quota", "quota_at"] {
            unchanged[told] = ended[told].clone();
        }
        assert_eq!(unchanged, ended);

        // A restart makes a new one.
        stack.refresher.stop().await;
        stack.refresher.serve().await;
        let last = login_url(&stack.refresher, ALICE, &third).await;
        let own = stack.sim.authorize(&last, ALICE).await;
        let (status, page) = stack.sim.browse(&own).await;
        assert!(
            status == 200 && page.contains("You are logged in"),
            "{page}"
        );
        eventually("Alice's account serves again", LIMIT, async || {
            let answer = caller.post(RESPONSES, &responses_body()).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        let renewed = stack.refresher.account(ALICE).await;
        let (before, after) = (&account["generation"], &renewed["generation"]);
        assert_eq!(after.as_u64(), before.as_u64().map(|one| one + 1));
        assert_eq!(
            (&renewed["status"], &renewed["login_url"]),
            (&json!("active"), &Value::Null)
        );
        assert_eq!(
            stack.refresher.accounts().await.len(),
            1,
            "Bob was not added"
        );
        eventually("the port is free", LIMIT, async || {
            let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port(&last))).await;
            holds(connected.is_err(), || "somebody listens".to_owned())
        })
        .await;
        assert_eq!(stack.sim.count("reuse_detected").await, 0);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// Where the only port is taken, the log says so and names the command, and the URL comes when the port is free. A
/// `refresher login` gets the port from `serve`, and the login that waited there is dropped.
#[test]
fn a_login_on_the_command_line_comes_first() {
    run(async {
        let folder = new_folder("pending-port");
        let sim = Sim::start(&folder).await;
        let mut refresher = Refresher::new(&folder, &sim);
        let (_kept, only) = keep_port();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, only))
            .await
            .expect("the port");
        with_port(&sim, only).await;
        for email in [ALICE, BOB] {
            refresher.log_in(&sim, email).await;
        }
        end_login(&sim, ALICE).await;
        refresher.try_run(&["refresh", ALICE], "").await;
        refresher.serve().await;

        let cure = format!("refresher login codex --name {ALICE}");
        let problem = format!("cannot listen on 127.0.0.1 port {only}");
        eventually("the log says so", LIMIT, async || {
            let lines = refresher.log_lines(&problem, &cure);
            holds(lines == 1, || format!("{lines} lines"))
        })
        .await;
        let shown = refresher.run(&["status"], "").await;
        assert!(shown.contains(&cure), "{shown}");
        drop(taken);
        let waiting = login_url(&refresher, ALICE, "").await;
        assert_eq!(port(&waiting), only);
        assert_eq!(refresher.log_lines(&problem, &cure), 1);

        let command = [
            "login",
            "codex",
            "--no-browser",
            "--name",
            ALICE,
            "--expires",
            "2100-01-01",
        ];
        let mut login = refresher.start_command(&[], &command, "login.log").await;
        let url = eventually("it prints the URL", LIMIT, async || {
            login.assert_alive();
            let printed = login.printed();
            let url = printed
                .split_whitespace()
                .find(|word| word.starts_with("https://"));
            url.map(str::to_owned).ok_or(printed.clone())
        })
        .await;
        assert_eq!(port(&url), only);
        assert_eq!(refresher.account(ALICE).await["login_url"], Value::Null);
        let address = sim.authorize(&url, ALICE).await;
        assert_eq!(sim.browse(&address).await.0, 200);
        assert!(login.ends().await.success(), "{}", login.printed());
        let account = refresher.account(ALICE).await;
        assert_eq!(
            (&account["status"], &account["generation"]),
            (&json!("active"), &json!(2))
        );
        assert_eq!(account["expires_at"], json!(4_102_444_800_000_i64));
        // `serve` has looked at all accounts since once it says this of Bob's.
        end_login(&sim, BOB).await;
        refresher.try_run(&["refresh", BOB], "").await;
        eventually("the log says so of Bob's", LIMIT, async || {
            let lines = refresher.log_lines("the port was given to", BOB);
            holds(lines == 1, || format!("{lines} lines"))
        })
        .await;
        for email in [ALICE, BOB] {
            assert_eq!(refresher.account(email).await["login_url"], Value::Null);
        }
        assert!(
            TcpListener::bind((Ipv4Addr::LOCALHOST, only)).await.is_ok(),
            "nobody listens"
        );
        assert!(
            fs::read_to_string(folder.join("refresher.log"))
                .expect("the log")
                .contains("gave a port")
        );
    });
}
