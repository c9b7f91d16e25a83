mod verdicts;

use super::*;
use latchkey::header::{HeaderName, HeaderText};

use crate::base_url::{Host, Origin};

const CODEX: &str = include_str!("../../platforms/codex.toml");

/// The codex profile with a piece of its text replaced.
fn codex_with(from: &str, to: &str) -> Result<Profile, Invalid> {
    assert!(CODEX.contains(from), "{from}");
    Profile::from_table(CODEX.replace(from, to).parse().unwrap())
}

#[test]
fn the_codex_profile_means_what_it_says() {
    let profile = codex_with("x", "x").unwrap();
    let url = &profile.upstream.url;
    let Origin { tls, host, port } = &url.origin;
    assert_eq!(host, &Host::Name("chatgpt.com".into()));
    assert_eq!((*port, *tls), (443, true));
    assert_eq!(url.authority.as_str(), "chatgpt.com");
    assert_eq!(profile.record.base_path.as_str(), "/backend-api/codex");
    assert_eq!(profile.required_vars(), BTreeSet::from(["account_id"]));
    assert_eq!(profile.login.code().unwrap().redirect_ports, [1455, 1457]);
    let pasted = profile.login.pasted().unwrap();
    assert_eq!(pasted.redirect_uri, "http://127.0.0.1:1455/auth/callback");
    let oauth = profile.oauth.unwrap();
    assert!(
        oauth
            .ends
            .codes
            .contains(&"refresh_token_reused".to_owned())
    );
    assert_eq!(oauth.ends.statuses, [401]);
    let model = profile.record.headers.model.as_ref().unwrap();
    assert_eq!(model.as_str(), "openai-model");
}

/// A client that has a subscription's login says so to whoever it asks.
#[test]
fn a_word_for_a_subscriptions_login_goes_to_no_api_key() {
    let catalog = Catalog::load(None, BTreeSet::new()).unwrap();
    let lists = |platform: &str| {
        let headers = &catalog.profile(platform).unwrap().record.headers;
        let items = |items: &[(HeaderName, HeaderText)]| {
            let items = items.iter();
            let items = items.map(|(name, item)| format!("{}: {}", name.as_str(), item.as_str()));
            items.collect::<Vec<_>>()
        };
        (items(&headers.add), items(&headers.remove))
    };
    let beta = vec!["anthropic-beta: oauth-2025-04-20".to_owned()];
    assert_eq!(lists("anthropic"), (Vec::new(), beta.clone()));
    assert_eq!(lists("claude-code"), (beta, Vec::new()));
}

#[test]
fn the_claude_code_profile_means_what_it_says() {
    let catalog = Catalog::load(None, BTreeSet::new()).unwrap();
    let profile = catalog.profile("claude-code").unwrap();
    assert!(catalog.usable("claude-code").is_err());
    let terms = profile.terms.as_ref().unwrap();
    assert!(terms.contains("do not permit"), "{terms}");
    assert_eq!(profile.credentials, [CredentialKind::OAuth]);
    assert_eq!(profile.required_vars(), BTreeSet::new());
    assert!(profile.api_keys.prefixes.is_empty());
    let record = &profile.record;
    let set: Vec<&str> = record
        .headers
        .set
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(set, ["authorization"]);
    let added = record.headers.add.iter();
    let added: Vec<_> = added
        .map(|(name, item)| (name.as_str(), item.as_str()))
        .collect();
    assert_eq!(added, [("anthropic-beta", "oauth-2025-04-20")]);
    let asked: Vec<_> = record
        .endpoints
        .iter()
        .map(|one| (one.operation.as_str(), one.untranslated))
        .collect();
    assert_eq!(asked, [("count_tokens", true), ("generate", true)]);
    let pasted = profile.login.pasted().unwrap();
    assert_eq!(
        pasted.redirect_uri,
        "https://platform.claude.com/oauth/code/callback"
    );
    assert_eq!(
        profile.login.code().unwrap().redirect_uri(54545),
        "http://localhost:54545/callback"
    );
}

#[test]
fn an_item_is_added_to_a_list_that_nothing_else_writes() {
    for (added, key) in [
        ("x-a = \"one,two\"", "headers.add.x-a"),
        ("x-a = \"one two\"", "headers.add.x-a"),
        ("x-a = \"\"", "headers.add.x-a"),
        ("X-A = \"one\"", "headers.add.X-A"),
        ("host = \"one\"", "headers.add.host"),
        ("authorization = \"one\"", "headers.add.authorization"),
        ("x-b = \"one\"", "headers.add.x-b"),
    ] {
        let with = format!("default = {{ x-b = \"b\" }}\nadd = {{ {added} }}");
        let error = codex_with("default = {}", &with).unwrap_err();
        assert_eq!(error.key, key, "{error}");
    }
    let profile = codex_with("default = {}", "add = { x-a = \"one\" }").unwrap();
    assert_eq!(profile.record.headers.add.len(), 1);
}

