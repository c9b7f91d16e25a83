use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::Duration,
};

use refresher::envoy::clusters::capabilities;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Caller, Stack,
    caller::{chat_body, responses_body},
    envoy::Envoy,
    eventually, holds,
    kept::Home,
    program::{self, Program},
    raw, records, run, setting, source_root,
    stack::{self, ALICE, SYNC_LIMIT, client_key, new_folder},
};

const LIMIT: Duration = Duration::from_secs(60);

/// The longest that an Envoy may take that compiles the filter: some seconds of a core, of which a busy machine gives it
/// little.
const COMPILE_LIMIT: Duration = Duration::from_secs(300);

/// Envoy itself finds nothing wrong with any configuration of `envoy/`.
#[test]
fn every_configuration_is_valid() {
    run(async {
        let mut validate = Program::command(&source_root().join("scripts/validate-yaml.sh"));
        validate
            .arg(setting("LATCHKEY_WASM"))
            .env("ENVOY", setting("LATCHKEY_ENVOY"));
        let _permit = stack::permit().await;
        let output = program::output_of(validate, COMPILE_LIMIT).await;
        assert!(output.status.success(), "{output:?}");
    });
}

/// A tool that a machine lacks is named in a line that names the cure, before anything is built.
#[test]
fn what_a_machine_lacks_is_one_line_that_names_the_cure() {
    const NEEDED: [&str; 18] = [
        "bash", "cargo", "rustc", "python3", "flock", "sed", "sort", "cut", "head", "dirname",
        "grep", "mktemp", "rm", "cc", "env", "setpriv", "prlimit", "true",
    ];
    run(async {
        let folder = new_folder("preflight");
        let bin = folder.join("bin");
        fs::create_dir(&bin).expect("a folder");
        // Where it is itself, in place of what a version manager put on the PATH.
        let mut python = Program::command("python3".as_ref());
        python.args(["-c", "import sys; print(sys.executable)"]);
        let python = program::output_of(python, LIMIT).await.stdout;
        let python = PathBuf::from(String::from_utf8_lossy(&python).trim());
        for tool in NEEDED {
            let found = match tool {
                "python3" => python.clone(),
                _ => program::find(tool).expect("a tool"),
            };
            // Not a link: Python looks for its packages where it was started from.
            let text = format!("#!/bin/sh\nexec '{}' \"$@\"\n", found.display());
            fs::write(bin.join(tool), text).expect("written");
            fs::set_permissions(bin.join(tool), Permissions::from_mode(0o755)).expect("runnable");
        }
        let preflight = async || {
            let mut script = Program::command(&source_root().join("scripts/preflight.sh"));
            // Nothing is known of crates here, and nothing can be asked.
            script
                .args(["demo", "tests"])
                .env("PATH", &bin)
                .env("CARGO_HOME", folder.join("cargo"))
                .env("CARGO_NET_OFFLINE", "true");
            let output = program::output_of(script, LIMIT).await;
            assert!(!output.status.success(), "{output:?}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(said.lines().count(), 1, "{said}");
            said
        };
        let said = preflight().await;
        assert!(said.contains("check the network"), "{said}");
        for (tool, cure) in [
            ("cc", "apt-get install build-essential"),
            ("flock", "apt-get install util-linux"),
            ("prlimit", "apt-get install util-linux"),
        ] {
            let (here, away) = (bin.join(tool), folder.join(tool));
            fs::rename(&here, &away).expect("taken away");
            let said = preflight().await;
            assert!(said.contains(cure), "{said}");
            fs::rename(away, here).expect("put back");
        }
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
            let cure = match port {
                "" => "--port needs a value",
                _ => "expected 1 to 65535",
            };
            assert!(is_good || said.contains(cure), "{port:?}: {said}");
        }
    });
}

