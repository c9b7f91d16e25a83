use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use refresher::browser::{Browser, Page};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::harness::{
    Stack,
    caller::responses_body,
    eventually, holds,
    refresher::Refresher,
    run, setting,
    sim::{Sim, account_id},
    stack::{ALICE, new_folder},
};

const HOUR: Duration = Duration::from_secs(3600);
/// The longest that a browser may take for a page, on a machine that is busy with others.
const LIMIT: Duration = Duration::from_secs(60);
const RESPONSES: &str = "/v1/responses";

/// The browser of these tests; none on a machine that has none and cannot fetch one, of which `scripts/clients.sh` told.
fn chromium() -> Option<PathBuf> {
    let chromium = setting("LATCHKEY_CLIENTS").join("bin/chromium");
    let found = chromium.is_file().then_some(chromium);
    if found.is_none() {
        eprintln!("NOT RUN: there is no Chromium");
    }
    found
}

/// The value of an expression in the page.
async fn value(browser: &mut Browser, session: &str, expression: &str) -> Value {
    let parameters = json!({"expression": expression, "returnByValue": true});
    let answer = browser
        .call(Some(session), "Runtime.evaluate", parameters)
        .await;
    answer.map_or(Value::Null, |answer| answer["result"]["value"].clone())
}

/// Clicks with the mouse at the middle of what `selector` finds, once it is there.
async fn click(browser: &mut Browser, session: &str, selector: &str) {
    let place = format!(
        "(() => {{ const at = document.querySelector({})?.getBoundingClientRect(); \
         return at && [at.x + at.width / 2, at.y + at.height / 2]; }})()",
        json!(selector)
    );
    let mut tries = 0;
    let at = loop {
        match value(browser, session, &place).await {
            Value::Array(at) => break at,
            _ if tries > 600 => panic!("nothing is {selector}"),
            _ => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for kind in ["mousePressed", "mouseReleased"] {
        let event =
            json!({"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1});
        let clicked = browser
            .call(Some(session), "Input.dispatchMouseEvent", event)
            .await;
        clicked.expect("clicked");
    }
}

/// The consent page is clicked through in a real browser, which comes back to the listener and shows that the login is
/// complete.
#[test]
fn a_click_on_the_consent_page_logs_an_account_in() {
    let Some(chromium) = chromium() else {
        return;
    };
    run(async {
        let folder = new_folder("browser-consent");
        let sim = Sim::start(&folder).await;
        let refresher = Refresher::new(&folder, &sim);
        sim.redirect_to(0).await;
        sim.add_user(ALICE, HOUR).await;
        let command = ["login", "codex", "--no-browser"];
        let mut login = refresher.start_command(&[], &command, "login.log").await;
        let url = eventually("it prints the URL", LIMIT, async || {
            login.assert_alive();
            let printed = login.printed();
            let mut words = printed.split_whitespace();
            let url = words.find(|word| word.starts_with("https://"));
            url.map(str::to_owned).ok_or(printed.clone())
        })
        .await;
        let url = Url::parse(&url).expect("a URL");
        let mut browser = Browser::open(&chromium, &url, None)
            .await
            .expect("a browser");
        let page = browser.pages().await.expect("its pages").remove(0);
        let Page { url, .. } = &page;
        assert!(!url.starts_with("chrome"), "{url}");
        let session = browser.attach(&page).await.expect("attached");
        click(&mut browser, &session, "a[href*='sim_user']").await;
        assert!(login.ends().await.success(), "{}", login.printed());
        let title = eventually_title(&mut browser, &session).await;
        assert_eq!(title, "Latchkey: You are logged in");
        browser.close().await;
        let accounts = refresher.accounts().await;
        assert_eq!((&accounts[0]["name"], accounts.len()), (&json!(ALICE), 1));
    });
}

/// The title of the page that the browser ends at.
async fn eventually_title(browser: &mut Browser, session: &str) -> String {
    for _ in 0..600 {
        match value(browser, session, "document.title").await {
            Value::String(title) if title.starts_with("Latchkey") => return title,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("the browser never came back");
}

/// Adds a platform at whose web site people log in; its page presses `person`'s button by itself.
fn add_site(sim: &Sim, person: &str) {
    let ca_file = sim.platforms_dir.parent().expect("a folder").join("ca.pem");
    let (base, ca_file) = (format!("https://{}", sim.authority()), ca_file.display());
    let text = format!(
        "id = 'web'\nname = 'A web site'\nowner = 'us'\ncredentials = ['session']\n\
         terms = 'Ask before you use it.'\n\
         [upstream]\nbase_url = '{base}/backend-api/codex'\nca_file = '{ca_file}'\n\
         [endpoints.responses]\ngenerate = {{ path = '/responses', requires = ['stream', 'store_false'] }}\n\
         [headers]\nset = {{ authorization = 'Bearer {{credential}}', chatgpt-account-id = '{{account_id}}' }}\n\
         allow = ['accept', 'content-type', 'user-agent']\n\
         [probe]\npath = '/models?client_version=0.171.0'\n\
         [login.session]\nurl = '{base}/web/login?sim_user={person}'\ncredential = '{{token}}'\n\
         done.address = '{base}/web/chat'\n\
         secrets.token = {{ cookie = 'sim_session' }}\n\
         claims.account_id = {{ local_storage = 'kept', at = '/user/id' }}\n\
         claims.email = {{ page = '/web/session', at = '/user/email' }}\n"
    );
    fs::write(sim.platforms_dir.join("web.toml"), text).expect("written");
}

/// The entries of a folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// A person logs in at a platform's own page. What the profile names is read, serves requests and is taken out of use
/// when the platform refuses it to the refresher too; the browser's profile is gone, also where the login was called off or killed.
#[test]
fn a_session_is_captured_from_a_real_browser_and_leaves_nothing_behind() {
    let Some(chromium) = chromium() else {
        return;
    };
    run(async {
        let (profiles, path) = {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("it/browser-profiles");
            fs::create_dir_all(&folder).expect("a folder");
            let path = chromium.parent().expect("a folder").to_owned();
            (folder, path)
        };
        let mut stack = Stack::real("browser-session", async |sim, _| {
            sim.add_user(ALICE, HOUR).await;
            add_site(sim, "nobody");
        })
        .await;
        for left in entries(&profiles) {
            fs::remove_dir_all(left).expect("removed");
        }
        let machine = std::env::var_os("PATH").expect("a PATH");
        let path =
            std::env::join_paths(std::iter::once(path).chain(std::env::split_paths(&machine)));
        let path = PathBuf::from(path.expect("a PATH"));
        stack.refresher.set_variable("PATH", &path);
        stack.refresher.set_variable("TMPDIR", &profiles);

        let login = ["login", "web", "--session"];
        let off = stack.refresher.try_run(&login, "").await;
        let said = String::from_utf8_lossy(&off.stderr).into_owned();
        assert!(said.contains("Ask before you use it."), "{said}");
        let config = stack.refresher.file("config.toml");
        let text = fs::read_to_string(&config).expect("read");
        let text = text.replace("['codex']", "['codex', 'web']");
        fs::write(&config, text).expect("written");

        let gone = async || {
            holds(entries(&profiles).is_empty(), || {
                format!("{:?}", entries(&profiles))
            })
        };
        for is_killed in [false, true] {
            let mut waiting = stack
                .refresher
                .start_command(&[], &login, "login.log")
                .await;
            eventually("the browser has a profile", LIMIT, async || {
                waiting.assert_alive();
                let profile = entries(&profiles);
                let started = profile
                    .iter()
                    .any(|profile| profile.join("Default").exists());
                holds(started, || waiting.printed())
            })
            .await;
            if is_killed {
                waiting.kill().await;
            } else {
                waiting.interrupt().await;
            }
            eventually("the profile is gone", LIMIT, gone).await;
        }
        assert!(stack.refresher.accounts().await.is_empty());

        add_site(&stack.sim, ALICE);
        let said = stack.refresher.run(&login, "").await;
        assert!(said.contains(&format!("{ALICE} (acc_")), "{said}");
        assert!(said.contains("log in again by then"), "{said}");
        assert!(entries(&profiles).is_empty());
        let account = stack.refresher.account(ALICE).await;
        assert_eq!(account["kind"], "session");
        let issued = account["credential_expires_at"].as_i64().expect("an end");
        let left = issued - now();
        assert!((50 * 60_000..=61 * 60_000).contains(&left), "{left}");

        stack.refresher.stop().await;
        stack.refresher.serve().await;
        let caller = stack.caller("caller").await;
        eventually("the account serves", LIMIT, async || {
            let answer = caller.post(RESPONSES, &responses_body()).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        let seen = stack.sim.seen().await;
        let request = seen
            .iter()
            .rfind(|seen| seen.path().ends_with("/responses"));
        let request = request.expect("a request");
        assert_eq!(request.header("chatgpt-account-id"), [account_id(ALICE)]);

        let revoked = format!("/users/{ALICE}/revoke_access");
        stack.sim.ask(Method::POST, &revoked, Value::Null).await;
        caller.post(RESPONSES, &responses_body()).await;
        eventually("it needs a login", LIMIT, async || {
            let account = stack.refresher.account(ALICE).await;
            holds(account["status"] == "needs_login", || account.to_string())
        })
        .await;
        let shown = stack.refresher.run(&["status"], "").await;
        assert!(shown.contains("refresher login web"), "{shown}");
    });
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_millis()).expect("a time")
}