/// A platform that knows no redirect to this machine.
#[test]
fn a_login_needs_no_listener() {
    for way in [
        "device = { authorize_url = 'https://platform.example/device' }",
        "pasted = { authorize_url = 'https://platform.example/', redirect_uri = 'https://platform.example/code' }",
    ] {
        let mut table: toml::Table = CODEX.parse().unwrap();
        let login = format!("login = {{ {way} }}")
            .parse::<toml::Table>()
            .unwrap();
        table.extend(login);
        let profile = Profile::from_table(table.clone()).unwrap();
        assert_eq!(profile.login.flows.len(), 1, "{way}");
        assert!(profile.login.code().is_none());
        table.insert("login".into(), toml::Table::new().into());
        assert_eq!(Profile::from_table(table).unwrap_err().key, "login");
    }
}

#[test]
fn a_credential_may_go_out_in_the_query() {
    let text = CODEX
        .replace("[upstream]", "auth = \"query\"\n[upstream]")
        .replace("authorization = \"Bearer {credential}\", ", "")
        .replace(
            "[headers]",
            "[query.set]\nkey = \"{credential}\"\n[headers]",
        );
    let profile = Profile::from_table(text.parse().unwrap()).unwrap();
    assert!(profile.record.query.has_credential());
    assert!(!profile.record.headers.has_credential());
}