/// A variable that is not set in this terminal does not leave what was shipped in its place.
#[test]
fn an_empty_place_is_refused() {
    run(async {
        for option in ["--from", "--address", "--state", "--wasm"] {
            let mut script = Program::command(&source_root().join("scripts/envoy-config.sh"));
            script.args([option, ""]);
            let output = program::output_of(script, LIMIT).await;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{option}: {output:?}");
            assert!(said.contains("needs a value"), "{option}: {said}");
        }
    });
}

/// A mistake in the filter's own configuration stops Envoy at start, with the key's name in its log.
#[test]
fn a_mistaken_filter_configuration_stops_envoy() {
    run(async {
        let _permit = stack::permit().await;
        let folder = new_folder("config-mistaken");
        write_no_clusters(&folder);
        let good = Envoy::configure(&folder, "envoy.yaml", 0).await;
        let text = fs::read_to_string(&good).expect("the configuration");
        let from = "\"poll_wait_seconds\"";
        assert!(text.contains(from), "the shipped configuration has none");
        let mistaken = folder.join("mistaken.yaml");
        fs::write(&mistaken, text.replace(from, "\"poll_wait\"")).expect("written");
        let mut envoy = Program::command(&setting("LATCHKEY_ENVOY"));
        envoy.arg("--config-path").arg(mistaken).args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
        ]);
        let output = program::output_of(envoy, COMPILE_LIMIT).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "Envoy started");
        assert!(said.contains("poll_wait"), "{said}");
    });
}

/// One in listeners that Envoy is given while it runs is refused, and it goes on with those that it has.
#[test]
fn a_mistaken_filter_configuration_is_refused() {
    run(async {
        let _permit = stack::permit().await;
        let home = Home::new("config-refused", &str::to_owned).await;
        write_no_clusters(&home.folder);
        let envoy = home.envoy(0, str::to_owned).await;
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
            let log = home.folder.join("envoy.log");
            let before = fs::read(&log).expect("the log").len();
            let refused = envoy.stat("lds.update_rejected").await;
            home.relist(|text| {
                assert!(text.contains(from), "{case}: there is no {from}");
                text.replace(from, to)
            })
            .await;
            eventually(case, SYNC_LIMIT, async || {
                let now = envoy.stat("lds.update_rejected").await;
                holds(now > refused, || format!("{now} refused"))
            })
            .await;
            let said = fs::read(&log).expect("the log").split_off(before);
            let said = String::from_utf8_lossy(&said).into_owned();
            assert!(said.contains(message), "{case}: {said}");
            let gate = Caller::new(envoy.port, "lk_any");
            let answer = gate.get("/v1/models").await;
            assert_eq!(answer.own_code(), Some("latchkey_not_ready"), "{answer:?}");
        }
    });
}

/// For an Envoy that nobody has given clusters.
pub(crate) fn write_no_clusters(folder: &std::path::Path) {
    let clusters = folder.join("state/envoy/clusters.json");
    fs::write(clusters, json!({"resources": []}).to_string()).expect("written");
}

/// Envoy's admin interface can stop it and shows what it holds: whoever reaches a port of this machine must not reach it.
#[test]
fn the_admin_interface_is_a_socket_of_the_owners() {
    let folder = source_root().join("envoy");
    let files = fs::read_dir(&folder).expect("the folder");
    let paths = files.map(|file| file.expect("a file").path());
    let mut found = 0;
    for path in paths.filter(|path| path.extension().is_some_and(|end| end == "yaml")) {
        let text = fs::read_to_string(&path).expect("read");
        let Some((_, rest)) = text.split_once("\nadmin:\n") else {
            assert!(!text.contains("admin:\n"), "{}", path.display());
            continue;
        };
        let of_admin = |line: &&str| line.starts_with(' ') || line.is_empty();
        let admin: Vec<&str> = rest.lines().take_while(of_admin).collect();
        let is = |word: &str| admin.iter().any(|line| line.trim() == word);
        assert!(
            is("pipe:") && !is("socket_address:"),
            "{}: {admin:?}",
            path.display()
        );
        found += 1;
    }
    assert!(found > 0, "no configuration has an admin interface");
}

