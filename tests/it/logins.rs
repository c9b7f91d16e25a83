use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::{
    clients::client,
    harness::{
        Stack,
        caller::responses_body,
        eventually, holds,
        program::Program,
        refresher::Refresher,
        run,
        sim::{Seen, Sim, account_id},
        stack::{ALICE, new_folder},
    },
};

const BOB: &str = "bob@example.com";
const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(15);
const RESPONSES: &str = "/v1/responses";
const CLIENT: &str = "client-1";
const SECRET: &str = "the-clients-secret";

/// Adds a platform of the operator's own: that of Codex by another name, with these ways in. No redirect leads to this
/// machine.
fn add_platform(sim: &Sim, id: &str, credential: &str, login: &str) {
    let ca_file = sim.platforms_dir.parent().expect("a folder").join("ca.pem");
    let (base, ca_file) = (format!("https://{}", sim.authority()), ca_file.display());
    let text = format!(
        "id = '{id}'\nname = 'A platform'\nowner = 'us'\ncredentials = ['{credential}']\n\
         [upstream]\nbase_url = '{base}/backend-api/codex'\nca_file = '{ca_file}'\n\
         [endpoints.responses]\ngenerate = {{ path = '/responses', requires = ['stream', 'store_false'] }}\n\
         [headers]\nset = {{ authorization = 'Bearer {{credential}}', chatgpt-account-id = '{{account_id}}' }}\n\
         allow = ['accept', 'content-type', 'user-agent']\n\
         [oauth]\ntoken_url = '{base}/oauth/token'\nclient_id = 'app_EMoamEEZ73f0CkXaXp7hrann'\n\
         scopes = ['openid', 'email', 'offline_access']\nca_file = '{ca_file}'\n\
         claims = {{ account_id = '/https:~1~1api.openai.com~1auth/chatgpt_account_id', email = '/email' }}\n\
         {login}\n"
    );
    let text = text.replace("BASE", &base);
    fs::write(sim.platforms_dir.join(format!("{id}.toml")), text).expect("written");
}

/// The answers that the token endpoint gave to polls, and how far apart the polls came.
async fn polls(sim: &Sim) -> Vec<Duration> {
    let mut seen = sim.seen().await;
    seen.retain(|seen| {
        let body = String::from_utf8_lossy(&seen.body()).into_owned();
        seen.path() == "/oauth/token" && body.contains("device_code")
    });
    let at = seen.iter().map(|seen| Duration::from_millis(seen.at()));
    let at: Vec<Duration> = at.collect();
    at.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// A code that a person types in at the platform, on a machine to which no browser can come back. The login asks no more
/// often than it may, and a refusal ends it with nothing saved.
#[test]
fn a_login_by_device_code_needs_no_way_back() {
    run(async {
        let folder = new_folder("device-login");
        let sim = Sim::start(&folder).await;
        let refresher = Refresher::new(&folder, &sim);
        let login = "[login.device]\nauthorize_url = 'BASE/oauth/device/code'";
        add_platform(&sim, "device", "oauth", login);
        for email in [ALICE, BOB] {
            sim.add_user(email, HOUR).await;
        }
        for (email, decision, log) in [
            (ALICE, format!("sim_user={ALICE}"), "alice.log"),
            (BOB, "sim_error=access_denied".to_owned(), "bob.log"),
        ] {
            let command = ["login", "device", "--no-browser"];
            let mut login = refresher.start_command(&[], &command, log).await;
            let url = eventually("it prints the URL", LIMIT, async || {
                login.assert_alive();
                let printed = login.printed();
                let mut words = printed.split_whitespace();
                let url = words.find(|word| word.starts_with("https://"));
                url.map(str::to_owned).ok_or(printed.clone())
            })
            .await;
            let code = url.split_once("user_code=").expect("a code").1.to_owned();
            assert!(login.printed().contains(&format!("\n  {code}\n")), "{url}");
            // A few polls come before anybody has decided.
            tokio::time::sleep(Duration::from_secs(3)).await;
            login.assert_alive();
            let (status, page) = sim.visit(&format!("{url}&{decision}")).await;
            assert_eq!(status, 200, "{page}");
            let succeeds = email == ALICE;
            assert_eq!(
                login.ends().await.success(),
                succeeds,
                "{}",
                login.printed()
            );
        }
        let accounts = refresher.accounts().await;
        assert_eq!(accounts.len(), 1, "{accounts:?}");
        assert_eq!(
            (&accounts[0]["name"], &accounts[0]["kind"]),
            (&json!(ALICE), &json!("oauth"))
        );
        let pauses = polls(&sim).await;
        let least = Duration::from_millis(900);
        assert!(pauses.len() >= 4, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause >= least), "{pauses:?}");
    });
}

