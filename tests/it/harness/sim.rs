//! The simulated platform, through its control API.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{clusters, eventually, program::Program, setting};

/// The longest that it may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running simulated platform.
#[derive(Debug)]
pub struct Sim {
    _program: Program,
    control: String,
    tls: String,
    http: reqwest::Client,
    platform: reqwest::Client,
    /// Where its profiles are, which point the refresher's platforms at it.
    pub platforms_dir: PathBuf,
}

/// The tokens of a login.
#[derive(Debug)]
pub struct Tokens {
    /// For requests.
    pub access_token: String,
    /// For the next tokens.
    pub refresh_token: String,
    /// The user who logged in.
    pub id_token: String,
}

/// A request as the platform received it.
#[derive(Debug)]
pub struct Seen(pub Value);

impl Sim {
    /// Starts it with its files and its log in `folder`.
    pub async fn start(folder: &Path) -> Self {
        let mut command = Program::command(&setting("LATCHKEY_SIM"));
        command.arg("--dir").arg(folder.join("sim"));
        let mut program = Program::start(command, &folder.join("sim.log")).await;
        let ready: Value = eventually("the simulated platform starts", START_LIMIT, async || {
            program.assert_alive();
            let printed = program.printed();
            let line = printed.lines().next().unwrap_or_default();
            serde_json::from_str(line).map_err(|_| printed.clone())
        })
        .await;
        let text = |key: &str| ready[key].as_str().expect("a text").to_owned();
        Self {
            _program: program,
            control: text("control"),
            tls: text("tls"),
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
            platform: platform_client(text("ca_file").as_ref()),
            platforms_dir: text("platforms_dir").into(),
        }
    }

    /// `host:port` of the platform.
    pub fn authority(&self) -> &str {
        self.tls.strip_prefix("https://").expect("an https URL")
    }

    /// Writes the clusters of these accounts, for the fake refresher.
    pub fn write_clusters(&self, folder: &Path, accounts: &[&str]) {
        let wasm = setting("LATCHKEY_WASM");
        clusters::write(&folder.join("state"), accounts, &self.platforms_dir, &wasm);
    }

    /// Has the cluster of that account lead to this base URL.
    pub fn write_cluster_to(&self, folder: &Path, account: &str, base_url: &str) {
        let wasm = setting("LATCHKEY_WASM");
        let state = folder.join("state");
        clusters::lead(&state, account, base_url, &self.platforms_dir, &wasm);
    }

    /// Adds a user whose access tokens live that long. Their ChatGPT account is named after them.
    pub async fn add_user(&self, email: &str, access_lifetime: Duration) {
        let (account_id, seconds) = (account_id(email), access_lifetime.as_secs());
        let user =
            json!({"email": email, "account_id": account_id, "access_lifetime_seconds": seconds});
        self.ask(Method::POST, "/users", user).await;
    }

    /// Has logins at the platform come back to `port` alone; 0 is any that is free.
    pub async fn redirect_to(&self, port: u16) {
        let any = json!({"any_redirect_port": true});
        self.ask(Method::POST, "/settings", any).await;
        let profile = self.platforms_dir.join("codex.toml");
        let text = std::fs::read_to_string(&profile).expect("the profile");
        let ports = format!("[login.code]\nredirect_ports = [{port}]");
        let text = text.replace("[login.code]", &ports);
        std::fs::write(profile, text).expect("written");
    }

    /// Follows an authorization URL as a user's browser does, and returns the address that it ends at.
    pub async fn authorize(&self, url: &str, email: &str) -> String {
        let answer = self
            .platform
            .get(format!("{url}&sim_user={email}"))
            .send()
            .await;
        let answer = answer.expect("an answer");
        let location = answer.headers().get("location");
        let location = location.unwrap_or_else(|| panic!("not sent back: {answer:?}"));
        location.to_str().expect("a URL").to_owned()
    }