/// A bound of callers in the main configuration bounds them in the one that is added to another Envoy, number for
/// number, and the filters are set up the same.
#[test]
fn what_is_added_to_an_envoy_has_every_timeout_and_limit() {
    run(async {
        let mut found = Vec::new();
        for shipped in ["envoy.yaml", "add-to-existing.yaml"] {
            let folder = new_folder(&format!("config-bounds-{shipped}"));
            write_no_clusters(&folder);
            let envoy = Envoy::start_with(&folder, shipped, 0).await;
            let dump = envoy.admin("/config_dump").await;
            let text = dump.replace(&*folder.to_string_lossy(), "");
            let dump: Value = serde_json::from_str(&text).expect("JSON");
            let bootstrap = &dump["configs"][0]["bootstrap"];
            let mut bounds = BTreeMap::new();
            for part in ["overload_manager", "watchdogs", "memory_allocator_manager"] {
                collect(part, true, &bootstrap[part], &mut bounds);
            }
            let listeners = &bootstrap["static_resources"]["listeners"];
            collect("listeners", false, listeners, &mut bounds);
            assert!(bounds.len() > 30, "{shipped}: {bounds:#?}");
            found.push(bounds);
        }
        let existing = found.pop().expect("two");
        let main = found.pop().expect("two");
        for (place, values) in &main {
            assert_eq!(existing.get(place), Some(values), "{place}");
        }
        assert_eq!(main.len(), existing.len(), "{existing:#?}");
    });
}

/// Collects by their places the numbers and switches that bound callers, and whole filters of Latchkey's.
fn collect(place: &str, all: bool, value: &Value, into: &mut BTreeMap<String, Vec<Value>>) {
    const BOUNDS: [&str; 15] = [
        "timeout",
        "limit",
        "max_",
        "window_size",
        "interval",
        "num_retries",
        "streams",
        "underscores",
        "normalize",
        "slashes",
        "use_remote_address",
        "retry_on",
        "codes",
        "headers_to_remove",
        "listener_filters",
    ];
    match value {
        Value::Object(members) => {
            let name = members.get("name").and_then(Value::as_str).unwrap_or("");
            if name.starts_with("latchkey.") {
                into.insert(name.to_owned(), vec![members["typed_config"].clone()]);
                return;
            }
            for (name, member) in members {
                // What Envoy answers itself and logs bounds nobody.
                if ["local_reply_config", "access_log"].contains(&name.as_str()) {
                    continue;
                }
                let all = all || BOUNDS.iter().any(|part| name.contains(part));
                collect(&format!("{place}.{name}"), all, member, into);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                collect(place, all, element, into);
            }
        }
        scalar if all => into
            .entry(place.to_owned())
            .or_default()
            .push(scalar.clone()),
        _ => {}
    }
}

/// In an Envoy that serves something else, the paths of the platforms are Latchkey's and everything else goes where it
/// went.
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
        let codex = stack.caller("codex");
        for path in ["/v1/responses", "/backend-api/codex/responses"] {
            let answer = codex.post(path, &responses_body()).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        }
        let stranger = Caller::new(stack.envoy.port, "lk_unknown");
        assert_eq!(
            stranger
                .post("/v1/chat/completions", &chat_body(false))
                .await
                .status,
            401
        );
        for path in [
            "/v1beta/models/gemini-3-pro:generateContent",
            "/openai/deployments/gpt-5.6/chat/completions",
            "/api/v1/oauth/chat/completions",
            "/backend-api/codex/images/generations",
        ] {
            let refused = stranger.send("POST", path, &[], "{}").await;
            let own = refused.own_code().is_some();
            assert_eq!((refused.status, own), (401, true), "{path}: {refused:?}");
        }
        // There is no application behind this one: Envoy tried to reach it, without asking for a key.
        for path in ["/welcome", "/v1", "/app/v1/responses", "/backend-api/me"] {
            let elsewhere = stranger.send("GET", path, &[], "").await;
            assert_eq!(elsewhere.status, 503, "{path}: {elsewhere:?}");
            assert_eq!(elsewhere.own_code(), None, "{path}: {elsewhere:?}");
        }
        // A caller cannot have itself sent to a platform's cluster through a route without the gate.
        let headers = [
            ("x-latchkey-cluster", "latchkey-acc_openai"),
            ("x-api-key", &client_key("openai")),
        ];
        let elsewhere = stranger.send("POST", "/chat", &headers, "{}").await;
        assert_eq!(elsewhere.status, 503, "{elsewhere:?}");
        assert_eq!(stack.sim.count("requests").await, 3);
    });
}