/// A request of a login, as far as it is the same for everybody: where it goes, and the members of what kind of body.
fn form_of(seen: &Seen) -> (String, String, BTreeSet<String>) {
    let kind = seen.header("content-type").concat();
    let kind = kind.split(';').next().unwrap_or_default().to_owned();
    let body = seen.body();
    let members = match serde_json::from_slice(&body) {
        Ok(Value::Object(members)) => members.into_iter().map(|(name, _)| name).collect(),
        _ => {
            let form = format!("form:?{}", String::from_utf8_lossy(&body));
            let form = Url::parse(&form).expect("a form");
            form.query_pairs()
                .map(|(name, _)| name.into_owned())
                .collect()
        }
    };
    (seen.path().to_owned(), kind, members)
}

/// The code that a program tells its person to type in.
fn code_to_type(printed: &str) -> Option<&str> {
    let is_half = |half: &str| half.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut dashes = printed.match_indices('-').map(|(at, _)| at);
    dashes.find_map(|at| {
        let (before, after) = (
            printed.get(at.checked_sub(4)?..at)?,
            printed.get(at + 1..at + 5)?,
        );
        (is_half(before) && is_half(after)).then(|| &printed[at - 4..at + 5])
    })
}

/// Codex CLI and `refresher login --device` log in at one simulated platform by the same requests: it is no reading of ours
/// alone. What Codex CLI keeps of its login becomes an account, too.
#[test]
fn codex_logs_in_by_a_device_code_as_we_do() {
    const LIMIT: Duration = Duration::from_secs(60);
    run(async {
        let folder = new_folder("codex-device");
        let sim = Sim::start(&folder).await;
        let refresher = Refresher::new(&folder, &sim);
        for email in [ALICE, BOB] {
            sim.add_user(email, HOUR).await;
        }
        let issuer = format!("https://{}", sim.authority());
        let home = folder.join("codex");
        fs::create_dir_all(&home).expect("a folder");
        let ca_file = sim.platforms_dir.parent().expect("a folder").join("ca.pem");
        let mut command = client("codex");
        command
            .args(["login", "--device-auth", "--experimental_issuer", &issuer])
            .env("CODEX_HOME", &home)
            .env("CODEX_CA_CERTIFICATE", &ca_file);
        let theirs = Program::start(command, &folder.join("theirs.log")).await;
        let log_in = async |mut login: Program, email: &str| {
            let code = eventually("it prints the code", LIMIT, async || {
                login.assert_alive();
                let printed = login.printed();
                let code = code_to_type(&printed).map(str::to_owned);
                code.ok_or(printed)
            })
            .await;
            let asked = eventually("it asks before anybody has decided", LIMIT, async || {
                let seen = sim.seen().await;
                let asked = seen
                    .iter()
                    .filter(|seen| seen.path().ends_with("/deviceauth/token"));
                holds(asked.count() > 0, || format!("{seen:?}"))
            });
            asked.await;
            let page = format!("{issuer}/codex/device?user_code={code}&sim_user={email}");
            let (status, page) = sim.visit(&page).await;
            assert_eq!(status, 200, "{page}");
            let ended = login.ends().await;
            assert!(ended.success(), "{}", login.printed());
            let mut forms: Vec<_> = sim.seen().await.iter().map(form_of).collect();
            forms.retain(|(path, ..)| path != "/codex/device" && !path.contains('?'));
            forms.dedup();
            sim.ask(Method::DELETE, "/requests", Value::Null).await;
            forms
        };
        let theirs = log_in(theirs, ALICE).await;
        let command = ["login", "codex", "--device", "--no-browser"];
        let ours = refresher.start_command(&[], &command, "ours.log").await;
        let ours = log_in(ours, BOB).await;
        assert_eq!(ours, theirs);
        let paths: Vec<&str> = ours.iter().map(|(path, ..)| path.as_str()).collect();
        let expected = [
            "/api/accounts/deviceauth/usercode",
            "/api/accounts/deviceauth/token",
            "/oauth/token",
        ];
        assert_eq!(paths, expected);

        let file = home.join("auth.json");
        let file = file.to_str().expect("a path");
        refresher.run(&["import", file], "").await;
        let mut names: Vec<_> = refresher.accounts().await;
        names.sort_by_key(|account| account["name"].to_string());
        let names: Vec<_> = names.iter().map(|account| &account["name"]).collect();
        assert_eq!(names, [ALICE, BOB]);
    });
}

