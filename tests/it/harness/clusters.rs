//! The clusters that the fake refresher gives Envoy: the real refresher's, for accounts that it does not have.

use std::{collections::BTreeSet, fs, path::Path};

use refresher::{
    base_url::BaseUrl,
    config,
    envoy::clusters::{
        Clusters, ESCAPE_SOCKET, cluster, clusters_in, discovery_response, hosts_name,
    },
    platform::{Profile, catalog::Catalog},
};

use super::envoy::VERSION;

/// The cluster of a platform, or of an account that has one of its own here: so a test can move one account elsewhere.
pub fn name(owner: &str) -> String {
    format!("latchkey-{owner}")
}

/// The name of the part of that cluster that has its hosts.
pub fn hosts(owner: &str) -> String {
    hosts_name(&name(owner))
}

/// Writes `envoy/clusters.json` into the state directory and moves it into place: one cluster for each owner, all of
/// them leading to the simulated platform.
pub fn write(state: &Path, owners: &[&str], platforms_dir: &Path, wasm: &Path) {
    let (profile, settings) = (profile(platforms_dir), settings(state, wasm));
    let origin = &profile.upstream.url.origin;
    let clusters: Clusters = owners
        .iter()
        .flat_map(|owner| cluster(&name(owner), origin, &profile, &settings))
        .collect();
    put(state, &clusters);
}

/// Has the cluster of that owner lead to this base URL, and leaves the others as they are.
pub fn lead(state: &Path, owner: &str, base_url: &str, platforms_dir: &Path, wasm: &Path) {
    let url = BaseUrl::parse(base_url).expect("a base URL");
    let (profile, settings) = (profile(platforms_dir), settings(state, wasm));
    let text = fs::read_to_string(state.join(FILE)).expect("the clusters");
    let mut clusters = clusters_in(&serde_json::from_str(&text).expect("JSON"));
    clusters.extend(cluster(&name(owner), &url.origin, &profile, &settings));
    put(state, &clusters);
}

/// The file in the state directory.
const FILE: &str = "envoy/clusters.json";

fn profile(platforms_dir: &Path) -> Profile {
    let catalog = Catalog::load(Some(platforms_dir), BTreeSet::new()).expect("profiles");
    catalog.profile("openai").expect("a profile").clone()
}

fn settings(state: &Path, wasm: &Path) -> config::Envoy {
    config::Envoy {
        wasm: Some(wasm.to_owned()),
        escape: Some(state.join("run").join(ESCAPE_SOCKET)),
        version: VERSION.clone().try_into().expect("a version"),
        ..config::Envoy::default()
    }
}

fn put(state: &Path, clusters: &Clusters) {
    let place = state.join(FILE);
    let new = place.with_extension("new");
    fs::write(&new, discovery_response(clusters.values())).expect("written");
    fs::rename(new, place).expect("moved");
}
