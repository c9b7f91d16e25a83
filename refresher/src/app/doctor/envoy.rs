//! The state of Envoy: by its admin interface, by the file of clusters, and by what answers where callers connect.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderValue, Method};
use latchkey::gate::refusal::ERROR_HEADER;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::files;
use crate::app::{App, Result, accounts, daemon};
use crate::clock::UnixMillis;
use crate::envoy::clusters::{ADMIN_SOCKET, clusters_in, filter_in, read_file};
use crate::state::StateDir;

/// The time that each of them gets to answer.
const LIMIT: Duration = Duration::from_secs(3);
/// The most bytes of Envoy's configuration: a thousand clusters of 5 KiB each, several times.
const MAX_DUMP_BYTES: usize = 32 * 1024 * 1024;
/// The most bytes of what answers where callers connect.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The member in which a plugin or its VM has what the filter may do.
const CAPABILITIES: &str = "capability_restriction_config";

/// The account that Envoy gives of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admin {
    /// For how long it has run, in seconds.
    pub uptime_seconds: Option<u64>,
    /// The filter's files that it loaded.
    pub filters: BTreeSet<PathBuf>,
    /// Its clusters.
    pub clusters: BTreeSet<String>,
    /// The ports that it listens on.
    pub ports: BTreeSet<u16>,
    /// The gate's `max_unconfirmed_seconds`; none where the gate was not found.
    pub max_unconfirmed_seconds: Option<u64>,
    /// Its gate and its clusters allow the filter different things.
    pub is_split: bool,
}

/// The file of clusters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClustersRead {
    /// True if the file is there and can be read.
    pub is_there: bool,
    /// The clusters that accounts use and that it lacks.
    pub missing: Vec<String>,
    /// The clusters that it has otherwise than the configuration asks for.
    pub stale: Vec<String>,
    /// Its clusters.
    pub names: BTreeSet<String>,
    /// The path of the filter that it names.
    pub filter: Option<PathBuf>,
}

/// The program that answers where callers connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// A gate of ours.
    Ours,
    /// A gate of ours that does not know its accounts yet.
    NotReady,
    /// Something else.
    Other,
    /// Nothing listens there.
    Nothing,
}

/// Asks the Envoy on the shipped admin socket about itself; none where none answers.
pub async fn admin(dir: &StateDir) -> Option<Admin> {
    let socket = dir.run().join(ADMIN_SOCKET);
    let ask = async |path| {
        let answer = timeout(LIMIT, daemon::get(&socket, path, MAX_DUMP_BYTES)).await;
        serde_json::from_slice::<Value>(&answer.ok()?.ok()?).ok()
    };
    let info = ask("/server_info").await?;
    let dump = ask("/config_dump").await?;
    Some(Admin::of(&info, &dump))
}

impl Admin {
    /// Reads the answers to `/server_info` and `/config_dump`.
    fn of(info: &Value, dump: &Value) -> Admin {
        let uptime = info["uptime_current_epoch"].as_str();
        let mut admin = Admin {
            uptime_seconds: uptime.and_then(|text| text.trim_end_matches('s').parse().ok()),
            ..Admin::default()
        };
        let mut allowed = Vec::new();
        for part in dump["configs"].as_array().into_iter().flatten() {
            let kind = part["@type"].as_str().unwrap_or_default();
            if kind.ends_with("ClustersConfigDump") {
                let kinds = ["static_clusters", "dynamic_active_clusters"];
                let all = kinds.iter().filter_map(|kind| part[*kind].as_array());
                let names = all
                    .flatten()
                    .filter_map(|one| one["cluster"]["name"].as_str());
                admin.clusters.extend(names.map(str::to_owned));
            }
            if kind.ends_with("ListenersConfigDump") {
                each(part, "socket_address", &mut |address| {
                    let port = address["port_value"].as_u64();
                    let port = port.and_then(|port| u16::try_from(port).ok());
                    admin.ports.extend(port.filter(|port| *port > 0));
                });
                each(part, "config", &mut |plugin| admin.take_gate(plugin));
            }
            each(part, "vm_config", &mut |vm| admin.take_filter(vm));
            each(part, "config", &mut |plugin| {
                if plugin["vm_config"]["vm_id"] == "latchkey" {
                    allowed.push((&plugin[CAPABILITIES], &plugin["vm_config"][CAPABILITIES]));
                }
            });
        }
        admin.is_split = allowed.windows(2).any(|pair| pair[0] != pair[1]);
        admin
    }

