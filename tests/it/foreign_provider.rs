//! npm's `oauth2-mock-server` made our logins' requests without us: it judges them as no simulator of ours does.

use std::{fs, time::Duration};

use serde_json::json;

use crate::harness::{
    eventually, holds, program::Program, refresher::Refresher, run, setting, sim::Sim,
    stack::new_folder,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Starts the provider; its base URL.
async fn start(folder: &std::path::Path) -> (Program, String) {
    let clients = setting("LATCHKEY_CLIENTS");
    let mut command = Program::command(&clients.join("bin/node"));
    let script = "npm/node_modules/oauth2-mock-server/dist/oauth2-mock-server.mjs";
    command
        .arg(clients.join(script))
        .args(["-a", "127.0.0.1", "-p", "0"]);
    let mut provider = Program::start(command, &folder.join("provider.log")).await;
    let base = eventually("the provider listens", LIMIT, async || {
        provider.assert_alive();
        let printed = provider.printed();
        let mut words = printed.split_whitespace();
        let base = words.find(|word| word.starts_with("http://127.0.0.1:"));
        base.map(str::to_owned).ok_or(printed.clone())
    })
    .await;
    (provider, base)
}

/// Authorization code with PKCE, refresh and client credentials. A code whose proof somebody else got wrong is worth
/// nothing, and nothing is saved of that login.
#[test]
fn a_provider_that_is_not_ours_takes_our_logins() {
    run(async {
        let folder = new_folder("foreign-provider");
        let sim = Sim::start(&folder).await;
        let refresher = Refresher::new(&folder, &sim);
        let (_provider, base) = start(&folder).await;
        let text = format!(
            "id = 'foreign'\nname = 'A foreign platform'\nowner = 'them'\n\
             credentials = ['oauth', 'client_credentials']\nupstream.base_url = '{base}'\n\
             endpoints.chat.generate = {{ path = '/chat' }}\n\
             [headers]\nset = {{ authorization = 'Bearer {{credential}}' }}\nallow = []\n\
             [oauth]\ntoken_url = '{base}/token'\nclient_id = 'latchkey'\nscopes = ['openid']\n\
             refresh_encoding = 'form'\nclaims = {{ account_id = '/sub' }}\n\
             [login.code]\nauthorize_url = '{base}/authorize'\nredirect_host = '127.0.0.1'\n\
             redirect_ports = [0]\nredirect_path = '/callback'\n[login.client_credentials]\n"
        );
        fs::write(sim.platforms_dir.join("foreign.toml"), text).expect("written");

        for is_attacked in [true, false] {
            let log = if is_attacked {
                "attacked.log"
            } else {
                "login.log"
            };
            let command = ["login", "foreign", "--no-browser"];
            let mut login = refresher.start_command(&[], &command, log).await;
            let url = eventually("it prints the URL", LIMIT, async || {
                login.assert_alive();
                let printed = login.printed();
                let mut words = printed.split_whitespace();
                let url = words.find(|word| word.starts_with(&base));
                url.map(str::to_owned).ok_or(printed.clone())
            })
            .await;
            assert!(url.contains("code_challenge_method=S256"), "{url}");
            let address = sim.authorize(&url, "anybody").await;
            if is_attacked {
                let code = address.split_once("code=").expect("a code").1;
                let code = code.split('&').next().unwrap_or_default();
                let form = format!(
                    "grant_type=authorization_code&code={code}&code_verifier={}",
                    "a".repeat(43)
                );
                let stolen = reqwest::Client::new()
                    .post(format!("{base}/token"))
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form);
                let stolen = stolen.send().await.expect("an answer");
                assert!(!stolen.status().is_success(), "{stolen:?}");
            }
            let (status, page) = sim.browse(&address).await;
            let printed = login.ends().await;
            assert_eq!(
                (status, printed.success()),
                if is_attacked {
                    (502, false)
                } else {
                    (200, true)
                },
                "{page}"
            );
            let saved = refresher.accounts().await.len();
            assert_eq!(saved, usize::from(!is_attacked), "{}", login.printed());
        }
        let account = refresher.accounts().await.remove(0);
        assert_eq!(
            (&account["kind"], &account["generation"]),
            (&json!("oauth"), &json!(1))
        );
        let name = account["name"].as_str().expect("a name");

        let said = refresher.run(&["refresh", name], "").await;
        assert!(said.contains("generation 2"), "{said}");
        let client = [
            "login",
            "foreign",
            "--client-id",
            "batch",
            "--name",
            "batch",
        ];
        refresher.run(&client, "a-secret").await;
        let minted = refresher.account("batch").await;
        assert_eq!(minted["kind"], "client_credentials");
        let said = refresher.run(&["refresh", "batch"], "").await;
        assert!(said.contains("generation 2"), "{said}");
        let usable = refresher.accounts().await;
        holds(usable.len() == 2, || format!("{usable:?}")).expect("both are kept");
    });
}
