use std::{fs, time::Duration};

use serde_json::json;

use crate::harness::{
    Caller, Stack,
    caller::chat_body,
    envoy::Envoy,
    program::{self, Program},
    run, setting, source_root,
    stack::{client_key, new_folder},
};

const LIMIT: Duration = Duration::from_secs(60);

/// Envoy itself finds nothing wrong with any configuration of `envoy/`.
#[test]
fn every_configuration_is_valid() {
    run(async {
        let mut validate = Program::command(&source_root().join("scripts/validate-yaml.sh"));
        validate
            .arg(setting("LATCHKEY_WASM"))
            .env("ENVOY", setting("LATCHKEY_ENVOY"));
        let output = program::output_of(validate, LIMIT).await;
        assert!(output.status.success(), "{output:?}");
    });
}

/// The script that fits the shipped configurations to a machine refuses what is no port.
#[test]
fn what_is_no_port_is_refused() {
    run(async {
        for (port, is_good) in [
            ("0", true),
            ("1", true),
            ("65535", true),
            ("65536", false),
            ("99999999999999999999", false),
            ("08", false),
            ("-1", false),
            ("80 ", false),
            ("http", false),
            ("", false),
        ] {
            let mut script = Program::command(&source_root().join("scripts/envoy-config.sh"));
            script.args(["--port", port]);
            let output = program::output_of(script, LIMIT).await;
            assert_eq!(output.status.success(), is_good, "{port:?}: {output:?}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                is_good || said.contains("expected 1 to 65535"),
                "{port:?}: {said}"
            );
        }
    });
}

/// A mistake in the filter's own configuration stops Envoy at start, with the key's name in its log.
#[test]
fn a_mistaken_filter_configuration_is_refused() {
    run(async {
        let folder = new_folder("config-mistaken");
        write_no_clusters(&folder);
        let good = Envoy::configure(&folder, "envoy.yaml", 0).await;
        let text = fs::read_to_string(&good).expect("the configuration");
        for (case, from, to, message) in [
            (
                "an unknown key",
                "\"poll_wait_seconds\"",
                "\"poll_wait\"",
                "poll_wait",
            ),
            (
                "too long a wait",
                "\"poll_wait_seconds\": 25",
                "\"poll_wait_seconds\": 600",
                "poll_wait_seconds",
            ),
            (
                "an unknown role",
                "root_id: gate",
                "root_id: gatekeeper",
                "root_id",
            ),
        ] {
            assert!(
                text.contains(from),
                "{case}: the shipped configuration has no {from}"
            );
            let mistaken = folder.join("mistaken.yaml");
            fs::write(&mistaken, text.replace(from, to)).expect("written");
            let mut envoy = Program::command(&setting("LATCHKEY_ENVOY"));
            envoy.arg("--config-path").arg(mistaken).args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
            ]);
            let output = program::output_of(envoy, LIMIT).await;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{case}: Envoy started");
            assert!(said.contains(message), "{case}: {said}");
        }
    });
}

fn write_no_clusters(folder: &std::path::Path) {
    let clusters = folder.join("state/envoy/clusters.json");
    fs::write(clusters, json!({"resources": []}).to_string()).expect("written");
}

/// In an Envoy that serves something else, `/v1/` is Latchkey's and everything else goes where it went.
#[test]
fn an_envoy_that_serves_something_else_still_does() {
    run(async {
        let stack = Stack::with("config-existing", "add-to-existing.yaml").await;
        let caller = stack.caller("openai");
        assert_eq!(
            caller
                .post("/v1/chat/completions", &chat_body(false))
                .await
                .status,
            200
        );
        let stranger = Caller::new(stack.envoy.port, "lk_unknown");
        assert_eq!(
            stranger
                .post("/v1/chat/completions", &chat_body(false))
                .await
                .status,
            401
        );
        // There is no application behind this one: Envoy tried to reach it, without asking for a key.
        let elsewhere = stranger.send("GET", "/welcome", &[], "").await;
        assert_eq!(elsewhere.status, 503, "{elsewhere:?}");
        assert_eq!(elsewhere.own_code(), None, "{elsewhere:?}");
        // A caller cannot have itself sent to an account's cluster through a route without the gate.
        let headers = [
            ("x-latchkey-cluster", "latchkey-acc_openai"),
            ("x-api-key", &client_key("openai")),
        ];
        let elsewhere = stranger.send("POST", "/chat", &headers, "{}").await;
        assert_eq!(elsewhere.status, 503, "{elsewhere:?}");
        assert_eq!(stack.sim.count("requests").await, 1);
    });
}
