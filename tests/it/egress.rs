use std::{path::Path, time::Duration};

use crate::harness::{
    Stack,
    caller::responses_body,
    eventually, holds,
    proxy::{PASSWORD, Proxy, USER},
    run,
    stack::ALICE,
};

const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(20);
const RESPONSES: &str = "/v1/responses";
/// Holds the password of `--proxy`, for the commands.
const VARIABLE: &str = "LATCHKEY_PROXY_PASSWORD";

/// The login, the requests, a refresh and a look at the account leave by the account's proxy. Where that is down, nothing
/// of them leaves at all: no request, and no refresh token is spent.
#[test]
fn an_account_with_a_proxy_leaves_by_it_or_not_at_all() {
    run(async {
        let proxy = Proxy::start().await;
        let mut stack = Stack::real("egress", async |sim, refresher| {
            sim.add_user(ALICE, HOUR).await;
            let url = proxy.url();
            let wrong = format!("http://{USER}:wrong@{}", url.split_once('@').unwrap().1);
            let more = ["--proxy", wrong.as_str()];
            let refused = refresher.try_log_in_with(sim, ALICE, ALICE, &more).await;
            let said = refused.expect_err("the proxy refuses it");
            assert!(said.contains("no connection to"), "{said}");
            assert!(proxy.tunnels().is_empty() && refresher.accounts().await.is_empty());

            let with_password = url.replace('@', &format!(":{}@", PASSWORD.replace('@', "%40")));
            let more = ["--proxy", with_password.as_str()];
            let logged_in = refresher.try_log_in_with(sim, ALICE, ALICE, &more).await;
            logged_in.unwrap_or_else(|said| panic!("{said}"));
            assert!(!proxy.tunnels().is_empty(), "the login went another way");
            refresher.serves_many(ALICE).await;
        })
        .await;
        stack.refresher.set_variable(VARIABLE, Path::new(PASSWORD));
        let shown = stack.refresher.account(ALICE).await["proxy"].clone();
        let masked = proxy.url().replace('@', ":***@");
        assert_eq!(shown, masked.as_str());

        // It could be this account's login, which has to leave by the proxy.
        let unnamed = stack.refresher.try_run(&["login", "codex"], "").await;
        let said = String::from_utf8_lossy(&unnamed.stderr).into_owned();
        assert!(
            said.contains("say which account it is with --name, or the way out with --proxy"),
            "{said}"
        );

        let caller = stack.caller("caller").await;
        let by_proxy = |before: usize| {
            let tunnels = proxy.tunnels();
            assert!(tunnels.len() > before, "it went another way: {tunnels:?}");
            assert!(
                tunnels.iter().all(|to| to == stack.sim.authority()),
                "{tunnels:?}"
            );
            tunnels.len()
        };
        let before = proxy.tunnels().len();
        eventually("the account serves", LIMIT, async || {
            let answer = caller.post(RESPONSES, &responses_body()).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        let before = by_proxy(before);
        stack.refresher.run(&["refresh", ALICE], "").await;
        let before = by_proxy(before);
        stack.refresher.run(&["accounts", "check", ALICE], "").await;
        by_proxy(before);

        let address = proxy.stop().await;
        let (seen, spent) = (
            stack.sim.seen().await.len(),
            stack.sim.count("refreshes").await,
        );
        for _ in 0..3 {
            let answer = caller.post(RESPONSES, &responses_body()).await;
            assert!([502, 503].contains(&answer.status), "{answer:?}");
            assert!(answer.own_code().is_some(), "{answer:?}");
        }
        for command in [&["refresh", ALICE][..], &["accounts", "check", ALICE]] {
            let output = stack.refresher.try_run(command, "").await;
            assert!(!output.status.success(), "{output:?}");
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(!said.contains(PASSWORD), "{said}");
        }
        assert_eq!(stack.sim.seen().await.len(), seen, "something went out");
        assert_eq!(stack.sim.count("refreshes").await, spent);
        assert_eq!(stack.refresher.account(ALICE).await["status"], "active");

        let proxy = Proxy::start_again(address).await;
        stack.refresher.run(&["accounts", "reset", ALICE], "").await;
        eventually("the account is back with its proxy", LIMIT, async || {
            let answer = caller.post(RESPONSES, &responses_body()).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        assert!(!proxy.tunnels().is_empty());

        // Another one, which asks for nobody's name and is told none.
        let open = Proxy::start_open().await;
        let url = open.url();
        let set = ["accounts", "set", ALICE, "--proxy", url.as_str()];
        stack.refresher.run(&set, "").await;
        proxy.stop().await;
        eventually("the account leaves by its new proxy", LIMIT, async || {
            let answer = caller.post(RESPONSES, &responses_body()).await;
            let is_by_it = answer.status == 200 && !open.tunnels().is_empty();
            holds(is_by_it, || format!("{answer:?}"))
        })
        .await;

        // Taken off, it leaves as its platform's others.
        stack
            .refresher
            .run(&["accounts", "set", ALICE, "--proxy", "none"], "")
            .await;
        open.stop().await;
        eventually("the account is served without a proxy", LIMIT, async || {
            let answer = caller.post(RESPONSES, &responses_body()).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}