/// An account that is a client of its own: its token is bought at once, is renewed before it expires, and a lost answer
/// costs nothing, for nothing was spent.
#[test]
fn a_client_of_its_own_is_renewed_from_its_secret() {
    const LIFE: Duration = Duration::from_secs(8);
    run(async {
        let stack = Stack::real("client-credentials", async |sim, refresher| {
            add_platform(
                sim,
                "minted",
                "client_credentials",
                "[login.client_credentials]",
            );
            sim.add_user(ALICE, LIFE).await;
            let client = json!({"client_id": CLIENT, "client_secret": SECRET, "email": ALICE});
            sim.ask(Method::POST, "/clients", client).await;
            let login = ["login", "minted", "--client-id", CLIENT, "--name", "batch"];
            let wrong = refresher.try_run(&login, "another-secret").await;
            let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
            assert!(
                !wrong.status.success() && words.contains("invalid_client"),
                "{words}"
            );
            assert!(!words.contains("another-secret"), "{words}");
            assert!(refresher.accounts().await.is_empty());
            refresher.run(&login, SECRET).await;
        })
        .await;
        let account = stack.refresher.account("batch").await;
        assert_eq!(account["kind"], "client_credentials", "{account}");
        let caller = stack.caller("caller").await;
        let served = async || {
            let answer = caller.post(RESPONSES, &responses_body()).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        };
        eventually("the account serves", LIMIT, served).await;

        let minted = stack.sim.count("minted").await;
        let lost = json!({"target": "token", "drop_before_answer": true, "times": 2});
        stack.sim.add_fault(lost).await;
        eventually("it is renewed all the same", 3 * LIFE, async || {
            let generation = stack.refresher.account("batch").await["generation"].clone();
            let later = generation.as_u64() > account["generation"].as_u64().map(|one| one + 1);
            holds(later, || generation.to_string())
        })
        .await;
        assert!(stack.sim.count("minted").await >= minted + 3);
        let answer = caller.post(RESPONSES, &responses_body()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let renewed = stack.refresher.account("batch").await;
        assert_eq!(renewed["status"], "active");
        assert_eq!(stack.sim.count("expired_token_uses").await, 0);
        let seen = stack.sim.seen().await;
        let request = seen
            .iter()
            .rfind(|seen| seen.path().ends_with("/responses"));
        let request = request.expect("a request");
        assert_eq!(request.header("chatgpt-account-id"), [account_id(ALICE)]);
        assert_eq!(stack.sim.count("refreshes").await, 0);
    });
}

/// An account that the configuration declares: its secrets are in the daemon's environment, its token is bought when the
/// daemon starts, and it stops with its line.
#[test]
fn an_account_of_the_configuration_serves_while_its_line_says_so() {
    run(async {
        let mut stack = Stack::real("declared", async |sim, _| {
            let login = "[login.client_credentials]";
            add_platform(sim, "minted", "client_credentials", login);
            sim.add_user(ALICE, HOUR).await;
            let client = json!({"client_id": CLIENT, "client_secret": SECRET, "email": ALICE});
            sim.ask(Method::POST, "/clients", client).await;
        })
        .await;
        let (id, secret) = (Path::new(CLIENT), Path::new(SECRET));
        stack.refresher.set_variable("BATCH_ID", id);
        stack.refresher.set_variable("BATCH_SECRET", secret);
        let config = stack.refresher.file("config.toml");
        let before = fs::read_to_string(&config).expect("the configuration");
        let caller = stack.caller("caller").await;
        for (enabled, status) in [(true, 200), (false, 503), (true, 200)] {
            let line = format!(
                "[[accounts]]\nname = 'batch'\nplatform = 'minted'\nclient_id_env = 'BATCH_ID'\n\
                 client_secret_env = 'BATCH_SECRET'\nenabled = {enabled}\nvars = {{ account_id = '{}' }}\n",
                account_id(ALICE)
            );
            fs::write(&config, format!("{before}\n{line}")).expect("written");
            stack.refresher.kill().await;
            stack.refresher.serve().await;
            eventually("the account is as its line says", LIMIT, async || {
                let answer = caller.post(RESPONSES, &responses_body()).await;
                holds(answer.status == status, || format!("{answer:?}"))
            })
            .await;
        }
        let minted = stack.sim.count("minted").await;
        assert_eq!(minted, 1, "a token is bought once");
    });
}
