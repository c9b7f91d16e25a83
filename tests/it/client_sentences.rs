//! Every refusal of the gateway, word for word as its golden file has it, as the programs show it that people start.
//! `client_refusals` meets some of them at a gateway; here none has to be brought about.

use std::{fs, net::Ipv4Addr, path::Path, time::Duration};

use axum::{
    Router,
    http::{Response, Uri},
};
use futures_util::{StreamExt, stream};
use tokio::net::TcpListener;

use crate::{
    clients::{Ask, claude, codex, opencode},
    harness::{run, source_root, stack::new_folder},
};

/// Within this a program ends where a repeat cannot help, its start beside others included.
const AT_ONCE: Duration = Duration::from_secs(60);

/// Within this it ends where it repeats.
const LIMIT: Duration = Duration::from_secs(280);

/// The programs that run at once.
const AT_A_TIME: usize = 4;

/// A refusal as it goes out.
#[derive(Debug, Clone)]
struct Refusal {
    status: u16,
    headers: Vec<(String, String)>,
    /// The body in each dialect, by its name.
    bodies: Vec<(String, String)>,
}

/// A program that people start, and the dialect that it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Claude,
    Codex,
    Opencode,
}

impl Refusal {
    /// All that the golden file has.
    fn all() -> Vec<Self> {
        let golden = source_root().join("tests/golden/refusals.txt");
        let golden = fs::read_to_string(golden).expect("the golden file");
        let refusals = golden.trim().split("\n\n").map(|block| {
            let mut lines = block.lines();
            let mut head = lines.next().expect("a head").split("  ");
            let status = head.next().and_then(|status| status.parse().ok());
            let header = |text: &str| {
                let (name, value) = text.split_once(": ").expect("a header");
                (name.to_owned(), value.to_owned())
            };
            let body = |line: &str| {
                let (dialect, body) = line.split_once(' ').expect("a body");
                (dialect.to_owned(), body.trim_start().to_owned())
            };
            Self {
                status: status.expect("a status"),
                headers: head.map(header).collect(),
                bodies: lines.map(body).collect(),
            }
        });
        refusals.collect()
    }

    fn body(&self, dialect: &str) -> &str {
        let body = self.bodies.iter().find(|(name, _)| name == dialect);
        &body.expect("a body").1
    }

    fn response(&self, uri: &Uri) -> Response<String> {
        let ends = |end| uri.path().ends_with(end);
        let dialect = if ends("/messages") {
            "messages"
        } else if ends("/responses") {
            "responses"
        } else {
            "chat"
        };
        let mut response = Response::builder()
            .status(self.status)
            .header("content-type", "application/json");
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        let body = self.body(dialect).to_owned();
        response.body(body).expect("a response")
    }

    /// It says that a repeat cannot help.
    fn is_final(&self) -> bool {
        let says = |(name, value): &(String, String)| name == "x-should-retry" && value == "false";
        self.headers.iter().any(says)
    }
}

impl Program {
    const ALL: [Self; 3] = [Self::Claude, Self::Codex, Self::Opencode];

    fn dialect(self) -> &'static str {
        match self {
            Self::Claude => "messages",
            Self::Codex => "responses",
            Self::Opencode => "chat",
        }
    }

    /// It repeats such a refusal, whatever that says of it.
    fn repeats(self, refusal: &Refusal) -> bool {
        match self {
            Self::Claude => !refusal.is_final(),
            Self::Codex => !refusal.is_final() || refusal.status >= 429,
            Self::Opencode => refusal.status >= 429,
        }
    }

    /// What a person reads: our sentence, but where the program has one of its own for the status.
    fn sentence(self, refusal: &Refusal) -> String {
        let body: serde_json::Value =
            serde_json::from_str(refusal.body(self.dialect())).expect("JSON");
        let own = match (self, refusal.status) {
            (Self::Claude, 404) => "selected model",
            (Self::Claude, 413) => "Request too large",
            (Self::Codex, 429) if body["error"]["type"] == "usage_limit_reached" => {
                "hit your usage limit"
            }
            (Self::Codex, 429) => "429 Too Many Requests",
            _ => body["error"]["message"].as_str().expect("a message"),
        };
        plain(own)
    }

    async fn ask(self, ask: &Ask<'_>) -> (String, Duration) {
        match self {
            Self::Claude => claude(ask).await,
            Self::Codex => codex(ask).await,
            Self::Opencode => opencode(ask, &[]).await,
        }
    }
}

/// A text without what JSON and terminals do to it.
fn plain(text: &str) -> String {
    let kept = text.replace("\\n", " ").replace(['"', '\\'], "");
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Answers with the refusal whose number a path begins with; the port.
async fn serve(refusals: Vec<Refusal>) -> u16 {
    let answer = move |uri: Uri| {
        let number = uri
            .path()
            .split('/')
            .nth(1)
            .and_then(|text| text.parse().ok());
        let refusal = number.and_then(|number: usize| refusals.get(number));
        let response = refusal.expect("a number").response(&uri);
        async move { response }
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    port
}

/// Runs one program at one refusal; what is wrong with what it shows.
async fn shown(
    program: Program,
    number: usize,
    refusal: &Refusal,
    port: u16,
    folder: &Path,
) -> Option<String> {
    let home = folder.join(format!("{program:?}-{number}"));
    let v1 = if program == Program::Claude {
        ""
    } else {
        "/v1"
    };
    let base = format!("http://127.0.0.1:{port}/{number}{v1}");
    let ask = Ask {
        limit: LIMIT,
        ..Ask::new(&home, &base, "lk_key")
    };
    let (printed, took) = program.ask(&ask).await;
    println!(
        "{program:?}, {}, {took:?}: {printed}\n---",
        refusal.body(program.dialect())
    );
    let longest = if program.repeats(refusal) {
        LIMIT
    } else {
        AT_ONCE
    };
    let is_right = plain(&printed).contains(&program.sentence(refusal)) && took <= longest;
    (!is_right).then(|| format!("{program:?}, {refusal:?}, {took:?}: {printed}"))
}

mod long {
    use super::*;

    /// Claude Code repeats ten times and opencode five times what may be repeated, so that those are left to
    /// `client_refusals`.
    #[test]
    #[ignore = "ten minutes"]
    fn each_program_shows_each_refusal() {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return;
        }
        run(async {
            let refusals = Refusal::all();
            assert!(refusals.len() > 50);
            let folder = new_folder("client-sentences");
            let port = serve(refusals.clone()).await;
            let tries = refusals.iter().enumerate().flat_map(|(number, refusal)| {
                let quick =
                    |program: &Program| *program == Program::Codex || !program.repeats(refusal);
                let programs = Program::ALL.into_iter().filter(quick);
                programs.map(move |program| (program, number, refusal))
            });
            let tries = tries
                .map(|(program, number, refusal)| shown(program, number, refusal, port, &folder));
            let wrong: Vec<String> = stream::iter(tries)
                .buffer_unordered(AT_A_TIME)
                .filter_map(std::future::ready)
                .collect()
                .await;
            assert!(wrong.is_empty(), "{}", wrong.join("\n---\n"));
        });
    }
}
