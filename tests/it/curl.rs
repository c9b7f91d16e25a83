//! The stand-in for `curl` on machines without one does what curl does.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    docs::fences,
    harness::{
        program::{self, Program},
        run,
        sim::Sim,
        source_root, stack,
    },
};

const LIMIT: Duration = Duration::from_secs(60);

/// The outcome of a line.
#[derive(Debug, PartialEq)]
struct Done {
    status: Option<i32>,
    printed: String,
    /// The bytes that it wrote to the file `out`.
    written: Option<String>,
    /// The requests that came of it: the first line, the headers in their order of name, and the body.
    requests: Vec<Vec<String>>,
}

/// A platform of a few paths, and the requests that it got.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::default();
        let seen: Arc<Mutex<Vec<_>>> = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut received = Vec::new();
                while !is_whole(&received) {
                    if matches!(stream.read_buf(&mut received).await, Ok(0) | Err(_)) {
                        break;
                    }
                }
                let text = String::from_utf8_lossy(&received).into_owned();
                let answer = answer(&text);
                seen.lock().expect("not poisoned").push(request(&text));
                stream.write_all(answer.as_bytes()).await.ok();
            }
        });
        Self { port, requests }
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
        let head = head.to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        body.len() >= length.map_or(0, |length| length.parse().expect("a length"))
    })
}

/// A request without what names the program.
fn request(text: &str) -> Vec<String> {
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines().map(str::to_owned);
    let first = lines.next().expect("a line");
    let mut headers: Vec<_> = lines
        .filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let name = name.to_lowercase();
            (name != "user-agent").then(|| format!("{name}: {value}"))
        })
        .collect();
    headers.sort();
    [vec![first], headers, vec![body.to_owned()]].concat()
}

fn answer(request: &str) -> String {
    let path = request.split(' ').nth(1).expect("a path");
    let (status, head, body) = match path {
        "/refused" => ("401 Unauthorized", "content-length: 8", "no key\r\n"),
        "/moved" => (
            "302 Found",
            "location: /ok?there=1\r\ncontent-length: 5",
            "moved",
        ),
        "/chunks" => (
            "200 OK",
            "transfer-encoding: chunked",
            "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        ),
        "/cut" => ("200 OK", "content-length: 100", "not all of it"),
        _ => ("200 OK", "content-length: 4", "fine"),
    };
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{head}\r\n\r\n{body}")
}

#[test]
fn the_stand_in_does_what_curl_does() {
    run(async {
        let folder = stack::new_folder("curl");
        let sim = Sim::start(&folder).await;
        let server = Server::start().await;
        let (port, closed) = (server.port, stack::closed_port());
        let (platform, trusted) = (sim.authority(), folder.join("sim/ca.pem"));
        let trusted = trusted.display();

        let readme = fs::read_to_string(source_root().join("README.md")).expect("the page");
        let blocks = fences(&readme).into_iter().map(|(_, _, text)| text);
        let mut lines: Vec<_> = blocks
            .filter(|text| text.starts_with("curl "))
            .map(|text| (text.replace("8080", &port.to_string()), 0))
            .collect();
        assert!(!lines.is_empty());
        let local = format!("curl --no-progress-meter --fail-with-body http://127.0.0.1:{port}");
        let quiet = "curl --silent --location --output out";
        lines.extend([
            (format!("{local}/ok"), 0),
            (local.clone(), 0),
            (format!("{local}/chunks"), 0),
            (format!("{local}/moved"), 0),
            (format!("{local}/cut"), 18),
            (format!("{local}/refused"), 22),
            (
                format!("{local}/refused -d text -H 'x-api-key: k' -H 'ACCEPT: a/b'"),
                22,
            ),
            (format!("curl http://127.0.0.1:{port}/refused"), 0),
            (
                format!("{quiet} 'http://127.0.0.1:{port}/moved?a=b&c=%20d'"),
                0,
            ),
            (format!("{quiet} http://127.0.0.1:{port}/refused"), 0),
            (format!("{quiet} http://127.0.0.1:{closed}/"), 7),
            (
                format!("{quiet} --cacert '{trusted}' https://{platform}/nothing"),
                0,
            ),
            (format!("{quiet} https://{platform}/nothing"), 60),
        ]);
        let mut programs = vec![program::stand_in()];
        if let Some(real) = program::find("curl") {
            let only = folder.join("real");
            fs::create_dir(&only).expect("a folder");
            symlink(real, only.join("curl")).expect("a link");
            programs.push(only);
        }
        for (line, status) in lines {
            let mut done = Vec::new();
            for program in &programs {
                done.push(do_line(&folder, &server, program, &line).await);
            }
            for other in &done {
                assert_eq!(other.status, Some(status), "{line}: {other:?}");
                assert_eq!(*other, done[0], "{line}");
            }
        }
    });
}

/// The stand-in refuses what it does not know, and asks nobody.
#[test]
fn the_stand_in_refuses_other_options() {
    run(async {
        let folder = stack::new_folder("curl-refused");
        let server = Server::start().await;
        for options in [
            "--insecure",
            "-k",
            "--loc",
            "-d @file",
            "-d text --location",
            "-H x-api-key:",
            "http://other",
        ] {
            let line = format!("curl {options} http://127.0.0.1:{}/ok", server.port);
            let done = do_line(&folder, &server, &program::stand_in(), &line).await;
            assert_eq!(done.status, Some(2), "{line}: {done:?}");
            assert_eq!(done.requests, Vec::<Vec<String>>::new(), "{line}");
        }
    });
}

/// Runs a shell's line with the `curl` of that folder.
async fn do_line(folder: &Path, server: &Server, curl: &Path, line: &str) -> Done {
    server.requests.lock().expect("not poisoned").clear();
    let written = folder.join("out");
    fs::remove_file(&written).ok();
    let mut shell = Program::command("bash".as_ref());
    shell
        .args(["-c", line])
        .current_dir(folder)
        .env_clear()
        .env("PATH", program::path_with(Some(curl)))
        .env("GATEWAY_KEY", "lk_key");
    let done = program::output_of(shell, LIMIT).await;
    Done {
        status: done.status.code(),
        printed: String::from_utf8_lossy(&done.stdout).into_owned(),
        written: fs::read_to_string(written).ok(),
        requests: server.requests.lock().expect("not poisoned").clone(),
    }
}