    /// True if a filter's file changed after this Envoy had loaded it.
    pub fn is_outdated(&self, now: UnixMillis) -> bool {
        let Some(uptime) = self.uptime_seconds else {
            return false;
        };
        let started = now.0
            - i64::try_from(uptime)
                .unwrap_or(i64::MAX)
                .saturating_mul(1_000);
        let mut changed = self
            .filters
            .iter()
            .filter_map(|path| files::changed_at(path));
        // Both times are cut to their second.
        changed.any(|at| at > started + 2_000)
    }

    fn take_filter(&mut self, vm: &Value) {
        if vm["vm_id"] == "latchkey" {
            let path = vm["code"]["local"]["filename"].as_str();
            self.filters.extend(path.map(PathBuf::from));
        }
    }

    fn take_gate(&mut self, plugin: &Value) {
        if plugin["root_id"] != "gate" || plugin["vm_config"]["vm_id"] != "latchkey" {
            return;
        }
        let settings = plugin["configuration"]["value"].as_str();
        let settings = settings.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let seconds = settings.map(|settings| settings["max_unconfirmed_seconds"].as_u64());
        self.max_unconfirmed_seconds = seconds.map(Option::unwrap_or_default);
    }
}

/// Calls `found` with whatever has the name `key`, at any depth.
fn each<'a>(value: &'a Value, key: &str, found: &mut impl FnMut(&'a Value)) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name == key {
                    found(member);
                }
                each(member, key, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each(item, key, found)),
        _ => {}
    }
}

/// The file of clusters beside what the accounts need.
pub async fn clusters(app: &App) -> Result<ClustersRead> {
    let file = read_file(&app.state);
    let is_there = file.is_some();
    let file = file.unwrap_or_default();
    let filter = filter_in(&file);
    let there = clusters_in(&file);
    let wanted = accounts::clusters(app, &app.envoy(filter.clone())).await?;
    let (present, missing): (Vec<_>, Vec<_>) = wanted
        .into_iter()
        .partition(|(name, _)| there.contains_key(name));
    let stale = present
        .into_iter()
        .filter(|(name, value)| there.get(name) != Some(value));
    Ok(ClustersRead {
        is_there,
        missing: missing.into_iter().map(|(name, _)| name).collect(),
        stale: stale.map(|(name, _)| name).collect(),
        names: there.into_keys().collect(),
        filter,
    })
}

/// True where Envoy's escape listener takes connections; none where nobody can tell from here.
pub async fn escape(app: &App) -> Option<bool> {
    let path = app.envoy(None).escape?;
    match timeout(LIMIT, UnixStream::connect(&path)).await.ok()? {
        Ok(_) => Some(true),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Some(false),
        // Envoy sees what is in the state directory as we do; of other places nobody knows.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            path.starts_with(app.state.path()).then_some(false)
        }
        Err(_) => None,
    }
}

/// Finds out what answers at `address`. A question without a key is one that a gate of ours refuses by a code of ours.
pub async fn gateway(address: SocketAddr) -> Gateway {
    let Ok(Ok(stream)) = timeout(LIMIT, TcpStream::connect(address)).await else {
        return Gateway::Nothing;
    };
    let host = address.to_string();
    let asked = async {
        let answer = daemon::exchange(stream, Method::GET, &host, "/v1/models").await?;
        let code = answer.headers().get(ERROR_HEADER).cloned();
        let body = axum::body::to_bytes(answer.into_body(), MAX_ANSWER_BYTES).await?;
        Ok::<_, daemon::Failure>(Gateway::of(code.as_ref().map(HeaderValue::as_bytes), &body))
    };
    let asked = timeout(LIMIT, asked).await;
    asked
        .unwrap_or(Ok(Gateway::Other))
        .unwrap_or(Gateway::Other)
}

