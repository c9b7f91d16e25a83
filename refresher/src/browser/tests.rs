use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;

fn pair() -> (Pipe<DuplexStream, DuplexStream>, DuplexStream, DuplexStream) {
    let ((ours, out), (answers, theirs)) = (duplex(1024), duplex(64));
    (Pipe::new(theirs, ours), out, answers)
}

async fn ask(pipe: &mut Pipe<DuplexStream, DuplexStream>) -> Result<Value, Error> {
    let limit = Duration::from_secs(1);
    pipe.call(Some("s"), "Runtime.evaluate", json!({"a": 1}), limit)
        .await
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_found_among_events_in_any_pieces() {
    let (mut pipe, mut asked, mut answers) = pair();
    let script = async {
        let mut question = Vec::new();
        while question.last() != Some(&0) {
            asked.read_buf(&mut question).await.unwrap();
        }
        let whole = b"{\"method\":\"an.event\"}\0{\"id\":7}\0{\"id\":1,\"result\":{\"v\":2}}\0{\"id\":2,\"error\":{\"message\":\"SECRET\"}}\0";
        for piece in whole.chunks(5) {
            answers.write_all(piece).await.unwrap();
        }
        question
    };
    let (answer, question) = tokio::join!(ask(&mut pipe), script);
    assert_eq!(answer.unwrap(), json!({"v": 2}));
    let question: Value = serde_json::from_slice(question.strip_suffix(b"\0").unwrap()).unwrap();
    assert_eq!(question["sessionId"], "s");
    let refused = ask(&mut pipe).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the browser does not know Runtime.evaluate"
    );
}

/// A dialog on the page keeps the answer back; it comes too late and belongs to no later question.
#[tokio::test(start_paused = true)]
async fn a_late_answer_is_nobodys() {
    let (mut pipe, _asked, mut answers) = pair();
    answers.write_all(b"{\"id\":1,\"resu").await.unwrap();
    assert!(matches!(ask(&mut pipe).await, Err(Error::Silent)));
    let rest = b"lt\":{\"v\":1}}\0{\"id\":2,\"result\":{\"v\":2}}\0";
    let (written, answer) = tokio::join!(answers.write_all(rest), ask(&mut pipe));
    written.unwrap();
    assert_eq!(answer.unwrap(), json!({"v": 2}));
    drop(answers);
    assert!(matches!(ask(&mut pipe).await, Err(Error::Closed)));
}

/// A program that talks without end is not listened to without end.
#[tokio::test]
async fn a_message_has_a_bound() {
    let (ours, _out) = duplex(1024);
    let endless = tokio::io::repeat(b'{');
    let mut pipe = Pipe::new(endless, ours);
    let limit = Duration::from_secs(60);
    let answer = pipe.call(None, "x", json!({}), limit).await;
    assert!(matches!(answer, Err(Error::Closed)));
}

/// A program in the place of a browser, of which the shell between makes what it makes of any.
fn program(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("browser");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_browser_that_opens_nothing_is_told_in_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let url = Url::parse("https://chat.example/").unwrap();
    let silent = program(
        folder.path(),
        "echo 'Missing X server\u{1b}[31m' >&2; exit 1",
    );
    let error = Browser::open(&silent, &url, None)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("(Missing X server?[31m)"), "{error}");
    let proxy = Proxy::parse("http://user:secret@proxy.test:3128", None).unwrap();
    let shows_how = program(folder.path(), r#"echo "$*" >&2; exit 1"#);
    let error = Browser::open(&shows_how, &url, Some(&proxy))
        .await
        .unwrap_err();
    let said = error.to_string();
    let by_it = "--proxy-server=http://proxy.test:3128 --proxy-bypass-list=<-loopback> ";
    assert!(said.contains(by_it) && !said.contains("secret"), "{said}");
    // One that does not wait for the question may be gone before it is asked.
    let elsewhere = r#"head -c 1 <&3 >/dev/null; printf '{"id":1,"result":{}}\0' >&4"#;
    let elsewhere = program(folder.path(), elsewhere);
    let error = Browser::open(&elsewhere, &url, None).await.unwrap_err();
    assert!(matches!(error, Error::OwnProfile { .. }), "{error}");
}

/// The pipe closes, whatever becomes of this process; then the browser ends and its profile goes.
#[tokio::test]
async fn a_profile_goes_when_nobody_is_left_to_remove_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = Url::parse("https://chat.example/").unwrap();
    let writes = r#"for word in "$@"; do case $word in --user-data-dir=*) dir=${word#*=};; esac; done
        echo secret > "$dir/Cookies"; printf '{"id":1,"result":{}}\0' >&4; cat <&3 >/dev/null; echo late > "$dir/Late""#;
    let browser = Browser::open(&program(folder.path(), writes), &url, None)
        .await
        .unwrap();
    let profile = browser.folder.path().to_owned();
    assert!(profile.join("Cookies").exists());
    drop(browser);
    let gone = async {
        while profile.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.unwrap();
}