#[test]
fn plain_http_is_for_this_machine_alone() {
    for host in [
        "127.0.0.1:80",
        "127.9.9.9",
        "[::1]:8080",
        "localhost:1",
        "2130706433",
    ] {
        let base = format!("\"http://{host}/");
        let profile = codex_with("\"https://chatgpt.com/", &base);
        assert!(!profile.unwrap().upstream.url.origin.tls, "{host}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_key() {
    for (from, to, key) in [
        ("id = \"codex\"", "id = \"Co dex\"", "id"),
        (
            "\"https://chatgpt.com/",
            "\"https://chatgpt.com/v1?a=b/",
            "upstream.base_url",
        ),
        (
            "\"https://chatgpt.com/",
            "\"https://u:p@chatgpt.com/",
            "upstream.base_url",
        ),
        ("\"https://chatgpt.com/", "\"unix:/x/", "upstream.base_url"),
        (
            "\"https://chatgpt.com/",
            "\"http://chatgpt.com/",
            "upstream.base_url",
        ),
        (
            "\"https://chatgpt.com/",
            "\"http://169.254.169.254/",
            "upstream.base_url",
        ),
        (
            "\"https://chatgpt.com/",
            "\"http://localhost.example.com/",
            "upstream.base_url",
        ),
        (
            "/oauth/authorize\"",
            "/oauth/authorize#here\"",
            "login.code.authorize_url",
        ),
        (
            "authorize_url = \"https:",
            "authorize_url = \"http:",
            "login.code.authorize_url",
        ),
        (
            "token_url = \"https:",
            "token_url = \"http:",
            "oauth.token_url",
        ),
        (
            "revoke_url = \"https:",
            "revoke_url = \"http:",
            "oauth.revoke_url",
        ),
        (
            "path = \"/responses\"",
            "path = \"responses\"",
            "endpoints.responses.generate.path",
        ),
        (
            "path = \"/responses\"",
            "path = \"/responses?a\"",
            "endpoints.responses.generate.path",
        ),
        (
            "path = \"/responses\"",
            "path = \"/responses\", makes = [\"id\"]",
            "endpoints.responses.generate",
        ),
        (
            "path = \"/responses\"",
            "path = \"/responses\", keeps_days = 1, makes = [\"a.b.c\"]",
            "endpoints.responses.generate.makes",
        ),
        (
            "path = \"/responses\"",
            "path = \"/{model}/{nobody_sets_this}\"",
            "endpoints",
        ),
        (
            "[endpoints.responses]",
            "[endpoints.telex]",
            "endpoints.telex.compact",
        ),
        (
            "generate = {",
            "generated = {",
            "endpoints.responses.generated",
        ),
        (
            "path = \"/responses\"",
            "paths = [], path = \"/responses\"",
            "endpoints.responses.generate.paths",
        ),
        (
            "authorization = \"Bearer {credential}\", ",
            "",
            "headers.set",
        ),
        ("[upstream]", "auth = \"query\"\n[upstream]", "query.set"),
        (
            "[headers]",
            "[query]\nset = { key = \"{credential}\" }\n[headers]",
            "headers.set",
        ),
        (
            "[headers]",
            "[query]\nset = { \"k=y\" = \"x\" }\n[headers]",
            "query.set.k=y",
        ),
        (
            "\"Bearer {credential}\"",
            "\"Bearer\\u0000{credential}\"",
            "headers.set.authorization",
        ),
        (
            "\"Bearer {credential}\"",
            "\"Bearer {credential\"",
            "headers.set.authorization",
        ),
        (
            "\"Bearer {credential}\"",
            "\"Bearer {}\"",
            "headers.set.authorization",
        ),
        ("{account_id}", "{nobody_sets_this}", "headers.set"),
        (
            "default = {}",
            "default = { x-a = \"a\\nb\" }",
            "headers.default.x-a",
        ),
        ("\"accept\"", "\"Accept\"", "headers.allow[0]"),
        ("\"accept\"", "\"*\"", "headers.allow[0]"),
        ("\"/email\"", "\"email\"", "oauth.claims.email"),
        (
            "[oauth.claims]",
            "[oauth.answer.claims]\nemail = \"email\"\n[oauth.claims]",
            "oauth.answer.claims.email",
        ),
        (
            "[oauth.claims]",
            "exchange_state = true\n[oauth.claims]",
            "oauth.exchange_state",
        ),
        ("\"127.0.0.1\"", "\"0.0.0.0\"", "login.code.redirect_host"),
        ("[1455, 1457]", "[]", "login.code.redirect_ports"),
        ("\"json\"", "\"xml\"", "oauth.refresh_encoding"),
        ("\"single_use\"", "\"twice\"", "oauth.refresh_token"),
        (
            "file = \"codex\"",
            "file = \"cookies\"",
            "login.import.file",
        ),
        (
            "client_id = \"app_EMoamEEZ73f0CkXaXp7hrann\"",
            "",
            "oauth.client_id",
        ),
        (
            "\"https://auth.openai.com/api/accounts/deviceauth/usercode",
            "\"http://platform.example",
            "login.device.authorize_url",
        ),
        (
            "\"https://auth.openai.com/api/accounts/deviceauth/token",
            "\"http://platform.example",
            "login.device.by_code.poll_url",
        ),
        (
            "page = \"https:",
            "page = \"ftp:",
            "login.device.by_code.page",
        ),
        (
            "redirect_uri = \"https:",
            "redirect_uri = \"",
            "login.device.by_code.redirect_uri",
        ),
        (
            "[login.import]",
            "[login.pasted]\nauthorize_url = \"https://platform.example\"\nredirect_uri = \"x\"\n[login.import]",
            "login.pasted.redirect_uri",
        ),
        ("\"dead\"", "\"gone\"", "verdicts[1]"),
        ("\"plan\"", "\"plan\"\nseconds = 5", "verdicts[1].seconds"),
        ("\"plan\"", "\"plan\"\ncodes = [\"x\"]", "verdicts[1].codes"),
        ("= 2764800", "= 2764801", "verdicts[0]"),
        ("body:resets_at", "moon:phase", "verdicts[0]"),
    ] {
        let error = codex_with(from, to).unwrap_err();
        assert_eq!(error.key, key, "{error}");
    }
}

#[test]
fn the_profile_of_code_assist_means_what_it_says() {
    let catalog = Catalog::load(None, BTreeSet::new()).unwrap();
    let profile = catalog.profile("gemini-code-assist").unwrap();
    assert!(catalog.usable("gemini-code-assist").is_err());
    let terms = profile.terms.as_ref().unwrap();
    assert!(
        terms.contains("2026-06-18") && terms.contains("forbid"),
        "{terms}"
    );
    assert_eq!(profile.credentials, [CredentialKind::OAuth]);
    assert!(profile.api_keys.prefixes.is_empty());
    assert_eq!(profile.required_vars(), BTreeSet::from(["project"]));
    let record = &profile.record;
    let set = record.headers.set.iter().map(|(name, _)| name.as_str());
    assert_eq!(set.collect::<Vec<_>>(), ["authorization"]);
    let paths = record.endpoints.iter().map(|one| {
        let wrapper = one.wrapper.as_ref().unwrap();
        assert!(wrapper.names_model() && wrapper.answer == "response");
        String::from(one.path.clone())
    });
    let expected = [
        "/v1internal:generateContent",
        "/v1internal:streamGenerateContent",
    ];
    assert_eq!(paths.collect::<Vec<_>>(), expected);
    assert_eq!(
        profile.oauth.as_ref().unwrap().renewal,
        crate::credential::Renewal::Reusable
    );
}

/// Its secret is in every request of a login and of what the login gave, and in no other.
#[test]
fn people_log_in_to_a_client_of_the_operators_own() {
    use crate::credential::{Credential, OAuthTokens};
    use crate::oauth::{http::Request, refresh};
    let catalog = Catalog::load(None, BTreeSet::new()).unwrap();
    let profile = catalog.profile("gemini-code-assist").unwrap();
    let only = |wanted: &'static str| move |name: &str| name.ends_with(wanted).then(|| "x".into());
    for (there, missing) in [
        ("CLIENT_ID", "CLIENT_SECRET"),
        ("CLIENT_SECRET", "CLIENT_ID"),
    ] {
        let refused = profile.with_client(only(there)).unwrap_err();
        let missing = format!("LATCHKEY_CODE_ASSIST_{missing}");
        assert_eq!(refused.missing, missing);
        assert!(
            refused
                .to_string()
                .ends_with(&format!("found nothing in {missing}")),
            "{refused}"
        );
    }
    let owned = profile
        .with_client(|name| {
            Some(
                if name.ends_with("_ID") {
                    "its-id"
                } else {
                    "its-secret"
                }
                .into(),
            )
        })
        .unwrap();
    let oauth = owned.oauth.as_ref().unwrap();
    let says = |request: &Request| -> Vec<String> {
        let fields = request.exposed();
        let client = fields.filter(|(name, _)| name.starts_with("client"));
        client
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    };
    let expected = ["client_id=its-id", "client_secret=its-secret"];
    let code = oauth2::AuthorizationCode::new("c".into());
    let redirect = oauth2::RedirectUrl::new("http://127.0.0.1:1/x".into()).unwrap();
    let verifier = oauth2::PkceCodeVerifier::new("v".into());
    let request = crate::oauth::exchange::request(oauth, &code, &redirect, &verifier, None);
    assert_eq!(says(&request), expected);
    let tokens = |client| OAuthTokens {
        access: "a".into(),
        refresh: "r".into(),
        id: None,
        client,
    };
    // The profile as it is when nobody logs in: the account has the client.
    let plain = profile.oauth.as_ref().unwrap();
    let own = tokens(oauth.own_client.clone());
    assert_eq!(says(&refresh::by_token(plain, &own)), expected);
    let kept = Credential::from_plaintext(&Credential::OAuth(own).to_plaintext());
    let Some(Credential::OAuth(kept)) = kept else {
        panic!("another credential");
    };
    assert_eq!(says(&refresh::by_token(plain, &kept)), expected);
    let codex = catalog.profile("codex").unwrap();
    assert!(
        codex
            .with_client(|_| None)
            .unwrap()
            .oauth
            .as_ref()
            .unwrap()
            .own_client
            .is_none()
    );
    let request = refresh::by_token(codex.oauth.as_ref().unwrap(), &tokens(None));
    assert_eq!(says(&request).len(), 1);
}

#[test]
fn a_wrapper_has_members_of_its_own_and_no_credential() {
    let read = |wrapper: &str| {
        let text = format!(
            "id = 'own'\nname = 'Own'\nowner = 'own'\ncredentials = ['api_key']\n\
             upstream.base_url = 'https://own.test/v1'\n\
             headers = {{ set = {{ authorization = 'Bearer {{credential}}' }}, allow = [] }}\n\
             [endpoints.chat.generate]\npath = '/c'\n{wrapper}\n"
        );
        Profile::from_table(text.parse().unwrap())
    };
    let good = "wrapper = { request = 'r', answer = 'a', members = { m = '{model}', i = 'x-{request_id}' } }";
    let profile = read(good).unwrap();
    let wrapper = profile.record.endpoints[0].wrapper.as_ref().unwrap();
    assert_eq!((wrapper.request.as_str(), wrapper.members.len()), ("r", 2));
    for (bad, key) in [
        (
            "wrapper = { request = 'r' }",
            "endpoints.chat.generate.wrapper",
        ),
        (
            "wrapper = { request = 'r\"', answer = 'a' }",
            "endpoints.chat.generate.wrapper",
        ),
        (
            "wrapper = { request = 'r', answer = '' }",
            "endpoints.chat.generate.wrapper",
        ),
        (
            "wrapper = { request = 'r', answer = 'a', members = { r = 'x' } }",
            "endpoints.chat.generate.wrapper.members",
        ),
        (
            "wrapper = { request = 'r', answer = 'a', members = { m = '{credential}' } }",
            "endpoints.chat.generate.wrapper.members.m",
        ),
        (
            "wrapper = { request = 'r', answer = 'a', members = { m = '{' } }",
            "endpoints.chat.generate.wrapper.members.m",
        ),
        (
            "wrapper = { request = 'r', answer = 'a', members = { m = '{nobody}' } }",
            "endpoints",
        ),
    ] {
        assert_eq!(read(bad).unwrap_err().key, key, "{bad}");
    }
}