    /// The page that the browser shows at the address that it was sent to: the status and the page.
    pub async fn browse(&self, address: &str) -> (u16, String) {
        let answer = self.http.get(address).send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("a page"))
    }

    /// The page that the browser shows at a page of the platform: the status and the page.
    pub async fn visit(&self, url: &str) -> (u16, String) {
        let answer = self.platform.get(url).send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("a page"))
    }

    /// Logs a user in, as Codex CLI would.
    pub async fn login(&self, email: &str) -> Tokens {
        const VERIFIER: &str = "0123456789abcdefghijklmnopqrstuvwxyz0123456789";
        const REDIRECT: &str = "http%3A%2F%2F127.0.0.1%3A1455%2Fauth%2Fcallback";
        const CLIENT: &str = "app_EMoamEEZ73f0CkXaXp7hrann";
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let url = format!(
            "{}/oauth/authorize?response_type=code&client_id={CLIENT}&redirect_uri={REDIRECT}&scope=openid&state=s\
             &code_challenge={challenge}&code_challenge_method=S256",
            self.tls
        );
        let address = self.authorize(&url, email).await;
        let code = address.split_once("code=").expect("a code").1;
        let code = code.split('&').next().unwrap_or_default();
        let form = format!(
            "grant_type=authorization_code&client_id={CLIENT}&redirect_uri={REDIRECT}&code={code}&code_verifier={VERIFIER}"
        );
        let granted = self
            .platform
            .post(format!("{}/oauth/token", self.tls))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let granted = granted.send().await.expect("an answer");
        let tokens: Value = granted.json().await.expect("JSON");
        let text = |key: &str| {
            let token = tokens[key].as_str();
            token
                .unwrap_or_else(|| panic!("no {key}: {tokens}"))
                .to_owned()
        };
        Tokens {
            access_token: text("access_token"),
            refresh_token: text("refresh_token"),
            id_token: text("id_token"),
        }
    }

    /// Adds or replaces an API key.
    pub async fn add_api_key(&self, platform: &str, key: &str, name: &str) {
        let key = json!({"platform": platform, "key": key, "name": name});
        self.ask(Method::POST, "/api_keys", key).await;
    }

    /// Adds an API key of a platform that is played as far as the form of its requests goes.
    pub async fn add_documented_key(&self, platform: &str, key: &str) {
        let key = json!({"platform": null, "key": key, "name": platform});
        self.ask(Method::POST, "/api_keys", key).await;
    }

    /// Sets a fault and returns its id.
    pub async fn add_fault(&self, fault: Value) -> u64 {
        let added = self.ask(Method::POST, "/faults", fault).await;
        added["id"].as_u64().expect("an id")
    }

    /// Removes a fault.
    pub async fn remove_fault(&self, id: u64) {
        let path = format!("/faults/{id}");
        self.ask(Method::DELETE, &path, Value::Null).await;
    }

    /// The LLM and OAuth requests it got, oldest first.
    pub async fn seen(&self) -> Vec<Seen> {
        match self.ask(Method::GET, "/requests", Value::Null).await {
            Value::Array(seen) => seen.into_iter().map(Seen).collect(),
            other => panic!("not a list: {other}"),
        }
    }

    /// The one request it got with that path and query.
    pub async fn seen_once(&self, path: &str) -> Seen {
        let mut seen = self.seen().await;
        seen.retain(|seen| seen.path() == path);
        assert_eq!(seen.len(), 1, "{path}: {seen:?}");
        seen.remove(0)
    }

    /// One of its counters.
    pub async fn count(&self, counter: &str) -> u64 {
        let stats = self.ask(Method::GET, "/stats", Value::Null).await;
        stats[counter]
            .as_u64()
            .unwrap_or_else(|| panic!("no counter {counter}: {stats}"))
    }

    /// Does `method` on `path` of the control API and returns the answer, null if it is empty.
    pub async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let mut request = self.http.request(method, format!("{}{path}", self.control));
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("the control API answers");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}

/// A client of the platform itself.
fn platform_client(ca_file: &Path) -> reqwest::Client {
    let pem = std::fs::read(ca_file).expect("the certificate");
    let ca = reqwest::Certificate::from_pem(&pem).expect("a certificate");
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([ca])
        .build()
        .expect("a client")
}

/// The ChatGPT account of a user.
pub fn account_id(email: &str) -> String {
    let name = email.split('@').next().unwrap_or_default();
    format!("ws-{name}")
}

impl Seen {
    /// Path and query.
    pub fn path(&self) -> &str {
        self.0["path"].as_str().expect("a path")
    }

    /// Whose credential it carried.
    pub fn account(&self) -> Option<&str> {
        self.0["account"].as_str()
    }

    /// When it had been read, in Unix milliseconds.
    pub fn at(&self) -> u64 {
        self.0["at"].as_u64().expect("a time")
    }

    /// The body, as far as it was kept.
    pub fn body(&self) -> Vec<u8> {
        let base64 = self.0["body_base64"].as_str().expect("a body");
        STANDARD.decode(base64).expect("base64")
    }

    /// The `host` or `:authority`.
    pub fn authority(&self) -> &str {
        self.0["authority"].as_str().expect("an authority")
    }

    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let headers = self.0["headers"].as_array().expect("headers");
        headers
            .iter()
            .filter(|header| header[0] == name)
            .map(|header| header[1].as_str().expect("an ASCII value"))
            .collect()
    }

    /// The names of its headers, each as often as it came.
    pub fn header_names(&self) -> Vec<&str> {
        let headers = self.0["headers"].as_array().expect("headers");
        headers
            .iter()
            .map(|header| header[0].as_str().expect("a name"))
            .collect()
    }
}