impl Gateway {
    /// Reads the answer of whoever listens there: a refusal of ours names its code.
    fn of(code: Option<&[u8]>, body: &[u8]) -> Gateway {
        let code = code.map(String::from_utf8_lossy).unwrap_or_default();
        let body = String::from_utf8_lossy(body);
        let says = |word: &str| code.contains(word) || body.contains(word);
        match () {
            () if says("latchkey_not_ready") => Gateway::NotReady,
            () if says("latchkey_") => Gateway::Ours,
            () => Gateway::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn envoy_says_what_it_loaded_and_where_it_listens() {
        let vm = |vm_id: &str| json!({"vm_id": vm_id, "code": {"local": {"filename": format!("/etc/{vm_id}.wasm")}}});
        let gate = json!({"config": {
            "root_id": "gate", "vm_config": vm("latchkey"),
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue",
                              "value": "{\"max_unconfirmed_seconds\": 60}"},
        }});
        let other = json!({"config": {"root_id": "gate", "vm_config": vm("other")}});
        let address =
            |port: u16| json!({"socket_address": {"address": "0.0.0.0", "port_value": port}});
        let dump = json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
             "static_clusters": [{"cluster": {"name": "refresher_admin"}}],
             "dynamic_active_clusters": [{"cluster": {"name": "latchkey-openai"}}],
             "dynamic_warming_clusters": [{"cluster": {"name": "latchkey-codex"}}]},
            {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
             "static_listeners": [{"listener": {"address": address(8080), "filters": [&gate, &other]}}]},
        ]});
        let admin = Admin::of(&json!({"uptime_current_epoch": "77s"}), &dump);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            admin,
            Admin {
                uptime_seconds: Some(77),
                filters: [PathBuf::from("/etc/latchkey.wasm")].into(),
                clusters: names(&["refresher_admin", "latchkey-openai"]),
                ports: [8080].into(),
                max_unconfirmed_seconds: Some(60),
                is_split: false,
            }
        );
        // A cluster allows the filter something, and the gate nothing in particular.
        let mut attempt = gate.clone();
        attempt["config"]["vm_config"][CAPABILITIES] =
            json!({"allowed_capabilities": {"proxy_log": {}}});
        let of = |attempt: &Value| {
            let dump = json!({"configs": [{"clusters": [attempt, other]}, {"listeners": [gate]}]});
            Admin::of(&json!({}), &dump).is_split
        };
        assert!(of(&attempt) && !of(&gate));
        assert_eq!(
            Admin::of(&json!(1), &json!({"configs": 3})),
            Admin::default()
        );
    }

    #[test]
    fn a_gate_of_ours_is_told_by_its_refusals() {
        for (code, body, is) in [
            (None, "<html>nginx</html>", Gateway::Other),
            (Some(&b"latchkey_no_key"[..]), "", Gateway::Ours),
            (
                None,
                r#"{"error":{"code":"latchkey_no_key"}}"#,
                Gateway::Ours,
            ),
            (
                None,
                r#"{"error":{"code":"latchkey_not_ready"}}"#,
                Gateway::NotReady,
            ),
            (None, "", Gateway::Other),
        ] {
            assert_eq!(Gateway::of(code, body.as_bytes()), is, "{body}");
        }
    }

    #[tokio::test]
    async fn what_listens_and_is_no_gateway_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let answers = tokio::spawn(async move {
            let router = axum::Router::new().fallback(async || "hello");
            axum::serve(listener, router).await
        });
        assert_eq!(gateway(at).await, Gateway::Other);
        answers.abort();
        let _ = answers.await;
        assert_eq!(gateway(at).await, Gateway::Nothing);
    }
}