/// An answer of Envoy itself, to no HTTP, to too large a request and where it has no way on, is an error that the SDKs
/// can read, and known as Envoy's.
#[test]
fn what_envoy_itself_answers_is_an_error_that_clients_can_read() {
    run(async {
        let small = |text: &str| {
            text.replace(
                "request_body_buffer_limit: 33554432",
                "request_body_buffer_limit: 262144",
            )
        };
        let stack = Stack::edited("config-replies", small).await;
        let path = format!("/users/{ALICE}/expire_access");
        stack.sim.ask(Method::POST, &path, json!({})).await;
        let gone = records::account(
            "acc_gone",
            "openai",
            stack.sim.authority(),
            "sk-openai",
            json!({}),
        );
        let revision = stack.refresher.publish(vec![
            gone,
            records::pool("gone", "sticky", &["acc_gone"]),
            records::key("key_gone", &client_key("gone"), "gone"),
        ]);
        stack.reaches(revision).await;

        let head =
            |path: &str, more: &str| format!("POST {path} HTTP/1.1\r\nhost: a\r\n{more}\r\n");
        let no_length = |path| head(path, "content-length: two\r\n");
        let many = |path| head(path, &"x-a: 1\r\n".repeat(200));
        // It waits for a refresh that does not come.
        let mut large = responses_body();
        large["input"][0]["content"][0]["text"] = "x".repeat(400 * 1024).into();
        let post = |key: &str, body: String| {
            let more = format!(
                "x-api-key: {}\r\ncontent-length: {}\r\n",
                client_key(key),
                body.len()
            );
            head("/v1/responses", &more) + &body
        };
        // It waits until all of it has come. Nobody could tell its length before.
        let coded = |path| {
            let more = format!(
                "x-api-key: {}\r\ncontent-encoding: zstd\r\ntransfer-encoding: chunked\r\n",
                client_key("all")
            );
            let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            head(path, &more) + &piece.repeat(6) + "0\r\n\r\n"
        };
        let (responses, messages) = ("/v1/responses", "/v1/messages?beta=true");
        let (own, large_code) = ("latchkey_envoy", "latchkey_body_too_large");
        let odd_slash = head(&messages.replace('?', "%2fx?"), "content-length: 0\r\n");
        let upgrade = head(
            "/v1/models",
            "anthropic-version: 2023-06-01\r\nconnection: upgrade\r\nupgrade: other\r\n",
        );
        // Of what is no HTTP, or has too many headers, Envoy knows no path.
        let cases = [
            (no_length(messages), 400, own, "chat"),
            (many(messages), 431, own, "chat"),
            (odd_slash, 400, own, "messages"),
            (upgrade, 403, own, "messages"),
            (post("codex", large.to_string()), 413, large_code, "chat"),
            (post("gone", responses_body().to_string()), 503, own, "chat"),
            (coded(responses), 413, large_code, "chat"),
            (coded(messages), 413, large_code, "messages"),
        ];
        let mut unanswered = Vec::new();
        for (request, status, code, dialect) in cases {
            let answer = raw::exchange(stack.envoy.port, request.as_bytes(), 1).await;
            assert_eq!(raw::status(&answer), status, "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
            let header = |name: &str| {
                head.lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            let repeats = status >= 500;
            assert_eq!(header("x-latchkey-error"), Some(code), "{answer}");
            assert_eq!(header("content-type"), Some("application/json"), "{answer}");
            assert_eq!(header("retry-after"), repeats.then_some("5"), "{answer}");
            let repeat = if repeats { "true" } else { "false" };
            assert_eq!(header("x-should-retry"), Some(repeat), "{answer}");
            let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
            let is_messages = dialect == "messages";
            assert_eq!(body["type"] == "error", is_messages, "{answer}");
            assert_eq!(
                body["error"].get("param").is_some(),
                !is_messages,
                "{answer}"
            );
            assert_eq!(body["error"]["code"], code, "{answer}");
            if repeats {
                let message = body["error"]["message"].as_str().expect("a message");
                assert!(message.contains("(NoClusterFound)"), "{message}");
                assert!(!message.contains("cluster_not_found"), "{message}");
                let id = header("x-request-id").expect("the request's id");
                unanswered.push(format!(" id={id} "));
            }
            for text in ["type", "message"] {
                assert!(
                    body["error"][text]
                        .as_str()
                        .is_some_and(|text| text.len() > 4),
                    "{answer}"
                );
            }
        }
        // What Envoy knows of it is in its log, for whoever runs it.
        let log = stack.folder.join("envoy.log");
        let [unanswered] = &unanswered[..] else {
            panic!("{unanswered:?}");
        };
        eventually("the access log", Duration::from_secs(40), async || {
            let log = fs::read_to_string(&log).expect("the log");
            let mut lines = log.lines().filter(|line| line.contains(unanswered));
            let line = lines.next().unwrap_or_default();
            holds(line.contains("cluster_not_found"), || line.to_owned())
        })
        .await;
        let refused = stack
            .caller("codex")
            .send("GET", "/v1/models", &[], "")
            .await;
        assert_eq!(refused.own_code(), Some("latchkey_no_key"), "{refused:?}");
        assert_eq!(
            refused.json()["error"]["code"],
            "latchkey_no_key",
            "{refused:?}"
        );
        assert_eq!(stack.caller("codex").get("/v1/models").await.status, 200);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// An answer of Envoy itself has the same form in an Envoy that serves something else, on Latchkey's paths alone.
#[test]
fn what_is_added_to_an_envoy_answers_on_its_own_paths_alone() {
    const ITS_PATHS: &str = "(request.url_path.startsWith('/v1/') || request.url_path.startsWith('/v1beta/') || request.url_path.startsWith('/backend-api/codex/') || request.url_path.startsWith('/openai/deployments/') || request.url_path.startsWith('/api/v1/oauth/')) && ";
    let [main, existing] = ["envoy.yaml", "add-to-existing.yaml"].map(|name| {
        let path = source_root().join("envoy").join(name);
        let text = fs::read_to_string(path).expect("the configuration");
        let (_, after) = text.split_once("local_reply_config:").expect("its form");
        let (form, _) = after.split_once("\n\n").expect("an end");
        form.to_owned()
    });
    let expressions = existing.matches("expression: ").count();
    assert_eq!(existing.matches(ITS_PATHS).count(), expressions);
    assert!(expressions > 0);
    assert_eq!(existing.replace(ITS_PATHS, ""), main);
}

/// The filter comes from a file of this machine alone: nothing is fetched, and Envoy compiles it itself.
#[test]
fn the_filter_is_a_local_file_that_envoy_compiles() {
    let envoy = source_root().join("envoy");
    for name in ["envoy.yaml", "add-to-existing.yaml"] {
        let text = fs::read_to_string(envoy.join(name)).expect("shipped");
        assert!(!text.contains("allow_precompiled"), "{name}");
        let mut lines = text.lines().map(str::trim);
        let mut plugins = 0;
        while lines.find(|line| *line == "code:").is_some() {
            let local = lines.next().expect("a line");
            assert_eq!(local, "local:", "{name}");
            plugins += 1;
        }
        assert!(plugins > 0, "{name}");
    }
}

/// The filter says nothing of who built it: where the crates and this clone are. So its SHA-256 depends on neither.
#[test]
fn the_filter_does_not_say_where_it_was_built() {
    let filter = fs::read(setting("LATCHKEY_WASM")).expect("built");
    let has = |text: &str| {
        filter
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(has("/cargo/registry/"), "panics name their places");
    let variable = |name| std::env::var(name).ok().filter(|path| path.len() > 1);
    let folders = [
        Some(source_root().display().to_string()),
        variable("HOME").map(|home| format!("{home}/")),
        variable("CARGO_HOME"),
    ];
    for folder in folders.into_iter().flatten() {
        assert!(!has(&folder), "{folder}");
    }
}

/// Each place where the filter is configured allows it what it uses, by the lists that the build holds it to.
#[test]
fn the_filter_is_allowed_what_it_uses_and_no_more() {
    let mut uses: Vec<_> = capabilities().collect();
    uses.sort_unstable();
    let envoy = source_root().join("envoy");
    for name in ["envoy.yaml", "add-to-existing.yaml"] {
        let text = fs::read_to_string(envoy.join(name)).expect("shipped");
        let plugins = text.matches("vm_id: latchkey").count();
        let mut lines = text.lines().map(str::trim);
        let mut lists = 0;
        while lines
            .find(|line| *line == "allowed_capabilities:")
            .is_some()
        {
            let allowed: Vec<_> = lines
                .by_ref()
                .map_while(|line| line.strip_suffix(": {}"))
                .collect();
            assert_eq!(allowed, uses, "{name}");
            lists += 1;
        }
        assert_eq!((plugins, lists), (1, 1), "{name}");
    }
}

/// The things that are built, and those that the tests run, are what the lock files say, to the byte.
#[test]
fn builds_and_clients_keep_to_their_lock_files() {
    const BUILDS: [&str; 7] = ["build", "test", "run", "bench", "clippy", "fetch", "deny"];
    // Builds the standard library, of which the compiler's own sources have the lock file.
    const STANDARD_LIBRARY: &str = "wasm-target.sh";
    let root = source_root();
    let scripts = fs::read_dir(root.join("scripts")).expect("scripts");
    let mut files: Vec<_> = scripts
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|file| file.is_file() && !file.ends_with(STANDARD_LIBRARY));
    files.extend(
        [
            "Makefile",
            ".ci/run",
            "envoy/Dockerfile.envoy",
            "envoy/Dockerfile.refresher",
        ]
        .map(|name| root.join(name)),
    );
    let mut calls = 0;
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
        {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_call = |pair: &[&str]| {
                matches!(pair[0], "cargo" | "$(CARGO)") && BUILDS.contains(&pair[1])
            };
            // Asked for its version, it builds nothing.
            if words.contains(&"--version") {
                continue;
            }
            if words.windows(2).any(is_call) {
                calls += 1;
                assert!(words.contains(&"--locked"), "{}: {line}", file.display());
            }
        }
    }
    assert!(calls > 10, "{calls}");

    let requirements = fs::read_to_string(root.join("tests/clients/requirements.txt"));
    let requirements = requirements.expect("requirements");
    let mut lines = requirements.lines().peekable();
    while let Some(line) = lines.next() {
        if line.contains("==") {
            let next = lines.peek().copied().unwrap_or_default().trim();
            assert!(next.starts_with("--hash=sha256:"), "{line}");
        }
    }
    for lock in [
        "tests/clients/package-lock.json",
        "tools/wasm-opt/package-lock.json",
    ] {
        let lock = fs::read(root.join(lock)).expect("a lock file");
        let lock: Value = serde_json::from_slice(&lock).expect("JSON");
        for (name, package) in lock["packages"].as_object().expect("packages") {
            assert!(
                name.is_empty() || package["integrity"].is_string(),
                "{name}"
            );
        }
    }
}
